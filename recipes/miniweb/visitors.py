"""Pages that tell of people whom no other page knows, and come back to them: what was said first is asked and said once
more. What a name is followed by can only be read further up, so that a model learns to look there.
"""

from __future__ import annotations

import random

from miniweb.facts import POOLS, Fact, passing_name
from miniweb.grammar import paragraphs, sentence
from miniweb.plots import WORDS
from miniweb.wordings import CHAT_QUESTIONS, CORES, OPENINGS, QUESTIONS, put

VISITORS_ON_A_PAGE = 18
TOGETHER = (2, 3)
"""So many are told of, then mentioned, then asked about, in another order each time: not the last one is meant."""
SAME_WORDS = 5
"""One of so many answers repeats the sentence. More would be too many equal words for a page to be kept."""

MENTIONS = [
    "{n} came {time} and had {meal}",
    "the {person} of the {place} waved to {n}",
    "{time} somebody asked for {n}",
    "nobody but the {relative} knew {n}",
    "a {thing} was left behind by {n}",
    "the {animal} ran after {n}",
    "{n} was {feeling} when the {weather} came",
    "the {person} gave {n} a {thing}",
    "{n} sat in the {part} of the {place}",
    "to {n} the {place} seemed {adjective}",
    "with {n} came a {adjective} {person}",
    "a letter for {n} lies in the {place}",
    "the {relative} of {n} sent {meal}",
    "{n} left {time}",
    "we met {n} near the {place}",
    "the {person} still talks about {n}",
]
TITLES = [
    "Guests of the {place}",
    "The guest book of the {person}",
    "Who came to the {place}",
    "Visitors and their stories",
    "Seen near the {place}",
    "New faces in the {place}",
]
CLOSINGS = [
    "the book lies open in the {part} of the {place}",
    "whoever comes next may ask the {person} for the {thing}",
    "all of them were {feeling} when they left the {place}",
    "the {person} reads this aloud on {weather} days",
]


def visitors_page(rng: random.Random) -> tuple[str, list[str]]:
    """A title and paragraphs, about 3 kB."""
    sentences: list[str] = []
    left, asked = VISITORS_ON_A_PAGE, 0
    apart = rng.random() < 0.6
    while left > 0:
        group = [visitor(rng) for _ in range(min(left, rng.randint(*TOGETHER)))]
        left -= len(group)
        core = {fact.subject: rng.choice(CORES[fact.attribute]) for fact in group}
        for fact in group:
            opening = rng.choice(OPENINGS) if rng.random() < 0.5 else ""
            sentences.append(put(opening + core[fact.subject], fact) + ".")
        for fact in rng.sample(group, len(group)):
            # The name is put in last: the words of a mention are small.
            text = sentence(rng.choice(MENTIONS).replace("{n}", "NAME"), rng, WORDS)
            sentences.append(text.replace("NAME", fact.subject) + ".")
        for fact in rng.sample(group, len(group)):
            question = put(rng.choice(QUESTIONS[fact.attribute][:CHAT_QUESTIONS]), fact)
            asked += 1
            told = put(rng.choice(CORES[fact.attribute]) if asked % SAME_WORDS else core[fact.subject], fact) + "."
            sentences.append(f"\n{question}\n{told}" if apart else f"{question} {told}")
    closing = sentence(rng.choice(CLOSINGS), rng, WORDS) + "."
    return sentence(rng.choice(TITLES), rng, WORDS), paragraphs([*sentences, closing], rng, 4, 7)


def visitor(rng: random.Random) -> Fact:
    attribute = rng.choice(list(POOLS))
    return Fact(passing_name(rng), attribute, rng.choice(POOLS[attribute]), tier=0, times=0, taught=False)
