"""Conversations to training windows: rendered, checked, packed whole, without attention from one to another."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from webtochat.tokens.chat import Rendered, render
from webtochat.tokens.rows import Row
from webtochat.tokens.tokenizer import Tokenizer
from webtochat.tokens.windows import Window, fitted


@dataclass
class Packed:
    """N windows of T + 1 tokens."""

    tokens: np.ndarray
    """int32 [N, T+1]."""
    documents: np.ndarray
    """int32 [N, T+1]: number of the conversation within its window; the padding has one of its own."""
    weights: np.ndarray
    """float32 [N, T]: 1 where the target is the assistant's own token."""

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def sequence_length(self) -> int:
        return self.weights.shape[1]

    def window(self, number: int) -> Window:
        tokens, documents = self.tokens[number], self.documents[number]
        return Window(tokens[:-1], tokens[1:], self.weights[number], documents[:-1])


def rendered_rows(
    tokenizer: Tokenizer, rows: list[Row], sequence_length: int, skipped: Counter[str]
) -> list[tuple[Row, Rendered]]:
    """Each row with its tokens. `skipped` counts the rows that cannot be trained on, by reason."""
    kept = []
    for row in rows:
        try:
            messages: Any = row.get("messages")  # the renderer checks it
            rendered = render(tokenizer, messages, tools=row.get("tools") or ())
        except ValueError as error:
            skipped[str(error).replace(" ", "_")] += 1
            continue
        if not any(rendered.loss_mask):
            skipped["nothing_from_the_assistant"] += 1
        elif len(rendered.ids) > sequence_length + 1:
            skipped["too_long"] += 1
        else:
            kept.append((row, rendered))
    return kept


def held_out(row: Row, percent: float) -> bool:
    """Whether a row is for validation: by a hash of its messages, so that copies of it go the same way."""
    canonical = json.dumps(row.get("messages"), sort_keys=True, ensure_ascii=False, default=str)
    draw = int.from_bytes(hashlib.sha256(canonical.encode()).digest()[:8], "big") / 2**64
    return draw < percent / 100


def pack(rendered: list[Rendered], sequence_length: int, pad: int, seed: int) -> Packed:
    """Best fit of whole conversations into windows of T + 1 tokens."""
    size = sequence_length + 1
    bins = shuffled_bins([len(each.ids) for each in rendered], size, seed)
    packed = Packed(
        np.full((len(bins), size), pad, np.int32),
        np.zeros((len(bins), size), np.int32),
        np.zeros((len(bins), sequence_length), np.float32),
    )
    for window, members in enumerate(bins):
        position = 0
        for place, number in enumerate(members):
            one = rendered[number]
            end = position + len(one.ids)
            packed.tokens[window, position:end] = one.ids
            packed.documents[window, position:end] = place
            # The target of position i is token i + 1; a conversation's first token is never the assistant's.
            packed.weights[window, position : end - 1] = one.loss_mask[1:]
            position = end
        packed.documents[window, position:] = len(members)
    return packed


def shuffled_bins(lengths: list[int], size: int, seed: int) -> list[list[int]]:
    """Numbers of the pieces in each window of `size`: best fit, in a shuffled order."""
    order = np.random.default_rng(seed).permutation(len(lengths))
    pieces, begin = fitted(np.array(lengths, np.int64)[order], size)
    return [order[pieces[first:last]].tolist() for first, last in itertools.pairwise(begin)]


def pack_rows(
    tokenizer: Tokenizer, rows: list[Row], sequence_length: int, validation_percent: float, seed: int
) -> tuple[Packed, Packed, dict[str, Any]]:
    """(training windows, validation windows, counts)."""
    skipped: Counter[str] = Counter()
    kept = rendered_rows(tokenizer, rows, sequence_length, skipped)
    training = [each for row, each in kept if not held_out(row, validation_percent)]
    validation = [each for row, each in kept if held_out(row, validation_percent)]
    packed, checked = (pack(each, sequence_length, tokenizer.pad, seed) for each in (training, validation))
    tokens = sum(len(each.ids) for each in training)
    counts = {
        "rows": len(rows),
        "conversations": len(training),
        "validation_conversations": len(validation),
        "skipped": dict(skipped),
        "windows": len(packed),
        "tokens": tokens,
        "trained_tokens": int(packed.weights.sum()),
        "padding": round(1 - tokens / packed.tokens.size, 4) if len(packed) else 0.0,
    }
    return packed, checked, counts
