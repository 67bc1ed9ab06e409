"""Signature files: of each document of a part, its row, the hash of its text and its MinHash buckets; and the tables in
which documents with something in common meet.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from webtochat import storage

SCHEMA = pa.schema(
    {"row": pa.int32(), "text_hash": pa.binary(16), "bytes": pa.int64(), "buckets": pa.list_(pa.uint64())}
    | {"evaluation_set": pa.string(), "runs": pa.int64()}
)
"""A document that shares `runs` with an evaluation set goes for that: it has no hash and no buckets."""
MEETINGS = pa.schema([("exact", pa.bool_()), ("first", pa.uint64()), ("second", pa.uint64()), ("document", pa.int64())])
"""A document in a group: of all with the same text (`first` and `second` are its hash), or of all in a bucket
(`first`; `second` is 0)."""


def write(path: str, rows: list[dict[str, Any]]) -> None:
    with storage.writing(path) as local:
        pq.write_table(pa.Table.from_pylist(rows, SCHEMA), local, compression="zstd")


def read(path: str, columns: list[str] | None = None) -> pa.Table:
    with storage.open_input_file(path) as source:
        return pq.read_table(source, columns=columns)


def key(part: int, row: np.ndarray) -> np.ndarray:
    """A document's number in the order of parts and rows: of several, the smallest is the one that stays."""
    return (np.int64(part) << np.int64(32)) | row.astype(np.int64)


def part_and_row(keys: Any) -> tuple[Any, Any]:
    """Of one key, or an array of them."""
    return keys >> 32, keys & 0xFFFFFFFF


def meetings_in(path: str) -> int:
    """About how many rows `meetings` has, by the file's metadata alone."""
    with storage.open_input_file(path) as source:
        told = pq.ParquetFile(source).metadata
    groups = [told.row_group(number) for number in range(told.num_row_groups)]
    columns = [group.column(number) for group in groups for number in range(group.num_columns)]
    return told.num_rows + sum(column.num_values for column in columns if column.path_in_schema.startswith("buckets"))


def meetings(path: str, part: int, exact: bool, near: bool) -> pa.Table:
    """Every group that the documents of a signature file are in."""
    table = read(path, ["row", "text_hash", "buckets"])
    table = table.filter(table["text_hash"].is_valid())
    documents = key(part, table["row"].to_numpy())
    found = [(np.empty(0, bool), np.empty(0, np.uint64), np.empty(0, np.uint64), np.empty(0, np.int64))]
    if exact and len(table):
        halves = np.frombuffer(b"".join(table["text_hash"].to_pylist()), "<u8").reshape(-1, 2)
        found.append((np.ones(len(halves), bool), halves[:, 0], halves[:, 1], documents))
    if near and len(table):
        lists = table["buckets"].combine_chunks()
        counts = lists.value_lengths().to_numpy()
        numbers = lists.flatten().to_numpy()
        zeros = np.zeros(len(numbers), np.uint64)
        found.append((np.zeros(len(numbers), bool), numbers, zeros, np.repeat(documents, counts)))
    arrays = [np.concatenate(each) for each in zip(*found, strict=True)]
    return pa.table(dict(zip(MEETINGS.names, arrays, strict=True)), schema=MEETINGS)
