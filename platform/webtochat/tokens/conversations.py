"""Conversations from the forms in which data sets write them, as the messages that the renderer takes.

OpenAI's: `messages`, of role and content. ShareGPT's: `conversations`, of from and value, where a call is a turn
`function_call` that holds its JSON, and what it gave a turn `observation`. Pairs: an instruction (and its input),
prompt or question, and an output, response, completion or answer.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from webtochat.recipe import DataSource, Recipe
from webtochat.tokens import rows
from webtochat.tokens.rows import Row

SPEAKERS = {
    "human": "user", "user": "user", "gpt": "assistant", "chatgpt": "assistant", "assistant": "assistant",
    "system": "system", "observation": "tool", "tool": "tool", "function_response": "tool",
}  # fmt: skip
CONVERSATIONS = "conversations.jsonl"
"""Of the stage that makes some."""
ASKED, ANSWERED = ("instruction", "prompt", "question"), ("output", "response", "completion", "answer")


def chats(recipe: Recipe, written: Sequence[str], skipped: Counter[str]) -> list[Row]:
    """The conversations of sft.data that this recipe can read, each as often as its source weighs, and those that
    stand in the files `written` by other stages."""
    sources, _ = rows.available(recipe.sft.data, recipe.miniweb)
    return [
        row
        for source in [*sources, *(DataSource(path=path) for path in written)]
        for row in rows.weighted(
            conversations(rows.read(source, recipe.miniweb, skipped), skipped), source.weight, recipe.sft.seed
        )
    ]


def conversations(found: Iterable[Row], skipped: Counter[str]) -> Iterator[Row]:
    """Rows with `messages`, and with `tools` where they tell of any. A row of no known form is counted in `skipped`,
    with the reason."""
    for row in found:
        try:
            tools = tools_of(row)
            yield {"messages": messages_of(row)} | ({"tools": tools} if tools else {})
        except ValueError as error:
            skipped[str(error).replace(" ", "_")] += 1


def messages_of(row: Row) -> list[dict[str, Any]]:
    """Raises ValueError with a short reason. What stands in the messages is the renderer's to check."""
    if isinstance(row.get("messages"), list):
        return row["messages"]
    turns = row.get("conversations")
    if isinstance(turns, list):
        before = [{"role": "system", "content": row["system"]}] if row.get("system") else []
        return before + [message_of(turn) for turn in turns]
    question, answer = question_of(row), answer_of(row)
    if question is None or answer is None:
        raise ValueError("no messages")
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def question_of(row: Row) -> str | None:
    """What a pair asks, with its input."""
    asked = next((row[name] for name in ASKED if isinstance(row.get(name), str)), None)
    given = row.get("input")
    return f"{asked}\n\n{given}" if asked is not None and isinstance(given, str) and given.strip() else asked


def answer_of(row: Row) -> str | None:
    return next((row[name] for name in ANSWERED if isinstance(row.get(name), str)), None)


def tools_of(row: Row) -> list[Any]:
    """Definitions as a list, or as its JSON. Raises ValueError with a short reason."""
    tools = row.get("tools") or []
    if isinstance(tools, str):
        try:
            tools = json.loads(tools)
        except (ValueError, RecursionError) as error:
            raise ValueError("the tools are not JSON") from error
    if not isinstance(tools, list):
        raise ValueError("the tools are not a list")
    return tools


def message_of(turn: Any) -> dict[str, Any]:
    """A turn as a message. Raises ValueError with a short reason."""
    if not isinstance(turn, dict):
        raise ValueError("a message is not an object")
    if "role" in turn:
        return turn
    speaker, value = turn.get("from"), turn.get("value")
    if speaker in ("function_call", "tool_call"):
        return {"role": "assistant", "content": None, "tool_calls": _calls(value)}
    if speaker not in SPEAKERS:
        raise ValueError("unknown role")
    return {"role": SPEAKERS[speaker], "content": value}


def _calls(value: Any) -> list[Any]:
    try:
        calls = json.loads(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError("a tool call is not JSON") from error
    return calls if isinstance(calls, list) else [calls]
