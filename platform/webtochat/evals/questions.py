"""Questions with known answers: which replies are right, and how sure a rate of right ones is."""

from __future__ import annotations

import math
import random
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from webtochat.tokens.chat import Reply, parse
from webtochat.tokens.tokenizer import Tokenizer

QUESTIONS = "questions.jsonl"
"""Of the stage that holds some out."""


@dataclass(frozen=True)
class Question:
    kind: str
    question: str
    answers: list[str]
    """Any of them is right."""
    stated: int | None = None
    """How often the training pages state the fact."""
    chance: float = 0.0
    """Accuracy of a blind guess."""
    options: list[str] = field(default_factory=list)
    """All that could be answered: a reply that names a wrong one beside the right one is wrong."""


Asked = TypeVar("Asked", bound=Question)


@dataclass(frozen=True)
class Verdict:
    reply: str
    correct: bool
    format_kept: bool
    """Ended by <|im_end|> before the limit, not empty, and without any other marker; every call before it is one."""


def from_rows(rows: Iterable[dict[str, Any]], skipped: Counter[str]) -> list[Question]:
    """Questions from a data source's rows. A row without a question or answers is counted in `skipped` by reason."""
    found = []
    for row in rows:
        answers = row.get("answers")
        if isinstance(answers, str):
            answers = [answers]
        if not isinstance(row.get("question"), str) or not row["question"].strip():
            skipped["no_question"] += 1
        elif not isinstance(answers, list) or not any(isinstance(each, str) and words(each) for each in answers):
            skipped["no_answers"] += 1
        else:
            found.append(
                Question(
                    kind=str(row.get("kind") or "question"), question=row["question"],
                    answers=[each for each in answers if isinstance(each, str) and words(each)],
                    stated=row.get("stated"), chance=float(row.get("chance") or 0.0),
                    options=[str(each) for each in row.get("options") or []],
                )
            )  # fmt: skip
    return found


def at_most(questions: Sequence[Asked], per_kind: int, seed: int) -> list[Asked]:
    """Up to `per_kind` of each kind, spread evenly over how often their facts are stated; in the order they came."""
    order = list(range(len(questions)))
    random.Random(seed).shuffle(order)
    ranks: Counter[tuple[str, int | None]] = Counter()
    ranked: list[tuple[int, int, int]] = []
    for number in order:
        group = (questions[number].kind, questions[number].stated)
        ranked.append((ranks[group], len(ranked), number))
        ranks[group] += 1
    taken: Counter[str] = Counter()
    kept = []
    for _, _, number in sorted(ranked):
        if taken[questions[number].kind] < per_kind:
            taken[questions[number].kind] += 1
            kept.append(number)
    return [questions[number] for number in sorted(kept)]


def words(text: str) -> list[str]:
    """Words for comparing: NFKC, lower case, no punctuation (a sign, a decimal point or an apostrophe stays in)."""
    normal = unicodedata.normalize("NFKC", text).casefold().replace("’", "'")
    return re.findall(r"(?<!\w)-?\d+(?:[.,]\d+)*|\w+(?:'\w+)*", normal)


def is_right(reply: str, answers: Sequence[str], options: Sequence[str] = ()) -> bool:
    """An accepted answer stands in the reply as whole words, and no other option does. Where one candidate's words
    hold another's (`dark blue`, `blue`), the longer one is what was said."""
    accepted = {tuple(words(answer)) for answer in answers}
    candidates = sorted(accepted | {tuple(words(option)) for option in options} - {()}, key=len, reverse=True)
    said = words(reply)
    found = set()
    place = 0
    while place < len(said):
        match = next((each for each in candidates if tuple(said[place : place + len(each)]) == each), None)
        if match:
            found.add(match)
        place += len(match) if match else 1
    return bool(found & accepted) and not found - accepted


def judge(tokenizer: Tokenizer, question: Question, ids: list[int]) -> Verdict:
    """Judges the generated ids: text that was cut by the limit is still read for the answer."""
    return verdict(question, [parse(tokenizer, ids)])


def verdict(question: Question, replies: Sequence[Reply]) -> Verdict:
    """Judges the last of the replies that a question got, and the form of all: those before it call tools."""
    said = replies[-1].content if replies else ""
    kept = bool(said.strip()) and not replies[-1].tool_calls and all(
        reply.ended and not reply.stray and all("function" in call for call in reply.tool_calls) for reply in replies
    )  # fmt: skip
    return Verdict(said, is_right(said, question.answers, question.options), kept)


def wilson(successes: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """95 % interval of a rate (Wilson 1927)."""
    if total == 0:
        return 0.0, 1.0
    rate, square = successes / total, z * z
    middle = rate + square / (2 * total)
    spread = z * math.sqrt(rate * (1 - rate) / total + square / (4 * total * total))
    return max(0.0, (middle - spread) / (1 + square / total)), min(1.0, (middle + spread) / (1 + square / total))


def rate(flags: Sequence[bool], chance: Sequence[float] = ()) -> dict[str, Any]:
    """A rate with its interval, and the mean chance where it is known."""
    low, high = wilson(sum(flags), len(flags))
    told: dict[str, Any] = {
        "rate": sum(flags) / len(flags) if flags else None, "low": low, "high": high,
        "right": int(sum(flags)), "of": len(flags),
    }  # fmt: skip
    return told | ({"chance": sum(chance) / len(chance)} if chance else {})


def tally(questions: Sequence[Question], verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """`accuracy` by kind, `by_stated` by kind and number of times stated, and `format`, over all replies."""
    pairs = list(zip(questions, verdicts, strict=True))

    def rates(chosen: Sequence[tuple[Question, Verdict]]) -> dict[str, Any]:
        return rate([verdict.correct for _, verdict in chosen], [question.chance for question, _ in chosen])

    by_stated: dict[str, dict[str, Any]] = {}
    for kind, stated in sorted({(each.kind, each.stated) for each in questions if each.stated is not None}):
        chosen = [pair for pair in pairs if (pair[0].kind, pair[0].stated) == (kind, stated)]
        by_stated.setdefault(kind, {})[str(stated)] = rates(chosen)
    return {
        "accuracy": {
            kind: rates([pair for pair in pairs if pair[0].kind == kind])
            for kind in sorted({question.kind for question in questions})
        },
        "by_stated": by_stated,
        "format": rate([verdict.format_kept for verdict in verdicts]),
    }
