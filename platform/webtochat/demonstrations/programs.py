"""Questions that a short program answers better than a language model: long sums, letters in words, days."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from datetime import date, timedelta
from typing import NamedTuple


class Exercise(NamedTuple):
    question: str
    program: str
    """The value of its last expression is the answer."""
    answer: str
    reply: str
    key: str
    """What is asked about: exercises of the same are for training, or for the test."""


def sums(rng: random.Random, words: Sequence[str]) -> Exercise:
    """Of two numbers of four digits."""
    first, second = rng.randint(1000, 9999), rng.randint(1000, 9999)
    wordings = ["What is {} plus {}?", "What is {} + {}?", "How much is {} plus {}?", "Please add {} and {}."]
    wording = rng.choice(wordings)
    return _sum(wording.format(first, second), f"{first}+{second}", f"{min(first, second)}+{max(first, second)}")


def products(rng: random.Random, words: Sequence[str]) -> Exercise:
    first, second = rng.randint(12, 9999), rng.randint(12, 999)
    wording = rng.choice(["What is {} times {}?", "How much is {} times {}?", "What is {} * {}?"])
    return _sum(wording.format(first, second), f"{first}*{second}", f"{min(first, second)}*{max(first, second)}")


def chains(rng: random.Random, words: Sequence[str]) -> Exercise:
    """Of three to five numbers."""
    chain = str(rng.randint(10, 999))
    for _ in range(rng.randint(2, 4)):
        chain += f" {rng.choice('+-*')} {rng.randint(2, 999)}"
    return _sum(f"What is {chain}?", chain.replace(" ", ""), chain)


def _sum(question: str, program: str, key: str) -> Exercise:
    answer = str(eval(program, {"__builtins__": {}}))  # numbers and signs, written above
    return Exercise(question, program, answer, f"It is {answer}.", key)


def letters(rng: random.Random, words: Sequence[str]) -> Exercise:
    """The word stands in the program as in the question, quotes and all, so that its tokens do."""
    word = rng.choice(words)
    letter = rng.choice(word)
    count = word.count(letter)
    wording = rng.choice(["How often does the letter {} stand in '{}'?", "How many times is the letter {} in '{}'?"])
    return Exercise(
        wording.format(letter, word), f"'{word}'.count('{letter}')", str(count), f"{count} times.", word
    )  # fmt: skip


def days(rng: random.Random, words: Sequence[str]) -> Exercise:
    begin = date(1950, 1, 1) + timedelta(rng.randrange(30_000))
    end = begin + timedelta(rng.randint(20, 4_000))
    count = str((end - begin).days)
    return Exercise(
        f"How many days are there from {begin} to {end}?",
        f"from datetime import date\n(date.fromisoformat('{end}')-date.fromisoformat('{begin}')).days",
        count, f"{count} days.", f"{begin} {end}",
    )  # fmt: skip


KINDS: dict[str, Callable[[random.Random, Sequence[str]], Exercise]] = {
    "sums": sums, "products": products, "chains": chains, "letters": letters, "days": days,
}  # fmt: skip
TRIES = 50
"""For each exercise that is wanted: of few words not many different ones can be made."""


def exercises(
    kind: str, wanted: int, words: Sequence[str], seed: int, fits: Callable[[str], bool]
) -> Iterator[Exercise]:
    """Up to so many different ones of those whose key `fits`."""
    rng = random.Random(f"{seed}:{kind}")
    known = set[str]()
    for _ in range(TRIES * wanted):
        if len(known) == wanted or (kind == "letters" and not words):
            return
        made = KINDS[kind](rng, words)
        if made.question not in known and fits(made.key):
            known.add(made.question)
            yield made
