"""Token shards: flat little-endian ids, documents separated by `<|endoftext|>`; beside each an index of its documents
and one of its windows.

`shard-NNNNN.bin` is uint16, or uint32 where the vocabulary is past 65,536. `shard-NNNNN.parquet` has a row per
document: id, host, first token, length (without the separator), bytes of its text. `shard-NNNNN.windows.arrow`:
windows.py.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from webtochat.errors import UserError
from webtochat.tokens.windows import PACKINGS, Index, Window, read_index, write_index

INDEX = pa.schema([
    ("id", pa.string()), ("host", pa.string()), ("first", pa.int64()), ("length", pa.int64()), ("bytes", pa.int64()),
])  # fmt: skip


def dtype_of(vocabulary: int) -> np.dtype:
    return np.dtype("<u2") if vocabulary <= 1 << 16 else np.dtype("<u4")


@dataclass
class Document:
    id: str
    host: str
    tokens: np.ndarray
    bytes: int


class Split:
    """The shards of one split, cut into windows of `sequence_length` positions by their indexes.

    Opening it costs a file's footer per shard: tokens and windows are memory-mapped, documents are read when they are
    asked for. Raises UserError where a file is missing or is not what the others say.
    """

    def __init__(self, directory: str, sequence_length: int, vocabulary: int):
        self.sequence_length = sequence_length
        paths = sorted(glob.glob(os.path.join(directory, "shard-*.bin")))
        if not paths:
            raise UserError(f"no token shards in {directory}")
        self.stems = [path[:-4] for path in paths if os.path.getsize(path)]
        """Paths of the shards, without their endings."""
        self._shards = [_mapped(stem + ".bin", dtype_of(vocabulary)) for stem in self.stems]
        self.tokens = sum(len(shard) for shard in self._shards)

    def __len__(self) -> int:
        """Windows."""
        return int(self._first[-1])

    def window(self, number: int, separator: int) -> Window:
        """A document begins with its separator, or where a span does. Positions that stay empty are separators that
        bear no loss: each is a document of its own, which attends to itself alone."""
        shard, spans = self.spans(number)
        tokens, targets = np.full((2, self.sequence_length), separator, np.int64)
        begins = np.zeros(self.sequence_length, bool)
        end = 0
        for first, length in spans:
            piece = self._shards[shard][first : first + length + 1]
            begins[end] = True
            tokens[end : end + length], targets[end : end + length] = piece[:-1], piece[1:]
            end += length
        weights = np.zeros(self.sequence_length, np.float32)
        weights[:end] = 1
        return Window(tokens, targets, weights, np.cumsum(begins | (tokens == separator)))

    def sources(self, number: int) -> list[str]:
        """Ids of the documents that window `number` has tokens of."""
        return [row["id"] for rows in self.documents_in(*self.spans(number)) for row in rows]

    def spans(self, number: int) -> tuple[int, list[tuple[int, int]]]:
        """A window's shard, and (first position, length) of its spans there."""
        shard, inside = within(self._first, number)
        return shard, self._windows[shard].spans(inside)

    def token(self, number: int) -> tuple[int, list[tuple[int, int]]]:
        """Likewise for one token."""
        shard, place = within(numbered([len(each) for each in self._shards]), number)
        return shard, [(place, 1)]

    def document(self, number: int) -> tuple[int, list[tuple[int, int]]]:
        """Likewise for one document, with its separator."""
        shard, inside = within(numbered(self.counts()), number)
        [row] = self._table(shard).slice(inside, 1).to_pylist()
        return shard, [(row["first"] - 1, row["length"] + 1)]

    def documents_in(self, shard: int, spans: list[tuple[int, int]]) -> list[list[dict[str, Any]]]:
        """For each span, the documents that have tokens there or as its targets: their rows in the shard's index, and
        their `number` there."""
        table = self._table(shard)
        begin, end = table["first"].to_numpy(), table["first"].to_numpy() + table["length"].to_numpy()
        table = table.append_column("number", pa.array(np.arange(len(table))))
        return [table.filter((begin <= first + length) & (end > first)).to_pylist() for first, length in spans]

    def counts(self) -> list[int]:
        """Documents of each shard: a file's footer each."""
        found = []
        for stem in self.stems:
            with _whole(stem + ".parquet"):
                found.append(pq.read_metadata(stem + ".parquet").num_rows)
        return found

    def tokens_of(self, shard: int, first: int, length: int) -> np.ndarray:
        return self._shards[shard][first : first + length].astype(np.int64)

    def documents(self) -> Iterator[Document]:
        """Every document, a shard at a time."""
        for shard in range(len(self.stems)):
            for row in self._table(shard).to_pylist():
                yield Document(row["id"], row["host"], self.tokens_of(shard, row["first"], row["length"]), row["bytes"])

    def _table(self, shard: int) -> pa.Table:
        with _whole(self.stems[shard] + ".parquet"):
            return pq.read_table(self.stems[shard] + ".parquet")

    @property
    def filled(self) -> float:
        """Share of the windows' positions that bear a loss."""
        return sum(index.used for index in self._windows) / max(1, len(self) * self.sequence_length)

    @cached_property
    def _windows(self) -> list[Index]:
        found = []
        for stem, shard in zip(self.stems, self._shards, strict=True):
            with _whole(stem + ".windows.arrow"):
                index = read_index(stem + ".windows.arrow")
            if index.sequence_length != self.sequence_length:
                raise UserError(
                    f"{stem}.windows.arrow has windows of {index.sequence_length:,} tokens, not of "
                    f"{self.sequence_length:,}: make it anew with --rebuild tokens, or set tokens.sequence_length"
                )
            if index.tokens != len(shard):
                raise UserError(
                    f"{stem}.bin holds {len(shard):,} tokens, not the {index.tokens:,} of its index: make it anew with "
                    "--rebuild tokens"
                )
            found.append(index)
        return found

    @cached_property
    def _first(self) -> np.ndarray:
        return numbered([len(index) for index in self._windows])


