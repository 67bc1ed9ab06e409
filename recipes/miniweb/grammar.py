"""Sentences from templates: `[a|b]` chooses an alternative, `{slot}` looks a word up."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence

CHOICE = re.compile(r"\[([^\[\]]*)\]")
SLOT = re.compile(r"\{(\w+)\}")
SPACED_BREAK = re.compile(r" *\n *")
VOWEL_ARTICLE = re.compile(r"\b([Aa]) (?=[aeio]|u(?!ni|se))")


def listed(text: str) -> list[str]:
    """The parts of a list written as one|two|three."""
    return text.split("|")


def expand(template: str, rng: random.Random, slots: Mapping[str, str | Sequence[str]]) -> str:
    """The template with every choice made, innermost first, then every slot filled."""

    def choose(match: re.Match[str]) -> str:
        return rng.choice(match[1].split("|"))

    def fill(match: re.Match[str]) -> str:
        value = slots[match[1]]
        return value if isinstance(value, str) else rng.choice(value)

    while CHOICE.search(template):
        template = CHOICE.sub(choose, template)
    # A slot's own words may name further slots.
    while SLOT.search(template):
        template = SLOT.sub(fill, template)
    return template


def sentence(template: str, rng: random.Random, slots: Mapping[str, str | Sequence[str]]) -> str:
    """An expanded template with its article before a vowel and its first letter put right."""
    text = VOWEL_ARTICLE.sub(r"\1n ", expand(template, rng, slots))
    text = " ".join(text.split())
    first = 1 if text[:1] == '"' else 0
    return text[:first] + text[first : first + 1].upper() + text[first + 1 :]


def deal(items: Sequence[str], rng: random.Random, count: int) -> list[str]:
    """`count` different items in a random order (all of them where there are fewer)."""
    return rng.sample(list(items), min(count, len(items)))


def paragraphs(sentences: Sequence[str], rng: random.Random, least: int = 3, most: int = 6) -> list[str]:
    """Sentences joined into paragraphs of a random number of sentences; line breaks inside them stay."""
    out: list[str] = []
    start = 0
    while start < len(sentences):
        size = rng.randint(least, most)
        # A last paragraph of one short sentence would be a short line.
        if len(sentences) - start - size < least:
            size = len(sentences) - start
        out.append(SPACED_BREAK.sub("\n", " ".join(sentences[start : start + size])).strip())
        start += size
    return out
