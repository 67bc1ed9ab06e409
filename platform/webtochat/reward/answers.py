"""Answers that a function compares in people's place: which prompts are answered, and which answers make a pair."""

from __future__ import annotations

import itertools
import json
import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from webtochat.errors import UserError
from webtochat.recipe import Answers
from webtochat.tokens.chat import Message, render
from webtochat.tokens.preferences import Preference, prompt_of
from webtochat.tokens.rows import Row
from webtochat.tokens.tokenizer import Tokenizer

JUDGED = "judged"
"""The source of pairs that a function made."""


@dataclass(frozen=True)
class Prompt:
    messages: list[Message]
    ids: list[int]


@dataclass(frozen=True)
class Judged:
    """A prompt's different answers with their scores."""

    messages: list[Message]
    answers: list[str]
    scores: list[float]


def drawn(
    tokenizer: Tokenizer, found: Iterable[Row], section: Answers, positions: int, seed: int, skipped: Counter[str]
) -> list[Prompt]:
    """Different prompts that leave room for an answer, at most `max_prompts`. The rows that give none are counted in
    `skipped`, by reason."""
    prompts: dict[str, Prompt] = {}
    for row in found:
        try:
            messages = prompt_of(row)
            ids = render(tokenizer, messages, add_generation_prompt=True).ids
        except ValueError as error:
            skipped[str(error).replace(" ", "_")] += 1
            continue
        name = json.dumps(messages, sort_keys=True)
        if len(ids) + section.max_new_tokens > positions:
            skipped["prompt_too_long"] += 1
        elif name in prompts:
            skipped["prompt_asked_before"] += 1
        else:
            prompts[name] = Prompt(messages, ids)
    return random.Random(seed).sample(list(prompts.values()), min(section.max_prompts, len(prompts)))


def judged(
    prompt: Prompt, answers: Sequence[str], judge: Callable[..., Any], section: Answers, seed: int
) -> Judged:
    """Raises UserError where the judge gives no number."""
    different = list(dict.fromkeys(answers))
    scores = []
    for answer in different:
        told = judge(prompt.messages, answer, seed)
        try:
            scores.append(float(told))
        except (TypeError, ValueError, OverflowError):
            scores.append(math.nan)
        if not math.isfinite(scores[-1]):
            raise UserError(f"reward.answers.judge: {section.judge} answers {str(told)[:80]!r}, which is no score")
    return Judged(prompt.messages, different, scores)


def compared(found: Judged, section: Answers) -> list[Preference]:
    """Each two answers whose scores differ enough."""
    pairs = []
    for one, other in itertools.combinations(zip(found.scores, found.answers, strict=True), 2):
        (low, worse), (high, better) = sorted((one, other))
        if high > low and high - low >= section.least_difference:
            pairs.append(Preference(found.messages, better, worse, JUDGED))
    return pairs


def headroom(found: Sequence[Judged]) -> dict[str, float]:
    """Means over the prompts that have an answer: of the mean, the worst and the best score of their answers."""
    some = [each.scores for each in found if each.scores]
    if not some:
        return {}
    kinds: dict[str, Callable[[list[float]], float]] = {
        "mean": lambda scores: sum(scores) / len(scores), "worst": min, "best": max
    }
    return {name: sum(map(kind, some)) / len(some) for name, kind in kinds.items()}
