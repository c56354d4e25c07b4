"""Both forms of the chunked loss against an fp64 reference; run by the test of that name.

On the CPU the kernel needs TRITON_INTERPRET=1 before triton is imported, hence a process of its
own. Tolerance: at most twice the error that plain PyTorch makes in the input's type.
"""

from __future__ import annotations

import os

import pytest
import torch
from magicbert_kernels.linear_cross_entropy import (
    chunks,
    linear_cross_entropy,
    linear_cross_entropy_reference,
)
from magicbert_kernels.linear_cross_entropy.kernel import launch_rows
from magicbert_kernels.linear_cross_entropy.rows import differentiate_rows
from torch.utils.flop_counter import FlopCounterMode

DEVICE = torch.device("cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda")
ON_GPU = pytest.mark.skipif(DEVICE.type == "cpu", reason="needs a GPU")
TYPES = [torch.float32, torch.bfloat16, torch.float16]
BACKENDS = ["triton", "torch"]
# (predictions, hidden, vocabulary): nothing, one, odd, wider than a tile, powers of two.
SIZES = [(0, 8, 5), (1, 8, 5), (7, 33, 130), (5, 16, 5000), (16, 64, 512)]


@pytest.fixture(autouse=True)
def fresh_seed():
    torch.manual_seed(0)


def example(num_rows, width, vocab_size, dtype, scale=1.0):
    hidden = (scale * torch.randn(num_rows, width)).to(DEVICE, dtype)
    weight = (torch.randn(vocab_size, width) * width**-0.5).to(DEVICE, dtype)
    bias = torch.randn(vocab_size).to(DEVICE, dtype)
    return hidden, weight, bias, torch.randint(vocab_size, (num_rows,)).to(DEVICE)


def with_gradients(function, inputs, factor=0.25, **options):
    leaves = [t.detach().clone().requires_grad_() for t in inputs[:3]]
    loss, correct = function(*leaves, inputs[3], **options)
    return loss.detach(), torch.autograd.grad(loss * factor, leaves), correct


def error(found, exact):
    return (found.double() - exact.double()).abs().max().item() if exact.numel() else 0.0


