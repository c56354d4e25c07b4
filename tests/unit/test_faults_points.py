"""The fault points: nothing without rules, one firing per rule, every firing written down."""

from __future__ import annotations

from pathlib import Path

import pytest

from magicbert import faults


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "faults.log"
    monkeypatch.setenv(faults.LOG_VARIABLE, str(file))
    return file


def use(monkeypatch: pytest.MonkeyPatch, *texts: str) -> None:
    monkeypatch.setattr(faults, "RULES", [faults.Rule.parse(text) for text in texts])


def test_without_rules_nothing_happens(log: Path) -> None:
    assert faults.RULES == []
    faults.fault("save.shard.write", step=1)
    assert not log.exists()


def test_a_rule_strikes_once_where_its_conditions_hold(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, "save.shard.write=ENOSPC@step:2,hit:2")
    faults.fault("save.shard.write", step=1)
    faults.fault("save.shard.write", step=2)
    faults.fault("save.manifest.write", step=2)
    with pytest.raises(OSError, match="No space left on device"):
        faults.fault("save.shard.write", step=2)
    faults.fault("save.shard.write", step=2)
    assert len(log.read_text().splitlines()) == 1
    assert "save.shard.write ENOSPC" in log.read_text()


def test_the_rank_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, "loop.step=raise@rank:1")
    monkeypatch.setenv("RANK", "0")
    faults.fault("loop.step")
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(faults.InjectedError):
        faults.fault("loop.step")


def test_an_unknown_action_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, "loop.step=explode")
    with pytest.raises(ValueError, match="explode"):
        faults.fault("loop.step")
