"""Token shards: flat little-endian ids, documents separated by `<|endoftext|>`, an index of documents beside each.

`shard-NNNNN.bin` is uint16, or uint32 where the vocabulary is past 65,536. `shard-NNNNN.parquet` has a row per
document: id, host, first token, length (without the separator), bytes of its text.
"""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from webtochat.errors import UserError

INDEX = pa.schema([
    ("id", pa.string()), ("host", pa.string()), ("first", pa.int64()), ("length", pa.int64()), ("bytes", pa.int64()),
])  # fmt: skip


def dtype_of(vocabulary: int) -> np.dtype:
    return np.dtype("<u2") if vocabulary <= 1 << 16 else np.dtype("<u4")


def windows_in(tokens: int, sequence_length: int) -> int:
    """Whole windows in a shard."""
    return max(0, (tokens - 1) // sequence_length)


@dataclass
class Document:
    id: str
    host: str
    tokens: np.ndarray
    bytes: int


class Split:
    """The shards of one split, memory-mapped as one stream cut into windows of `sequence_length` + 1 tokens.

    Windows overlap by one token, so each position is a target once. A shard's last, incomplete window is left out.
    Where a window lies follows from the shards' sizes, so their index costs a number per shard.
    """

    def __init__(self, directory: str, sequence_length: int, vocabulary: int):
        self.sequence_length = sequence_length
        paths = sorted(glob.glob(os.path.join(directory, "shard-*.bin")))
        if not paths:
            raise UserError(f"no token shards in {directory}")
        self._shards = [np.memmap(path, dtype_of(vocabulary), mode="r") for path in paths if os.path.getsize(path)]
        tables = [pq.read_table(path[:-4] + ".parquet") for path in paths]
        self._documents = [table for table, path in zip(tables, paths, strict=True) if os.path.getsize(path)]
        self.index = pa.concat_tables(tables)
        counts = [windows_in(len(shard), sequence_length) for shard in self._shards]
        self._first = np.concatenate([[0], np.cumsum(counts)])
        self.tokens = sum(len(shard) for shard in self._shards)
        self.bytes = int(np.sum(self.index["bytes"].to_numpy())) if len(self.index) else 0

    def __len__(self) -> int:
        return int(self._first[-1])

    def stream(self, number: int) -> np.ndarray:
        """Window `number`: T + 1 tokens, int64."""
        shard, start = self._place(number)
        return self._shards[shard][start : start + self.sequence_length + 1].astype(np.int64)

    def sources(self, number: int) -> list[str]:
        """Ids of the documents that window `number` has tokens of."""
        shard, start = self._place(number)
        first = self._documents[shard]["first"].to_numpy()
        inside = (first <= start + self.sequence_length) & (first + self._documents[shard]["length"].to_numpy() > start)
        return self._documents[shard]["id"].filter(pa.array(inside)).to_pylist()

    def _place(self, number: int) -> tuple[int, int]:
        """Its shard, and where it begins there."""
        shard = int(np.searchsorted(self._first, number, side="right")) - 1
        return shard, (number - int(self._first[shard])) * self.sequence_length

    def documents(self) -> list[Document]:
        """Every document's tokens. For held-out splits: reads all of it."""
        found: list[Document] = []
        shard_of = iter(self._shards)
        shard = next(shard_of, None)
        for row in self.index.to_pylist():
            if row["first"] == 1 and found:
                shard = next(shard_of)
            assert shard is not None
            tokens = shard[row["first"] : row["first"] + row["length"]].astype(np.int64)
            found.append(Document(row["id"], row["host"], tokens, row["bytes"]))
        return found


def pretraining_window(split: Split, separator: int, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens [T+1], document numbers [T+1] (the separator begins the document that follows it), weights [T] all 1."""
    tokens = split.stream(number)
    return tokens, np.cumsum(tokens == separator), np.ones(len(tokens) - 1, np.float32)


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
