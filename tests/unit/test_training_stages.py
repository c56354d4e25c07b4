"""Which architecture is retrained, and what the stages refuse before they train."""

from __future__ import annotations

from pathlib import Path

import pytest

from magicbert.bert.modeling.configuration_magicbert import MagicBertConfig
from magicbert.bert.saving import save_supernet
from magicbert.bert.supernet import BertSupernet
from magicbert.config.plan_section import PlanSection
from magicbert.config.roots import PretrainConfig, RetrainConfig
from magicbert.config.sections import ModelSection, RunSection, SpaceSection
from magicbert.errors import UserError
from magicbert.records import write_record
from magicbert.space import SearchSpace
from magicbert.stages import pretrain, retrain
from magicbert.stages.plan import Planner
from magicbert.stages.retrain import ARCHITECTURES_SCHEMA, choose_architecture, inherit
from magicbert.stages.search import RESULT
from magicbert.trail import stage_folder


@pytest.fixture
def search(tmp_path: Path) -> Path:
    """The folder of a search that found two architectures and drew one at random."""
    payload = {
        "results": [{"architecture": "ffn-mha2"}, {"architecture": "conv3-ffn"}],
        "random": [{"architecture": "conv5-mha2"}],
    }
    write_record(tmp_path / "architectures.json", ARCHITECTURES_SCHEMA, payload)
    return tmp_path


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        ("best", "ffn-mha2"),
        ("rank:1", "ffn-mha2"),
        ("rank:2", "conv3-ffn"),
        ("random:1", "conv5-mha2"),
        ("conv5-conv5", "conv5-conv5"),
    ],
)
def test_the_wanted_architecture_is_chosen(search: Path, wanted: str, chosen: str) -> None:
    assert str(choose_architecture(wanted, search)) == chosen


@pytest.mark.parametrize("wanted", ["rank:0", "rank:3", "rank:x", "rank:"])
def test_a_rank_that_was_not_written_is_refused(search: Path, wanted: str) -> None:
    with pytest.raises(UserError, match=r"rank:1\.\.2"):
        choose_architecture(wanted, search)


@pytest.mark.parametrize("wanted", ["random:0", "random:2", "random:"])
def test_a_random_one_that_was_not_drawn_is_refused(search: Path, wanted: str) -> None:
    with pytest.raises(UserError, match=r"random:1\.\.1"):
        choose_architecture(wanted, search)


def test_best_without_a_search_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"architectures\.json: no such file"):
        choose_architecture("best", tmp_path)


def test_a_string_needs_no_search(tmp_path: Path) -> None:
    assert str(choose_architecture("ffn-ffn", tmp_path)) == "ffn-ffn"


def test_an_architecture_that_does_not_fit_the_width_is_refused(tmp_path: Path) -> None:
    config = RetrainConfig(
        run=RunSection(root=str(tmp_path)),
        architecture="mha12-ffn",
        model=ModelSection(hidden_size=64),
    )
    with pytest.raises(UserError, match="mha12"):
        retrain.run(config)


def test_pretraining_without_prepared_data_writes_nothing(tmp_path: Path) -> None:
    config = PretrainConfig(
        run=RunSection(root=str(tmp_path)),
        space=SpaceSection(preset="custom", num_layers=1, candidates=("ffn",)),
        model=ModelSection(hidden_size=64),
    )
    with pytest.raises(UserError, match="run `magicbert prepare` first"):
        pretrain.run(config)
    assert list(tmp_path.iterdir()) == []


def write_search(run: RunSection, winner: str) -> None:
    payload = {"results": [{"architecture": winner}], "random": []}
    write_record(stage_folder(run, "search") / RESULT, ARCHITECTURES_SCHEMA, payload)


@pytest.mark.parametrize(("label", "winner"), [("", "ffn"), ("small", "conv3"), ("other", "ffn")])
def test_a_label_takes_its_own_search_where_there_is_one(
    tmp_path: Path, label: str, winner: str
) -> None:
    write_search(RunSection(root=str(tmp_path)), "ffn")
    write_search(RunSection(root=str(tmp_path), label="small"), "conv3")
    run = RunSection(root=str(tmp_path), label=label)
    config = RetrainConfig(run=run, model=ModelSection(hidden_size=64))
    planner = Planner("retrain", config, PlanSection(vocab_size=100))
    assert [str(path) for path in planner.space.enumerate()] == [winner]
    with pytest.raises(UserError, match="run `magicbert prepare` first"):
        retrain.run(config)


def test_a_label_inherits_from_its_own_supernet(tmp_path: Path) -> None:
    for label, operators in (("", ("ffn", "conv3")), ("small", ("ffn", "mha4"))):
        folder = stage_folder(RunSection(root=str(tmp_path), label=label), "pretrain")
        space = SearchSpace.uniform(1, operators)
        sizes = MagicBertConfig(architecture="", vocab_size=20, hidden_size=16)
        save_supernet(folder / "supernet", BertSupernet(space, sizes, seed=0), {})
    small = RunSection(root=str(tmp_path), label="small")
    inherited = inherit(RetrainConfig(run=small, start="inherited", architecture="mha4"))
    assert inherited is not None
    assert "layers.0.mha4.norm.bias" in inherited.weights
    plain = RunSection(root=str(tmp_path))
    with pytest.raises(UserError, match="mha4"):
        inherit(RetrainConfig(run=plain, start="inherited", architecture="mha4"))
