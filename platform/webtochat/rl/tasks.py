"""What is asked: prompts with what a right answer is held against, from the forms in which data sets write them.

A prompt is `messages` (up to the last user's), or a text under question, prompt, problem, instruction or text. The
truth is under answer, answers or solution (of GSM8K's what stands after ####, of MATH's what is boxed), and unit tests
under tests or test_list, with test_setup_code before them. Pairs of preferences (chosen, rejected) give their prompt.
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
from webtochat.tokens.rows import Row
from webtochat.tokens.tokenizer import Tokenizer

ASKED = ("question", "prompt", "problem", "instruction", "text")
TRUE = ("answers", "answer", "truth", "solution")


@dataclass(frozen=True)
class Prompt:
    messages: list[Message]
    truth: dict[str, Any]
    """`answers`: texts, any of which is right. `tests`: programs. `setup`: what runs before them."""

    @property
    def text(self) -> str:
        """What was asked last."""
        return str(self.messages[-1]["content"])

    @property
    def draw(self) -> float:
        """A number in [0, 1) that follows from what is asked alone."""
        canonical = json.dumps(self.messages, sort_keys=True, ensure_ascii=False)
        return int.from_bytes(hashlib.sha256(canonical.encode("utf-8", "replace")).digest()[:8], "big") / 2**64


def prompts(found: Iterable[Row], skipped: Counter[str]) -> list[Prompt]:
    """Of each row that holds one, once; the others are counted in `skipped` by reason."""
    kept: dict[str, Prompt] = {}
    for row in found:
        try:
            made = Prompt(messages_of(row), truth_of(row))
        except ValueError as error:
            skipped[str(error).replace(" ", "_")] += 1
            continue
        key = json.dumps(made.messages, sort_keys=True, ensure_ascii=False)
        skipped["asked_before"] += key in kept
        kept.setdefault(key, made)
    return list(kept.values())


def messages_of(row: Row) -> list[Message]:
    """Raises ValueError with a short reason."""
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
    told = next((row[name] for name in TRUE if row.get(name) is not None), [])
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
    """(to learn from, held out): by a hash of what is asked, so that neither ever changes sides; of the held-out ones
    the first `most` by that hash."""
    held_out = sorted((each for each in found if each.draw < percent / 100), key=lambda each: each.draw)
    return [each for each in found if each.draw >= percent / 100], held_out[:most]
