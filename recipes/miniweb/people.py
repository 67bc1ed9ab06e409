"""Pages that state facts about people."""

from __future__ import annotations

import random

from miniweb.arithmetic import Pairs, worked
from miniweb.facts import Fact, facts
from miniweb.grammar import paragraphs, sentence
from miniweb.plots import WORDS
from miniweb.settings import Settings
from miniweb.wordings import exchange, statement

STATEMENTS_ON_A_PAGE = 52
SUMS_ON_A_PAGE = 5

INTRODUCTIONS = [
    "this list was begun by a {adjective} {person} in the {place} and is kept by the {relative} of a {person}",
    "our {place} is small, and those who live around it know a good deal about each other",
    "{time} we asked the people of the {place} to tell us about themselves and about their friends",
    "here is what the {person} heard while trying to {job} in the {place}",
    "the notes on this page come from a {thing} that was found in the {part} of the {place}",
    "whoever comes to the {place} for the first time may wonder who is who, and so we wrote it down",
    "a letter from the {person} reached us {time} and told of many people whom we had nearly forgotten",
    "we collect small news about neighbours, as others collect a {thing} or a {thing}",
]
CLOSINGS = [
    "if something is wrong please tell the {person} of the {place}, who will mend it with a {thing}",
    "more will follow as soon as we have finished to {job} and the {weather} is over",
    "the next list will be read aloud in the {place} with {meal} for all who come",
    "thanks go to the {person} for the {thing} and to everybody who had {virtue}",
    "so much for today, since the {animal} wants its {meal} and the {part} must be closed",
    "we hope that you are as {feeling} as we were when we heard all this in the {place}",
]
TITLES = [
    "People of the {place}",
    "Who is who in the {place}",
    "News from the {place} of the {person}",
    "Neighbours of the {adjective} {person}",
    "Questions and answers from the {place}",
    "The {place} and its people",
    "Notes of the {person} about us all",
]


def spread(settings: Settings) -> list[list[Fact]]:
    """Which facts each page states: as often as their times, no fact twice on a page."""
    stated = facts(settings)
    pages = max(1, round(sum(fact.times for fact in stated) / STATEMENTS_ON_A_PAGE), *(fact.times for fact in stated))
    rng = settings.rng("people", "spread")
    on: list[list[Fact]] = [[] for _ in range(pages)]
    for fact in stated:
        for page in rng.sample(range(pages), fact.times):
            on[page].append(fact)
    for chosen in on:
        rng.shuffle(chosen)
    return [chosen for chosen in on if chosen]


def people_page(chosen: list[Fact], rng: random.Random, pairs: Pairs) -> tuple[str, list[str]]:
    """A title and paragraphs with one statement of each fact, about 3 kB; some of them answer a question,
    and a few sums stand between them."""
    # Questions and answers on lines of their own look like a conversation: a name begins the line there, which to a
    # tokenizer is another word than the same name after a space.
    asked, apart = rng.choice([0.15, 0.3, 0.55]), rng.random() < 0.6
    sentences = [exchange(fact, rng, apart) if rng.random() < asked else statement(fact, rng) for fact in chosen]
    for _ in range(SUMS_ON_A_PAGE):
        sum_of_two = worked(rng, pairs)
        if apart and "? " in sum_of_two:
            sum_of_two = "\n" + sum_of_two.replace("? ", "?\n")
        sentences.insert(rng.randrange(len(sentences) + 1), sum_of_two)
    opening = [sentence(rng.choice(INTRODUCTIONS), rng, WORDS) + "."]
    closing = [sentence(rng.choice(CLOSINGS), rng, WORDS) + "."]
    return sentence(rng.choice(TITLES), rng, WORDS), paragraphs(opening + sentences + closing, rng, 4, 7)


def people_pages(settings: Settings) -> list[tuple[str, list[str]]]:
    """All pages that state facts; the same ones in a control, for measuring what is left out."""
    pairs = Pairs(settings.rng("people", "sums"), large=0.1)
    everyone = settings.model_copy(update={"facts": True})
    return [
        people_page(chosen, settings.rng("people", number), pairs) for number, chosen in enumerate(spread(everyone))
    ]
