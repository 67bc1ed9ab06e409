"""What is asked: prompts with what a right answer is held against, from the forms in which data sets write them.

A prompt is `messages` (up to the last user's), or a text under question, prompt, problem, instruction or text. The
truth is under answer, answers or solution (of GSM8K's what stands after ####, of MATH's what is boxed), and unit tests
under tests or test_list, with test_setup_code before them. Pairs of preferences (chosen, rejected) give their prompt.
Prompts with the same `key` are held out together, or as `held_out` says.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from webtochat.rl.answers import after_marks
from webtochat.tokens.chat import Message, render
from webtochat.tokens.preferences import preference_of
from webtochat.tokens.rows import Row
from webtochat.tokens.tokenizer import Tokenizer

ASKED = ("question", "prompt", "problem", "instruction", "text")
TRUE = ("answers", "answer", "truth", "solution")


@dataclass(frozen=True)
class Prompt:
    messages: list[Message]
    truth: dict[str, Any]
    """`answers`: texts, any of which is right. `tests`: programs. `setup`: what runs before them. `rewards`: parts that
    count for it; null: the recipe's."""
    key: str
    """What is asked about: prompts of the same are learned from, or held out."""
    held_out: bool | None = None
    """None: by a hash of the key."""
    source: int = 0
    """Which of the recipe's it comes from."""

    @property
    def text(self) -> str:
        """What was asked last."""
        return str(self.messages[-1]["content"])

    def draw(self, *what: str) -> float:
        """A number in [0, 1) that follows from the key (and from what it is drawn for)."""
        digest = hashlib.sha256(":".join([*what, self.key]).encode("utf-8", "replace")).digest()
        return int.from_bytes(digest[:8], "big") / 2**64


def prompts(
    found: Iterable[Row], skipped: Counter[str], source: int = 0, rewards: dict[str, float] | None = None
) -> list[Prompt]:
    """Of each row of a source that holds one, once; the others are counted in `skipped` by reason."""
    kept: dict[str, Prompt] = {}
    for row in found:
        try:
            messages = messages_of(row)
            asked = json.dumps(messages, sort_keys=True, ensure_ascii=False)
            away = row.get("held_out")
            key = str(row.get("key") or asked)
            truth = truth_of(row) | {"rewards": rewards}
            made = Prompt(messages, truth, key, away if isinstance(away, bool) else None, source)
        except ValueError as error:
            skipped[str(error).replace(" ", "_")] += 1
            continue
        if asked in kept:
            skipped["asked_before"] += 1
        else:
            kept[asked] = made
    return list(kept.values())


def messages_of(row: Row) -> list[Message]:
    """Raises ValueError with a short reason."""
    if "rejected" in row:
        return preference_of(row, "").prompt
    asked = next((row[name] for name in ("messages", "prompt", "chosen") if isinstance(row.get(name), list)), None)
    if asked is not None:
        roles = [message.get("role") if isinstance(message, dict) else None for message in asked]
        if "user" not in roles:
            raise ValueError("no message of a user")
        asked = asked[: len(roles) - roles[::-1].index("user")]
        if any(not isinstance(message.get("content"), str) for message in asked if isinstance(message, dict)):
            raise ValueError("content is not text")
        return asked
    text = next((row[name] for name in ASKED if isinstance(row.get(name), str)), None)
    if text is None or not text.strip():
        raise ValueError("no prompt")
    return [{"role": "user", "content": text}]


def truth_of(row: Row) -> dict[str, Any]:
    told: Any = next((row[name] for name in TRUE if row.get(name) is not None), [])
    answers = [after_marks(str(each)) for each in (told if isinstance(told, list) else [told])]
    tests = row.get("tests") or row.get("test_list") or []
    tests = tests if isinstance(tests, list) else [tests]
    return {"answers": answers, "tests": [str(each) for each in tests], "setup": str(row.get("test_setup_code") or "")}


def fitting(
    found: Iterable[Prompt], tokenizer: Tokenizer, most: int, tools: list[Any], skipped: Counter[str]
) -> list[Prompt]:
    """Those that the renderer takes and that leave room for an answer in `most` positions."""
    kept = []
    for prompt in found:
        try:
            length = len(render(tokenizer, prompt.messages, add_generation_prompt=True, tools=tools).ids)
        except ValueError as error:
            skipped[str(error).replace(" ", "_")] += 1
            continue
        if length >= most:
            skipped["prompt_longer_than_the_model's_positions"] += 1
        else:
            kept.append(prompt)
    return kept


def split(found: list[Prompt], percent: float, most: int) -> tuple[list[Prompt], list[Prompt]]:
    """(to learn from, held out): as rows say, else by a hash of the key, so that none ever changes sides. Of the
    held-out ones at most so many, drawn by hash."""
    away = [each.draw() < percent / 100 if each.held_out is None else each.held_out for each in found]
    held_out = [each for each, out in zip(found, away, strict=True) if out]
    held_out.sort(key=lambda each: each.draw(each.text))
    return [each for each, out in zip(found, away, strict=True) if not out], held_out[:most]
