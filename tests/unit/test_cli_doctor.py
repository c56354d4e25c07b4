"""doctor: what it finds, and that what is missing comes with the command that mends it."""

from __future__ import annotations

import importlib
import sys
from importlib import metadata

import pytest

from magicbert import cli
from magicbert.stages import doctor


@pytest.fixture
def fresh_apex(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "apex"]:
        monkeypatch.delitem(sys.modules, name)
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "apex"]:
        sys.modules.pop(name)
    importlib.invalidate_caches()


def test_every_line_of_this_machine_has_a_state(capsys):
    cli.main(["doctor"])
    lines = capsys.readouterr().out.splitlines()
    states = {line.split()[0] for line in lines}
    assert states <= {"ok", "optional"}, lines
    names = " ".join(lines)
    for name in ("Python", "torch", "deepspeed", "C++ compiler", "ninja", "kernels", "apex"):
        assert f" {name}: " in names


def test_a_version_outside_the_tested_range(monkeypatch):
    real = metadata.version
    monkeypatch.setattr(
        doctor.metadata, "version", lambda name: "4.57.1" if name == "transformers" else real(name)
    )
    findings = {finding.name: finding for finding in doctor.check_versions()}
    assert findings["transformers"].state == "missing"
    assert findings["transformers"].remedy == 'pip install "transformers>=5.17,<5.24"'
    assert findings["torch"].state == "ok", "a local build such as +cpu counts as its release"


def test_no_compiler_is_named_and_exits_with_2(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(doctor, "CHECKS", (doctor.check_building,))
    with pytest.raises(SystemExit) as caught:
        cli.main(["doctor"])
    assert caught.value.code == 2
    shown = capsys.readouterr()
    assert "missing   C++ compiler: none on the path; apt-get install g++" in shown.out
    assert "C++ compiler" in shown.err


def test_the_other_package_called_apex_is_told_apart(tmp_path, monkeypatch, fresh_apex):
    (tmp_path / "apex").mkdir()
    (tmp_path / "apex" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    (finding,) = doctor.check_apex()
    assert finding.state == "optional"
    assert "apex.optimizers.FusedLAMB" in finding.found
    assert "another package" in finding.found


def test_apex_counts_by_its_symbols(tmp_path, monkeypatch, fresh_apex):
    for symbol, module in doctor.APEX_SYMBOLS.items():
        folder = tmp_path.joinpath(*module.split("."))
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text(f"class {symbol}: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    (finding,) = doctor.check_apex()
    assert finding.state == "ok"


def test_a_package_that_fails_to_load_is_a_finding(tmp_path, monkeypatch):
    (tmp_path / "half_installed_thing.py").write_text("raise OSError('libcudart.so missing')\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert doctor.import_or_none("half_installed_thing") is None
    assert doctor.import_or_none("json") is not None


def test_data_folder(monkeypatch, tmp_path):
    for value, state in (("", "optional"), (str(tmp_path), "ok"), ("/no/such", "optional")):
        monkeypatch.setenv("MAGICBERT_DATA", value)
        (finding,) = doctor.check_data()
        assert finding.state == state
