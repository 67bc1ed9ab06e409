"""Held-out bits per byte: what a model pays for text, comparable across vocabularies and with compressors."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from webtochat.tokens.shards import Document


@dataclass(frozen=True)
class Window:
    """`tokens` [≤ T + 1]; the targets from place `first` on (of len(tokens) − 1) are scored, the rest is context."""

    document: int
    tokens: np.ndarray
    first: int


def windows(documents: Sequence[Document], separator: int, length: int) -> list[Window]:
    """Windows of at most `length` inputs over each document, which begins with the separator as in training. They slide
    by half their length, so that every token but a document's first ones sees at least length / 2 before it. Each token
    is scored exactly once."""
    step = max(1, length // 2)
    found = []
    for number, document in enumerate(documents):
        tokens = np.concatenate([[separator], document.tokens])
        if len(tokens) < 2:
            continue
        scored = 0
        while scored < len(tokens) - 1:
            begin = 0 if scored == 0 else scored + step - length
            end = min(begin + length, len(tokens) - 1)
            found.append(Window(number, tokens[begin : end + 1], scored - begin))
            scored = end
    return found


@torch.inference_mode()
def document_bits(
    logits: Callable[[torch.Tensor], torch.Tensor],
    documents: Sequence[Document],
    separator: int,
    length: int,
    device: str = "cpu",
    batch_tokens: int = 8192,
) -> np.ndarray:
    """Bits of each document under a causal model (tokens [B, T] → logits [B, T, V]); float64 [documents].

    Windows of like length go together; a shorter one is padded at its end, where nothing is scored.
    """
    bits = np.zeros(len(documents))
    ordered = sorted(windows(documents, separator, length), key=lambda window: len(window.tokens))
    for part in batches([len(window.tokens) for window in ordered], batch_tokens):
        batch = ordered[part]
        width = len(batch[-1].tokens)
        tokens = torch.full((len(batch), width), separator)
        mask = torch.zeros(len(batch), width - 1)
        for row, window in enumerate(batch):
            tokens[row, : len(window.tokens)] = torch.from_numpy(window.tokens)
            mask[row, window.first : len(window.tokens) - 1] = 1
        tokens, mask = tokens.to(device), mask.to(device)
        scores = logits(tokens[:, :-1]).float()
        nats = torch.nn.functional.cross_entropy(scores.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
        paid = (nats.view_as(mask) * mask).sum(1).double().cpu().numpy() / math.log(2)
        np.add.at(bits, [window.document for window in batch], paid)
    return bits


def batches(lengths: Sequence[int], batch_tokens: int) -> list[slice]:
    """Parts of sequences of rising lengths, each of at most so many tokens once padded to its longest, or of one."""
    begin, found = 0, []
    for place, length in enumerate(lengths):
        if place > begin and (place - begin + 1) * length > batch_tokens:
            found.append(slice(begin, place))
            begin = place
    return [*found, slice(begin, len(lengths))] if lengths else []


def source_of(host: str, sources: dict[str, str]) -> str:
    """The name of the first source whose glob matches the host, else `other`."""
    return next((name for name, pattern in sources.items() if fnmatch.fnmatchcase(host, pattern)), "other")


def by_source(bits: np.ndarray, documents: Sequence[Document], sources: dict[str, str]) -> dict[str, float]:
    """Bits per byte: `total`, and one per source that has documents."""
    sums: dict[str, list[float]] = {"total": [0.0, 0.0]}
    for paid, document in zip(bits, documents, strict=True):
        for name in ("total", *([source_of(document.host, sources)] if sources else [])):
            held = sums.setdefault(name, [0.0, 0.0])
            held[0] += float(paid)
            held[1] += document.bytes
    return {name: paid / size for name, (paid, size) in sums.items() if size}


def start_value(vocabulary: int, documents: Sequence[Document]) -> float:
    """Bits per byte of a model that knows nothing: log2(vocabulary) per token."""
    tokens = sum(len(document.tokens) for document in documents)
    return math.log2(vocabulary) * tokens / sum(document.bytes for document in documents)
