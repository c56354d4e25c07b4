"""``magicbert analyze`` on a supernet of random weights and a prepared tiny corpus."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from tiny_corpus import config_for, make_documents, write_corpus

from magicbert.bert.saving import save_supernet
from magicbert.bert.supernet import build_supernet
from magicbert.config.reading import to_yaml
from magicbert.config.roots import AnalyzeConfig, PretrainConfig, ReportConfig
from magicbert.config.sections import (
    InterferenceSection,
    ModelSection,
    RunSection,
    SamplerAnalysisSection,
    SamplingSection,
    SpaceSection,
)
from magicbert.data.manifest import read_manifest
from magicbert.errors import UserError
from magicbert.records import read_record
from magicbert.space import SearchSpace
from magicbert.stages import analyze, prepare, report

NAMES = ("mha2", "mha4", "ffn", "conv3")
MODEL = ModelSection(hidden_size=8, max_length=32, dropout=0.1, attention_dropout=0.1)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with prepared data and a supernet."""
    root = tmp_path_factory.mktemp("analyze")
    corpus = write_corpus(root / "corpus.txt", make_documents(120))
    prepare.run(config_for(root, corpus))
    manifest = read_manifest(root / "tiny" / "prepare")
    space = SearchSpace.uniform(3, NAMES)
    supernet = build_supernet(space, MODEL, manifest.vocab_size, manifest.pad_id, seed=3)
    pretrain = root / "tiny" / "pretrain"
    save_supernet(pretrain / "supernet", supernet, {"data_digest": manifest.digest})
    former = PretrainConfig(
        model=MODEL,
        space=SpaceSection(preset="custom", num_layers=3, candidates=NAMES),
        sampling=SamplingSection(method="magic-t", num_changes=2),
    )
    (pretrain / "config.yaml").write_text(to_yaml(former))
    return root


def config(root: Path, target: str, **interference: object) -> AnalyzeConfig:
    setting = {"num_contexts": 3, "num_batches": 1, "rows_per_batch": 4, **interference}
    return AnalyzeConfig(
        target=target,  # type: ignore[arg-type]
        run=RunSection(root=str(root), name="tiny"),
        interference=InterferenceSection(**setting),  # type: ignore[arg-type]
        sampler=SamplerAnalysisSection(num_walkers=50, num_steps=10),
    )


def result(root: Path, target: str) -> dict:
    return read_record(root / "tiny" / f"analyze-{target}" / "result.json", analyze.SCHEMA)


def test_interference_of_every_shared_operator(root, capsys):
    analyze.run(config(root, "interference"))
    found = result(root, "interference")
    assert [row["operator"] for row in found["operators"]] == list(NAMES)
    for row in found["operators"]:
        matrix = np.array(row["matrix"]["gradient"])
        np.testing.assert_allclose(matrix, matrix.T, atol=1e-6)
        np.testing.assert_allclose(np.diag(matrix), 1.0, atol=1e-6)
        # mha2 and mha4 are the only two of one type.
        assert row["pairs"]["gradient"]["same"]["value"] == pytest.approx(matrix[0, 1], abs=1e-9)
        assert [point["num_layers"] for point in row["curve"]["gradient"]] == [1, 2]
        # The shared operator comes first: what it receives and returns is the same for all.
        assert row["pairs"]["input"]["all"]["value"] == pytest.approx(1.0, abs=1e-6)
    printed = capsys.readouterr().out
    assert "Gradient cosine of children that differ in m layers" in printed
    assert (root / "tiny" / "analyze-interference" / "matrices.svg").is_file()


def test_what_is_known_is_not_measured_again(root, caplog):
    analyze.run(config(root, "interference", operators=("mha2",)))
    place = root / "tiny" / "analyze-interference" / "result.json"
    before = place.stat().st_mtime_ns
    with caplog.at_level("INFO", "magicbert"):
        analyze.run(config(root, "interference", operators=("mha2",)))
    assert "finished already" in caplog.text
    assert place.stat().st_mtime_ns == before
    analyze.run(config(root, "interference", operators=("mha4",)))
    assert place.stat().st_mtime_ns > before


def test_the_same_seed_gives_the_same_figures(root):
    figures = []
    for seed in (4, 9, 4):
        analyze.run(config(root, "interference", operators=("ffn",), seed=seed))
        figures.append(result(root, "interference")["operators"])
    assert figures[0] == figures[2]
    assert figures[0] != figures[1]


def test_the_walk_of_the_run_and_of_the_shipped_spaces(root, capsys):
    analyze.run(config(root, "sampler"))
    walks = result(root, "sampler")["walks"]
    assert [(walk["name"], walk["num_changes"]) for walk in walks] == [
        ("run tiny", 2), ("main", 1), ("analysis", 1),
    ]  # fmt: skip
    assert walks[1]["times"] == [46, 62, 74, 102, 142]
    assert walks[0]["bounds"] == {}
    assert "46\t62\t74\t102\t142" in capsys.readouterr().out


def test_the_report_draws_the_analyses_and_writes_their_numbers(root):
    analyze.run(config(root, "interference"))
    analyze.run(config(root, "sampler"))
    report.run(ReportConfig(run=RunSection(root=str(root), name="tiny")))
    page = (root / "tiny" / "report.html").read_text()
    assert page.count("shared mha4") == 1
    assert "Can the supernet be trusted?" in page
    with (root / "tiny" / "report" / "interference_matrices.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * 3 * 4 * 4
    assert (root / "tiny" / "report" / "sampler_walks.csv").is_file()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shared_layer": 9}, "interference.shared_layer: 9 is above the supernet's 3 layers"),
        ({"operators": ("ffn", "lstm")}, "layer 1 has no lstm; it has mha2, mha4, ffn, conv3"),
    ],
)
def test_what_the_supernet_does_not_have_is_said(root, changes, message):
    with pytest.raises(UserError, match=message):
        analyze.run(config(root, "interference", **changes))


def test_the_shared_layer_cannot_be_the_one_that_differs():
    setting = InterferenceSection(shared_layer=2, differing_layer=2)
    (problem,) = AnalyzeConfig(interference=setting).validate()
    assert problem.startswith("interference.differing_layer: 2 is the shared layer")
