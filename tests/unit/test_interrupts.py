"""Ctrl-C while other processes are still importing: one line, one exit code, no traceback.

A terminal sends SIGINT to the whole process group, so these tests do.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

# A worker imports this file before anything else, and is met while it does.
SCRIPT = """
import sys, time, types
from pathlib import Path
if __name__ == "__mp_main__":
    Path("importing").touch()
    time.sleep(1)

def open_work(number):
    return lambda unit, stop: None

def study(config):
    from magicbert.study.workers import Crew
    Crew(open_work, (), 2, lambda: False).do(["one", "two"], lambda unit, row: None)

def prepare(config):
    from magicbert.data.workers import map_in_order
    list(map_in_order(time.sleep, [0.5] * 8, num_workers=2))

if __name__ == "__main__":
    import signal
    from magicbert import cli
    # What runs in the background of a shell inherits that it ignores Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    stage = types.ModuleType("stage")
    stage.run = globals()[sys.argv[1]]
    sys.modules["magicbert.stages.report"] = stage
    cli.main(["report"])
"""
LAUNCHED = "import time; from pathlib import Path; Path('importing').touch(); time.sleep(600)"
LAUNCHER = f"""
import sys
from pathlib import Path
from magicbert import cli
from magicbert.config.roots import PretrainConfig
from magicbert.training.starting.launching import start_launcher

command = [sys.executable, "-c", {LAUNCHED!r}]
start_launcher("pretrain", PretrainConfig(), Path("stage"), command, 2)
"""


def interrupt(folder: Path, *command: str) -> tuple[int, str]:
    """Runs a command, sends SIGINT to all its processes once one imports; its code and errors."""
    with subprocess.Popen(
        [sys.executable, *command], cwd=folder, text=True, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, start_new_session=True,
    ) as process:  # fmt: skip
        try:
            deadline = time.monotonic() + 240
            while not (folder / "importing").exists() and time.monotonic() < deadline:
                assert process.poll() is None, process.communicate()[1]
                time.sleep(0.02)
            os.killpg(process.pid, signal.SIGINT)
            _, errors = process.communicate(timeout=240)
        finally:
            process.kill()
    return process.returncode, errors


@pytest.mark.parametrize("kind", [pytest.param("study", marks=pytest.mark.slow), "prepare"])
def test_workers_say_nothing(kind: str, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    assert interrupt(tmp_path, "script.py", kind) == (130, "magicbert: interrupted\n")


def test_the_ranks_of_a_launcher_say_nothing(tmp_path: Path) -> None:
    (tmp_path / "launcher.py").write_text(LAUNCHER)
    code, errors = interrupt(tmp_path, "launcher.py")
    assert code == 75
    assert errors == "magicbert: stopped before the ranks had begun; give the same command again\n"
