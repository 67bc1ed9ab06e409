"""Byte-pair merges learned from counted pieces (Sennrich et al. 2016).

The most frequent pair of neighbouring tokens becomes a token, again and again; of equally frequent pairs the one with
the smaller ids. That is Hugging Face's rule, and its order of merges to the last one. All pieces lie behind one another
in one array, and a merge changes all the places of its pair at once, so that its cost follows what it changes.
"""

from __future__ import annotations

import heapq

import numpy as np
import pyarrow as pa

BITS = 24  # of an id in a pair's key, and so a vocabulary of 16 million
KEY = (1 << 2 * BITS) - 1
BOUNDARY, GONE = -1, -2
"""In place of a symbol: between two pieces; the right half of a merged pair."""


def learn(counts: pa.Table, alphabet: np.ndarray, wanted: int) -> list[tuple[int, int]]:
    """Up to `wanted` merges, in order: the pair of ids that becomes the id 256 + its place.

    counts: piece, count. alphabet[256]: the id of each byte.
    """
    symbols, weights = _laid_out(counts, alphabet)
    places = np.arange(len(symbols), dtype=np.int32)
    after, before = places + 1, places - 1
    starts = places[:-1][(symbols[:-1] >= 0) & (symbols[1:] >= 0)]
    totals: dict[int, int] = {}
    """Of each pair, how often it stands in the texts."""
    where: dict[int, np.ndarray] = {}
    """Of each pair, the places of its left symbol, in ascending order; some may hold another pair by now."""
    heap: list[int] = []
    """−count and key in one number. Counts may have fallen since: only new pairs rise, and those hold the new token."""

    def found(keys: np.ndarray, places: np.ndarray) -> None:
        for key, total, those in zip(*_grouped(keys, places, weights[places]), strict=True):
            totals[key], where[key] = total, those
            heap.append((-total << 2 * BITS) | key)

    found(symbols[starts].astype(np.int64) << BITS | symbols[starts + 1], starts)
    heapq.heapify(heap)
    merges: list[tuple[int, int]] = []
    while heap and len(merges) < wanted:
        entry = heapq.heappop(heap)
        key = entry & KEY
        total = totals[key]
        if total != -(entry >> 2 * BITS):
            if total > 0:
                heapq.heappush(heap, (-total << 2 * BITS) | key)
            continue
        left, right, token = key >> BITS, key & ((1 << BITS) - 1), 256 + len(merges)
        merges.append((left, right))
        first = where.pop(key)
        second = after[first]
        real = (symbols[first] == left) & (symbols[second] == right)
        first, second = first[real], second[real]
        if left == right and len(first) > 1:
            chosen = _every_other(first, second)
            first, second = first[chosen], second[chosen]
        symbols[first], symbols[second] = token, GONE
        behind, front = after[second], before[first]
        after[first], before[behind] = behind, first
        # GONE in front: the pair before this one was merged too, which has it as its neighbour behind.
        here = symbols[front] >= 0
        front = front[here]
        follows = symbols[behind]
        there = follows >= 0
        token_first = first[there]
        keys = np.concatenate([symbols[front] << BITS | token, token << BITS | follows[there]])
        places = np.concatenate([front, token_first])
        for new, gained, those in zip(*_grouped(keys, places, weights[places]), strict=True):
            # Each occurrence of a new pair was one of an old pair, whose token the new one stands for now.
            one, other = new >> BITS, new & ((1 << BITS) - 1)
            if other != token:
                old = right << BITS | other
            elif one != token:
                old = one << BITS | left
            else:
                old = right << BITS | left
            totals[old] -= gained
            totals[new], where[new] = gained, those
            heapq.heappush(heap, (-gained << 2 * BITS) | new)
    return merges


def _laid_out(counts: pa.Table, alphabet: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Symbols of all pieces with a BOUNDARY before, between and behind them, and the count of its piece at each."""
    pieces = counts["piece"].combine_chunks().cast(pa.large_binary())
    pieces = pieces if isinstance(pieces, pa.Array) else pa.concat_arrays(pieces.chunks)
    numbers = counts["count"].to_numpy()
    offsets = np.frombuffer(pieces.buffers()[1], np.int64)[pieces.offset :][: len(pieces) + 1]
    content = np.frombuffer(pieces.buffers()[2] or b"", np.uint8)[offsets[0] : offsets[-1]]
    offsets = offsets - offsets[0]
    symbols = np.full(len(content) + len(pieces) + 1, BOUNDARY, np.int64)
    inside = np.ones(len(symbols), bool)
    inside[offsets + np.arange(len(offsets))] = False
    symbols[inside] = alphabet[content]
    weights = np.zeros(len(symbols), np.int64)
    weights[:-1] = np.repeat(numbers, np.diff(offsets) + 1)
    return symbols, weights


def _grouped(
    keys: np.ndarray, places: np.ndarray, weights: np.ndarray
) -> tuple[list[int], list[int], list[np.ndarray]]:
    """For each distinct key: itself, the sum of its weights, its places in ascending order."""
    if not len(keys):
        return [], [], []
    order = np.argsort(keys, kind="stable")
    keys, places = keys[order], places[order]
    heads = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    ends = [*heads[1:].tolist(), len(keys)]
    sums = np.add.reduceat(weights[order], heads).tolist()
    those = [places[head:end] for head, end in zip(heads.tolist(), ends, strict=True)]
    return keys[heads].tolist(), sums, those


def _every_other(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Of pairs of one symbol twice, those to merge from left to right: in a run of them each second one overlaps."""
    number = np.arange(len(first))
    opens = np.concatenate([[True], first[1:] != second[:-1]])
    return (number - np.maximum.accumulate(np.where(opens, number, 0))) % 2 == 0
