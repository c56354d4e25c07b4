from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from bert_examples import FULL, PADDED, batch, config, randomise, supernet

from magicbert.bert.block_supernet import BlockRegression, BlockSupernet, encoder_operators
from magicbert.bert.extraction import extract
from magicbert.bert.taught_batches import BlockBatch, TaughtBatch
from magicbert.bert.teacher import Teacher
from magicbert.compression.bins import PoolCosts, bin_numbers
from magicbert.compression.pool_sampling import STEPS_OF_A_WALK, PoolSampler
from magicbert.compression.shrinking import Candidates, Shrinkage
from magicbert.compression.width_anchors import AnchorPerWidth
from magicbert.config.sections import SamplingSection
from magicbert.space import Architecture
from magicbert.space.blocks import BlockSpace
from magicbert.supernet.scoring import score
from magicbert.supernet.shared_prefix import SharedPrefix

SPACE = BlockSpace((8, 12), ("mha", "ffn", "conv3"), 3)
CPU = torch.device("cpu")


def teacher() -> Teacher:
    model = randomise(supernet(num_layers=4))
    return Teacher(extract(model, Architecture.parse("mha2-ffn-conv3-mha4")))


def block(seed: str = "0") -> BlockSupernet:
    return BlockSupernet(SPACE, config(), 4, (16, 16), seed)


def taught(ids: torch.Tensor, ends: tuple[int, int] = (2, 4)) -> BlockBatch:
    return TaughtBatch(batch(ids), teacher(), ends).to(CPU)


def test_the_teachers_states_are_those_of_the_model() -> None:
    one, given = teacher(), batch(PADDED)
    output = one.model(given.input_ids, segment_ids=PADDED, output_hidden_states=True)
    states, _ = one.states(given, (0, 2, 4))
    assert one.block_ends(2) == (2, 4)
    assert one.sizes(2) == (16, 16, 16)
    for end, state in states.items():
        assert torch.equal(state, output.hidden_states[end])
    last = states[4].flatten(0, 1)
    torch.testing.assert_close(one.logits(last), output.logits.flatten(0, 1))


def test_the_loss_is_the_squared_error_over_valid_positions() -> None:
    model, given = randomise(block()).eval(), taught(PADDED)
    path = Architecture.parse("w12-mha-conv3-skip")
    loss = BlockRegression()(model, given, path)
    segments = given.segments
    hidden = model.layers[0]["w12"].map(given.inputs) * (PADDED > 0)[..., None]
    hidden = model.layers[1]["mha"]["12"](hidden, segments)
    hidden = model.layers[2]["conv3"]["12"](hidden, segments)
    errors = (model.leaving["12"](hidden) - given.targets).square().mean(-1)
    torch.testing.assert_close(loss.loss_sum, errors[PADDED > 0].sum())
    assert loss.count == int((PADDED > 0).sum())


def test_only_the_path_gets_gradients() -> None:
    model = block()
    BlockRegression()(
        model, taught(FULL), Architecture.parse("w8-ffn-mha-skip")
    ).loss_sum.backward()
    trained = {name for name, p in model.named_parameters() if p.grad is not None}
    prefixes = ("layers.0.w8.", "layers.1.ffn.8.", "layers.2.mha.8.", "leaving.8.")
    expected = {name for name, _ in model.named_parameters() if name.startswith(prefixes)}
    assert trained == expected


def test_paths_as_operators_of_an_encoder() -> None:
    path = Architecture.parse("w12-mha-conv3-skip")
    assert encoder_operators(SPACE, path, 4) == ("mha3w12", "conv3w12")
    assert encoder_operators(SPACE, Architecture.parse("w8-ffn-mha-ffn"), 16) == (
        "ffnw8", "mha1w8", "ffnw8",
    )  # fmt: skip


def test_losses_of_many_paths_share_their_beginnings() -> None:
    model, given = randomise(block()).train(), [taught(PADDED), taught(FULL, (0, 2))]
    paths = list(SPACE.paths.enumerate())
    calls: Counter[tuple[int, str]] = Counter()
    for layer, candidates in enumerate(model.layers):
        for name, operator in candidates.items():
            operator.register_forward_hook(lambda *_, key=(layer, name): calls.update([key]))
    found = SharedPrefix(model, BlockRegression(), given).totals(paths)
    prefixes = {path.operators[:length] for path in paths for length in range(1, 5)}
    assert sum(calls.values()) == len(prefixes) * len(given)
    assert all(part.training for part in model.modules())
    for path in paths[::7]:
        expected = score(model, BlockRegression(), given, path).loss
        assert found[path].loss == pytest.approx(expected, rel=1e-6)


def test_bins_hold_what_agrees_by_size_and_by_latency() -> None:
    pool = BlockSpace((1,), ("a", "b"), 2).paths
    costs = PoolCosts(np.array([2.0, 4, 6, 8, 10, 1]), np.array([20.0, 40, 60, 80, 100, 60]))
    assert pool.count() == 6
    # 5 bins of a fifth of the largest each: the largest is in the last, the odd one in none.
    assert bin_numbers(costs, 5).tolist() == [0, 1, 2, 3, 4, -1]


