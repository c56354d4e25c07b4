"""Records between stages, and the trail of a stage: what is written can be trusted when read."""

from __future__ import annotations

import json
import logging
import subprocess

import pytest

from magicbert import trail as trail_module
from magicbert.config.reading import from_tree
from magicbert.config.roots import SearchConfig
from magicbert.config.sections import RunSection
from magicbert.config.yaml_text import parse_yaml
from magicbert.errors import UserError
from magicbert.records import digest_of, read_record, write_record, write_text_atomically
from magicbert.trail import Trail, read_metrics, stage_folder

SCHEMA = "magicbert/example/1"


@pytest.mark.parametrize(
    "payload",
    [{"a": [1, 2.5, None, "é"]}, {"tuple": (1, 2)}, {"counts": {10: 1, 9: 2, 100: 3}}, {}],
)
def test_record_round_trip(payload, tmp_path):
    file = tmp_path / "deep" / "record.json"
    write_record(file, SCHEMA, payload)
    assert read_record(file, SCHEMA) == json.loads(json.dumps(payload))


def test_damage_is_seen(tmp_path):
    file = tmp_path / "record.json"
    write_record(file, SCHEMA, {"loss": 1.25})
    good = file.read_text()
    cases = {
        good.replace("1.25", "1.24"): "damaged",
        good[:-10]: "cannot be read as JSON",
        good.replace(SCHEMA, "magicbert/other/1"): "expected schema",
        "[]": "found list",
        '{"schema": "magicbert/example/1"}': "damaged",
    }
    for text, message in cases.items():
        file.write_text(text)
        with pytest.raises(UserError, match=message):
            read_record(file, SCHEMA)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="cannot be read"):
        read_record(file, SCHEMA)
    with pytest.raises(UserError, match="run the stage that writes it"):
        read_record(tmp_path / "missing.json", SCHEMA)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    file = tmp_path / "record.json"
    write_record(file, SCHEMA, {"step": 1})
    with pytest.raises(ValueError, match="Out of range"):
        write_record(file, SCHEMA, {"step": float("nan")})
    with pytest.raises(UnicodeEncodeError):
        write_text_atomically(file, "\ud800")
    assert read_record(file, SCHEMA) == {"step": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["record.json"]


def test_digest_ignores_the_order_of_names_only():
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})
    assert digest_of([1, 2]) != digest_of([2, 1])


def test_trail_holds_config_environment_metrics_and_log(tmp_path):
    config = SearchConfig()
    with Trail(tmp_path / "search", config) as trail:
        trail.record("valid", step=3, loss=1.5)
        logging.getLogger("magicbert").warning("something to know")
    logging.getLogger("magicbert").warning("after the end")
    text = (tmp_path / "search" / "config.yaml").read_text()
    assert from_tree(SearchConfig, parse_yaml(text), "trail") == config
    (row,) = read_metrics(tmp_path / "search")
    assert (row["kind"], row["step"], row["loss"]) == ("valid", 3, 1.5)
    log = (tmp_path / "search" / "log.txt").read_text()
    assert "something to know" in log
    assert "after the end" not in log
    environment = json.loads((tmp_path / "search" / "environment.json").read_text())
    assert environment["packages"]["torch"]


def test_other_ranks_write_nothing(tmp_path):
    with Trail(tmp_path / "search", SearchConfig(), is_writer=False) as trail:
        trail.record("valid", step=1)
    assert not list(tmp_path.iterdir())


def test_a_line_cut_off_by_a_kill_costs_only_itself(tmp_path):
    with Trail(tmp_path, SearchConfig()) as trail:
        trail.record("train", step=1)
    with (tmp_path / "metrics.jsonl").open("a") as stream:
        stream.write('{"kind": "train", "st')
    with Trail(tmp_path, SearchConfig()) as trail:
        trail.record("train", step=2)
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2]


def test_metrics_of_a_stage_that_never_ran(tmp_path):
    assert read_metrics(tmp_path / "missing") == []


def test_labels_keep_models_of_one_run_apart():
    run = RunSection(root="runs", name="a")
    assert stage_folder(run, "retrain").as_posix() == "runs/a/retrain"
    labelled = RunSection(root="runs", name="a", label="bert")
    assert stage_folder(labelled, "retrain").as_posix() == "runs/a/retrain-bert"


def test_environment_names_the_verb_behind_the_launcher(monkeypatch):
    monkeypatch.setattr("sys.argv", ["magicbert", "--local_rank=1", "pretrain", "--config", "x"])
    assert trail_module.describe_environment()["verb"] == "pretrain"


def test_commit_is_that_of_this_package_or_none(tmp_path, monkeypatch):
    """Installed inside somebody's checkout, the package must not claim their commit."""
    for command in (["init", "-q"], ["-c", "user.name=a", "-c", "user.email=a@b", "commit",
                                     "-q", "--allow-empty", "-m", "theirs"]):  # fmt: skip
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    file = tmp_path / "trail.py"
    file.write_text("")
    monkeypatch.setattr(trail_module, "__file__", str(file))
    assert trail_module.current_commit() is None
    subprocess.run(["git", "add", "trail.py"], cwd=tmp_path, check=True)
    commit = trail_module.current_commit()
    assert commit is not None
    assert commit.endswith("-dirty")
