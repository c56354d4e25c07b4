"""The whole encoder on the kernels against the whole encoder in plain torch.

Run by test_encoder_kernels.py: on the CPU in Triton's interpreter, in a process of its own.
"""

from __future__ import annotations

import copy
import functools
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from bert_examples import batch, config, randomise, segment_ids
from exported_run import write_tokenizer
from torch import Tensor
from transformers import AutoModelForMaskedLM

from magicbert.bert.extraction import extract
from magicbert.bert.modeling import fused
from magicbert.bert.modeling.modeling_magicbert import MagicBertForMaskedLM
from magicbert.bert.modeling.operators import build_operator
from magicbert.bert.modeling.segments import Segments
from magicbert.bert.objectives.mlm import MaskedLanguageModeling
from magicbert.bert.supernet import BertSupernet
from magicbert.export.huggingface import write_export
from magicbert.space import Architecture, SearchSpace

DEVICE = torch.device("cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda")
OPERATORS = ("mha4", "ffn24", "conv3", "conv5x24")
PATH = Architecture(OPERATORS)
# Small: the interpreter takes milliseconds for every position that a convolution passes.
LENGTH = 9
PACKED = segment_ids((4, 5), (2, 3, 2), length=LENGTH)
LAYOUTS = {
    "full": segment_ids((LENGTH,), (LENGTH,), length=LENGTH),
    "padded": segment_ids((LENGTH,), (6,), length=LENGTH),
    "packed": PACKED,
    "short": segment_ids((1, 2), (2,), length=3),
}
KERNELS = ("bias_gelu", "depthwise_convolution", "residual_norm")


def model(backend: str, dropout: float = 0.0) -> BertSupernet:
    sizes: dict[str, Any] = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": 0.0}
    built = BertSupernet(SearchSpace.of(PATH), config(backend=backend, **sizes), seed=0)
    return randomise(built).to(DEVICE).train()


def step(built: BertSupernet, ids: Tensor) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Returns every layer's output at valid positions, and every parameter's gradient."""
    given = batch(ids, num_predicted=4).to(DEVICE)
    built.zero_grad()
    loss = MaskedLanguageModeling()(built, given, PATH, block_ends=range(1, len(PATH) + 1))
    loss.loss_sum.backward()
    valid = given.segment_ids > 0
    outputs = [output.detach()[valid] for output in loss.output.block_outputs]
    return outputs, {name: parameter.grad for name, parameter in built.named_parameters()}


def assert_close(ours: Any, theirs: Any, tolerance: float) -> None:
    """Compares within a share of the largest value of each tensor."""
    pairs = zip(ours, theirs, strict=True)
    for one, other in pairs:
        scale = other.float().abs().max().item()
        torch.testing.assert_close(
            one.float(), other.float(), rtol=0, atol=tolerance * scale + 1e-7
        )


@pytest.fixture
def reference_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sends what would run in Triton to each kernel's reference, Philox masks included."""
    for name in KERNELS:
        kernel = getattr(fused, name)
        plain = functools.partial(call_reference, kernel)
        monkeypatch.setattr(fused, name, plain)


