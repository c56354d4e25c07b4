"""What the rows of a study say, beside the rows: result for the report, table, plots."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from magicbert.ranking.study_result import study_result
from magicbert.ranking.table import Table
from magicbert.ranking.tables import tables
from magicbert.records import write_record, write_text_atomically
from magicbert.report.plots import standing_alone
from magicbert.report.ranking_pictures import pictures
from magicbert.report.reading import RESULTS
from magicbert.stages.tables import show_table
from magicbert.study.rows import Row

LOGGER = logging.getLogger("magicbert")
RESULT, SCHEMA = RESULTS["analyze"]
TABLE = "tabular.csv"


def publish(folder: Path, rows: Sequence[Row]) -> None:
    """Writes ``result.json``, ``tabular.csv`` and a picture per plot, and prints the tables.

    An unfinished study has a result too, which names what is missing; one in which nothing was
    trained alone has none.

    Args:
        folder: of the stage.
        rows: that are there.
    """
    if not any(row["kind"] == "alone" for row in rows):
        return
    result = study_result(rows)
    write_record(folder / RESULT, SCHEMA, {"target": "ranking", **result})
    Table.from_rows(rows).write(folder / TABLE)
    for picture in pictures(result):
        write_text_atomically(folder / f"{picture.name}.svg", standing_alone(picture.svg))
    for table in tables(result):
        show_table(table.head, table.rows, table.title)
    for finding in result["findings"]:
        LOGGER.info("%s: %s. %s", finding["verdict"], finding["topic"], finding["text"])
    for gap in result["missing"]:
        LOGGER.info("not in the rows: %s", gap)
    LOGGER.info("result: %s, table: %s", folder / RESULT, folder / TABLE)
