"""Parquet to JSON lines, in the confined child process; JSON lines to Parquet, in ours.

arro3 is Rust and reads and writes both; a damaged file makes it panic, which ends the child.
"""

from io import BytesIO
from typing import IO

import arro3.io
from arro3.core import DataType, Field, Schema

from kb.extraction.limits import Limits
from kb.extraction.unreadable import Unreadable

BATCH_ROWS = 1_000


def to_lines(file: IO[bytes], *, limits: Limits, most_rows: int) -> bytes:
    """Give the rows as JSON lines, at most about `most_rows`; 0 is all."""
    lines, rows = BytesIO(), 0
    for batch in arro3.io.read_parquet(file, batch_size=BATCH_ROWS):
        arro3.io.write_ndjson(batch, lines, explicit_nulls=True)
        rows += batch.num_rows
        if lines.tell() > limits.output_bytes - limits.output_bytes // 64:
            raise Unreadable(
                "too_large",
                size="unpacked it holds more text than can be imported at once",
                limit=f"{limits.output_bytes >> 20} MB",
                advice="Split it into smaller files",
            )
        if most_rows and rows >= most_rows:
            break
    return lines.getvalue()


def from_lines(lines: IO[bytes], target: IO[bytes], columns: dict[str, str]) -> None:
    """Write JSON lines as Parquet. `columns`: "text", "texts" or "turns" by name."""
    text = DataType.string()
    turn = DataType.struct([Field("role", text), Field("content", text)])
    types = {
        "text": text,
        "texts": DataType.list(Field("item", text)),
        "turns": DataType.list(Field("item", turn)),
    }
    schema = Schema([Field(name, types[kind]) for name, kind in columns.items()])
    rows = arro3.io.read_json(lines, schema, batch_size=BATCH_ROWS)
    arro3.io.write_parquet(rows, target, compression="zstd(3)", max_row_group_size=50_000)
