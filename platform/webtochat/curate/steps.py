"""The user's own steps, which a recipe names by import path (`measure.steps`).

A function is called with a document (a dictionary: text, title, url, language, every measurement) and the step's
arguments. A class is made once with the arguments, in an actor of its own (on a GPU where cluster.steps says so), and
called with lists of documents; classes come after all functions. The answer to a document is measurements, as
{"toxicity": 0.2}, for curate.own to compare with limits, or a verdict as datatrove's filters give it: True, or
(False, "reason").
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from webtochat.errors import UserError
from webtochat.recipe_pages import Measure, Step

Row = dict[str, Any]


@lru_cache(maxsize=64)
def loaded(path: str) -> Any:
    """The function or class. Raises UserError where there is none."""
    _, module, name = path.split(":")
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        raise UserError(f"measure.steps: {path}: no module {error.name} under recipes/ or installed") from error
    except AttributeError as error:
        raise UserError(f"measure.steps: the module {module} has no {name}") from error


def is_class(step: Step) -> bool:
    return isinstance(loaded(step.path), type)


def fingerprint(step: Step) -> str:
    """Of the code that makes its measurements: another version of the file is another step."""
    source = inspect.getsourcefile(loaded(step.path))
    if source is None:
        raise UserError(f"measure.steps: {step.path} is not written in Python: wrap it in a function that is")
    return hashlib.sha256(Path(source).read_bytes()).hexdigest()


def functions(section: Measure) -> list[Step]:
    return [step for step in section.steps if not is_class(step)]


def classes(section: Measure) -> list[Step]:
    return [step for step in section.steps if is_class(step)]


def asked(row: Row, step: Step) -> Row:
    """A measured row with the answer of a step that is a function."""
    try:
        return answered(row, step, loaded(step.path)(dict(row), **step.arguments))
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001  # the user's code may raise anything; it is counted, as pages' faults are
        return row | {"step": step.name, "reason": f"error_{type(error).__name__}"}


def asked_together(rows: list[Row], step: Step, model: Any) -> list[Row]:
    """Measured rows with the answers of an instance of a step's class."""
    try:
        answers = list(model([dict(row) for row in rows]))
    except Exception as error:  # noqa: BLE001  # the same
        return [row | {"step": step.name, "reason": f"error_{type(error).__name__}"} for row in rows]
    if len(answers) != len(rows):
        raise UserError(f"measure.steps: {step.path} gave {len(answers)} answers to {len(rows)} documents")
    return [answered(row, step, answer) for row, answer in zip(rows, answers, strict=True)]


def answered(row: Row, step: Step, answer: Any) -> Row:
    """Raises UserError where the answer is none."""
    if answer is True:
        return row
    if isinstance(answer, tuple) and len(answer) == 2 and answer[0] is False and isinstance(answer[1], str):
        return row | {"step": step.name, "reason": answer[1]}
    if isinstance(answer, dict) and all(isinstance(name, str) for name in answer):
        try:
            return row | {"own": row.get("own", {}) | {name: float(value) for name, value in answer.items()}}
        except (TypeError, ValueError):
            pass
    raise UserError(
        f'measure.steps: {step.path} answered {str(answer)[:80]!r}: an answer is True, (False, "reason") or a '
        "dictionary of numbers"
    )


def not_all_failed(rows: Iterable[Row], section: Measure) -> Iterator[Row]:
    """The rows, unless a step failed on each that it was asked about: then the step is broken, not the pages."""
    own, failed, passed = {step.name for step in section.steps}, "", False
    for row in rows:
        if row.get("step") in own and row["reason"].startswith("error_"):
            failed = f"{row['step']} with {row['reason'].removeprefix('error_')}"
        elif row.get("step") is None or row["step"] in own:
            passed = True
        yield row
    if failed and not passed:
        raise UserError(f"measure.steps: every document failed in {failed}: try it on one of them")
