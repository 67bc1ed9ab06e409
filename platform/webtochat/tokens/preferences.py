"""Preferences, from the forms in which data sets write them: of two answers to a prompt, the one that was chosen.

A row has `chosen` and `rejected`, and what they answer under `prompt`, `messages` or `conversations`, or as a question
(tokens/conversations.py); or each of the two is a whole conversation, as messages or in the form of HH-RLHF
("\\n\\nHuman: …\\n\\nAssistant: …"), and they differ in its last answer only. `margin` is optional: by how much the
score of the chosen one is to exceed that of the other.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from webtochat.tokens.chat import Message
from webtochat.tokens.conversations import answer_of, message_of, question_of
from webtochat.tokens.rows import Row

TURNS = ("prompt", "messages", "conversations")
SPEAKERS = {"Human": "user", "Assistant": "assistant"}
LARGEST_MARGIN = 1e9
"""A larger one is a fault; no number at all is not smaller."""
_SPEAKER = re.compile(rf"(?:^|\n\n)({'|'.join(SPEAKERS)}):")


@dataclass(frozen=True)
class Preference:
    prompt: list[Message]
    """Ends where the assistant's turn is."""
    chosen: str
    rejected: str
    source: str
    margin: float = 0.0


def preferences(found: Iterable[Row], source: str, skipped: Counter[str]) -> Iterator[Preference]:
    """`source`: of rows that name none. A row that is no preference is counted in `skipped`, with the reason."""
    for row in found:
        try:
            yield preference_of(row, source)
        except ValueError as error:
            skipped[str(error).replace(" ", "_")] += 1


def preference_of(row: Row, source: str) -> Preference:
    """Raises ValueError with a short reason."""
    turns = _turns(row)
    (before, chosen), (other, rejected) = (_answer(row.get(name), not turns) for name in ("chosen", "rejected"))
    if before != other:
        raise ValueError("the two answers have different prompts")
    if not chosen.strip() or not rejected.strip():
        raise ValueError("an answer is empty")
    if chosen == rejected:
        raise ValueError("both answers are alike")
    margin = 0.0 if row.get("margin") is None else row["margin"]
    if isinstance(margin, bool) or not isinstance(margin, int | float) or not abs(margin) < LARGEST_MARGIN:
        raise ValueError("the margin is not a number")
    source = str(row.get("source") or source).encode("utf-8", "replace").decode()
    return Preference(before or prompt_of(row), chosen, rejected, source, float(margin))


def prompt_of(row: Row) -> list[Message]:
    """What is to be answered: of a whole conversation what comes before its last answer. Raises ValueError with a short
    reason."""
    messages = [message_of(turn) for turn in _turns(row)]
    if messages and messages[-1].get("role") == "assistant":
        messages.pop()
    if not messages:
        raise ValueError("no prompt")
    if row.get("system") and messages[0].get("role") != "system":
        messages = [{"role": "system", "content": row["system"]}, *messages]
    return messages


def exchange_of(row: Row) -> tuple[list[Message], str]:
    """The prompt and the answer to it, of a row that holds both: the answer by itself, or as its last message. Raises
    ValueError with a short reason."""
    answer = answer_of(row)
    if answer is None:
        turns = row.get("messages", row.get("conversations"))
        last = message_of(turns[-1]) if isinstance(turns, list) and turns else {}
        if last.get("role") != "assistant":
            raise ValueError("no answer")
        answer = _text(last)
    return prompt_of(row), answer


def _turns(row: Row) -> list[Any]:
    turns = next((row[name] for name in TURNS if isinstance(row.get(name), list)), None)
    if turns is not None:
        return turns
    question = question_of(row)
    return [{"role": "user", "content": question}] if question else []


def _answer(given: Any, whole: bool) -> tuple[list[Message], str]:
    """(the messages before it, where they stand there; the answer). `whole`: there is no prompt elsewhere."""
    if isinstance(given, str):
        parts = _SPEAKER.split(given) if whole else []
        if len(parts) < 5 or parts[0].strip() or parts[-2] != "Assistant":  # not even a question and its answer
            return [], given
        spoken = zip(parts[1:-2:2], parts[2:-2:2], strict=True)
        return [{"role": SPEAKERS[who], "content": said.strip()} for who, said in spoken], parts[-1].strip()
    turns = given if isinstance(given, list) else [] if given is None else [given]
    messages = [message_of(turn) for turn in turns]
    if not messages or messages[-1].get("role") != "assistant":
        raise ValueError("no answer")
    return messages[:-1], _text(messages[-1])


def _text(message: Message) -> str:
    if not isinstance(message.get("content"), str) or message.get("tool_calls"):
        raise ValueError("an answer is not plain text")
    return message["content"]
