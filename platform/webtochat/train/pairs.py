"""Preferences to training windows: both answers of a pair in one window, no attention from one to the other; and the
loss of Bradley and Terry (1952) on them."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from webtochat.model.reward import answered
from webtochat.tokens.batches import Batch
from webtochat.tokens.preferences import Preference
from webtochat.tokens.tokenizer import Tokenizer
from webtochat.tokens.windows import Window
from webtochat.train.packing import held_out, shuffled_bins
from webtochat.train.validation import sums


class Pair(NamedTuple):
    """A preference, and the ids of each answer with the prompt before it."""

    preference: Preference
    chosen: list[int]
    rejected: list[int]

    @property
    def length(self) -> int:
        return len(self.chosen) + len(self.rejected)


@dataclass
class PackedPairs:
    """N windows of T tokens."""

    tokens: np.ndarray
    """int32 [N, T]."""
    documents: np.ndarray
    """int32 [N, T]: number of the answer within its window; the padding has one of its own."""
    partners: np.ndarray
    """int32 [N, T]: at a chosen answer's last token the place of the rejected one's; 0 elsewhere."""
    weights: np.ndarray
    """float32 [N, T]: 1 at a chosen answer's last token; the pair's margin at the rejected one's."""

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def sequence_length(self) -> int:
        return self.weights.shape[1]

    def window(self, number: int) -> Window:
        """`targets` are the partners."""
        return Window(self.tokens[number], self.partners[number], self.weights[number], self.documents[number])


def encoded(
    tokenizer: Tokenizer, preferences: Iterable[Preference], positions: int, sequence_length: int, skipped: Counter[str]
) -> list[Pair]:
    """Pairs that fit. `positions`: the model's, for each answer. `skipped` counts the others by reason."""
    kept = []
    for preference in preferences:
        try:
            chosen, rejected = (
                answered(tokenizer, preference.prompt, each) for each in (preference.chosen, preference.rejected)
            )
        except ValueError as error:
            skipped[str(error).replace(" ", "_")] += 1
            continue
        pair = Pair(preference, chosen, rejected)
        if max(len(chosen), len(rejected)) > positions or pair.length > sequence_length:
            skipped["too_long"] += 1
        else:
            kept.append(pair)
    return kept


def is_held_out(preference: Preference, percent: float) -> bool:
    """By the first thing that the user says, so that all answers to a prompt, and to what goes on from it, are on one
    side."""
    first = next((each for each in preference.prompt if each.get("role") == "user"), preference.prompt[0])
    return held_out({"messages": first.get("content")}, percent)


def split(pairs: list[Pair], percent: float) -> tuple[list[Pair], list[Pair]]:
    """(training, held out)."""
    away = [is_held_out(pair.preference, percent) for pair in pairs]
    told = list(zip(pairs, away, strict=True))
    return [pair for pair, out in told if not out], [pair for pair, out in told if out]


def pack_pairs(pairs: list[Pair], sequence_length: int, margin: float, pad: int, seed: int) -> PackedPairs:
    """Best fit of whole pairs into windows of T tokens. `margin`: times each pair's own."""
    bins = shuffled_bins([pair.length for pair in pairs], sequence_length, seed)
    shape = (len(bins), sequence_length)
    packed = PackedPairs(
        np.full(shape, pad, np.int32), np.zeros(shape, np.int32), np.zeros(shape, np.int32),
        np.zeros(shape, np.float32),
    )  # fmt: skip
    for window, members in enumerate(bins):
        position = 0
        for place, number in enumerate(members):
            pair = pairs[number]
            middle, end = position + len(pair.chosen), position + pair.length
            packed.tokens[window, position:end] = pair.chosen + pair.rejected
            packed.documents[window, position:middle] = 2 * place
            packed.documents[window, middle:end] = 2 * place + 1
            packed.partners[window, middle - 1] = end - 1
            packed.weights[window, middle - 1] = 1
            packed.weights[window, end - 1] = margin * pair.preference.margin
            position = end
        packed.documents[window, position:] = 2 * len(members)
    return packed


def scored(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(score of the chosen answer, score of the rejected one, -log σ(chosen - rejected - margin) in nats, whether there
    is a pair), each [B, T], of windows of `PackedPairs`. Where there is no pair the others mean nothing."""
    device = batch.tokens_BT.device.type
    with torch.autocast(device, torch.bfloat16) if device == "cuda" else contextlib.nullcontext():
        chosen_BT = model(batch.tokens_BT, batch.documents_BT)
    rejected_BT, margins_BT = (each.gather(1, batch.targets_BT) for each in (chosen_BT, batch.weights_BT))
    losses_BT = -F.logsigmoid(chosen_BT - rejected_BT - margins_BT)
    return chosen_BT, rejected_BT, losses_BT, (batch.targets_BT > 0) & (batch.weights_BT > 0)


def bradley_terry(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """(summed loss in nats, number of pairs): the loop divides by the global number."""
    _, _, losses_BT, pairs_BT = scored(model, batch)
    return (losses_BT * pairs_BT).sum(), pairs_BT.sum()


def held_out_metrics(model: nn.Module, windows: list[Window], rows: int, device: torch.device) -> dict[str, float]:
    """Loss and accuracy on held-out pairs, the mean scores, and the mean margin between them. Leaves the model in eval
    mode."""

    def columns(batch: Batch) -> list[Tensor]:
        chosen_BT, rejected_BT, losses_BT, pairs_BT = scored(model, batch)
        told = (losses_BT, chosen_BT > rejected_BT, chosen_BT, rejected_BT, torch.ones_like(losses_BT))
        return [each * pairs_BT for each in told]

    return means(sums(model, windows, rows, device, columns, 5))


def means(found: list[float]) -> dict[str, float]:
    """For the curve, of what was summed: losses, pairs ranked right, chosen and rejected answers' scores, pairs."""
    loss, accuracy, chosen, rejected = (each / found[-1] for each in found[:-1])
    return {
        "validation_loss": loss, "validation_accuracy": accuracy, "validation_chosen": chosen,
        "validation_rejected": rejected, "validation_margin": chosen - rejected,
    }  # fmt: skip
