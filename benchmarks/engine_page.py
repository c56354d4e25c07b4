"""Renews the table of docs/benchmarks.md from the record of ``magicbert bench engine``.

    python benchmarks/engine_page.py

The words around the part between the two ``generated`` comments are written by hand; no figure is.
"""

from __future__ import annotations

from pathlib import Path

from results_page import renew_page

from magicbert.bench.engine.record import SCHEMA
from magicbert.bench.engine.table import markdown
from magicbert.records import read_record

ROOT = Path(__file__).parents[1]
RECORD = ROOT / "benchmarks" / "results" / "engine.json"
PAGE = ROOT / "docs" / "benchmarks.md"


if __name__ == "__main__":
    renew_page(PAGE, markdown(read_record(RECORD, SCHEMA)))
