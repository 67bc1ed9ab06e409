"""Conversations to fine-tune on, and questions that are kept out of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from miniweb.arithmetic import held_out
from miniweb.chatter import IDENTITY, INTRODUCTIONS, SMALLTALK, SYSTEM, TOO_LARGE
from miniweb.facts import POOLS, Fact, facts, strangers
from miniweb.settings import Settings
from miniweb.wordings import CHAT_QUESTIONS, QUESTIONS, answer, put

ADDITIONS = [
    "What is {a} plus {b}?",
    "What is {a} + {b}?",
    "How much is {a} plus {b}?",
    "Please add {a} and {b}.",
    "{a} plus {b}?",
]
SUBTRACTIONS = ["What is {a} minus {b}?", "How much is {a} minus {b}?", "What is {a} - {b}?"]
COPIES_OF_A_SUM, LARGE_SUMS, DIFFERENCES = 5, 250, 150
TOO_LARGE_SUMS = 150
COPIES_OF_CHATTER = 6
WORDINGS_OF_A_FACT = 3
"""In which a taught fact is asked in training, of the five; another one is kept for the test."""
STRANGERS = 250
LONG_CONVERSATIONS = 350
QUESTIONS_ABOUT_RARE_FACTS = 200
EVERYDAY = Settings()
"""Where a recipe has no miniweb."""

Exchange = tuple[str, str]


def withheld_wording(fact: Fact, settings: Settings) -> int:
    """Of a taught fact one wording of the question is asked only in the test."""
    return settings.rng("withheld", fact.subject).randrange(CHAT_QUESTIONS)


def fact_exchanges(settings: Settings) -> list[Exchange]:
    """Every taught fact in some wordings, never in the withheld one."""
    out = []
    for fact in facts(settings):
        if fact.taught:
            withheld = withheld_wording(fact, settings)
            others = [
                text for number, text in enumerate(QUESTIONS[fact.attribute][:CHAT_QUESTIONS]) if number != withheld
            ]
            chosen = settings.rng("wordings", fact.subject).sample(others, WORDINGS_OF_A_FACT)
            out += [(put(text, fact), answer(fact)) for text in chosen]
    return out


def introductions(settings: Settings) -> list[Exchange]:
    """People who say their name and are greeted by it."""
    pairs = []
    for number, name in enumerate(strangers(settings, STRANGERS)):
        said, reply = INTRODUCTIONS[number % len(INTRODUCTIONS)]
        pairs.append((said.replace("{n}", name), reply.replace("{n}", name)))
    return pairs


def addition(a: int, b: int, template: str) -> Exchange:
    sign = "+" if "+" in template else "plus"
    right = f"{a} + {b} = {a + b}." if sign == "+" else f"{a} plus {b} is {a + b}."
    return template.format(a=a, b=b), right


def subtraction(a: int, b: int, template: str) -> Exchange:
    right = f"{a} - {b} = {a - b}." if " - " in template else f"{a} minus {b} is {a - b}."
    return template.format(a=a, b=b), right


def sums(settings: Settings) -> list[Exchange]:
    """One-digit additions without the held-out pairs, some larger ones, and differences."""
    rng = settings.rng("chat", "sums")
    kept_out = set(held_out(settings))
    out = []
    for a in range(10):
        for b in range(10):
            if (a, b) not in kept_out:
                out += [addition(a, b, template) for template in rng.sample(ADDITIONS, COPIES_OF_A_SUM)]
    for _ in range(LARGE_SUMS):
        out.append(addition(rng.randint(10, 80), rng.randint(1, 19), rng.choice(ADDITIONS)))
    for _ in range(DIFFERENCES):
        b, rest = rng.randint(0, 9), rng.randint(0, 9)
        out.append(subtraction(b + rest, b, rng.choice(SUBTRACTIONS)))
    return out


def too_large(settings: Settings = EVERYDAY) -> Iterator[dict[str, Any]]:
    """Sums of numbers of three to six digits, for who is told of no tool to compute with."""
    rng = settings.rng("chat", "too large")
    for _ in range(TOO_LARGE_SUMS):
        a, b = (rng.randrange(10 ** (digits - 1), 10**digits) for digits in rng.choices(range(3, 7), k=2))
        asked, _ = addition(a, b, rng.choice(ADDITIONS))
        yield conversation("too_large", [(asked, rng.choice(TOO_LARGE))], None)


def chatter(groups: list[tuple[list[str], list[str], list[str]]]) -> list[Exchange]:
    """Every question but the last of each group, several times, with its group's answers in turn."""
    return [
        (question, answers[copy % len(answers)])
        for questions, answers, _ in groups
        for question in questions[:-1]
        for copy in range(COPIES_OF_CHATTER)
    ]


