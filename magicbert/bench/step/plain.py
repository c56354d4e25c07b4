"""A step of a plain BERT: magicbert against ``BertForMaskedLM``, eager and compiled."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch

from magicbert.bench.registry import OWN, Case, Contender, Floor, Lineup, Trial, Verdict
from magicbert.bench.step.documents import (
    Document,
    arrange,
    draw_documents,
    full_lengths,
    paired_lengths,
    transformers_inputs,
)
from magicbert.bench.step.flops import bert_step_flops
from magicbert.bench.step.runners import EngineRunner, PathLoss, TorchRunner, on_device
from magicbert.bench.step.sizes import VOCAB_SIZE, StepSize
from magicbert.bench.step.transformers_bert import transformers_bert
from magicbert.bert.supernet import BertSupernet
from magicbert.data.batch import TokenBatch
from magicbert.space import Architecture, SearchSpace

NUM_SETS = 2
JUDGED_SEED = 1 << 20
# How far mean losses may be apart, as a share of the loss.
ALLOWED = {torch.float32: 1e-4, torch.bfloat16: 1e-2}


def plain_case(size: StepSize, form: str, seed: int, *, peers: bool, compiled: bool) -> Case:
    """Returns the case of one size.

    Args:
        size: of model and batch.
        form: ``full`` rows, or ``mixed``: documents of half a row on average, which peers pad to
            the length of a row and magicbert packs.
        seed: of weights and documents.
        peers: whether peers take part.
        compiled: whether the compiled peer does, whose compilation takes a minute or two.
    """

    def build(device: torch.device) -> Trial:
        return PlainStep(size, form, seed, device).trial(peers=peers, compiled=compiled)

    name = "step of a plain BERT" if form == "full" else "step of a plain BERT, mixed lengths"
    return Case(name, size.variant, build, unit="tokens", is_replayable=False)


class PlainStep:
    """Builds the contenders of one size.

    Args:
        size: of model and batch.
        form: see `plain_case`.
        seed: of weights and documents.
        device: where steps run.
    """

    def __init__(self, size: StepSize, form: str, seed: int, device: torch.device) -> None:
        self.size, self.form, self.seed, self.device = size, form, seed, device
        pair = (f"mha{size.model.num_heads}", "ffn")
        self.path = Architecture(pair * size.model.num_layers)
        space = SearchSpace(tuple((name,) for name in self.path))
        self.source = BertSupernet(space, size.model.config(size.length), seed)
        self.sets = [self.documents(seed + index) for index in range(NUM_SETS)]
        self.judged = self.documents(seed + JUDGED_SEED)
        self.losses: dict[str, Callable[[], float]] = {}
        self.lineup = Lineup()
        self.engines: list[EngineRunner] = []

    def documents(self, seed: int) -> list[Document]:
        """Returns the documents of one batch, of the same lengths for every seed."""
        lengths = full_lengths(self.size)
        if self.form == "mixed":
            lengths = paired_lengths(self.size, self.seed)
        return draw_documents(lengths, seed)

    def trial(self, *, peers: bool, compiled: bool) -> Trial:
        """Returns everyone, the floor, and who is right."""
        self.add_own()
        if peers:
            self.add_transformers("transformers", lambda model: model)
            if compiled:
                self.add_transformers("transformers, compiled", torch.compile)
        reference = transformers_bert(self.size.model, self.size.length, self.source).eval()
        with torch.no_grad():
            expected = float(reference(**self.padded(self.judged)).loss)
        documents = self.sets[0]
        lengths = [len(document.tokens) for document in documents]
        flops = bert_step_flops(
            self.size.model.num_layers,
            self.size.model.hidden_size,
            VOCAB_SIZE,
            lengths,
            sum(len(document.positions) for document in documents),
        )
        width = self.size.model.hidden_size
        return Trial(
            lineup=self.lineup,
            judge=lambda contender: self.verdict(contender, expected),
            floor=Floor(flops=flops, matmul=(sum(lengths), width, 4 * width),
                        dtype=self.size.precision),
            units=sum(lengths),
            num_sets=NUM_SETS,
            facts={"GFLOP of useful tokens": round(flops / 1e9, 1)},
            close=self.close,
        )  # fmt: skip

    def verdict(self, contender: Contender, expected: float) -> Verdict:
        """Compares a mean loss on fresh documents with that of ``BertForMaskedLM`` in fp32."""
        error = abs(self.losses[contender.name]() - expected) / expected
        return Verdict(error, ALLOWED[self.size.precision])

    def add_own(self) -> None:
        """Adds magicbert: its engine, and its model under torch's AdamW."""
        batches, judged = self.batches(self.packed)
        engine = EngineRunner(copy.deepcopy(self.source), self.size)
        self.engines.append(engine)
        self.add(
            OWN,
            lambda index: engine.step(batches[index % NUM_SETS], self.path),
            lambda: engine.loss(judged, self.path),
        )
        model = PathLoss(copy.deepcopy(self.source))
        runner = TorchRunner(model, self.device, self.size.precision)
        self.add(
            "magicbert's model, torch AdamW",
            lambda index: runner.step(batches[index % NUM_SETS], self.path),
            lambda: runner.loss(judged, self.path),
        )

    def add_transformers(self, name: str, compiled: Callable[[Any], Any]) -> None:
        """Adds ``BertForMaskedLM`` under torch's AdamW."""
        inputs = [on_device(self.padded(documents), self.device) for documents in self.sets]
        judged = on_device(self.padded(self.judged), self.device)
        model = transformers_bert(self.size.model, self.size.length, self.source).train()
        runner = TorchRunner(model, self.device, self.size.precision, compiled)
        self.add(
            name,
            lambda index: runner.step(**inputs[index % NUM_SETS]),
            lambda: runner.loss(**judged),
        )

    def add(self, name: str, step: Callable[[int], object], loss: Callable[[], float]) -> None:
        """Adds one contender."""
        self.lineup.add(name, lambda: step)
        self.losses[name] = loss

    def batches(
        self, form: Callable[[Sequence[Document]], TokenBatch]
    ) -> tuple[list[TokenBatch], TokenBatch]:
        """Returns the timed batches and the judged one, on the device."""
        timed = [form(documents).to(self.device) for documents in self.sets]
        return timed, form(self.judged).to(self.device)

    def packed(self, documents: Sequence[Document]) -> TokenBatch:
        """Returns full rows, of one document or two."""
        return arrange(documents, 2 if self.form == "mixed" else 1, self.size.length)

    def padded(self, documents: Sequence[Document]) -> dict[str, torch.Tensor]:
        """Returns a row per document, as transformers takes it."""
        return transformers_inputs(arrange(documents, 1, self.size.length))

    def close(self) -> None:
        """Lets go of the engines."""
        for engine in self.engines:
            engine.close()
