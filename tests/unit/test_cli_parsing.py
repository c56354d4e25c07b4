"""The command line: parsing, exit codes, and messages without a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from magicbert import __version__, cli
from magicbert.cli import parse
from magicbert.errors import UserError

ROOT = Path(__file__).parents[2]


def magicbert(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'kernels'}"}
    return subprocess.run(
        [sys.executable, "-m", "magicbert", *arguments],
        cwd=cwd, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_options_with_space_and_equals_sign():
    request = parse(["search", "--config", "a.yaml", "--search.seed=3", "--run.name", "x"])
    assert request is not None
    assert (request.verb, request.file) == ("search", "a.yaml")
    assert request.overrides == {"search.seed": "3", "run.name": "x"}


@pytest.mark.parametrize("value", ["-5", "-1e-3", "-.5"])
def test_negative_numbers_are_values(value):
    for words in (["--search.seed", value], [f"--search.seed={value}"]):
        request = parse(["search", *words])
        assert request is not None
        assert request.overrides == {"search.seed": value}


def test_equals_sign_inside_a_value():
    request = parse(["export", "--license=a=b"])
    assert request is not None
    assert request.overrides == {"license": "a=b"}


def test_launcher_option_ahead_of_the_verb():
    request = parse(["--local_rank=1", "pretrain", "--training.seed", "3"])
    assert request is not None
    assert request.overrides == {"training.seed": "3"}


@pytest.mark.parametrize(
    ("words", "tasks"),
    [
        (["--task", "cola"], "[cola]"),
        (["--task=cola"], "[cola]"),
        (["--task", "cola,rte"], "[cola,rte]"),
        (["--task", "[cola, rte]"], "[cola, rte]"),
        (["--task", "cola", "--task", "rte"], "[cola, rte]"),
    ],
)
def test_task_shorthand(words, tasks):
    request = parse(["finetune", *words])
    assert request is not None
    assert request.overrides == {"finetune.tasks": tasks}


def test_the_last_of_two_equal_options_wins():
    request = parse(["search", "--search.seed", "1", "--search.seed", "2", "--print_config"])
    assert request is not None
    assert request.overrides == {"search.seed": "2"}
    assert request.print_config


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["pretran"], "unknown verb 'pretran', did you mean 'pretrain'"),
        (["zzz"], "one of: prepare, pretrain"),
        (["search", "--search.seed"], "--search.seed needs a value"),
        (["search", "--search.seed", "--run.name", "x"], "--search.seed needs a value"),
        (["search", "--config"], "--config needs a value"),
        (["search", "file.yaml"], "unexpected 'file.yaml'"),
        (["search", "-x"], "unexpected '-x'"),
    ],
)
def test_mistakes_are_named(words, message):
    with pytest.raises(UserError, match=message):
        parse(words)


def test_no_words_and_help_show_the_verbs(capsys):
    for words in ([], ["--help"], ["-h"]):
        cli.main(words)
        shown = capsys.readouterr().out
        assert all(f"  {verb} " in shown for verb in cli.VERBS)
    cli.main(["--version"])
    assert capsys.readouterr().out.strip() == __version__


@pytest.mark.parametrize("verb", cli.VERBS)
def test_help_lists_every_option_of_a_verb(verb, capsys):
    cli.main([verb, "--help"])
    shown = capsys.readouterr().out
    cli.main([verb, "--print_config"])
    tree = yaml.safe_load(capsys.readouterr().out) or {}

    def paths(value: object, path: str) -> list[str]:
        if not isinstance(value, dict):
            return [path]
        return [leaf for name, inner in value.items() for leaf in paths(inner, f"{path}.{name}")]

    assert all(f"--{path[1:]} " in shown for path in paths(tree, "") if path)


def test_config_errors_exit_with_2_and_without_a_traceback(tmp_path):
    (tmp_path / "bad.yaml").write_text("training: {seeed: 1, num_steps: 1.5}\nrun: {name: a/b}\n")
    done = magicbert("pretrain", "--config", "bad.yaml", "--launch.num_ranks", "-1", cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr + done.stdout
    assert done.stderr.startswith("magicbert: bad.yaml: 4 problems")
    for path in ("training.seeed", "training.num_steps", "run.name", "launch.num_ranks"):
        assert f"  - {path}: " in done.stderr
    assert [entry.name for entry in tmp_path.iterdir()] == ["bad.yaml"], "something was written"


def test_print_config_checks_like_a_run_and_prints_nothing_when_wrong(tmp_path):
    done = magicbert("search", "--print_config", "--search.num_results", "0", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "search.num_results: must be in [1, 1e6], got 0 (int)" in done.stderr


def test_what_the_machine_refuses_is_a_message(tmp_path):
    """A file stands where the runs should go."""
    (tmp_path / "runs").write_text("in the way")
    done = magicbert("prepare", "--run.name", "x", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "runs" in done.stderr


def test_programs_of_the_environment_come_first_without_activation(monkeypatch):
    """Another ninja on the path would make DeepSpeed build its operator again."""
    own = str(Path(sys.executable).parent)
    for before in ("/usr/bin:/bin", f"/usr/bin:{own}:/bin", f"{own}:/usr/bin:/bin"):
        monkeypatch.setenv("PATH", before)
        cli.main(["--version"])
        assert os.environ["PATH"] == f"{own}:/usr/bin:/bin"


def test_a_reader_that_goes_away_is_no_error(tmp_path):
    program = "import sys; sys.argv = ['magicbert', 'pretrain', '--help']\n"
    program += "from magicbert.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert "Traceback" not in process.stderr.read()
    assert process.wait() == 0