def call_reference(kernel: Any, *arguments: Any, backend: str, **options: Any) -> Any:
    assert backend == "triton"
    return kernel(*arguments, backend="torch", **options)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_outputs_and_gradients_are_those_of_plain_torch(layout: str) -> None:
    outputs, gradients = step(model("triton"), LAYOUTS[layout])
    expected, expected_gradients = step(model("torch"), LAYOUTS[layout])
    assert_close(outputs, expected, 1e-5)
    assert gradients.keys() == expected_gradients.keys()
    assert_close(gradients.values(), expected_gradients.values(), 1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_no_worse_than_plain_torch(dtype: torch.dtype) -> None:
    exact, exact_gradients = step(model("torch"), PACKED)
    worst = {}
    for backend in ("torch", "triton"):
        outputs, gradients = step(model(backend).to(dtype), PACKED)
        pairs = list(zip(outputs, exact, strict=True))
        pairs += [(gradients[name], exact_gradients[name]) for name in exact_gradients]
        worst[backend] = [float((a.float() - b).norm() / (b.norm() + 1e-6)) for a, b in pairs]
    floor = torch.finfo(dtype).eps
    for ours, theirs in zip(worst["triton"], worst["torch"], strict=True):
        assert ours <= 2 * theirs + floor


def test_autocast_mixes_types() -> None:
    built = model("triton")
    exact, _ = step(model("torch"), PACKED)
    with torch.autocast(DEVICE.type, torch.bfloat16):
        outputs, gradients = step(built, PACKED)
    assert_close(outputs, exact, 0.05)
    assert all(gradient.dtype == torch.float32 for gradient in gradients.values())
    assert all(gradient.isfinite().all() for gradient in gradients.values())


def test_dropout_masks_are_philox_masks(request: pytest.FixtureRequest) -> None:
    torch.manual_seed(3)
    outputs, gradients = step(model("triton", dropout=0.3), PACKED)
    request.getfixturevalue("reference_kernels")
    torch.manual_seed(3)
    expected, expected_gradients = step(model("triton", dropout=0.3), PACKED)
    assert_close(outputs, expected, 1e-5)
    assert_close(gradients.values(), expected_gradients.values(), 1e-4)
    undropped, _ = step(model("torch"), PACKED)
    assert not torch.allclose(outputs[0], undropped[0], atol=0.1)


@pytest.mark.parametrize("name", OPERATORS)
def test_one_seed_a_call_and_a_stream_a_site(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sites: list[tuple[int, int]] = []

    def noted(kernel: Any, *arguments: Any, **options: Any) -> Any:
        if options.get("dropout"):
            sites.append((int(options["seed"]), options["stream"]))
        return kernel(*arguments, **options)

    for kernel in ("bias_gelu", "residual_norm"):
        monkeypatch.setattr(fused, kernel, functools.partial(noted, getattr(fused, kernel)))
    operator = build_operator(name, config(backend="triton")).to(DEVICE).train()
    hidden = torch.randn(2, LENGTH, 16, device=DEVICE)
    segments = Segments.of_ids(PACKED.to(DEVICE))
    operator(hidden, segments)
    operator(hidden, segments)
    num_sites = 2 if name.startswith("conv") else 1
    assert len(sites) == 2 * num_sites
    assert len(set(sites)) == len(sites)
    assert len({seed for seed, _ in sites}) == 2
    operator.eval()
    assert torch.equal(operator(hidden, segments), operator(hidden, segments))
    assert len(sites) == 2 * num_sites


def test_checkpointing_recomputes_the_same_masks() -> None:
    sizes = {"hidden_dropout_prob": 0.3, "attention_probs_dropout_prob": 0.3}
    built = MagicBertForMaskedLM(config("mha4-ffn24-conv3", backend="triton", **sizes))
    randomise(built).to(DEVICE).train()
    given = batch(PACKED).to(DEVICE)
    found = []
    for is_checkpointed in (False, True):
        if is_checkpointed:
            built.gradient_checkpointing_enable()
        torch.manual_seed(5)
        built.zero_grad()
        output = built(given.input_ids, segment_ids=given.segment_ids, labels=given.input_ids)
        output.loss.backward()
        found.append([output.loss.detach(), *(p.grad for p in built.parameters())])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.parametrize("name", ["ffn24", "conv3"])
def test_a_compiled_operator_is_one_graph(name: str) -> None:
    sizes = {"hidden_dropout_prob": 0.3, "attention_probs_dropout_prob": 0.0}
    operator = randomise(build_operator(name, config(backend="triton", **sizes))).to(DEVICE)
    compiled = torch.compile(operator, backend="aot_eager", fullgraph=True)
    segments, results = Segments.full(3, DEVICE), []
    for function in (operator, compiled):
        hidden = torch.ones(1, 3, 16, device=DEVICE, requires_grad=True)
        torch.manual_seed(7)
        output = function(hidden, segments)
        results.append((output, *torch.autograd.grad(output.square().sum(), hidden)))
    torch.testing.assert_close(*results)


class Doubled(torch.nn.Linear):
    """A layer that someone put in the place of a linear one, as adapters do."""

    def forward(self, values: Tensor) -> Tensor:
        return 2 * super().forward(values)


@pytest.mark.parametrize("way", ["replaced", "hooked"])
def test_layers_that_were_changed_are_called(way: str) -> None:
    segments, hidden = Segments.full(LENGTH, DEVICE), torch.randn(2, LENGTH, 16, device=DEVICE)
    results = []
    for backend in ("triton", "torch"):
        operator = randomise(build_operator("ffn24", config(backend=backend))).to(DEVICE).eval()
        for layer in (operator.inner, operator.outer):
            if way == "replaced":
                layer.__class__ = Doubled
            else:
                layer.register_forward_hook(lambda module, inputs, output: 2 * output)
        results.append(operator(hidden, segments))
    torch.testing.assert_close(*results)


def test_double_precision_runs_in_plain_torch() -> None:
    hidden = torch.randn(2, LENGTH, 16, device=DEVICE, dtype=torch.double)
    segments = Segments.of_ids(PACKED.to(DEVICE))
    ours, theirs = (
        randomise(build_operator("conv3", config(backend=backend))).double().to(DEVICE).eval()
        for backend in ("triton", "torch")
    )
    assert torch.equal(ours(hidden, segments), theirs(hidden, segments))


def test_the_extracted_and_the_exported_model_compute_the_same(tmp_path: Path) -> None:
    supernet = model("triton").eval()
    given = batch(LAYOUTS["padded"]).to(DEVICE)
    with torch.no_grad():
        inside = supernet.predict(supernet(given, PATH).hidden)
        extracted = extract(supernet, PATH)
        write_tokenizer(tmp_path / "tokenizer")
        write_export(
            tmp_path / "export", copy.deepcopy(extracted).cpu(), tmp_path / "tokenizer", "", {}
        )
        # With remote code the folder's own copy of the encoder meets the installed kernels.
        loaded = AutoModelForMaskedLM.from_pretrained(
            tmp_path / "export", trust_remote_code=True, backend="triton"
        ).to(DEVICE).eval()  # fmt: skip
        outside = loaded(given.input_ids, segment_ids=given.segment_ids).logits
        plain = extract(model("torch").eval(), PATH)(given.input_ids, segment_ids=given.segment_ids)
    assert type(loaded).__module__.startswith("transformers_modules")
    assert torch.equal(outside, inside)
    valid = given.segment_ids > 0
    assert_close([outside[valid]], [plain.logits[valid]], 1e-5)
