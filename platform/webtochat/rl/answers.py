"""What an answer says: its number, its program, and whether these are the right ones."""

from __future__ import annotations

import re
import secrets
import textwrap
from collections.abc import Sequence
from fractions import Fraction

from webtochat.evals.questions import words
from webtochat.recipe_tools import PythonTool
from webtochat.tools import python

NUMBER = re.compile(r"(?:(?<![\w)])[-−])?(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d*\.?\d+(?:/\d+)?)")
DIGITS = 400
"""A longer number is none: to compare it would take long."""
BLOCK = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)


def after_marks(text: str) -> str:
    """What a worked solution ends with: after GSM8K's ####, or in the last \\boxed{} as MATH has it; else all of it."""
    if "####" in text:
        return text.rsplit("####", 1)[1].strip()
    place = text.rfind("\\boxed{")
    if place < 0:
        return text.strip()
    begin = end = place + len("\\boxed{")
    depth = 1
    while end < len(text) and depth:
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        end += 1
    return text[begin : end - (depth == 0)].strip()


def number(text: str) -> Fraction | None:
    """The last number of a text, after its marks: `1,234.5`, `-3`, `3/4`."""
    found = NUMBER.findall(after_marks(text))
    if not found or len(found[-1]) > DIGITS:
        return None
    try:
        return Fraction(found[-1].replace(",", "").replace("−", "-"))
    except (ValueError, ZeroDivisionError):
        return None


def same_number(answer: str, truths: Sequence[str]) -> bool:
    said = number(answer)
    return said is not None and any(number(truth) == said for truth in truths)


def same_words(answer: str, truths: Sequence[str]) -> bool:
    """As evaluations compare: case, punctuation and spaces aside."""
    said = words(after_marks(answer))
    return bool(said) and any(words(truth) == said for truth in truths)


def program(answer: str) -> str:
    """The last block of code, else all of it."""
    blocks = BLOCK.findall(answer)
    return blocks[-1] if blocks else answer


def passed(answer: str, tests: Sequence[str], setup: str, section: PythonTool) -> float:
    """Share of the tests that hold after the answer's program ran, where it can reach nothing. A word that the program
    cannot know is printed with the count, so that it cannot print that itself. What does not end, or does not run, has
    passed none."""
    word = secrets.token_hex(8)
    tried = "".join(
        f"try:\n{textwrap.indent(test, '    ')}\n    passed_{word} += 1\nexcept Exception:\n    pass\n"
        for test in tests
    )
    made = f"{program(answer)}\n{setup}\npassed_{word} = 0\n{tried}print('{word}', passed_{word})"
    found = re.search(rf"{word} (\d+)\s*\Z", python.run(made, section).output)
    return int(found[1]) / len(tests) if found else 0.0
