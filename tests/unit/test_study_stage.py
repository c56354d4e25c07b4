"""``magicbert analyze ranking`` on a tiny prepared corpus, from plan to table, in one process."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_corpus import config_for, make_documents, write_corpus

from magicbert import cli
from magicbert.config.reading import from_tree, to_yaml
from magicbert.config.roots import AnalyzeConfig
from magicbert.config.sections import (
    DownstreamSection,
    ModelSection,
    OptimizerSection,
    RankingSection,
    RunSection,
    SpaceSection,
    StudiedSupernetSection,
)
from magicbert.errors import ConfigError, UserError
from magicbert.ranking.table import Table
from magicbert.records import read_record
from magicbert.stages import analyze, prepare
from magicbert.trail import current_commit

SETTING = RankingSection(
    space=SpaceSection(preset="custom", num_layers=2, candidates=("mha2", "ffn")),
    model=ModelSection(hidden_size=8, max_length=32),
    optimizer=OptimizerSection(learning_rate=3e-3, warmup_steps=2),
    table="periodic",
    period=2,
    num_seeds=2,
    short_steps=4,
    supernet_steps=6,
    supernets=(
        StudiedSupernetSection(num_seeds=2),
        StudiedSupernetSection(method="magic-at", num_seeds=2, num_blocks=2, anchor_every=2),
    ),
    rows_per_step=4,
    rows_per_micro_batch=4,
    rows_per_dev_batch=4,
    num_dev_batches=2,
    num_curve_points=2,
    num_workers=1,
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with prepared data, and GLUE files of two sentences."""
    root = tmp_path_factory.mktemp("ranking")
    prepare.run(config_for(root, write_corpus(root / "corpus.txt", make_documents(120))))
    glue = root / "glue" / "SST-2"
    glue.mkdir(parents=True)
    rows = "sentence\tlabel\n" + "ka lo mi\t1\nter un ves\t0\n" * 8
    for name in ("train.tsv", "dev.tsv"):
        (glue / name).write_text(rows)
    return root


def config(root: Path, label: str = "", **changes: Any) -> AnalyzeConfig:
    run = RunSection(root=str(root), name="tiny", label=label)
    return AnalyzeConfig(target="ranking", run=run, ranking=replace(SETTING, **changes))


def rows_of(root: Path, label: str = "") -> list[dict[str, Any]]:
    file = root / "tiny" / f"analyze-ranking{label and '-' + label}" / "rows.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()][1:]


def test_a_study_from_its_first_piece_to_its_result(root: Path, capsys: Any) -> None:
    analyze.run(config(root, max_minutes=1e-6))
    assert not (root / "tiny" / "analyze-ranking" / "rows.jsonl").exists()
    analyze.run(config(root))
    shown = capsys.readouterr().out
    assert "Study of 4 architectures, 1 workers" in shown
    assert "supernet magic-at, default\t2\t0\t6" in shown
    rows = rows_of(root)
    assert {row["kind"] for row in rows} == {"alone", "supernet"}
    assert len(rows) == 4 * 2 + 2 * 2
    assert [row["commit"] for row in rows] == [current_commit()] * len(rows)
    folder = root / "tiny" / "analyze-ranking"
    result = read_record(folder / "result.json", analyze.SCHEMA)
    assert {(row["method"], row["seed"]) for row in result["rows"]} == {
        (method, seed) for method in ("spos", "magic-at") for seed in (0, 1)
    }
    table = Table.read(folder / "tabular.csv")
    assert len(table) == 4
    losses = [row["loss"] for row in rows if row.get("architecture") == "ffn-ffn"]
    assert table.loss(table.architectures[0]) == pytest.approx(sum(losses) / 2)
    assert (folder / "tau.svg").is_file()
    # Once more: nothing is trained, the same is said.
    analyze.run(config(root))
    assert "all\t12\t12" in capsys.readouterr().out
    assert rows_of(root) == rows


def test_more_seeds_are_added_to_what_is_there_and_other_settings_refused(root: Path) -> None:
    analyze.run(config(root, "grown", num_seeds=1, supernets=SETTING.supernets[:1]))
    before = rows_of(root, "grown")
    analyze.run(config(root, "grown", num_seeds=2, supernets=SETTING.supernets[:1]))
    after = rows_of(root, "grown")
    assert after[: len(before)] == before
    assert len(after) == len(before) + 4
    other = replace(SETTING.model, hidden_size=16)
    folder = root / "tiny" / "analyze-ranking-grown"
    kept = (folder / "config.yaml").read_text()
    with pytest.raises(UserError, match=r"another study \(it differs in model\.hidden_size\)"):
        analyze.run(config(root, "grown", model=other))
    assert (folder / "config.yaml").read_text() == kept


