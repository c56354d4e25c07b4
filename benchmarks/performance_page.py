"""Renews the tables of docs/performance.md from the records in ``benchmarks/results``.

    python benchmarks/performance_page.py

The words around the part between the two ``generated`` comments are written by hand; no figure is.
"""

from __future__ import annotations

from pathlib import Path

from results_page import renew_page

from magicbert.bench.performance_page import generated

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "performance.md"


if __name__ == "__main__":
    renew_page(PAGE, generated(ROOT / "benchmarks" / "results"))