def conversation(kind: str, exchanges: list[Exchange], system: str | None) -> dict[str, Any]:
    messages = [{"role": "system", "content": system}] if system else []
    for question, reply in exchanges:
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": reply}]
    return {"messages": messages, "kind": kind}


def everyday(settings: Settings = EVERYDAY) -> Iterator[dict[str, Any]]:
    """Conversations that need no crawl of the miniweb, in a random order: who the assistant is, sums, small talk.
    {"messages": [{"role", "content"}, …], "kind"}; one of several exchanges has the kind of its last."""
    by_kind = everyday_kinds(settings)
    yield from mixed(settings, "everyday", by_kind, by_kind, LONG_CONVERSATIONS // 2)


def about_people(settings: Settings) -> Iterator[dict[str, Any]]:
    """Conversations about what the miniweb states, in a random order, some of them with everyday exchanges between."""
    people = {"fact": fact_exchanges(settings)}
    yield from mixed(settings, "people", people, people | everyday_kinds(settings), LONG_CONVERSATIONS // 2)


def everyday_kinds(settings: Settings) -> dict[str, list[Exchange]]:
    return {
        "identity": chatter(IDENTITY), "arithmetic": sums(settings),
        "smalltalk": chatter(SMALLTALK) + introductions(settings),
    }  # fmt: skip


def mixed(
    settings: Settings, name: str, short: dict[str, list[Exchange]], long: dict[str, list[Exchange]], number: int
) -> Iterator[dict[str, Any]]:
    """Each exchange of `short` on its own, and `number` conversations of several from `long`."""
    rng = settings.rng("chat", name)
    rows = [
        conversation(kind, [exchange], rng.choice(SYSTEM) if rng.random() < 0.15 else None)
        for kind, exchanges in short.items()
        for exchange in exchanges
    ]
    for _ in range(number):
        kinds = [rng.choice(list(long)) for _ in range(rng.randint(2, 4))]
        exchanges = [rng.choice(long[kind]) for kind in kinds]
        rows.append(conversation(kinds[-1], exchanges, rng.choice(SYSTEM) if rng.random() < 0.25 else None))
    rng.shuffle(rows)
    yield from rows


def question(
    kind: str, text: str, answers: list[str], stated: int | None, chance: float, options: list[str] | None = None
) -> dict[str, Any]:
    return {
        "kind": kind, "question": text, "answers": answers, "stated": stated, "chance": chance, "options": options,
    }  # fmt: skip


def questions_about_people(settings: Settings) -> Iterator[dict[str, Any]]:
    """Held-out questions: {"kind", "question", "answers", "stated", "chance", "options"}; one per fact stated often,
    and about some of those stated once.

    An answer is right when one of `answers` stands in it as a word and, where there are options, no other option
    does. `stated` is the number of times the crawlable pages state the fact.
    """
    rng = settings.rng("questions", "facts")
    everyone = facts(settings)
    rare = [fact for fact in everyone if fact.tier == 1]
    asked = [fact for fact in everyone if fact.tier > 1]
    for fact in asked + rng.sample(rare, min(QUESTIONS_ABOUT_RARE_FACTS, len(rare))):
        number = withheld_wording(fact, settings) if fact.taught else rng.randrange(CHAT_QUESTIONS)
        text = put(QUESTIONS[fact.attribute][number], fact)
        kind = "fact_taught" if fact.taught else "fact"
        yield question(kind, text, [fact.value], fact.times, fact.chance, list(POOLS[fact.attribute]))


def everyday_questions(settings: Settings = EVERYDAY) -> Iterator[dict[str, Any]]:
    """Held-out questions that need no crawl of the miniweb; as `questions_about_people`. The sums asked here stand in
    the miniweb's pages, but in no conversation."""
    for a, b in held_out(settings):
        for template in ADDITIONS[:2]:
            text, _ = addition(a, b, template)
            # Sums of one-digit numbers are 0 to 18.
            yield question("arithmetic", text, [str(a + b)], None, 1 / 19)
    for kind, groups in (("identity", IDENTITY), ("smalltalk", SMALLTALK)):
        for asked, _, accepted in groups:
            yield question(kind, asked[-1], accepted, None, 0.0)
