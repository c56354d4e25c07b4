"""docs/scale.md holds what the plans say, and nothing was edited by hand."""

from __future__ import annotations

from pathlib import Path

from page_scripts import run_script

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "scale.md"
SCRIPT = "benchmarks/scale_page.py"


def test_page_and_plans_are_equal():
    before = PAGE.read_text(encoding="utf-8")
    try:
        assert run_script(SCRIPT).returncode == 0
        assert PAGE.read_text(encoding="utf-8") == before
    finally:
        PAGE.write_text(before, encoding="utf-8")
    for folder in ("base", "base-rtd", "compressed"):
        for file in (ROOT / "configs" / folder).glob("*.yaml"):
            if not file.stem.startswith(("pretrain", "retrain", "compress")):
                continue
            assert f"`{file.relative_to(ROOT)}`" in before
