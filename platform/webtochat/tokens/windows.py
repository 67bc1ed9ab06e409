"""Which positions of a shard make which window, and the index that says so.

A position is a place in a shard's stream of tokens, and its target is the token that follows there, in whatever window
it stands: so a document's first token is predicted from the separator before it, and its last one predicts the
separator after it. A window is T positions, in spans (first position, length). A shard of N tokens has N - 1 positions.

`stream` cuts the positions every T: nothing is padded, and documents are cut anywhere. `best-fit` (Ding et al. 2024,
"Fewer Truncations Improve Language Modeling") cuts only documents that are longer than a window, and packs what is
left of them and the short ones whole.

The index, `shard-NNNNN.windows.arrow`, has a row per window. It is an Arrow file, not Parquet, so that it is mapped and
not read: a window costs a look at its own rows, and what was looked at is shared by the workers of a node.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa

SPAN = pa.struct([("first", pa.int64()), ("length", pa.int32())])
WINDOWS = pa.schema([("spans", pa.list_(SPAN))])


class Window(NamedTuple):
    """T positions."""

    tokens: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    """float32 [T]; 0 where a position bears no loss."""
    documents: np.ndarray
    """Number of the document within the window; attention does not cross."""


@dataclass(frozen=True)
class Index:
    """The windows of one shard: those of window n are the spans from `begin[n]` to `begin[n + 1]`."""

    sequence_length: int
    tokens: int
    """Of the shard."""
    begin: np.ndarray
    """int32 [windows + 1]."""
    first: np.ndarray
    """int64 [spans]."""
    length: np.ndarray
    """int32 [spans]."""

    def __len__(self) -> int:
        return len(self.begin) - 1

    def spans(self, number: int) -> list[tuple[int, int]]:
        """(first position, length) of each span of a window."""
        mine = slice(self.begin[number], self.begin[number + 1])
        return list(zip(self.first[mine].tolist(), self.length[mine].tolist(), strict=True))

    @property
    def cropped(self) -> int:
        """Positions that are in no window."""
        return max(0, self.tokens - 1) - self.used

    @property
    def padding(self) -> int:
        """Positions of the windows that stay empty."""
        return len(self) * self.sequence_length - self.used

    @property
    def used(self) -> int:
        return int(self.length.sum(dtype=np.int64))


def stream(lengths: np.ndarray, sequence_length: int) -> Index:
    """Windows cut from one document into the next. `lengths` of the documents, without separators."""
    total = int(lengths.sum()) + len(lengths)
    first = np.arange(max(0, total - 1) // sequence_length, dtype=np.int64) * sequence_length
    each = np.full(len(first), sequence_length, np.int32)
    return Index(sequence_length, total, np.arange(len(first) + 1, dtype=np.int32), first, each)


def best_fit(lengths: np.ndarray, sequence_length: int) -> Index:
    """Windows of whole documents; of those longer than one, full windows first and what is left of them packed."""
    sizes = lengths.astype(np.int64) + 1  # the separator before each
    total = int(sizes.sum())
    starts = np.cumsum(sizes) - sizes
    if len(sizes):
        sizes[-1] -= 1  # a shard's last token is followed by nothing
    whole, left = np.divmod(sizes, sequence_length)
    numbers = np.arange(whole.sum()) - np.repeat(np.cumsum(whole) - whole, whole)
    full = np.repeat(starts, whole) + numbers * sequence_length
    starts, left = (starts + whole * sequence_length)[left > 0], left[left > 0]
    order, begin = fitted(left, sequence_length)
    return Index(
        sequence_length, total,
        np.concatenate([np.arange(len(full)), len(full) + begin]).astype(np.int32),
        np.concatenate([full, starts[order]]),
        np.concatenate([np.full(len(full), sequence_length), left[order]]).astype(np.int32),
    )  # fmt: skip


PACKINGS: dict[str, Callable[[np.ndarray, int], Index]] = {"stream": stream, "best-fit": best_fit}


def fitted(lengths: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Pieces of 1 to `size` tokens in windows of `size`: the longest first, each where the least room is left that
    takes it. Returns the pieces by window, and where each window begins among them (one more than there are windows).
    """
    room: list[list[int]] = [[] for _ in range(size + 1)]
    """Windows, by the tokens that they still take."""
    some = 0  # bit n: room[n] has a window. The lowest bit from a length on is then one look, however large the window
    window_of = np.empty(len(lengths), np.int64)
    opened = 0
    longest = np.argsort(-lengths, kind="stable")
    for piece, length in zip(longest.tolist(), lengths[longest].tolist(), strict=True):
        fitting = some >> length
        if fitting:
            left = length + (fitting & -fitting).bit_length() - 1
            window = room[left].pop()
            if not room[left]:
                some ^= 1 << left
        else:
            left, window = size, opened
            opened += 1
        window_of[piece] = window
        left -= length
        if left:
            room[left].append(window)
            some |= 1 << left
    counts = np.bincount(window_of, minlength=opened)
    return np.argsort(window_of, kind="stable"), np.concatenate([[0], np.cumsum(counts)])


def write_index(path: str, index: Index) -> None:
    spans = pa.StructArray.from_arrays([pa.array(index.first), pa.array(index.length)], fields=list(SPAN))
    known = {"sequence_length": str(index.sequence_length), "tokens": str(index.tokens)}
    column = pa.ListArray.from_arrays(pa.array(index.begin), spans)
    batch = pa.record_batch([column], schema=WINDOWS.with_metadata(known))
    with pa.OSFile(path, "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)


def read_index(path: str) -> Index:
    """Mapped, not read. Raises OSError or ArrowInvalid for what is no index."""
    with pa.memory_map(path) as source, pa.ipc.open_file(source) as reader:
        column, known = reader.get_batch(0).column(0), reader.schema.metadata
    spans = column.values
    return Index(
        int(known[b"sequence_length"]), int(known[b"tokens"]), column.offsets.to_numpy(),
        spans.field("first").to_numpy(), spans.field("length").to_numpy(),
    )  # fmt: skip
