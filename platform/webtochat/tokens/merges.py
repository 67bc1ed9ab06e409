"""Byte-pair merges learned from counted pieces (Sennrich et al. 2016).

The most frequent pair of neighbouring tokens becomes a token, again and again; of equally frequent pairs the one with
the smaller ids. That is Hugging Face's rule, and its order of merges to the last one. All pieces lie behind one another
in one array, and a merge changes all the places of its pair at once, so that its cost follows what it changes. Most
merges change few places, where a call of NumPy costs more than the change; so as many merges are made together as are
certain to come next and cannot touch one another.
"""

from __future__ import annotations

import heapq
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pyarrow as pa

BITS = 24  # of an id in a pair's key, and so a vocabulary of 16 million
KEY = (1 << 2 * BITS) - 1
ID = (1 << BITS) - 1
BOUNDARY, GONE = -1, -2
"""In place of a symbol: between two pieces; the right half of a merged pair."""
TOGETHER = 256
"""Pairs looked at in one round, at most."""
RARER = 16
"""A pair so many times rarer than the next one waits outside the heap: most never come to be merged."""


def learn(counts: pa.Table, alphabet: np.ndarray, wanted: int) -> list[tuple[int, int]]:
    """Up to `wanted` merges, in order: the pair of ids that becomes the id 256 + its place.

    counts: piece, count. alphabet[256]: the id of each byte.
    """
    symbols, weights = _laid_out(counts, alphabet)
    places = np.arange(len(symbols), dtype=np.int32)
    after, before = places + 1, places - 1
    starts = places[:-1][(symbols[:-1] >= 0) & (symbols[1:] >= 0)]
    queue = Queue(_grouped(_key(symbols[starts], symbols[starts + 1]), starts, weights))
    merges: list[tuple[int, int]] = []
    looked_at, marks = 1, np.empty(len(symbols), np.int32)

    def around(first: np.ndarray, token: np.ndarray, front: np.ndarray, behind: np.ndarray) -> Pairs:
        """The pairs of tokens at `first` with what stands in front and behind. A pair merged in front is no neighbour:
        it has this token as its own, behind."""
        here, there = symbols[front] >= 0, symbols[behind] >= 0
        keys = (_key(symbols[front[here]], token[here]), _key(token[there], symbols[behind[there]]))
        return _grouped(np.concatenate(keys), np.concatenate([front[here], first[there]]), weights)

    while len(merges) < wanted and (popped := queue.pop(looked_at)):
        standing = _standing(popped, symbols, after, weights)
        limit = queue.first()
        ranks = [rank for rank in sorted(standing) if limit is None or rank < limit][: wanted - len(merges)]
        if ranks:
            ranks = ranks[: _apart([standing[rank] for rank in ranks], after, marks)]
            those = [_every_other(standing[rank], after) if _twice(rank) else standing[rank] for rank in ranks]
            new = np.arange(256 + len(merges), 256 + len(merges) + len(ranks), dtype=np.int32)
            first, token = np.concatenate(those), np.repeat(new, list(map(len, those)))
            if len(ranks) > 1:
                ranks = ranks[: _certain(ranks, new[0], around(first, token, before[first], after[after[first]]))]
                first, token = first[token < new[0] + len(ranks)], token[token < new[0] + len(ranks)]
            second = after[first]
            front, behind = before[first], after[second]
            symbols[first], symbols[second] = token, GONE
            after[first], before[behind] = behind, first
            queue.add(around(first, token, front, behind))
            merges += [(rank >> BITS & ID, rank & ID) for rank in ranks]
        for rank in standing.keys() - set(ranks):
            queue.put(rank, standing[rank])
        looked_at = min(TOGETHER, 3 * len(ranks) + 4)
    return merges


class Pairs(NamedTuple):
    """Pairs of neighbours: keys[pair], totals[pair] (how often each stands in the texts) and, of pair n,
    places[edges[n]:edges[n + 1]], those of its left symbols in ascending order."""

    keys: np.ndarray
    totals: np.ndarray
    edges: np.ndarray
    places: np.ndarray


