"""Paths scored together: as few operator calls as prefixes, the losses of one path at a time."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
import small_supernet
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_tenant import OPERATORS, ToyObjective, ToySource, ToySupernet

from magicbert.bert.objectives.mlm import MaskedLanguageModeling
from magicbert.errors import UserError
from magicbert.space import Architecture, SearchSpace
from magicbert.supernet.prefix_cache import PrefixCache
from magicbert.supernet.prefixes import num_prefixes
from magicbert.supernet.scoring import score
from magicbert.supernet.shared_prefix import SharedPrefix

SPACE = SearchSpace.uniform(4, OPERATORS)
ALL = list(SPACE.enumerate())
BATCHES = ToySource(rows=16).dev_batches(3)
PATH_SETS = st.lists(st.sampled_from(ALL), max_size=30)


def supernet() -> ToySupernet:
    torch.manual_seed(0)
    return ToySupernet(SPACE)


def one_by_one(paths, batches=BATCHES):
    return {path: score(supernet(), ToyObjective(), batches, path) for path in set(paths)}


class Calls:
    """Counts operator calls, and the rows they take."""

    def __init__(self, model) -> None:
        self.calls: Counter[str] = Counter()
        self.rows = 0
        for layer in model.layers:
            for name, operator in layer.items():
                operator.register_forward_hook(self.hook(name))

    def hook(self, name):
        def count(module, given, output) -> None:
            self.calls[name] += 1
            self.rows += len(given[0])

        return count


@settings(deadline=None, max_examples=25)
@given(PATH_SETS)
def test_operator_calls_are_the_distinct_prefixes(paths):
    model = supernet()
    calls = Calls(model)
    scores = SharedPrefix(model, ToyObjective(), BATCHES).totals(paths)
    assert calls.calls.total() == len(BATCHES) * num_prefixes(paths)
    assert scores == one_by_one(paths)


@settings(deadline=None, max_examples=25)
@given(PATH_SETS, st.integers(2, 9))
def test_stacked_prefixes_run_the_same_rows_in_fewer_calls(paths, most_stacked):
    model = supernet()
    calls = Calls(model)
    together = SharedPrefix(
        model, ToyObjective(), BATCHES, max_bytes=2**20, most_stacked=most_stacked
    )
    scores = together.totals(paths)
    assert calls.rows == len(BATCHES) * 16 * num_prefixes(paths)
    assert calls.calls.total() <= len(BATCHES) * num_prefixes(paths)
    for path, alone in one_by_one(paths).items():
        assert scores[path].loss == pytest.approx(alone.loss, rel=1e-6)
        assert scores[path].count == alone.count


def test_stacking_halves_the_calls_of_a_whole_space():
    model = supernet()
    calls = Calls(model)
    SharedPrefix(model, ToyObjective(), BATCHES[:1], max_bytes=2**20, most_stacked=9)(ALL)
    assert calls.calls.total() <= num_prefixes(ALL) / 4


def test_stacking_is_cut_down_to_the_memory_there_is():
    """A walk of one path holds 5 states of 16 x 8 floats; half of the memory has room for two."""
    model = supernet()
    calls = Calls(model)
    way = 5 * 16 * 8 * 4
    SharedPrefix(model, ToyObjective(), BATCHES[:1], max_bytes=4 * way, most_stacked=9)(ALL)
    assert num_prefixes(ALL) / 2 <= calls.calls.total() < num_prefixes(ALL)


@settings(deadline=None, max_examples=25)
@given(st.lists(PATH_SETS, min_size=2, max_size=4), st.integers(0, 40))
def test_kept_prefixes_change_no_loss_and_stay_within_the_limit(calls, num_states):
    max_bytes = (5 + num_states) * 16 * 8 * 4
    together = SharedPrefix(supernet(), ToyObjective(), BATCHES, max_bytes=max_bytes)
    for paths in calls:
        assert together.totals(paths) == one_by_one(paths)
        assert together.cache.num_bytes <= num_states * 16 * 8 * 4


def test_later_calls_run_only_what_is_new():
    model = supernet()
    calls = Calls(model)
    together = SharedPrefix(model, ToyObjective(), BATCHES, max_bytes=2**24)
    random = Random(3)
    seen: set[Architecture] = set()
    for _ in range(5):
        new = set(random.sample(ALL, 12)) - seen
        before = calls.calls.total()
        together(new)
        expected = num_prefixes([*seen, *new]) - num_prefixes([*seen])
        assert calls.calls.total() - before == len(BATCHES) * expected
        seen |= new


def test_the_least_recently_used_prefixes_go_first():
    """Room for four states: of three calls the last one's are there, the first one's are not."""
    model = supernet()
    together = SharedPrefix(model, ToyObjective(), BATCHES[:1], max_bytes=(5 + 4) * 16 * 8 * 4)
    names = {first: Architecture((first, *["small"] * 3)) for first in OPERATORS}
    for path in names.values():
        together([path])
    calls = Calls(model)
    together([names["large"].replace(3, "large")])
    assert calls.calls.total() == 1
    together([names["small"].replace(3, "large")])
    assert calls.calls.total() == 1 + 4


def test_a_part_of_a_stacked_result_is_kept_without_the_rest():
    cache = PrefixCache()
    cache.divide(2, 2 * 100)
    whole = torch.arange(100, dtype=torch.float32)
    cache.put(0, ("a",), whole[:20])
    kept = cache.take(0, ("a",))
    assert kept is not None
    assert kept.untyped_storage().nbytes() == kept.nbytes == 80
    cache.put(0, ("b",), whole)  # 400 bytes never fit
    assert (len(cache), cache.num_bytes) == (0, 0)


def test_batches_share_the_memory_equally_and_lose_what_is_not_theirs_any_more():
    cache = PrefixCache()
    cache.divide(2, 800)
    for batch in range(2):
        for name in "abcdef":
            cache.put(batch, (name,), torch.zeros(25))
    assert (len(cache), cache.num_bytes) == (8, 800)
    cache.divide(4, 800)
    assert (len(cache), cache.num_bytes) == (4, 400)
    assert cache.take(0, ("f",)) is not None
    assert cache.take(0, ("d",)) is None
    cache.divide(1, 800)
    assert (len(cache), cache.num_bytes) == (1, 100)


def test_every_batch_has_its_own_score():
    together = SharedPrefix(supernet(), ToyObjective(), BATCHES)
    paths = ALL[:9]
    by_batch = together(paths)
    assert together(paths, range(1, 3)) == {path: scores[1:] for path, scores in by_batch.items()}
    for number, batch in enumerate(BATCHES):
        alone = one_by_one(paths, [batch])
        assert {path: scores[number] for path, scores in by_batch.items()} == alone
    assert together(paths, range(0)) == dict.fromkeys(paths, ())
    assert together([]) == {}


def test_a_path_of_another_space_is_refused_before_anything_runs():
    model = supernet()
    calls = Calls(model)
    with pytest.raises(UserError, match="layer 3 is 'huge'"):
        SharedPrefix(model, ToyObjective(), BATCHES)([ALL[0], ALL[0].replace(3, "huge")])
    assert not calls.calls


def test_modes_gradients_and_random_numbers_are_left_alone():
    model = supernet().train()
    model.operator(0, "small").eval()
    modes = [part.training for part in model.modules()]
    state = torch.get_rng_state()
    SharedPrefix(model, ToyObjective(), BATCHES)(ALL[:9])
    assert [part.training for part in model.modules()] == modes
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)


class Doubling(ToyObjective):
    """Changes the batch before any path sees it."""

    prepared = 0

    def prepare(self, model, batch):
        self.prepared += 1
        return type(batch)(2 * batch.inputs, batch.targets)


def test_what_no_path_has_a_say_in_is_done_once_for_a_batch():
    objective = Doubling()
    together = SharedPrefix(supernet(), objective, BATCHES)
    scores = together.totals(ALL[:9])
    together(ALL[9:20])
    assert objective.prepared == len(BATCHES)
    assert scores == {path: score(supernet(), Doubling(), BATCHES, path) for path in ALL[:9]}
    assert scores != one_by_one(ALL[:9])


@pytest.mark.parametrize("form", small_supernet.FORMS)
def test_paths_of_bert_over_every_kind_of_rows(form):
    model = small_supernet.build()
    batches = [small_supernet.batch(number, form) for number in (1, 2)]
    paths = list(model.space.enumerate())[::11]
    objective = MaskedLanguageModeling()
    expected = {path: score(model, objective, batches, path) for path in paths}
    assert SharedPrefix(model, objective, batches).totals(paths) == expected
    together = SharedPrefix(model, objective, batches, max_bytes=2**24, most_stacked=4)
    stacked = together.totals(paths)
    for path, alone in expected.items():
        assert stacked[path].loss == pytest.approx(alone.loss, rel=1e-6)
        assert (stacked[path].correct, stacked[path].count) == (alone.correct, alone.count)
    assert len({one.loss for one in expected.values()}) > 1
