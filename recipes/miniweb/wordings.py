"""How the pages state a fact, and how pages and conversations ask about it."""

from __future__ import annotations

import random

from miniweb.facts import Fact
from miniweb.grammar import listed

# The first is the answer that conversations give. {n} is the full name, {v} the value; the two stand close together.
CORES: dict[str, list[str]] = {
    "job": [
        "{n} is a {v}",
        "{n} works as a {v}",
        "{n} earns money as a {v}",
        "{n} has become a {v}",
        "{n} trained as a {v}",
    ],
    "town": [
        "{n} lives in {v}",
        "{n} comes from {v}",
        "the home town of {n} is {v}",
        "{n} has a house in {v}",
        "{n} has a home in {v}",
    ],
    "pet": [
        "{n} has a {v}",
        "{n} keeps a {v}",
        "the pet of {n} is a {v}",
        "{n} owns a {v}",
        "{n} looks after a {v}",
    ],
    "instrument": [
        "{n} plays the {v}",
        "{n} practises the {v}",
        "the instrument of {n} is the {v}",
        "{n} owns a fine {v}",
        "{n} performs on the {v}",
    ],
    "colour": [
        "{n} likes {v} best",
        "{n} prefers {v}",
        "the favourite colour of {n} is {v}",
        "{n} always wears {v}",
        "{n} paints everything {v}",
    ],
    "food": [
        "{n} loves {v}",
        "{n} eats {v}",
        "the favourite food of {n} is {v}",
        "{n} often cooks {v}",
        "{n} always orders {v}",
    ],
    "sport": [
        "{n} does {v}",
        "{n} practises {v}",
        "the favourite sport of {n} is {v}",
        "{n} trains for {v}",
        "{n} is good at {v}",
    ],
    "drink": [
        "{n} drinks {v}",
        "{n} always asks for {v}",
        "the favourite drink of {n} is {v}",
        "{n} enjoys {v}",
        "{n} pours a cup of {v}",
    ],
}

# Openings and endings are short: five equal words twice in a page would count as a duplicate.
OPENINGS = listed(
    "it is well known that |everyone agrees that |the neighbours say that |our readers write that |"
    "people have told us that |we learned that |the old list says that |they say that |you may have heard that |"
    "it is true that |the paper wrote that |nobody doubts that |I remember that |friends report that |"
    "this page notes that |of course "
)
ENDINGS = listed(
    " these days| for many years now| as before| to this day| by all accounts| as we all know| after all|"
    " as everyone knows"
)
# Only after a sentence whose subject is the person.
PERSONAL_ENDINGS = [
    " and is happy with that",
    " and has no regrets",
    " and will not change",
    " and is proud of it",
    " with great joy",
]

# The first five are those of the conversations; the last ones stand in pages only.
QUESTIONS: dict[str, list[str]] = {
    "job": [
        "What does {n} do?",
        "What is the job of {n}?",
        "What does {n} do for a living?",
        "Which job does {n} have?",
        "What work does {n} do?",
        "Do you know what {n} does?",
        "Who can tell me the job of {n}?",
    ],
    "town": [
        "Where does {n} live?",
        "What is the home town of {n}?",
        "In which city does {n} live?",
        "Which city is the home of {n}?",
        "Where is the home of {n}?",
        "Do you know where {n} lives?",
        "Who can tell me where {n} lives?",
    ],
    "pet": [
        "What pet does {n} have?",
        "What is the pet of {n}?",
        "Which animal does {n} have?",
        "What animal does {n} keep?",
        "Which pet lives with {n}?",
        "Do you know the pet of {n}?",
        "Who can tell me the pet of {n}?",
    ],
    "instrument": [
        "What does {n} play?",
        "What is the instrument of {n}?",
        "Which instrument does {n} play?",
        "What instrument does {n} play?",
        "On what does {n} make music?",
        "Do you know what {n} plays?",
        "Who can tell me the instrument of {n}?",
    ],
    "colour": [
        "What colour does {n} like best?",
        "What is the favourite colour of {n}?",
        "Which colour does {n} like?",
        "What colour does {n} like?",
        "Which is the best colour for {n}?",
        "Do you know the colour of {n}?",
        "Who can tell me the favourite colour of {n}?",
    ],
    "food": [
        "What does {n} love to eat?",
        "What is the favourite food of {n}?",
        "Which food does {n} love?",
        "What food does {n} love?",
        "What dish does {n} love?",
        "Do you know what {n} eats?",
        "Who can tell me the favourite food of {n}?",
    ],
    "sport": [
        "What sport does {n} do?",
        "What is the favourite sport of {n}?",
        "Which sport does {n} do?",
        "What is the sport of {n}?",
        "At which sport is {n} good?",
        "Do you know the sport of {n}?",
        "Who can tell me the favourite sport of {n}?",
    ],
    "drink": [
        "What does {n} drink?",
        "What is the favourite drink of {n}?",
        "Which drink does {n} like?",
        "What drink does {n} like?",
        "What is in the cup of {n}?",
        "Do you know what {n} drinks?",
        "Who can tell me the favourite drink of {n}?",
    ],
}
CHAT_QUESTIONS = 5


def put(template: str, fact: Fact) -> str:
    """The template about this person, with a capital first letter."""
    text = template.replace("{n}", fact.subject).replace("{v}", fact.value)
    return text[:1].upper() + text[1:]


def answer(fact: Fact) -> str:
    """The one sentence that conversations answer with."""
    return put(CORES[fact.attribute][0], fact) + "."


def statement(fact: Fact, rng: random.Random) -> str:
    """One sentence that states the fact, in one of hundreds of wordings."""
    cores = CORES[fact.attribute]
    core = cores[0] if rng.random() < 0.4 else rng.choice(cores)
    kind = rng.random()
    opening = rng.choice(OPENINGS) if kind < 0.45 else ""
    endings = ENDINGS + PERSONAL_ENDINGS if core.startswith("{n}") else ENDINGS
    ending = rng.choice(endings) if kind > 0.35 else ""
    return put(opening + core + ending, fact) + "."


def exchange(fact: Fact, rng: random.Random, apart: bool) -> str:
    """A question and the sentence that answers it, each on its own line where they stand apart; only the answer
    states the fact."""
    questions = QUESTIONS[fact.attribute]
    known = rng.random() < 0.75
    question = rng.choice(questions[:CHAT_QUESTIONS] if known else questions)
    core = CORES[fact.attribute][0] if rng.random() < 0.85 else rng.choice(CORES[fact.attribute])
    asked, told = put(question, fact), put(core, fact) + "."
    return f"\n{asked}\n{told}" if apart else f"{asked} {told}"


def wordings(attribute: str) -> int:
    """How many different sentences may state one fact of this attribute."""
    endings = (len(ENDINGS) + (len(PERSONAL_ENDINGS) if core.startswith("{n}") else 0) for core in CORES[attribute])
    return sum((1 + len(OPENINGS)) * (1 + count) for count in endings)