def assert_within_twice_plain(inputs, backend):
    loss, gradients, _ = with_gradients(linear_cross_entropy, inputs, backend=backend)
    wide = [t.double() for t in inputs[:3]]
    exact = with_gradients(linear_cross_entropy_reference, (*wide, inputs[3]))
    plain = with_gradients(linear_cross_entropy_reference, inputs)
    assert loss.dtype == torch.float32
    floor = 8 * torch.finfo(torch.float32).eps * exact[0].abs().item()
    assert error(loss, exact[0]) <= 2 * error(plain[0], exact[0]) + floor
    for own, naive, right, given in zip(gradients, plain[1], exact[1], inputs, strict=False):
        assert own.dtype == given.dtype
        assert own.shape == given.shape
        # The interpreter cuts bf16 off where hardware rounds: up to one unit in the last place.
        unit = torch.finfo(given.dtype).eps * (right.abs().max().item() if right.numel() else 0)
        assert error(own, right) <= 2 * error(naive, right) + unit


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("sizes", SIZES)
def test_loss_and_gradients(sizes, dtype, backend):
    assert_within_twice_plain(example(*sizes, dtype), backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", TYPES)
def test_several_chunks_of_unequal_size(monkeypatch, dtype, backend):
    monkeypatch.setitem(chunks.MAX_BYTES, DEVICE.type, 4 * 192 * dtype.itemsize)
    assert chunks.rows_per_chunk(11, 192 * dtype.itemsize, DEVICE.type) == 4
    assert_within_twice_plain(example(11, 24, 130, dtype), backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_right_predictions_are_counted_and_the_first_of_equals_wins(backend):
    hidden, weight, bias, _ = example(40, 8, 200, torch.float32)
    expected = (hidden @ weight.t() + bias).argmax(1)
    labels = expected.clone()
    labels[::3] = (labels[::3] + 1) % 200
    correct = linear_cross_entropy(hidden, weight, bias, labels, backend=backend)[1]
    assert correct.dtype == torch.int64
    assert correct.item() == 40 - 14
    level = torch.zeros_like(weight), torch.zeros_like(bias)
    first = torch.tensor([0] * 3 + [1] * 37, device=DEVICE)
    assert linear_cross_entropy(hidden, *level, first, backend=backend)[1].item() == 3


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("size", [1e2, 1e4, 1e30])
def test_large_logits_neither_overflow_nor_underflow(size, backend):
    bias = torch.zeros(70, device=DEVICE)
    bias[3], bias[69] = size, -size
    zeros = torch.zeros(2, 4, device=DEVICE), torch.zeros(70, 4, device=DEVICE)
    labels = torch.tensor([3, 69], device=DEVICE)
    loss, gradients, _ = with_gradients(
        linear_cross_entropy, (*zeros, bias, labels), factor=1.0, backend=backend
    )
    torch.testing.assert_close(loss.item(), 2 * size, rtol=1e-6, atol=0)
    assert gradients[2][3].item() == 1.0
    assert gradients[2][69].item() == -1.0
    banned = torch.full((70,), -torch.inf, device=DEVICE)
    banned[3] = 0.0
    assert linear_cross_entropy(*zeros, banned, labels * 0 + 3, backend=backend)[0].item() == 0.0


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_value_that_is_not_finite_reaches_the_loss(backend):
    hidden, weight, bias, labels = example(3, 8, 70, torch.float32)
    bias[5] = torch.nan
    assert linear_cross_entropy(hidden, weight, bias, labels, backend=backend)[0].isnan()


@pytest.mark.parametrize("launch", [launch_rows, differentiate_rows])
@pytest.mark.parametrize("vocab_size", [1, 63, 64, 4100])
def test_rows_write_every_column_that_counts_and_nothing_behind(launch, vocab_size):
    """Columns behind the vocabulary hold NaN, and so does a guard behind the last row."""
    padded = -(-vocab_size // 64) * 64
    memory = torch.full((3 * padded + 64,), torch.nan, device=DEVICE)
    logits = memory[:-64].view(3, padded)
    logits[:, :vocab_size] = torch.randn(3, vocab_size)
    given, labels = logits.clone(), torch.tensor([0, vocab_size - 1, 0], device=DEVICE)
    losses = torch.full((3,), torch.nan, device=DEVICE)
    hits = torch.full((3,), -1, dtype=torch.int32, device=DEVICE)
    launch(logits, vocab_size, labels, losses, hits, True)
    expected = given[:, :vocab_size].softmax(1) - torch.nn.functional.one_hot(labels, vocab_size)
    torch.testing.assert_close(logits[:, :vocab_size], expected)
    assert losses.isfinite().all()
    assert set(hits.tolist()) <= {0, 1}
    assert memory[-64:].isnan().all()


@pytest.mark.parametrize("launch", [launch_rows, differentiate_rows])
def test_rows_do_not_see_each_other_and_repeat_to_the_bit(launch):
    logits, labels = torch.randn(4, 128, device=DEVICE), torch.tensor([3, 99, 0, 7], device=DEVICE)

    def run(values):
        losses = torch.empty(4, device=DEVICE)
        launch(values, 100, labels, losses, labels.int(), True)
        return torch.cat([losses[:, None], values[:, :100]], 1)

    other = logits.clone()
    other[2] *= -3
    first, second, changed = run(logits.clone()), run(logits.clone()), run(other)
    assert torch.equal(first, second)
    kept = [0, 1, 3]
    assert torch.equal(first[kept], changed[kept])
    assert not torch.equal(first[2], changed[2])


@pytest.mark.parametrize("backend", BACKENDS)
def test_inputs_may_be_views_and_are_left_alone(backend):
    hidden, weight, bias, labels = example(6, 10, 70, torch.float32)
    views = (
        hidden.t().contiguous().t(),
        weight.t().contiguous().t(),
        bias.repeat_interleave(2)[::2],
        labels.repeat_interleave(2)[::2],
    )
    before = [t.clone() for t in views]
    ours = with_gradients(linear_cross_entropy, views, backend=backend)
    plain = with_gradients(linear_cross_entropy, (hidden, weight, bias, labels), backend=backend)
    assert all(torch.equal(a, b) for a, b in zip(views, before, strict=True))
    torch.testing.assert_close(ours[:2], plain[:2])


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_gradients_none_is_computed(backend):
    inputs = example(6, 10, 70, torch.float32)
    weight = inputs[1].clone().requires_grad_()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        loss, _ = linear_cross_entropy(inputs[0], weight, *inputs[2:], backend=backend)
    assert not loss.requires_grad
    assert counter.get_total_flops() == 2 * 6 * 10 * 70
    with FlopCounterMode(display=False) as counter:
        again, _ = linear_cross_entropy(inputs[0], weight, *inputs[2:], backend=backend)
        again.backward()
    assert torch.equal(loss, again.detach())
    assert counter.get_total_flops() == 6 * 6 * 10 * 70


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_backward_can_be_repeated(backend):
    hidden, weight, bias, labels = example(6, 10, 70, torch.float32)
    loss, _ = linear_cross_entropy(hidden.requires_grad_(), weight, bias, labels, backend=backend)
    (first,) = torch.autograd.grad(loss, hidden, retain_graph=True)
    (second,) = torch.autograd.grad(loss, hidden)
    assert torch.equal(first, second)


@pytest.mark.parametrize("backend", BACKENDS)
def test_under_autocast_products_are_in_low_precision(backend):
    inputs = example(6, 10, 70, torch.float32)
    leaves = [t.clone().requires_grad_() for t in inputs[:3]]
    with torch.autocast(DEVICE.type, torch.bfloat16):
        loss, _ = linear_cross_entropy(*leaves, inputs[3], backend=backend)
    loss.backward()
    narrow = [t.bfloat16() for t in inputs[:3]]
    expected = with_gradients(
        linear_cross_entropy, (*narrow, inputs[3]), factor=1.0, backend=backend
    )
    assert torch.equal(loss.detach(), expected[0])
    for leaf, gradient in zip(leaves, expected[1], strict=True):
        assert leaf.grad.dtype == torch.float32
        assert torch.equal(leaf.grad, gradient.float())


@pytest.mark.parametrize("backend", BACKENDS)
def test_in_compiled_code(backend):
    @torch.compile(backend="aot_eager", fullgraph=True)
    def compiled(hidden, weight, bias, labels):
        loss, correct = linear_cross_entropy(hidden * 2, weight, bias, labels, backend=backend)
        return loss + 1, correct

    def eager(hidden, weight, bias, labels):
        loss, correct = linear_cross_entropy(hidden * 2, weight, bias, labels, backend=backend)
        return loss + 1, correct

    inputs = example(6, 10, 70, torch.float32)
    torch.testing.assert_close(with_gradients(compiled, inputs), with_gradients(eager, inputs))


@pytest.mark.parametrize("backend", BACKENDS)
def test_in_deterministic_mode(backend):
    torch.use_deterministic_algorithms(True)
    try:
        assert_within_twice_plain(example(7, 33, 130, torch.float32), backend)
    finally:
        torch.use_deterministic_algorithms(False)


def test_the_operators_keep_the_rules_of_custom_operators():
    inputs = [t.requires_grad_(t.is_floating_point()) for t in example(4, 8, 70, torch.float32)]
    forward = torch.ops.magicbert.linear_cross_entropy_forward
    checks = ("test_schema", "test_faketensor", "test_autograd_registration")
    torch.library.opcheck(forward, (*inputs, True, "torch"), test_utils=checks)


@ON_GPU
def test_a_captured_graph_replays_on_new_inputs():
    hidden, weight, bias, labels = example(64, 32, 1000, torch.bfloat16)
    leaves = [t.requires_grad_() for t in (hidden, weight, bias)]

    def step():
        loss, _ = linear_cross_entropy(*leaves, labels, backend="triton")
        return (loss.detach(), *torch.autograd.grad(loss, leaves))

    step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        hidden.copy_(torch.randn_like(hidden))
    graph.replay()
    torch.testing.assert_close(captured, step())


@ON_GPU
def test_more_elements_than_an_int32_counts():
    rows, padded = 70_000, 30_720
    logits = torch.zeros(rows, padded, dtype=torch.bfloat16, device=DEVICE)
    labels = torch.zeros(rows, dtype=torch.int64, device=DEVICE)
    losses, hits = torch.empty(rows, device=DEVICE), torch.empty_like(labels, dtype=torch.int32)
    launch_rows(logits, 30_522, labels, losses, hits, True)
    torch.testing.assert_close(losses[-1].item(), torch.tensor(30_522.0).log().item())
    assert logits[-1, 0].item() == pytest.approx(-1.0, abs=1e-2)


def test_of_equal_logits_the_first_counts_wherever_it_stands():
    """The two largest stand in different tiles of the vocabulary."""
    bias = torch.zeros(4600, device=DEVICE)
    bias[[10, 4500]] = 3.0
    hidden, weight = torch.zeros(2, 8, device=DEVICE), torch.zeros(4600, 8, device=DEVICE)
    labels = torch.tensor([10, 4500], device=DEVICE)
    for chosen, correct in ((labels[:1], 1), (labels[1:], 0), (labels, 1)):
        _, found = linear_cross_entropy(
            hidden[: len(chosen)], weight, bias, chosen, backend="triton"
        )
        assert int(found) == correct
