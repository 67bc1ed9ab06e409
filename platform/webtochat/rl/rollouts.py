"""Rollouts: conversations that a model was drawn from, as rows in Parquet that people read and the learner learns from.

A row is one answer with the ids as they were drawn (`own`: 1 where the model drew it), each id's log-probability as the
sampler told it, and the version of the weights that it was drawn with.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from webtochat import storage
from webtochat.agent import driver
from webtochat.agent.conversation import Conversation
from webtochat.recipe_rl import Policy, Sampling
from webtochat.recipe_tools import Tools
from webtochat.rl.rewards import Answered, Scored
from webtochat.rl.tasks import Prompt
from webtochat.tokens.tokenizer import Tokenizer
from webtochat.tools.tool import Tool

Row = dict[str, Any]
SCHEMA = pa.schema([
    ("step", pa.int32()), ("group", pa.int64()), ("sample", pa.int32()), ("prompt", pa.string()),
    ("answer", pa.string()), ("truth", pa.string()), ("reward", pa.float64()),
    ("parts", pa.map_(pa.string(), pa.float64())), ("advantage", pa.float64()), ("failed", pa.string()),
    ("finished", pa.string()), ("calls", pa.int32()), ("conversation", pa.string()), ("ids", pa.list_(pa.int32())),
    ("own", pa.list_(pa.int8())), ("logprobs", pa.list_(pa.float32())), ("versions", pa.list_(pa.int32())),
])  # fmt: skip
"""`truth`: JSON. `reward`: null where there is none, and `failed` says why. `advantage`: against its group, or the
step. `finished`: see agent/conversation.py. `calls`: of tools. `versions`: 0 where the model did not draw the id."""


class Asked(NamedTuple):
    """A prompt, by its group."""

    step: int
    number: int
    prompt: Prompt


def sample(
    asked: Sequence[Asked], tokenizer: Tokenizer, generate: driver.Generate, *, samples: int, greedy: bool,
    sampling: Sampling, limits: Tools, tools: Sequence[Tool], positions: int, seed: int, threads: int,
) -> list[Row]:  # fmt: skip
    """`samples` answers to each prompt, without rewards. What a group is drawn by follows from the seed, its number and
    the sample alone, with whatever other groups it is drawn."""
    places = [(each, number) for each in asked for number in range(samples)]
    conversations = [
        Conversation(tokenizer, each.prompt.messages, tools, positions=positions, section=limits) for each, _ in places
    ]
    rounds = limits.max_rounds + 1
    driver.answer(
        conversations, generate, max_new_tokens=sampling.max_new_tokens, section=limits, threads=threads,
        temperature=0.0 if greedy else sampling.temperature,
        seed=[seed + (each.number * samples + number) * rounds for each, number in places],
    )  # fmt: skip
    return [
        {
            "step": each.step, "group": each.number, "sample": number, "prompt": each.prompt.text,
            "answer": told.replies[-1].content if told.replies else "", "truth": json.dumps(each.prompt.truth),
            "failed": "" if any(told.own) else "no_answer", "finished": told.finished,
            "calls": sum(len(reply.tool_calls) for reply in told.replies),
            "conversation": tokenizer.decode(told.ids), "ids": told.ids, "own": told.own, "logprobs": told.logprobs,
            "versions": told.versions,
        }
        for (each, number), told in zip(places, conversations, strict=True)
    ]  # fmt: skip


def answered(row: Row) -> Answered:
    return Answered(
        row["prompt"], row["answer"], json.loads(row["truth"]), row["ids"], sum(row["own"]), row["finished"] == "stop"
    )


def rewarded(rows: Sequence[Row], scored: Sequence[Scored]) -> list[Row]:
    return [
        row | {"reward": each.reward, "parts": list(each.parts.items()), "failed": row["failed"] or each.failed}
        for row, each in zip(rows, scored, strict=True)
    ]


def teaches(rows: Sequence[Row]) -> bool:
    """Whether the rewards of a group differ: else every advantage is 0."""
    return len({row["reward"] for row in rows if row["reward"] is not None}) > 1


def by_group(rows: Sequence[Row]) -> dict[int, list[Row]]:
    found: dict[int, list[Row]] = {}
    for row in rows:
        found.setdefault(row["group"], []).append(row)
    return found


def lessons(rows: Sequence[Row], settings: Policy) -> list[Row]:
    """The rollouts that a step learns from: those with a reward; where other groups are sampled in the place of those
    that teach nothing, not these; none if all advantages would be 0."""
    kept = [row for row in rows if row["reward"] is not None]
    if settings.advantage == "gae":
        return kept
    if settings.advantage == "batch_mean":
        return kept if teaches(kept) else []
    teaching = {number for number, some in by_group(kept).items() if teaches(some)}
    if settings.resample:
        return [row for row in kept if row["group"] in teaching]
    return kept if teaching else []


def step_path(directory: str, step: int) -> str:
    """Of the file with all rollouts of a step, which counts from 0."""
    return storage.join(directory, "rollouts", f"step-{step:06d}.parquet")


def write(path: str, rows: Sequence[Row]) -> None:
    with storage.writing(path) as local:
        pq.write_table(pa.Table.from_pylist(list(rows), SCHEMA), local, compression="zstd")


def read(path: str, columns: Sequence[str] | None = None) -> list[Row]:
    with storage.open_input_file(path) as source:
        return pq.read_table(source, columns=list(columns) if columns else None).to_pylist()
