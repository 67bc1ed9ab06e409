"""What the model is asked: a fact of the training documents for each thing that they name, and things that there are
not."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from webtochat.demonstrations.drawn import draw
from webtochat.evals.extraction import Extracted, consistent
from webtochat.evals.questions import Question, at_most
from webtochat.recipe_knowledge import Interrogation


@dataclass(frozen=True, kw_only=True)
class Fact(Question):
    """A question whose `answers` are the reference. `stated`: how many of the documents drawn tell of the subject,
    rounded down to a power of two; 0: it does not exist."""

    subject: str
    relation: str
    evidence: str
    """The sentence that states it, or of a written question the snippet."""
    document: str
    """Id."""
    held_out: bool


def snippet(text: str, document: str, section: Interrogation, seed: int) -> str:
    """Whole lines from anywhere in a document, at most `snippet_characters`; of a longer line its beginning."""
    most = section.snippet_characters
    if len(text) <= most:
        return text
    begin = text.rfind("\n", 0, int(draw(seed, "snippet", document) * (len(text) - most)) + 1) + 1
    piece = text[begin : begin + most]
    return piece[: piece.rfind("\n")] if "\n" in piece.rstrip("\n") else piece


def chosen(found: Iterable[tuple[str, Extracted]], section: Interrogation, seed: int) -> list[Fact]:
    """Of what documents, by id, state: one question for each subject, about what most of them say of it."""
    by_subject: defaultdict[str, list[tuple[str, Extracted]]] = defaultdict(list)
    for document, each in found:
        by_subject[each.subject].append((document, each))
    facts = []
    for subject, told in by_subject.items():
        agreed = {each.relation for each in consistent(each for _, each in told)}
        said = Counter(each.relation for _, each in told if each.relation in agreed)
        if said:
            relation = max(said, key=lambda each: (said[each], draw(seed, "relation", subject, each)))
            places = [place for place in told if place[1].relation == relation]
            document, fact = places[int(draw(seed, "place", subject) * len(places))]
            documents = len({document for document, _ in told})
            facts.append(Fact(
                kind="knowledge", question=fact.question(seed), answers=fact.answers, stated=_rounded(documents),
                subject=subject, relation=relation, evidence=fact.evidence, document=document,
                held_out=is_held_out(subject, section, seed),
            ))  # fmt: skip
    return at_most(facts, section.max_questions, seed)


def _rounded(count: int) -> int:
    return 1 << int(math.log2(count))


def is_held_out(subject: str, section: Interrogation, seed: int) -> bool:
    """By its name, so that all that is asked about one thing is on one side."""
    return draw(seed, "held out", subject) < section.held_out


def invented(facts: Sequence[Fact], section: Interrogation, seed: int) -> list[Fact]:
    """Questions in the words of `facts` about names that are made of parts of theirs: more than are wanted, as some may
    stand in a document."""
    several = [fact for fact in facts if " " in fact.subject]
    if not several:
        return []
    known = {fact.subject for fact in several}
    made: dict[str, Fact] = {}
    for number in range(20 * section.invented):
        places = (int(draw(seed, part, str(number)) * len(several)) for part in ("first", "last", "asked"))
        first, last, asked = (several[place] for place in places)
        name = f"{first.subject.split(' ')[0]} {last.subject.split(' ', 1)[1]}"
        if name in known or name in made:
            continue
        made[name] = Fact(
            kind="knowledge", question=asked.question.replace(asked.subject, name), answers=[], stated=0, subject=name,
            relation=asked.relation, evidence="", document="", held_out=is_held_out(name, section, seed),
        )  # fmt: skip
        if len(made) == 2 * section.invented:
            break
    return list(made.values())
