from __future__ import annotations

from pathlib import Path

import pytest

from magicbert.config.roots import QuickstartConfig
from magicbert.config.sections import RunSection
from magicbert.errors import ConfigError
from magicbert.records import write_record
from magicbert.stages.quickstart import CHAIN, is_finished, read_chain


def write(folder: Path, **texts: str) -> Path:
    for verb in CHAIN:
        (folder / f"{verb}.yaml").write_text(texts.get(verb, ""))
    return folder


def chain_of(folder: Path) -> list[tuple[str, str]]:
    run = RunSection(root=str(folder / "runs"), name="several")
    chain = read_chain(QuickstartConfig(configs=str(folder), run=run))
    assert all(config.run.name == "several" for _, config in chain)
    return [(verb, config.run.label) for verb, config in chain]


def test_a_plain_folder_is_the_chain_itself(tmp_path):
    assert chain_of(write(tmp_path)) == [(verb, "") for verb in CHAIN]


def test_the_analysis_can_be_left_out(tmp_path):
    write(tmp_path)
    (tmp_path / "analyze.yaml").unlink()
    assert chain_of(tmp_path) == [(verb, "") for verb in CHAIN if verb != "analyze"]


def test_each_labelled_retraining_is_exported_and_fine_tuned(tmp_path):
    write(tmp_path)
    (tmp_path / "retrain.yaml").unlink()
    for label, architecture in (("b", "ffn-ffn"), ("a", "best")):
        (tmp_path / f"retrain-{label}.yaml").write_text(f"architecture: {architecture}\n")
    (tmp_path / "finetune-b.yaml").write_text("finetune: {batch_size: 7}\n")
    stages = chain_of(tmp_path)
    several = [(verb, label) for verb in ("retrain", "export", "finetune") for label in "ab"]
    first = [(verb, "") for verb in ("prepare", "pretrain", "analyze", "search")]
    assert stages == [*first, *several, ("report", "")]
    configs = {
        (verb, config.run.label): config
        for verb, config in read_chain(QuickstartConfig(configs=str(tmp_path)))
    }
    assert configs["retrain", "b"].architecture == "ffn-ffn"
    assert configs["finetune", "b"].finetune.batch_size == 7
    assert configs["finetune", "a"].finetune.batch_size == 32


def test_a_mistake_in_a_shared_file_is_told_once(tmp_path):
    write(tmp_path, export="licence: mit\n")
    (tmp_path / "retrain-a.yaml").write_text("")
    (tmp_path / "retrain-b.yaml").write_text("")
    with pytest.raises(ConfigError) as caught:
        chain_of(tmp_path)
    (problem,) = caught.value.problems
    assert problem.startswith("export.yaml: licence: unknown option, did you mean 'license'")


@pytest.mark.parametrize(("finished", "label"), [(True, ""), (False, ""), (False, "b")])
def test_a_stage_stopped_by_its_time_limit_is_not_finished(tmp_path, finished, label):
    run = RunSection(root=str(tmp_path), name="timed", label=label)
    folder = tmp_path / "timed" / (f"retrain-{label}" if label else "retrain")
    write_record(folder / "result.json", "magicbert/training-result/1", {"finished": finished})
    assert is_finished("retrain", run) is finished


def test_stages_without_a_time_limit_are_finished_once_they_return(tmp_path):
    run = RunSection(root=str(tmp_path), name="timed", label="b")
    write_record(tmp_path / "timed/prepare/manifest.json", "magicbert/prepare/1", {"length": 8})
    assert is_finished("prepare", run)
    assert is_finished("export", run)
