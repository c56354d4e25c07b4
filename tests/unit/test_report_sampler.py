"""The theory of MAGIC-T's walk stands on the report of a run that sampled with it."""

from __future__ import annotations

from pathlib import Path

import pytest
from synthetic_run import write_analyses, write_pretrain

from magicbert.config.reading import to_yaml
from magicbert.config.roots import PretrainConfig, ReportConfig
from magicbert.config.sections import RunSection, SamplingSection, SpaceSection
from magicbert.stages import report


def drawn(root: Path) -> tuple[str, bool]:
    """Returns the page, and whether numbers of a walk stand beside it."""
    report.run(ReportConfig(run=RunSection(root=str(root), name="demo")))
    page = (root / "demo" / "report.html").read_text()
    return page, (root / "demo" / "report" / "sampler_walks.csv").is_file()


def use(root: Path, method: str, candidates: tuple[str, ...]) -> None:
    config = PretrainConfig(
        space=SpaceSection(preset="custom", num_layers=5, candidates=candidates),
        sampling=SamplingSection(method=method),  # type: ignore[arg-type]
    )
    write_pretrain(root / "demo")
    (root / "demo" / "pretrain" / "config.yaml").write_text(to_yaml(config))


@pytest.mark.parametrize("candidates", [("mha12", "ffn", "conv3"), ("mha12", "ffn")])
def test_a_walk_is_explained_without_being_asked_for(tmp_path, candidates):
    use(tmp_path, "magic-t", candidates)
    page, has_numbers = drawn(tmp_path)
    assert f"pretrain: 5 layers of {len(candidates)} operators, k = 1" in page
    assert has_numbers


def test_a_walk_that_was_analysed_is_not_drawn_twice(tmp_path):
    use(tmp_path, "magic-t", ("mha12", "ffn", "conv3"))
    write_analyses(tmp_path / "demo")
    page, has_numbers = drawn(tmp_path)
    assert "run demo: 12 layers of 4 operators" in page
    assert "5 layers of 3 operators" not in page
    assert has_numbers


@pytest.mark.parametrize(
    ("method", "candidates"), [("uniform", ("mha12", "ffn")), ("magic-t", ("ffn",))]
)
def test_what_does_not_walk_has_no_theory(tmp_path, method, candidates):
    use(tmp_path, method, candidates)
    page, has_numbers = drawn(tmp_path)
    assert "layers of" not in page
    assert not has_numbers
