"""SIGTERM outside training: one line, code 75, clean-up as after an interrupt."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

CODE = """
import os, signal, sys, types
from magicbert import cli
stage = types.ModuleType("stage")
def run(config):
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()
    finally:
        print("cleaned up", flush=True)
stage.run = run
sys.modules["magicbert.stages.report"] = stage
cli.main(["report"])
"""


def test_sigterm_stops_a_stage_cleanly() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 75
    assert done.stdout == "cleaned up\n"
    assert done.stderr == "magicbert: stopped; give the same command again to go on\n"


def test_the_former_handler_comes_back(capsys: pytest.CaptureFixture[str]) -> None:
    from magicbert import cli

    before = signal.getsignal(signal.SIGTERM)
    cli.main(["--version"])
    assert signal.getsignal(signal.SIGTERM) is before
    assert capsys.readouterr().out
