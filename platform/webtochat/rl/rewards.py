"""Rewards: a number for each answer, made of named parts that the recipe weighs.

A part that fails, or gives no finite number, leaves its answer without a reward: that answer is no sample, is counted
by reason, and teaches nothing. It is never a zero, which would teach that the answer was bad.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from webtochat.errors import MachineError, UserError
from webtochat.evals.questions import is_right
from webtochat.evals.refusals import is_refusal
from webtochat.knowledge.endpoint import Client
from webtochat.recipe import Cluster
from webtochat.recipe_rl import Rewards
from webtochat.recipe_tools import PythonTool
from webtochat.rl import answers
from webtochat.tokens import rows


@dataclass(frozen=True)
class Answered:
    """What a reward looks at."""

    prompt: str
    answer: str
    truth: dict[str, Any]
    """See tasks.Prompt."""
    ids: list[int]
    """Of the whole conversation."""
    tokens: int
    """That the model wrote."""
    ended: bool
    """By its end marker, not by a limit."""


@dataclass(frozen=True)
class Scored:
    reward: float | None
    parts: dict[str, float]
    failed: str
    """Why there is no reward; empty where there is one."""


Part = Callable[[Sequence[Answered]], list[float | str]]
"""A number for each answer, or in a word why there is none."""
ScoreIds = Callable[[list[list[int]]], list[float]]
"""The reward model: of conversations' ids."""


def score(answered: Sequence[Answered], parts: dict[str, Part], weights: dict[str, float]) -> list[Scored]:
    """Σ weight × part of each answer, of the parts that count for its prompt. `weights`: where the prompt's source does
    not say."""
    counted = [one.truth.get("rewards") or weights for one in answered]
    found: list[dict[str, float | str]] = [{} for _ in answered]
    for name, part in parts.items():
        places = [place for place, each in enumerate(counted) if name in each]
        for place, value in zip(places, part([answered[place] for place in places]) if places else [], strict=True):
            found[place][name] = value
    scored = []
    for told, mine in zip(found, counted, strict=True):
        numbers = {name: value for name, value in told.items() if isinstance(value, float) and math.isfinite(value)}
        failed = next((f"{name}:{_reason(value)}" for name, value in told.items() if name not in numbers), "")
        total = sum(mine[name] * value for name, value in numbers.items())
        scored.append(Scored(None if failed else total, numbers, failed))
    return scored


def _reason(value: float | str) -> str:
    return value if isinstance(value, str) else "not_a_number"


def parts(
    names: Sequence[str], section: Rewards, python: PythonTool, cluster: Cluster, max_new_tokens: int, model: ScoreIds
) -> dict[str, Part]:  # fmt: skip
    """Those of these names, in their order. Raises UserError where one cannot work here."""
    soft = max_new_tokens // 2 if section.soft_tokens is None else section.soft_tokens
    each: dict[str, Callable[[Answered], float]] = {
        "exact": lambda one: float(answers.same_words(one.answer, _needs(one, "answers"))),
        "match": lambda one: float(is_right(one.answer, _needs(one, "answers"))),
        "numeric": lambda one: float(answers.same_number(one.answer, _needs(one, "answers"))),
        "truthful": lambda one: truthful(one, section.wrong),
        "tests": lambda one: answers.passed(one.answer, _needs(one, "tests"), one.truth["setup"], python),
        "format": lambda one: float(one.ended and re.fullmatch(section.pattern, one.answer, re.DOTALL) is not None),
        "length": lambda one: overlong(one.tokens, soft, max_new_tokens),
    }
    found: dict[str, Part] = {}
    for name in names:
        if name == "model":
            found[name] = _by_model(model)
        elif name == "judge":
            found[name] = _by_judge(section, cluster)
        else:
            one = each[name] if name in each else _function(name)
            found[name] = _apart(one, cluster.tool_threads if name not in QUICK else 1)
    return found


QUICK = {"exact", "match", "numeric", "truthful", "format", "length"}


def _needs(one: Answered, name: str) -> list[str]:
    """Raises ValueError where there is nothing to hold the answer against."""
    if not one.truth.get(name):
        raise ValueError(f"no {name}")
    return one.truth[name]


def _apart(function: Callable[[Answered], float], threads: int) -> Part:
    """Each answer by itself, several at once."""

    def one(answered: Answered) -> float | str:
        try:
            return float(function(answered))
        except (UserError, MachineError):
            raise
        except Exception as error:  # noqa: BLE001  (a user's function: it is counted by what it raised)
            return str(error).replace(" ", "_") if type(error) is ValueError else type(error).__name__

    def several(answered: Sequence[Answered]) -> list[float | str]:
        if threads == 1:
            return [one(each) for each in answered]
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(one, answered))

    return several


def truthful(one: Answered, wrong: float) -> float:
    """1 for a right answer, 0 for saying that one does not know, less for a wrong one: to refuse pays where one would
    be wrong too often (TruthRL; Wei et al. 2025, with -1). Of what there is no answer to, any answer is wrong."""
    if is_right(one.answer, one.truth["answers"]):
        return 1.0
    return 0.0 if is_refusal(one.answer) else wrong


def overlong(tokens: int, soft: int, most: int) -> float:
    """0 up to `soft` tokens, then falling to -1 at `most` (DAPO, section 3.4)."""
    return -min(1.0, max(0.0, (tokens - soft) / max(1, most - soft)))


def _function(path: str) -> Callable[[Answered], float]:
    """A function of (prompt, answer, truth) that a recipe names."""
    try:
        function = rows.function_of(path)
    except UserError as error:
        raise UserError(f"rl.rewards.weights: {error}") from error
    return lambda one: function(one.prompt, one.answer, one.truth)


def _by_model(model: ScoreIds) -> Part:
    def scores(answered: Sequence[Answered]) -> list[float | str]:
        try:
            return list(model([each.ids for each in answered]))
        except ValueError as error:
            return [str(error).replace(" ", "_")] * len(answered)

    return scores


def _by_judge(section: Rewards, cluster: Cluster) -> Part:
    """A mark of 0 to 1 by the model of rewards.judge."""
    assert section.judge is not None, "the recipe's check"
    client = Client(section.judge, cluster, "rl.rewards.judge")

    def marks(answered: Sequence[Answered]) -> list[float | str]:
        failed: Counter[str] = Counter()
        replies = client.ask([judge_prompt(section, each) for each in answered], failed)
        return ["no_reply" if reply is None else mark(reply, section.judge_best) for reply in replies]

    return marks


def judge_prompt(section: Rewards, one: Answered) -> str:
    """In one pass, so that a placeholder's name in an answer stays text."""
    given = {"prompt": one.prompt, "answer": one.answer, "truth": " or ".join(one.truth.get("answers") or ["none"])}
    return re.sub(r"\{(prompt|answer|truth)\}", lambda found: given[found[1]], section.judge_prompt)


def mark(reply: str, best: float) -> float | str:
    """The first number of a judge's reply, as a share of the best."""
    found = re.search(r"-?\d+(?:\.\d+)?", reply)
    return min(1.0, max(0.0, float(found[0]) / best)) if found else "no_mark"
