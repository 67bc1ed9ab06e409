"""Parquet files of pages: the measured parts, and the kept and removed documents. Their counts stand in their own
metadata, so that a run that goes on after a kill knows what the last one counted.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, unquote

import pyarrow as pa
import pyarrow.parquet as pq

from webtochat import storage
from webtochat.curate.page import SCHEMA

GROUP_ROWS, GROUP_BYTES = 1000, 32_000_000
"""A row group is written when it reaches either: bounds the memory of a worker."""
STOPPED = ("step", "reason", "value", "threshold")
REMOVED_SCHEMA = pa.schema([field for field in SCHEMA if not field.name.startswith("rewritten")])
KEPT_SCHEMA = pa.schema([field for field in REMOVED_SCHEMA if field.name not in STOPPED])
_COUNTS = b"webtochat"


def part_name(file_name: str) -> str:
    """Of a WARC file's part; no two files have the same."""
    return quote(file_name, safe="") + ".parquet"


def file_of(part: str) -> str:
    """The name of the file that a part was made from."""
    return unquote(part.rsplit("/", 1)[-1].removesuffix(".parquet"))


class RowGroups:
    """Rows on their way into a Parquet file, in groups that depend on the rows alone."""

    def __init__(self, writer: pq.ParquetWriter, schema: pa.Schema):
        self._writer = writer
        self._schema = schema
        self._pending: list[pa.Table] = []
        self._rows = self._bytes = 0

    def add(self, table: pa.Table) -> None:
        self._pending.append(table.select(self._schema.names).cast(self._schema))
        self._rows += len(table)
        self._bytes += table.nbytes
        if self._rows >= GROUP_ROWS or self._bytes >= GROUP_BYTES:
            self.flush()

    def flush(self) -> None:
        if self._rows:
            self._writer.write_table(pa.concat_tables(self._pending), row_group_size=self._rows)
        self._pending, self._rows, self._bytes = [], 0, 0


@contextmanager
def writing(path: str, schema: pa.Schema, counts: dict[str, Any]) -> Iterator[RowGroups]:
    """A file of pages that appears when it is whole, with `counts` as they are then."""
    with storage.writing(path) as local, pq.ParquetWriter(local, schema, compression="zstd") as writer:
        groups = RowGroups(writer, schema)
        yield groups
        groups.flush()
        writer.add_key_value_metadata({_COUNTS.decode(): json.dumps(counts, sort_keys=True)})


def counts_of(path: str) -> dict[str, Any]:
    with storage.open_input_file(path) as source:
        return json.loads(pq.ParquetFile(source).metadata.metadata[_COUNTS])


def write_part(path: str, rows: Iterable[dict[str, Any]], skipped: Counter[str]) -> None:
    """Writes measured rows. `skipped` counts records that are no rows, and is read when the rows have ended."""
    stopped: Counter[str] = Counter()
    own: Counter[str] = Counter()
    counts: dict[str, Any] = {"rows": 0, "stopped": stopped, "skipped": skipped, "own": own}
    with writing(path, SCHEMA, counts) as groups:
        pending: list[dict[str, Any]] = []
        size = 0
        for row in rows:
            counts["rows"] += 1
            if row.get("step"):
                stopped[f"{row['step']}.{row['reason']}"] += 1
            own.update((row.get("own") or {}).keys())
            pending.append(row)
            size += len(row.get("text") or "")
            if len(pending) >= 200 or size >= GROUP_BYTES // 4:
                groups.add(pa.Table.from_pylist(pending, SCHEMA))
                pending, size = [], 0
        groups.add(pa.Table.from_pylist(pending, SCHEMA))


def read_part(path: str) -> Iterator[pa.Table]:
    """A part's rows, a row group at a time."""
    with storage.open_input_file(path) as source:
        file = pq.ParquetFile(source)
        for group in range(file.num_row_groups):
            yield file.read_row_group(group)


def row_of_part(path: str, number: int, columns: list[str]) -> dict[str, Any]:
    """One row of a part."""
    with storage.open_input_file(path) as source:
        return pq.read_table(source, columns=columns).slice(number, 1).to_pylist()[0]
