"""Worked sums in words and digits."""

from __future__ import annotations

import random

from miniweb.grammar import deal, listed, paragraphs, sentence
from miniweb.plots import NAMES, WORDS
from miniweb.settings import Settings

UNITS = listed(
    "zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|"
    "seventeen|eighteen|nineteen"
)
TENS = ["_", "_", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]

HELD_OUT = 20
"""One-digit additions that no conversation asks about."""

GOODS = listed(
    "apples|pears|buttons|marbles|coins|shells|stamps|candles|eggs|carrots|books|feathers|nails|cups|plates|"
    "ribbons|walnuts|cherries|tickets|stones|flowers|pencils|keys|spoons|cookies|beads|bricks|sheep|hens|fish|"
    "letters|socks"
)

# {a} {b} {c}: words for the numbers; {m} {n} {o}: digits. Long sentences carry the numbers, as most words of a page
# must have a letter in them.
SUM_STORIES = [
    "{x} had {m} {g} in a {thing} and found {n} more beside the {part}, which makes {o} {g} altogether",
    "{x} counted {a} {g} on the {part} and {b} in the {place}, and the sum of {a} and {b} is {c}",
    "if the {person} sells {a} {g} {time} and {b} {g} later on then {c} {g} have been sold that day",
    "there were {a} {g} in the {place} until {x} brought {b} others from the {place}, so in the end there were {c}",
    "a {person} needs {c} {g} and has only {a} of them, so {x} has to fetch the other {b} from the {place}",
    "{x} put {m} {g} into the left hand and {n} into the right and then saw that {m} plus {n} is {o}",
    "when {x} and the {person} lay their {g} together, {a} from one side and {b} from the other, they own {c}",
    "first came {a} {g} and then came {b} more, and the {adjective} {person} wrote {c} at the foot of the page",
    "a {adjective} {animal} carried {a} {g} to the {place} and then {b} more, and everybody there counted {c}",
    "start at {a} and go on for {b} steps, as {x} does on the stairs of the {place}, and you arrive at {c}",
]
DIFFERENCE_STORIES = [
    "{x} had {o} {g} and gave {n} of them to the {person}, so that {m} {g} were left in the {place}",
    "of {c} {g} in the {place} the {animal} took {b} away, and there remained {a} for the {adjective} {person}",
    "take {b} from {c}, said the {person} to {x}, and tell me why {a} is what you have in the end",
    "{x} wanted {c} {g} for the {place} but could carry {b} fewer, and {c} minus {b} is {a}",
    "there stood {c} {g} behind the {part} until {x} broke {b} of them {time} and had to be content with {a}",
    "the {person} owes {x} exactly {c} {g} and has paid {b} of them {time}, which means that {a} are still to come",
]
WORKED = [
    "what is {m} plus {n}? {m} plus {n} is {o}",
    "what is {m} plus {n}? {m} plus {n} is {o}",
    "what is {m} plus {n}? {m} plus {n} is {o}",
    "{m} + {n} = {o}",
    "how much is {m} plus {n}? {m} plus {n} is {o}",
    "{m} and {n} make {o}",
    "what is {m} + {n}? {m} + {n} = {o}",
]
WORKED_DIFFERENCE = [
    "what is {o} minus {n}? {o} minus {n} is {m}",
    "{o} - {n} = {m}",
    "how much is {o} minus {n}? {o} minus {n} is {m}",
]
IN_WORDS = [
    "{a} plus {b} is {c}",
    "{a} and {b} make {c}",
    "{c} minus {b} is {a}",
    "if you add {b} to {a} you get {c}",
    "{b} more than {a} is {c}",
    "take {b} from {c} and {a} is left",
]
ASIDES = [
    "the {person} of the {place} taught {x} to [check|repeat|write down] every sum before going to {job}",
    "one can count with {g}, with fingers, or with the [steps|tiles|planks] of a {place}",
    "it is easy to make a mistake when there is {weather} and one feels {feeling} or {feeling}",
    "{x} prefers to count [aloud|backwards|in the dark] and is [seldom|never|not often] wrong",
    "the answer stays the same when both numbers change their places, as the {person} likes to say of the {g}",
    "nobody in the {place} could {job} and count {g} at the same time, and least of all {x}",
    "children who have to {job} learn numbers [early|with ease|by heart], for every {thing} must be counted",
    "an old book from the {place} shows how a {person} used a {thing} to keep count of the {g}",
    "{x} drew the numbers with a {thing} on the {part} and [rubbed them out|coloured them {colour}] afterwards",
    "to add is to put together and to take away is to part with something, whether {g} or {g}",
    "the {relative} of {x} keeps a list of the {g} on the {part} and goes through it with {meal} at hand",
    "those who trade with {g} on the market should be able to add before they have finished {meal}",
    "{x} once mixed up the {g} with the {g} of the {person} and was {feeling} about it until {time}",
    "with a little {virtue} the {adjective} {animal} in the picture would learn to count the {g} as well",
    "the {person} writes small numbers in {colour} and large ones with a {thing} dipped in ink",
    "whoever finds counting dull may {job} in between and come back to the {g} with a fresh mind",
    "in the {place} they say that {virtue} matters more than being quick with {g}",
    "{x} asked the {relative} to repeat the question, because {sound} had come from the {part}",
]
TITLES = [
    "Sums with {g} for the {person}",
    "Counting {g} in the {place}",
    "How {x} learned to add {g}",
    "The {person} and the {g}",
    "A page of sums about {g} and {g}",
    "Adding and taking away with {x}",
]


