"""A supernet's step on random paths: magicbert against DistributedDataParallel and DeepSpeed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from magicbert.bench.engine.contenders import StockDeepSpeed, TorchDdp
from magicbert.bench.registry import OWN, Case, Contender, Floor, Lineup, Trial, Verdict
from magicbert.bench.step.documents import arrange, draw_documents, full_lengths
from magicbert.bench.step.flops import head_flops
from magicbert.bench.step.naive import NaiveSupernet
from magicbert.bench.step.plain import ALLOWED, JUDGED_SEED, NUM_SETS
from magicbert.bench.step.runners import EngineRunner, PathLoss, endless
from magicbert.bench.step.sizes import VOCAB_SIZE, StepSize
from magicbert.bert.supernet import BertSupernet
from magicbert.config.sections import EngineBenchSection
from magicbert.data.batch import TokenBatch
from magicbert.space import Architecture, SearchSpace
from magicbert.supernet.sampling import UniformSampler

KERNEL_SIZES = (3, 5)


class Autocast(nn.Module):
    """A model whose forward runs in autocast, for engines that would not enter it.

    Args:
        model: called with a batch and a path.
        device: where it computes.
        precision: type of the matrix products.
    """

    def __init__(self, model: nn.Module, device: torch.device, precision: torch.dtype) -> None:
        super().__init__()
        self.model, self.device, self.precision = model, device, precision

    def forward(self, batch: TokenBatch, path: Architecture) -> Tensor:
        """Returns the mean loss."""
        is_narrow = self.precision != torch.float32
        with torch.autocast(self.device.type, self.precision, enabled=is_narrow):
            loss: Tensor = self.model(batch, path)
        return loss


def supernet_case(size: StepSize, seed: int, *, peers: bool) -> Case:
    """Returns the case of one size: full rows, a new random path every step."""

    def build(device: torch.device) -> Trial:
        return SupernetStep(size, seed, device).trial(peers=peers)

    variant = {**size.variant, "layers": 2 * size.model.num_layers, "candidates": 4}
    return Case("step of a supernet", variant, build, unit="tokens", is_replayable=False)


class SupernetStep:
    """Builds the contenders of one size.

    Args:
        size: of model and batch.
        seed: of weights, documents and paths.
        device: where steps run.
    """

    def __init__(self, size: StepSize, seed: int, device: torch.device) -> None:
        self.size, self.seed, self.device = size, seed, device
        names = (f"mha{size.model.num_heads}", "ffn", *(f"conv{width}" for width in KERNEL_SIZES))
        self.space = SearchSpace.uniform(2 * size.model.num_layers, names)
        self.source = BertSupernet(self.space, size.model.config(size.length), seed)
        lengths = full_lengths(size)
        seeds = [seed + index for index in range(NUM_SETS)] + [seed + JUDGED_SEED]
        *self.sets, self.judged = (
            arrange(draw_documents(lengths, each), 1, size.length).to(device) for each in seeds
        )
        self.judged_path = UniformSampler(self.space, seed + 1).next(0, None)
        self.losses: dict[str, Callable[[], float]] = {}
        self.lineup = Lineup()
        self.engines: list[Any] = []

    def trial(self, *, peers: bool) -> Trial:
        """Returns everyone, the floor of the mean path, and who is right."""
        with torch.no_grad():
            naive = NaiveSupernet(self.source).to(self.device).eval()
            expected = float(naive(self.judged, self.judged_path))
        del naive
        self.add_own()
        if peers:
            for kind, build in (
                ("naive ModuleList", lambda: NaiveSupernet(self.source)),
                ("magicbert's model", lambda: PathLoss(copy.deepcopy(self.source))),
            ):
                self.add_ddp(f"{kind}, DDP find_unused_parameters", build())
                self.add_zero(f"{kind}, DeepSpeed ZeRO-1", build())
        flops, width = self.mean_flops(), self.size.model.hidden_size
        tokens = self.size.rows * self.size.length
        return Trial(
            lineup=self.lineup,
            judge=lambda contender: self.verdict(contender, expected),
            floor=Floor(flops=flops, matmul=(tokens, width, width), dtype=self.size.precision),
            units=tokens,
            num_sets=NUM_SETS,
            facts={"GFLOP of the mean path": round(flops / 1e9, 1)},
            close=self.close,
        )

    def mean_flops(self) -> int:
        """Returns the FLOPs of a step, as the mean over paths."""
        names = self.space.layers[0]
        operators: list[Any] = [self.source.operator(0, name) for name in names]
        row = sum(int(operator.flops(self.size.length)) for operator in operators) / len(names)
        body = 3 * self.size.rows * self.space.num_layers * row
        predicted = len(self.judged.predicted_positions)
        return round(body) + head_flops(self.size.model.hidden_size, VOCAB_SIZE, predicted)

    def verdict(self, contender: Contender, expected: float) -> Verdict:
        """Compares the mean loss of one path on fresh documents with the naive model's in fp32."""
        error = abs(self.losses[contender.name]() - expected) / expected
        return Verdict(error, ALLOWED[self.size.precision])

    def add_own(self) -> None:
        """Adds magicbert's engine."""
        engine = EngineRunner(copy.deepcopy(self.source), self.size)
        self.engines.append(engine)
        judged, path = self.judged, self.judged_path
        self.add(OWN, engine.step, lambda: engine.loss(judged, path))

    def add_ddp(self, name: str, model: nn.Module) -> None:
        """Adds torch's DistributedDataParallel."""
        wrapped = Autocast(model, self.device, self.size.precision)
        runner = TorchDdp(wrapped, self.device)
        self.add(name, stepping(runner), lambda: mean_loss(wrapped, self.judged, self.judged_path))

    def add_zero(self, name: str, model: nn.Module) -> None:
        """Adds stock DeepSpeed at ZeRO stage 1."""
        wrapped = Autocast(model, self.device, self.size.precision)
        runner = StockDeepSpeed(wrapped, EngineBenchSection(rows=self.size.rows), 1)
        self.engines.append(runner)
        self.add(name, stepping(runner), lambda: mean_loss(wrapped, self.judged, self.judged_path))

    def add(
        self,
        name: str,
        step: Callable[[TokenBatch, Architecture], object],
        loss: Callable[[], float],
    ) -> None:
        """Adds a contender; each walks the same paths, every operator having been sampled once."""
        paths = endless(UniformSampler(self.space, self.seed))
        is_ready: list[bool] = []

        def call(index: int) -> None:
            batch = self.sets[index % NUM_SETS]
            if not is_ready:
                is_ready.append(True)
                for operator in self.space.layers[0]:
                    step(batch, Architecture((operator,) * self.space.num_layers))
            step(batch, next(paths))

        self.lineup.add(name, lambda: call)
        self.losses[name] = loss

    def close(self) -> None:
        """Lets go of the engines."""
        for engine in self.engines:
            engine.close()


def stepping(runner: StockDeepSpeed | TorchDdp) -> Callable[[TokenBatch, Architecture], None]:
    """Returns what makes one step of a contender of ``bench engine``."""

    def step(batch: Any, path: Architecture) -> None:
        runner.open(path)
        runner.backward(runner.forward(batch, path))
        runner.step()

    return step


def mean_loss(model: nn.Module, batch: TokenBatch, path: Architecture) -> float:
    """Returns a model's mean loss without dropout."""
    model.eval()
    with torch.no_grad():
        loss = float(model(batch, path))
    model.train()
    return loss