def _mapped(path: str, dtype: np.dtype) -> np.ndarray:
    with _whole(path), pa.memory_map(path) as source:  # which, unlike np.memmap, keeps no file open
        return np.frombuffer(source.read_buffer(), dtype)


def numbered(sizes: list[int]) -> np.ndarray:
    """Where the numbers of each part begin when all are numbered through, and where they end."""
    return np.cumsum([0, *sizes])


def within(begin: np.ndarray, number: int) -> tuple[int, int]:
    """In which of the parts that are numbered through a number is, and its place there."""
    part = int(np.searchsorted(begin, number, side="right")) - 1
    return part, number - int(begin[part])


@contextmanager
def _whole(path: str) -> Iterator[None]:
    """A file that cannot be read is told in one line."""
    try:
        yield
    except (OSError, ValueError) as error:  # Arrow's errors are ValueErrors
        raise UserError(f"{path} is missing or damaged: make it anew with --rebuild tokens") from error


def write_shard(stem: str, documents: list[Document], separator: int, vocabulary: int) -> int:
    """Writes `stem`.bin and `stem`.parquet (local paths); returns the number of tokens, separators included. Each
    document is preceded by a separator, so that its first token has something to be predicted from."""
    total = sum(len(document.tokens) + 1 for document in documents)
    flat = np.empty(total, dtype_of(vocabulary))
    rows, position = [], 0
    for document in documents:
        flat[position] = separator
        flat[position + 1 : position + 1 + len(document.tokens)] = document.tokens
        rows.append({
            "id": document.id, "host": document.host, "first": position + 1, "length": len(document.tokens),
            "bytes": document.bytes,
        })  # fmt: skip
        position += len(document.tokens) + 1
    flat.tofile(stem + ".bin")
    pq.write_table(pa.Table.from_pylist(rows, INDEX), stem + ".parquet", compression="zstd")
    return total


def write_windows(stem: str, documents: list[Document], packing: str, sequence_length: int) -> Index:
    """Writes `stem`.windows.arrow."""
    index = PACKINGS[packing](np.array([len(each.tokens) for each in documents], np.int64), sequence_length)
    write_index(stem + ".windows.arrow", index)
    return index