def spell(number: int) -> str:
    """The English word for 0 to 199."""
    if number < 20:
        return UNITS[number]
    if number < 100:
        return TENS[number // 10] + (f"-{UNITS[number % 10]}" if number % 10 else "")
    return "one hundred" + (f" and {spell(number - 100)}" if number % 100 else "")


def held_out(settings: Settings) -> list[tuple[int, int]]:
    """The one-digit additions that conversations never ask; the pages state them like all others."""
    pairs = [(a, b) for a in range(10) for b in range(10)]
    return sorted(settings.rng("sums").sample(pairs, HELD_OUT))


class Pairs:
    """One-digit pairs in a fair random order, so that each is worked equally often; now and then a larger pair."""

    def __init__(self, rng: random.Random, large: float) -> None:
        self.rng, self.large, self.left = rng, large, list[tuple[int, int]]()

    def draw(self) -> tuple[int, int]:
        if self.rng.random() < self.large:
            return self.rng.randint(2, 80), self.rng.randint(2, 19)
        if not self.left:
            self.left = [(a, b) for a in range(10) for b in range(10)]
            self.rng.shuffle(self.left)
        return self.left.pop()


def numbers(a: int, b: int) -> dict[str, str]:
    """The slots of a + b = c."""
    c = a + b
    return {"a": spell(a), "b": spell(b), "c": spell(c), "m": str(a), "n": str(b), "o": str(c)}


def tidy(text: str) -> str:
    """A capital after the question too, and the full stop."""
    question, mark, answer = text.partition("? ")
    return question + mark + answer[:1].upper() + answer[1:] + "."


def worked(rng: random.Random, pairs: Pairs) -> str:
    """One sum in digits, asked and answered or as an equation."""
    templates = WORKED if rng.random() < 0.8 else WORKED_DIFFERENCE
    return tidy(sentence(rng.choice(templates), rng, numbers(*pairs.draw())))


def puzzle(rng: random.Random, pairs: Pairs, count: int) -> str:
    """A line of sums for the foot of a story."""
    opening = rng.choice(["The sums of the day.", "And now to count.", "Sums for clever readers.", "Count with us."])
    return " ".join([opening, *dict.fromkeys(worked(rng, pairs) for _ in range(count))])


def sums_page(rng: random.Random, pairs: Pairs) -> tuple[str, list[str]]:
    """A title and paragraphs of worked sums, about 3 kB."""
    people = rng.sample(NAMES, 3)
    goods = rng.sample(GOODS, 5)
    words: dict[str, str | list[str]] = {**WORDS, "x": people, "g": goods}
    out: list[str] = []
    for templates, count in ((SUM_STORIES, 8), (DIFFERENCE_STORIES, 4), (ASIDES, 7)):
        for template in deal(templates, rng, count):
            # One person and one kind of goods in a sentence; nobody speaks of zero or of one apples.
            slots = {**words, "x": rng.choice(people), **numbers(rng.randint(2, 12), rng.randint(2, 9))}
            if templates is not ASIDES:
                slots["g"] = rng.choice(goods)
            out.append(sentence(template, rng, slots) + ".")
    out += [tidy(sentence(template, rng, numbers(*pairs.draw()))) for template in deal(IN_WORDS, rng, 5)]
    out += dict.fromkeys(worked(rng, pairs) for _ in range(6))
    rng.shuffle(out)
    return sentence(rng.choice(TITLES), rng, words), paragraphs(out, rng)
