"""Which windows come when. Pure functions of (seed, windows consumed): the same order for any number of workers, and
the state to resume is one number.

The order is a Feistel permutation of the window numbers, another in each epoch: random access in O(1) memory, where a
shuffled list costs 8 bytes a window on every worker. (An affine map is cheaper still but leaves phases in the loss.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

ROUNDS = 4


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


def collate(windows: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Batch:
    """Stacks windows of (tokens [T+1], documents [T+1], weights [T] of the targets)."""
    tokens = torch.from_numpy(np.stack([tokens for tokens, _, _ in windows]).astype(np.int64))
    documents = torch.from_numpy(np.stack([documents for _, documents, _ in windows]).astype(np.int64))
    weights = torch.from_numpy(np.stack([weights for _, _, weights in windows]).astype(np.float32))
    return Batch(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous(), weights, documents[:, :-1].contiguous())


def global_batch(count: int, consumed: int, size: int, seed: int) -> list[int]:
    """Window numbers of the next `size` windows after `consumed`, over endless epochs of `count` windows."""
    positions = np.arange(consumed, consumed + size)
    numbers = np.empty(size, np.int64)
    for epoch in range(consumed // count, (consumed + size - 1) // count + 1):
        inside = positions // count == epoch
        numbers[inside] = feistel(positions[inside] % count, count, seed, epoch)
    return numbers.tolist()


def share(
    window: Callable[[int], tuple[np.ndarray, np.ndarray, np.ndarray]],
    count: int, consumed: int, size: int, seed: int, rank: int = 0, world: int = 1,
) -> Batch:  # fmt: skip
    """This rank's part of the global batch. Where `size` does not divide by `world`, the short ranks get windows of
    weight zero; the loss is divided by the global weight, so the gradient is that of one worker."""
    numbers = global_batch(count, consumed, size, seed)
    per_rank = -(-size // world)
    mine = [window(number) for number in numbers[rank * per_rank : (rank + 1) * per_rank]]
    while len(mine) < per_rank:
        tokens, documents, weights = window(numbers[0])
        mine.append((tokens, documents, np.zeros_like(weights)))
    return collate(mine)
