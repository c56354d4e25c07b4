"""A block's table: its best paths of each bin, with what they cost and how well they do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from magicbert.errors import UserError
from magicbert.records import read_record, write_record
from magicbert.space import Architecture

SCHEMA = "magicbert/block-table/1"
FILE = "table.json"


@dataclass(frozen=True)
class BlockRow:
    """One path of a block.

    Attributes:
        path: width and operators, as the block's supernet knows it.
        operators: the same as operators of an encoder, without identities.
        parameters: of these operators; maps at the block's borders left out.
        flops: of one row, forward.
        loss: dev loss of the block against the teacher.
        bin: of size and latency, 0..B-1.
        latency_ns: of these operators, where the block's training measured it; else 0.
    """

    path: Architecture
    operators: tuple[str, ...]
    parameters: int
    flops: float
    loss: float
    bin: int
    latency_ns: int = 0


@dataclass(frozen=True)
class BlockTable:
    """The rows of one block, in the order of bins, best first."""

    rows: tuple[BlockRow, ...]

    def write(self, folder: Path, origin: Mapping[str, Any], steps: int) -> None:
        """Writes the table into the block's folder.

        Args:
            folder: of the block.
            origin: digests of what it was made from.
            steps: optimizer steps of the block.
        """
        rows = [{**asdict(row), "path": str(row.path)} for row in self.rows]
        for row in rows:
            if not row["latency_ns"]:
                del row["latency_ns"]
        write_record(folder / FILE, SCHEMA, {"origin": origin, "steps": steps, "rows": rows})

    @classmethod
    def read(cls, folder: Path) -> tuple[BlockTable, dict[str, Any]]:
        """Returns the table of a block and the digests that it was made from.

        Raises:
            UserError: the block is not finished, or the file is damaged.
        """
        if not (folder / FILE).is_file():
            raise UserError(
                f"{folder}: this block is not trained to its end; run `magicbert compress supernet`"
            )
        record = read_record(folder / FILE, SCHEMA)
        rows = (
            BlockRow(
                path=Architecture.parse(row["path"]),
                operators=tuple(row["operators"]),
                parameters=int(row["parameters"]),
                flops=float(row["flops"]),
                loss=float(row["loss"]),
                bin=int(row["bin"]),
                latency_ns=int(row.get("latency_ns", 0)),
            )
            for row in record["rows"]
        )
        return cls(tuple(rows)), record["origin"]
