"""Which windows come when. Pure functions of (seed, windows consumed): the same order for any number of workers, and
the state to resume is one number.

A corpus's order is a Feistel permutation of its window numbers, another in each epoch: random access in O(1) memory,
where a shuffled list costs 8 bytes a window on every worker. (An affine map is cheaper still but leaves phases in the
loss.) Several corpora take turns by a table that repeats, each in its own order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from webtochat.tokens.windows import Window

ROUNDS = 4
TURNS = 1 << 16
"""After so many windows the corpora's turns repeat: shares are multiples of 1 / TURNS."""


def feistel(positions: np.ndarray, size: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation of range(size) at the given positions (int64). Cycle walking: numbers that leave the range are
    permuted again, at most ~4 times on average since the domain is under 4 × size."""
    bits = max(1, (max(size - 1, 1).bit_length() + 1) // 2)
    mask = np.uint64((1 << bits) - 1)
    keys = np.random.SeedSequence([seed, epoch, size]).generate_state(ROUNDS, np.uint64)
    out = positions.astype(np.uint64)
    walking = np.ones(len(out), bool)
    while walking.any():
        value = out[walking]
        left, right = value >> np.uint64(bits), value & mask
        for key in keys:
            left, right = right, left ^ (_mix(right + key) & mask)
        out[walking] = (left << np.uint64(bits)) | right
        walking = out >= size
    return out.astype(np.int64)


def _mix(value: np.ndarray) -> np.ndarray:
    """splitmix64's finaliser (Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@dataclass
class Batch:
    """B windows of T positions on one rank."""

    tokens_BT: torch.Tensor
    targets_BT: torch.Tensor
    weights_BT: torch.Tensor
    """float32; 0 where a position bears no loss."""
    documents_BT: torch.Tensor
    """Number of the document within the window; attention does not cross."""


def collate(windows: list[Window]) -> Batch:
    tokens, targets, weights, documents = (np.stack(part) for part in zip(*windows, strict=True))
    tokens_BT, targets_BT, documents_BT = (
        torch.from_numpy(each.astype(np.int64)) for each in (tokens, targets, documents)
    )
    return Batch(tokens_BT, targets_BT, torch.from_numpy(weights.astype(np.float32)), documents_BT)


@lru_cache
def turns(shares: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Whose turn each of TURNS windows is, and how many that corpus had before. `shares` are of TURNS.

    A corpus's n-th window may come from n TURNS / share on and is due at (n + 1) TURNS / share; of those that may, the
    one that is due first comes. So none is ever late (Baruah et al. 1996, "Proportionate progress"), which means that
    after n windows each corpus has had its share of n to within one.
    """
    corpora = [number for number, share in enumerate(shares) if share]
    had = [0] * len(shares)
    turn, before = np.empty((2, TURNS), np.int64)
    for place in range(TURNS):
        ready = [each for each in corpora if had[each] * TURNS < (place + 1) * shares[each]]
        chosen = min(ready, key=lambda each: -(-(had[each] + 1) * TURNS // shares[each]))
        turn[place], before[place] = chosen, had[chosen]
        had[chosen] += 1
    return turn, before


def in_turns(shares: tuple[float, ...]) -> tuple[int, ...]:
    """Shares as whole numbers that add to TURNS: rounded down, and the largest remainders up."""
    exact = np.array(shares) / sum(shares) * TURNS
    whole = np.floor(exact).astype(np.int64)
    whole[np.argsort(whole - exact, kind="stable")[: TURNS - whole.sum()]] += 1
    return tuple(whole.tolist())


@dataclass(frozen=True)
class Order:
    """The order of the windows of one corpus or several, numbered through. Each has its share of the windows, and its
    own epochs."""

    counts: tuple[int, ...]
    """Windows of each corpus."""
    shares: tuple[float, ...]
    seed: int

    def windows(self, consumed: int, size: int) -> list[int]:
        """Numbers of the next `size` windows after `consumed`, over endless epochs."""
        shares = in_turns(self.shares)
        turn, before = turns(shares)
        rounds, place = np.divmod(np.arange(consumed, consumed + size), TURNS)
        numbers = np.empty(size, np.int64)
        for corpus, count in enumerate(self.counts):
            mine = turn[place] == corpus
            epochs, positions = np.divmod(rounds[mine] * shares[corpus] + before[place[mine]], count)
            permuted = np.empty_like(positions)
            for epoch in np.unique(epochs):
                permuted[epochs == epoch] = feistel(positions[epochs == epoch], count, self.seed, int(epoch))
            numbers[mine] = sum(self.counts[:corpus]) + permuted
        return numbers.tolist()


def share(
    window: Callable[[int], Window], order: Order, consumed: int, size: int, rank: int = 0, world: int = 1
) -> Batch:
    """This rank's part of the global batch. Where `size` does not divide by `world`, the short ranks get windows of
    weight zero; the loss is divided by the global weight, so the gradient is that of one worker."""
    numbers = order.windows(consumed, size)
    per_rank = -(-size // world)
    mine = [window(number) for number in numbers[rank * per_rank : (rank + 1) * per_rank]]
    while len(mine) < per_rank:
        spare = window(numbers[0])
        mine.append(spare._replace(weights=np.zeros_like(spare.weights)))
    return collate(mine)
