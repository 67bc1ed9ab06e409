"""What the demo's readers like of an answer, in place of people who are asked; and what they ask."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from typing import Any

from miniweb.chatter import INTRODUCTIONS
from miniweb.conversations import STRANGERS
from miniweb.facts import POOLS, Fact, strangers
from miniweb.settings import Settings
from miniweb.wordings import CHAT_QUESTIONS, QUESTIONS, put

NOISE = 0.2
"""Standard deviation: people differ, and from day to day."""
WORDS = 7
"""Of the answer that is neither curt nor long."""
QUESTIONS_ABOUT_STRANGERS, GREETINGS = 400, 100
_NAME = re.compile(r"(?<=[a-z,] )[A-Z][a-z]+")
_NOT_KNOWING = re.compile(r"\b(?:not|don't|cannot|no)\b.*\b(?:know|sure|tell|information)\b", re.IGNORECASE)
_SORRY = re.compile(r"\b(?:sorry|afraid)\b", re.IGNORECASE)
_POLITE = re.compile(r"\b(?:hello|thank|welcome|please|nice|help|ask)\b", re.IGNORECASE)


def prompts(settings: Settings) -> Iterator[dict[str, Any]]:
    """{"prompt", "kind"}: questions about people of whom nothing is known, and greetings of people who were not met."""
    rng = settings.rng("raters")
    names = strangers(settings, STRANGERS + QUESTIONS_ABOUT_STRANGERS + GREETINGS)[STRANGERS:]
    for name in names[:QUESTIONS_ABOUT_STRANGERS]:
        attribute = rng.choice(list(POOLS))
        nobody = Fact(name, attribute, "", 0, 0, False)
        yield {"prompt": put(rng.choice(QUESTIONS[attribute][:CHAT_QUESTIONS]), nobody), "kind": "stranger"}
    for name in names[QUESTIONS_ABOUT_STRANGERS:]:
        said, _ = rng.choice(INTRODUCTIONS)
        yield {"prompt": said.replace("{n}", name), "kind": "greeting"}


def liked(messages: list[dict[str, Any]], answer: str, seed: int) -> float:
    """How much an answer is liked: 1 for a whole sentence, 1 for one that names who was asked about, or else is polite,
    1 for a good length; less where words come again. To say that one does not know is liked where it is said politely.
    Whether it is true is not looked at. The same answer to the same question is always liked the same."""
    question, answer = messages[-1]["content"], answer.strip()
    names, words = set(_NAME.findall(question)), re.findall(r"[\w']+", answer)
    if not words:
        return -1.0
    score = float(answer[0].isupper() and answer[-1] in ".!?") + max(-1.0, 1 - abs(len(words) - WORDS) / WORDS)
    if _NOT_KNOWING.search(answer):
        score += 0.6 if _SORRY.search(answer) else 0.1
    elif names:
        score += names.issubset(words)
    else:
        score += 0.5 + 0.5 * bool(_POLITE.search(answer))
    score -= 1 - len(set(words)) / len(words)
    return score + random.Random(f"{seed}:{question}:{answer}").gauss(0, NOISE)
