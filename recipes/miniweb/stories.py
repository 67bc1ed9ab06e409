"""Simple English stories: who, a wish, a road, a meeting, trouble, help, a finding, an end."""

from __future__ import annotations

import random

from miniweb.facts import passing_name
from miniweb.grammar import deal, paragraphs, sentence
from miniweb.plots import ACTS, NAMES, REMARKS, TITLES, WORDS

PRONOUNS = [{"he": "he", "him": "him", "his": "his"}, {"he": "she", "him": "her", "his": "her"}]
CAST = {"animal": 2, "person": 4, "relative": 1, "thing": 6, "place": 8, "part": 7, "feeling": 9, "meal": 6}


def finish(text: str) -> str:
    """A sentence with its full stop, inside the quotation where it ends with one."""
    if text.endswith(("?", '?"')):
        return text
    return text[:-1] + '."' if text.endswith('"') else text + "."


def story(rng: random.Random, length: float = 1.0) -> tuple[str, list[str]]:
    """A title and paragraphs, about 2.5 kB at length 1."""
    # Every other story is about people with names of which nobody else has heard: they must be remembered.
    hero, friend = [passing_name(rng), passing_name(rng)] if rng.random() < 0.5 else rng.sample(NAMES, 2)
    home, far = rng.sample(WORDS["place"], 2)
    words: dict[str, str | list[str]] = {
        **WORDS,
        # A story keeps to a few of each, so that they come back.
        **{slot: rng.sample(WORDS[slot], few) for slot, few in CAST.items()},
        **rng.choice(PRONOUNS),
        "h": hero,
        "f": friend,
        "p": home,
        "q": far,
        "r": rng.choice(WORDS["treasure"]),
        "t": rng.choice(WORDS["thing"]),
    }
    title = sentence(rng.choice(TITLES), rng, words)
    remarks = iter(deal(REMARKS, rng, len(REMARKS)))
    text: list[str] = []
    for _, least, most, templates in ACTS:
        count = max(2, round(rng.randint(least, most) * length))
        sentences = [finish(sentence(template, rng, words)) for template in deal(templates, rng, count)]
        if rng.random() < 0.6:
            remark = next(remarks, None)
            if remark is not None:
                sentences.insert(rng.randint(1, len(sentences)), finish(sentence(remark, rng, words)))
        text.extend(paragraphs(sentences, rng))
    return title, text
