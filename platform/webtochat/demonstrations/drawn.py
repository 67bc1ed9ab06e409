"""What is asked about, drawn from the documents by hashes: the same for any number of workers, and names, numbers and
words of the test are in no training conversation."""

from __future__ import annotations

import hashlib
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from webtochat.demonstrations.programs import TRIES, exercises
from webtochat.evals.extraction import Extracted, consistent
from webtochat.recipe import Demonstrations

WORD = re.compile(r"\b[a-z]{5,12}\b")
MOST_WORDS = 5000
"""To ask about letters in, and of each part of the documents so many."""
CANDIDATES = 3
"""For each held-out question that is wanted: names that stand in several documents do not count."""


def draw(seed: int, *thing: str) -> float:
    """A number in [0, 1) that follows from the seed and the thing alone."""
    digest = hashlib.sha256(":".join([str(seed), *thing]).encode("utf-8", "replace")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def held_out(key: str, section: Demonstrations) -> bool:
    """Whether a name, a sum or a word is for the test."""
    return draw(section.seed, "held out", key) < section.held_out_percent / 100


def words_of(texts: Iterable[str], seed: int) -> list[str]:
    """MOST_WORDS of their different words, drawn by hash."""
    found = {word for text in texts for word in WORD.findall(text)}
    return sorted(found, key=lambda word: draw(seed, "word", word))[:MOST_WORDS]


def program_specs(section: Demonstrations, found: Sequence[str], test: bool) -> Iterator[dict[str, Any]]:
    """Exercises for python, to be shown or for the test."""
    for kind, wanted in section.programs.items():
        number = min(wanted, section.questions) if test else wanted
        made = exercises(kind, number, found, section.seed, lambda key: held_out(key, section) is test)
        yield from ({"kind": kind} | each._asdict() for each in made)


def document_specs(section: Demonstrations, facts: Iterable[Extracted], test: bool) -> Iterator[dict[str, Any]]:
    """Questions about what documents state, one for each subject, and about names that are made of theirs."""
    by_subject = {each.subject: each for each in reversed(consistent(facts)) if held_out(each.subject, section) is test}
    subjects = sorted(by_subject, key=lambda name: draw(section.seed, "subject", name))
    wanted = min(section.documents, section.questions) * CANDIDATES if test else section.documents
    for subject in subjects[:wanted]:
        fact = by_subject[subject]
        yield {
            "kind": "seen_once" if test else "documents", "question": fact.question(section.seed), "subject": subject,
            "answers": fact.answers,
        }  # fmt: skip
    for name, subject in _strangers(subjects, section, test):
        question = by_subject[subject].question(section.seed).replace(subject, name)
        yield {"kind": "strangers", "question": question, "subject": name, "answers": []}


def _strangers(subjects: Sequence[str], section: Demonstrations, test: bool) -> Iterator[tuple[str, str]]:
    """Names of a first and a last word of two subjects, and the first of these: it is asked what was asked of that."""
    rng, known = random.Random(f"{section.seed}:strangers:{test}"), set(subjects)
    named = [subject for subject in subjects if len(subject.split()) == 2]
    wanted = min(section.strangers, section.questions) if test else section.strangers
    for _ in range(TRIES * wanted if len(named) > 1 else 0):
        asked, last = rng.sample(named, 2)
        name = f"{asked.split()[0]} {last.split()[1]}"
        if name not in known and held_out(name, section) is test:
            known.add(name)
            yield name, asked
            if len(known) == len(subjects) + wanted:
                return


def first_of_each_kind(rows: Iterable[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """Up to so many of each kind, in their order."""
    taken: Counter[str] = Counter()
    kept = []
    for row in rows:
        taken[row["kind"]] += 1
        if taken[row["kind"]] <= most:
            kept.append(row)
    return kept