def test_models_at_once_give_the_rows_of_single_ones_and_go_on_with_them(root: Path) -> None:
    sizes = replace(SETTING.model, dropout=0.0, attention_dropout=0.0)
    plain = {"model": sizes, "supernets": ()}
    analyze.run(config(root, "single", **plain))
    analyze.run(config(root, "stacked", **plain, num_seeds=1, models_at_once=3))
    assert [row.get("stacked") for row in rows_of(root, "stacked")] == [3, 3, 3, None]
    analyze.run(config(root, "stacked", **plain))
    single = {row["key"]: row for row in rows_of(root, "single")}
    stacked = {row["key"]: row for row in rows_of(root, "stacked")}
    assert stacked.keys() == single.keys()
    for key, row in single.items():
        assert stacked[key]["loss"] == pytest.approx(row["loss"], abs=1e-5)


def test_models_are_fine_tuned_on_the_dev_rows_of_a_task(root: Path) -> None:
    downstream = DownstreamSection(
        tasks=("sst2",), data=str(root / "glue"), num_architectures=2, batch_size=8, max_length=16
    )
    analyze.run(config(root, "tuned", num_seeds=1, supernets=(), downstream=downstream))
    rows = [row for row in rows_of(root, "tuned") if row["kind"] == "downstream"]
    assert len(rows) == 2
    assert {(row["task"], row["metric"], row["seed"]) for row in rows} == {("sst2", "accuracy", 0)}
    assert all(0 <= row["score"] <= 1 for row in rows)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"downstream": DownstreamSection(tasks=("sst3",))}, "sst3"),
        ({"downstream": DownstreamSection(tasks=("embedded",))}, "folder of GLUE files"),
        ({"supernets": (StudiedSupernetSection(method="magic-t", num_changes=3),)},
         r"ranking\.supernets\[0\]: sampling\.num_changes: must be in 1\.\.2"),
        ({"supernets": (StudiedSupernetSection(method="magic-a", num_blocks=3),)},
         r"ranking\.supernets\[0\]: num_blocks: 3 is above the 2 layers"),
        ({"model": ModelSection(hidden_size=8, max_length=16)}, r"ranking\.model\.max_length: 16"),
        ({"period": 3}, r"ranking\.period: 2 layers are no multiple of 3"),
    ],
)  # fmt: skip
def test_mistakes_are_found_before_anything_is_written(
    root: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        analyze.run(config(root, "wrong", **changes))
    assert not (root / "tiny" / "analyze-ranking-wrong").exists()


def test_mistakes_of_a_section_in_a_list_have_their_place() -> None:
    tree = {"ranking": {"supernets": [{"method": "spos"}, {"method": "magic", "sedes": 3}]}}

    with pytest.raises(ConfigError) as caught:
        from_tree(AnalyzeConfig, tree, "given")
    assert any(p.startswith("ranking.supernets[1].method: must be one of spos") for p in
               caught.value.problems)  # fmt: skip
    assert any("ranking.supernets[1].sedes: unknown option" in p for p in caught.value.problems)
    twice = {"ranking": {"supernets": [{"method": "spos"}, {}]}}
    with pytest.raises(ConfigError, match="spos with settings 'default' stands there twice"):
        from_tree(AnalyzeConfig, twice, "given")
    with pytest.raises(ConfigError, match=r"models_at_once: 8 models side by side need model\.dro"):
        from_tree(AnalyzeConfig, {"ranking": {"models_at_once": 8}}, "given")
    for wrong in ("spos", {"method": "spos"}, [3]):
        with pytest.raises(ConfigError, match=r"ranking\.supernets.*must be a"):
            from_tree(AnalyzeConfig, {"ranking": {"supernets": wrong}}, "given")


def test_the_plan_is_printed_and_nothing_begun(root: Path, tmp_path: Path, capsys: Any) -> None:
    file = tmp_path / "analyze-ranking.yaml"
    file.write_text(to_yaml(config(root, "planned")))
    cli.main(["analyze", "--config", str(file), "--plan"])
    shown = capsys.readouterr().out
    assert "alone, short\t8\t0\t4" in shown
    assert "supernet spos, default\t2\t0\t6" in shown
    assert not (root / "tiny" / "analyze-ranking-planned").exists()
    for words in (["--plan=json"], ["--target", "sampler", "--plan"]):
        with pytest.raises(SystemExit) as caught:
            cli.main(["analyze", "--config", str(file), *words])
        assert caught.value.code == 2
