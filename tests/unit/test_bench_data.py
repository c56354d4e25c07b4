"""What ``magicbert bench data`` measures: who is right, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from magicbert.bench.data.corpus import prepared_corpus
from magicbert.bench.data.loading import loader_case
from magicbert.bench.data.masking import LENGTH, MASK, ROWS, MaskingTrial
from magicbert.bench.data.suite import data_suite
from magicbert.bench.data.tokenizing import TokenizerTrial
from magicbert.bench.registry import OWN, Contender
from magicbert.config.reading import load_config
from magicbert.config.roots import BenchConfig
from magicbert.errors import UserError

CPU = torch.device("cpu")


def test_everyone_who_masks_is_right_and_magicbert_is_among_them():
    masking = MaskingTrial(0)
    trial = masking.trial(peers=True)
    names = [contender.name for contender in trial.lineup.contenders]
    assert names[0] == OWN
    assert len(names) == 4
    assert all(trial.judge(contender).is_right for contender in trial.lineup.contenders)
    assert trial.units == ROWS * LENGTH


def test_wrong_masks_are_seen():
    masking = MaskingTrial(0)
    ids, labels = masking.whole_tensors(0)

    def answering(ids: torch.Tensor, labels: torch.Tensor) -> Contender:
        return Contender("wrong", lambda index: (ids, labels))

    assert masking.verdict(answering(ids, labels)).is_right
    touched = ids.clone()
    place = (labels == -100).nonzero()[3]
    touched[tuple(place)] = MASK
    assert not masking.verdict(answering(touched, labels)).is_right
    too_few = labels.clone()
    too_few[: ROWS // 2] = -100
    assert not masking.verdict(answering(ids, too_few)).is_right
    assert not masking.verdict(answering(ids, labels.clamp(max=7))).is_right


def test_what_does_not_exist_is_refused(tmp_path):
    overrides = {"target": "data", "data.cases": "[speed]", "run.root": str(tmp_path)}
    with pytest.raises(UserError, match=r"data\.cases: 'speed'"):
        data_suite(load_config(BenchConfig, None, overrides))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return prepared_corpus(tmp_path_factory.mktemp("bench") / "embedded", max_documents=800)


def test_a_prepared_corpus_is_not_made_twice(corpus):
    before = (corpus / "manifest.json").stat().st_mtime_ns
    assert prepared_corpus(corpus) == corpus
    assert (corpus / "manifest.json").stat().st_mtime_ns == before


def test_everyone_who_tokenises_finds_the_same_ids(corpus):
    trial = TokenizerTrial(corpus / "tokenizer").trial(peers=True)
    assert len(trial.lineup.contenders) == 3
    assert all(trial.judge(contender).is_right for contender in trial.lineup.contenders)
    broken = Contender("broken", lambda index: np.zeros(3))
    assert not trial.judge(broken).is_right


def test_loaders_give_whole_batches(corpus):
    trial = loader_case(corpus, 0, peers=True).build(CPU)
    assert trial.lineup.contenders[0].name == OWN
    assert all(trial.judge(contender).is_right for contender in trial.lineup.contenders)
    assert not trial.judge(Contender("half", lambda index: (ROWS * LENGTH // 2, 2457))).is_right