def test_costs_of_paths_add_up() -> None:
    space = BlockSpace((8, 16), ("a", "b"), 2)
    sizes = np.array([[1.0, 2, 0], [10, 20, 0]])
    costs = PoolCosts.of(space.paths, sizes, 3 * sizes)
    by_name = {"w8": {"a": 1, "b": 2, "skip": 0}, "w16": {"a": 10, "b": 20, "skip": 0}}
    expected = [
        sum(by_name[p[0]][name] for name in p.operators[1:]) for p in space.paths.enumerate()
    ]
    assert costs.parameters.tolist() == expected
    assert costs.latency.tolist() == [3 * value for value in expected]


def losses_by_name(paths: list[Architecture]) -> dict[Architecture, float]:
    return {path: float(len(str(path))) + str(path).count("ffn") / 10 for path in paths}


def test_shrinking_removes_the_worse_half_of_what_is_scored() -> None:
    pool = SPACE.paths
    candidates = Candidates(pool, np.arange(pool.count()) % 2)
    rule = Shrinkage(sample=1000, keep=3, seed=0)
    halved = rule.halve(candidates, 1, losses_by_name)
    for number in (0, 1):
        before = [pool[i] for i in np.flatnonzero(candidates.bins == number)]
        after = [halved.pool[i] for i in np.flatnonzero(halved.bins == number)]
        ranked = sorted(before, key=lambda path: (losses_by_name([path])[path], path))
        assert sorted(after) == sorted(ranked[: len(before) - len(before) // 2])


def test_shrinking_samples_large_bins_and_stops_at_what_it_keeps() -> None:
    pool = SPACE.paths
    candidates = Candidates(pool, np.zeros(pool.count(), dtype=np.int64))
    asked: list[Architecture] = []

    def losses(paths: list[Architecture]) -> dict[Architecture, float]:
        asked.extend(paths)
        return losses_by_name(paths)

    halved = Shrinkage(sample=10, keep=3, seed=0).halve(candidates, 1, losses)
    assert len(asked) == 10
    assert halved.pool.count() == pool.count() - 5
    for number in range(2, 60):
        halved = Shrinkage(sample=10, keep=3, seed=0).halve(halved, number, losses_by_name)
    assert halved.is_shrunk(3)
    assert halved.pool.count() == 3
    best = Shrinkage(sample=10, keep=2, seed=0).finalists(halved, losses_by_name)
    assert [loss for _, _, loss in best] == sorted(
        losses_by_name(list(halved.pool.enumerate())).values()
    )[:2]


@pytest.mark.parametrize("k", [1, 2])
def test_magic_t_moves_k_choices_within_the_pool(k: int) -> None:
    section = SamplingSection(method="magic-t", num_changes=k)
    sampler = PoolSampler(SPACE.paths, section, 0, "test")
    path, seen = None, set()
    for step in range(600):
        before, path = path, sampler.next(step, path)
        assert path in SPACE.paths
        if before is not None and step % STEPS_OF_A_WALK:
            assert path.distance(before) == k
        assert path == sampler.next(step, before)
        seen.add(path)
    assert len(seen) == SPACE.count()


def test_magic_t_in_a_thin_pool_goes_to_the_nearest() -> None:
    names = ("w8-mha-skip-skip", "w8-mha-ffn-ffn", "w12-conv3-conv3-conv3")
    pool = SPACE.paths.of([Architecture.parse(name) for name in names])
    sampler = PoolSampler(pool, SamplingSection(method="magic-t"), 0, "test")
    first, second = (Architecture.parse(name) for name in names[:2])
    assert {sampler.next(step, first) for step in range(1, 40)} == {second}
    assert {sampler.next(STEPS_OF_A_WALK * n, first) for n in range(40)} == set(pool.enumerate())


def test_each_width_has_its_own_anchor() -> None:
    anchors = AnchorPerWidth(SPACE.product, every=1)
    paths = [
        Architecture.parse(f"w{w}-{name}-skip-skip") for w in (8, 12) for name in ("mha", "ffn")
    ]
    scores = dict(zip(paths, (1.0, 2.0, 9.0, 3.0), strict=True))
    assert anchors.children(0, paths[0]) == ()
    for step, path in enumerate(paths):
        anchors.update(step, path, lambda asked: {path: scores[path] for path in asked})
    assert anchors.anchor is None
    assert anchors.children(9, paths[0]) == (paths[1],)
    assert anchors.children(9, paths[3]) == (paths[2],)
    late = AnchorPerWidth(SPACE.product, every=1, delay_steps=3)
    for step, path in enumerate(paths):
        late.update(step, path, lambda asked: dict.fromkeys(asked, 0.0))
    assert [late.children(4, path) for path in paths] == [(), (), (paths[2],), (paths[2],)]
    again = AnchorPerWidth(SPACE.product, every=1)
    again.restore(anchors.state())
    assert again.state() == anchors.state()