def _key(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return left.astype(np.int64) << BITS | right


def _rank(key: int, total: int) -> int:
    """Of two pairs, the one of the smaller rank is merged first. Its low bits are the key."""
    return (-total << 2 * BITS) | key


class Queue:
    """Pairs by frequency, as they were put in: merges since may have taken places of theirs, and none can have come,
    because all places of a pair arise with the later of its two tokens."""

    def __init__(self, pairs: Pairs) -> None:
        self._heap: list[int] = []
        """Ranks."""
        self._places: dict[int, np.ndarray] = {}
        self._floor = 1 << 62
        self._all = [pairs]
        """Of which those below the floor are not in the heap."""

    def add(self, pairs: Pairs) -> None:
        self._all.append(pairs)
        self._enter(pairs, pairs.totals >= self._floor)

    def put(self, rank: int, places: np.ndarray) -> None:
        self._places[rank] = places
        heapq.heappush(self._heap, rank)

    def pop(self, most: int) -> dict[int, np.ndarray]:
        """The places of up to so many pairs, the most frequent, by key."""
        popped: dict[int, np.ndarray] = {}
        while len(popped) < most and self.first() is not None:
            rank = heapq.heappop(self._heap)
            popped[rank & KEY] = self._places.pop(rank)
        return popped

    def first(self) -> int | None:
        """The rank of the most frequent pair."""
        while self._floor > 1 and (not self._heap or self._heap[0] > _rank(0, self._floor)):
            above = self._floor
            most = max(int(pairs.totals[pairs.totals < above].max(initial=1)) for pairs in self._all)
            self._floor = -(-most // RARER)
            for pairs in self._all:
                self._enter(pairs, (pairs.totals >= self._floor) & (pairs.totals < above))
        return self._heap[0] if self._heap else None

    def _enter(self, pairs: Pairs, chosen: np.ndarray) -> None:
        numbers = np.flatnonzero(chosen)
        rows = (pairs.keys[numbers], pairs.totals[numbers], pairs.edges[numbers], pairs.edges[numbers + 1])
        for key, total, begin, end in zip(*(row.tolist() for row in rows), strict=True):
            self.put(_rank(key, total), pairs.places[begin:end])


def _standing(
    popped: dict[int, np.ndarray], symbols: np.ndarray, after: np.ndarray, weights: np.ndarray
) -> dict[int, np.ndarray]:
    """By their rank now, the pairs that are still there, with their places."""
    keys = np.array(list(popped))
    first = np.concatenate(list(popped.values()))
    pair = np.repeat(np.arange(len(keys)), list(map(len, popped.values())))
    left, right = (keys >> BITS).astype(np.int32), (keys & ID).astype(np.int32)
    real = (symbols[first] == left[pair]) & (symbols[after[first]] == right[pair])
    first, pair = first[real], pair[real]
    totals = np.zeros(len(keys), np.int64)
    np.add.at(totals, pair, weights[first])
    edges = np.searchsorted(pair, np.arange(len(keys) + 1)).tolist()
    rows = zip(popped, totals.tolist(), pairwise(edges), strict=True)
    return {_rank(key, total): first[begin:end] for key, total, (begin, end) in rows if total}


def _apart(those: list[np.ndarray], after: np.ndarray, marks: np.ndarray) -> int:
    """Of pairs in order, by their places, how many come before the first that shares a symbol with one of them.
    marks[symbol]: to write on."""
    first = np.concatenate(those)
    pair = np.tile(np.repeat(np.arange(len(those), dtype=np.int32), list(map(len, those))), 2)
    touched = np.concatenate([first, after[first]])
    marks[touched] = len(those)
    np.minimum.at(marks, touched, pair)
    return int(pair[marks[touched] < pair].min(initial=len(those)))


def _certain(ranks: list[int], token: int, around: Pairs) -> int:
    """How many of these pairs, which become the ids from `token` on, are merged before any pair of such an id.

    around: the pairs of those ids, as if each one were merged alone. Merged one after the other, some of them
    are several pairs, each rarer; none is more frequent.
    """
    new = np.maximum(around.keys >> BITS, around.keys & ID)
    most = np.zeros(len(ranks), np.int64)
    np.maximum.at(most, new - token, around.totals)
    totals = np.array([-(rank >> 2 * BITS) for rank in ranks])
    late = np.flatnonzero(np.maximum.accumulate(most)[:-1] >= totals[1:])
    return int(late[0]) + 1 if len(late) else len(ranks)


def _twice(rank: int) -> bool:
    return rank >> BITS & ID == rank & ID


def _laid_out(counts: pa.Table, alphabet: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Symbols of all pieces with a BOUNDARY before, between and behind them, and the count of its piece at each."""
    pieces = counts["piece"].combine_chunks().cast(pa.large_binary())
    pieces = pieces if isinstance(pieces, pa.Array) else pa.concat_arrays(pieces.chunks)
    numbers = counts["count"].to_numpy()
    offsets = np.frombuffer(pieces.buffers()[1], np.int64)[pieces.offset :][: len(pieces) + 1]
    content = np.frombuffer(pieces.buffers()[2] or b"", np.uint8)[offsets[0] : offsets[-1]]
    offsets = offsets - offsets[0]
    symbols = np.full(len(content) + len(pieces) + 1, BOUNDARY, np.int32)
    inside = np.ones(len(symbols), bool)
    inside[offsets + np.arange(len(offsets))] = False
    symbols[inside] = alphabet[content]
    weights = np.zeros(len(symbols), np.int64)
    weights[:-1] = np.repeat(numbers, np.diff(offsets) + 1)
    return symbols, weights


def _grouped(keys: np.ndarray, places: np.ndarray, weights: np.ndarray) -> Pairs:
    order = np.argsort(keys, kind="stable")
    keys, places = keys[order], places[order]
    heads = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])[: len(keys)])
    totals = np.add.reduceat(weights[places], heads) if len(heads) else weights[:0]
    return Pairs(keys[heads], totals, np.append(heads, len(keys)), places)


def _every_other(first: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Of pairs of one symbol twice, those to merge from left to right: in a run of them each second one overlaps."""
    number = np.arange(len(first))
    opens = np.concatenate([[True], first[1:] != after[first[:-1]]])
    return first[(number - np.maximum.accumulate(np.where(opens, number, 0))) % 2 == 0]
