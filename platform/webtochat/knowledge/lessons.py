"""What answers to a question show of the model, and what it is therefore taught."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from webtochat.demonstrations import shown
from webtochat.demonstrations.drawn import draw
from webtochat.demonstrations.shown import NotShown
from webtochat.knowledge.facts import Fact
from webtochat.recipe_knowledge import SUBJECT, Interrogation
from webtochat.recipe_tools import Tools
from webtochat.tokens.chat import Message
from webtochat.tokens.rows import Row
from webtochat.tools.tool import Tool


@dataclass(frozen=True)
class Asked:
    """A fact with the model's answers to it, and which of them are right."""

    fact: Fact
    replies: list[str] = field(default_factory=list)
    right: list[bool] = field(default_factory=list)

    def state(self, section: Interrogation) -> str:
        """One of `evals.refusals.STATES`."""
        if not self.fact.answers:
            return "invented"
        share = sum(self.right) / len(self.right)
        return "known" if share >= section.known else "unknown" if share <= section.unknown else "mixed"


def lessons(asked: Sequence[Asked], section: Interrogation, seed: int) -> list[str | None]:
    """What each question is answered with in training; None where it is not trained on. Of refusals there are at most
    `max_refusals` for each answer, drawn by seed."""
    taught: list[str | None] = []
    for each in asked:
        state = "held out" if each.fact.held_out else each.state(section)
        if state == "known":
            said = Counter(reply for reply, right in zip(each.replies, each.right, strict=True) if right)
            taught.append(said.most_common(1)[0][0])
        elif state in ("unknown", "invented"):
            taught.append(refusal(each.fact, section, seed))
        else:
            taught.append(None)
    states = [each.state(section) for each in asked]
    answers = sum(text is not None and state == "known" for text, state in zip(taught, states, strict=True))
    refusals = [place for place, state in enumerate(states) if state != "known" and taught[place] is not None]
    refusals.sort(key=lambda place: draw(seed, "kept", asked[place].fact.subject))
    for place in refusals[int(section.max_refusals * max(1, answers)) :]:
        taught[place] = None
    return taught


def refusal(fact: Fact, section: Interrogation, seed: int) -> str:
    named = fact.subject in fact.question
    usable = [each for each in section.refusals if named or SUBJECT not in each]
    return usable[int(draw(seed, "refusal", fact.question) * len(usable))].replace(SUBJECT, fact.subject)


def searches(
    asked: Sequence[Asked], section: Interrogation, tools: Sequence[Tool], limits: Tools, failed: Counter[str]
) -> dict[int, list[Message]]:
    """By place, the conversations in which what was known at times is looked up, each call made. What the search does
    not show is left out and counted in `failed`, by reason."""
    found = {}
    for place, each in enumerate(asked):
        if not each.fact.held_out and each.state(section) == "mixed":
            try:
                _, messages = shown.search(tools, limits, asdict(each.fact))
            except NotShown as reason:
                failed[f"search: {reason}"] += 1
            else:
                found[place] = messages
    return found


def conversation(question: str, answer: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def rest(chats: Sequence[Row], held_out: set[str], share: float, seed: int) -> list[Row]:
    """A share of the other conversations, drawn by seed, without those that name what is held out."""
    kept = []
    for number, row in enumerate(chats):
        if draw(seed, "rest", str(number)) < share:
            said = json.dumps(row.get("messages"), ensure_ascii=False, default=str)
            if not any(subject in said for subject in held_out):
                kept.append(row)
    return kept
