"""What the held-out data says, on windows that every rank shares out: bits per byte, loss, next-token accuracy."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional

from webtochat.tokens.batches import Batch, collate
from webtochat.tokens.shards import Split
from webtochat.tokens.tokenizer import Tokenizer
from webtochat.tokens.windows import Window


def byte_counts(tokenizer: Tokenizer) -> np.ndarray:
    """Bytes of text of each token, by id; 0 for special tokens. Byte-level BPE writes a byte as one character."""
    names = [tokenizer.backend.id_to_token(number) for number in range(tokenizer.vocabulary)]
    return np.array([
        0 if number in tokenizer.special_ids else len(name or "") for number, name in enumerate(names)
    ])  # fmt: skip


def document_windows(split: Split, separator: int, pad: int, most_tokens: int) -> list[Window]:
    """The first `most_tokens` of a split's documents as windows, however the split itself is packed; the last one is
    padded, with weight zero."""
    pieces: list[np.ndarray] = []
    total = 0
    for document in split.documents():
        if total >= most_tokens:
            break
        pieces.append(np.concatenate([[separator], document.tokens]))
        total += len(pieces[-1])
    if not pieces:
        return []
    stream = np.concatenate(pieces)[:most_tokens]
    size = split.sequence_length
    windows = []
    for start in range(0, len(stream) - 1, size):
        tokens = stream[start : start + size + 1]
        missing = size + 1 - len(tokens)
        weights = np.concatenate([tokens[1:] != separator, np.zeros(missing)]).astype(np.float32)
        tokens = np.concatenate([tokens, np.full(missing, pad)]).astype(np.int64)
        windows.append(Window(tokens[:-1], tokens[1:], weights, np.cumsum(tokens[:-1] == separator)))
    return windows


def totals(
    model: nn.Module, windows: Sequence[Window], rows: int, device: torch.device, mask_documents: bool = True
) -> tuple[float, float, float]:
    """(summed loss in nats, right guesses, targets) over all windows; as `sums`."""

    def columns(batch: Batch) -> list[Tensor]:
        logits = model(batch.tokens_BT, batch.documents_BT if mask_documents else None).float()
        losses = functional.cross_entropy(logits.flatten(0, 1), batch.targets_BT.flatten(), reduction="none")
        right = (logits.argmax(-1) == batch.targets_BT) * batch.weights_BT
        return [losses.view_as(right) * batch.weights_BT, right, batch.weights_BT]

    nats, right_guesses, targets_seen = sums(model, windows, rows, device, columns, 3)
    return nats, right_guesses, targets_seen


@torch.no_grad()
def sums(
    model: nn.Module, windows: Sequence[Window], rows: int, device: torch.device,
    columns: Callable[[Batch], list[Tensor]], number: int,
) -> list[float]:  # fmt: skip
    """Of each of a `number` of columns, [B, T], the sum over all windows; ranks take turns. Leaves the model in eval
    mode.

    Each window's sum is taken by itself and added in order, so the result is the same for any number of ranks.
    """
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    model.eval()
    found = torch.zeros(len(windows), number, dtype=torch.float64)
    mine = list(range(rank, len(windows), world))
    most = -(-len(windows) // world)  # as many calls on each rank: of a sharded model every call is everybody's
    for start in range(0, most, rows):
        numbers = mine[start : start + rows] or [0]
        batch = collate([windows[number] for number in numbers])
        told = columns(Batch(**{name: each.to(device) for name, each in vars(batch).items()}))
        if mine[start:]:
            found[numbers] = torch.stack([each.double().sum(1) for each in told], 1).cpu()
    if world > 1:
        gathered = found.to(device)
        dist.all_reduce(gathered)
        found = gathered.cpu()
    return found.sum(0).tolist()


def target_bytes(windows: Sequence[Window], counts: np.ndarray) -> int:
    """Bytes of the targets that bear a loss."""
    return int(sum(counts[window.targets][window.weights > 0].sum() for window in windows))


def bits_per_byte(nats: float, count: int) -> float:
    return nats / math.log(2) / count
