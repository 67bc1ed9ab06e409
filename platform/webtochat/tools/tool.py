"""What a tool is: a name, a description, the JSON schema of its arguments, and `call`. One object serves training data,
rollouts and the assistant, so that a model meets in use what it learned with.

`call` below is the boundary: whatever a model writes and whatever a tool does, a short text comes back and the
conversation goes on.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from webtochat.recipe_tools import Tools

ERROR_CHARACTERS = 400


class Source(NamedTuple):
    """A page that a result tells of, and what it tells."""

    title: str
    url: str
    text: str = ""


@dataclass(frozen=True)
class ToolResult:
    output: str
    error: str | None = None
    """What went wrong, for the model to read; None if nothing did."""
    sources: tuple[Source, ...] = ()
    """In the order in which the output numbers them."""

    @property
    def text(self) -> str:
        """What the model reads."""
        return "\n".join(part for part in (self.output.rstrip("\n"), self.error and f"error: {self.error}") if part)


class Tool(Protocol):
    name: str
    description: str
    parameters: dict[str, Any]
    """JSON schema of the arguments."""

    def call(self, arguments: dict[str, Any]) -> ToolResult:
        """`arguments` fit the schema. May raise; `call` of this module turns that into an error."""


class Excerpt:
    """Text that comes in pieces, kept in bounded memory: its beginning and its end, with a note of what is missing."""

    def __init__(self, characters: int):
        self._head_room, self._tail_room = characters - characters // 2, characters // 2
        self._head = self._tail = ""
        self._length = 0

    def add(self, text: str) -> None:
        room = self._head_room - len(self._head)
        self._head += text[:room]
        self._tail = (self._tail + text[room:][-self._tail_room :])[-self._tail_room :]
        self._length += len(text)

    def __str__(self) -> str:
        missing = self._length - len(self._head) - len(self._tail)
        return self._head + (f"\n[… {missing:,} characters cut …]\n" if missing else "") + self._tail


def shortened(text: str, characters: int) -> str:
    excerpt = Excerpt(characters)
    excerpt.add(text)
    return str(excerpt)


def definitions(tools: Sequence[Tool]) -> list[dict[str, Any]]:
    """The tools in the form of OpenAI's API, as chat templates take them."""
    return [
        {
            "type": "function",
            "function": {"name": tool.name, "description": tool.description, "parameters": tool.parameters},
        }
        for tool in tools
    ]


def call(tools: Sequence[Tool], name: str, arguments: Any, limits: Tools | None = None) -> ToolResult:
    """Calls a tool by name with arguments as JSON text or as an object. Never raises."""
    limits = limits or Tools()
    known = {tool.name: tool for tool in tools}
    if name not in known:
        return _failed(f"there is no tool {name!r}; there are {', '.join(known) or 'none'}")
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError) as error:
            return _failed(f"the arguments are not JSON: {error}")
    try:
        json.dumps(arguments, ensure_ascii=False).encode()  # an escaped lone surrogate is JSON, and no text
        wrong = best_match(Draft202012Validator(known[name].parameters).iter_errors(arguments))
    except (TypeError, ValueError, RecursionError):
        return _failed("the arguments are not text and numbers, or are nested too deep")
    if wrong is not None:
        where = ".".join(str(part) for part in wrong.path)
        return _failed(f"wrong arguments: {where + ': ' if where else ''}{wrong.message}")
    assert isinstance(arguments, dict)
    result = _within(known[name], arguments, limits.call_seconds)
    most, problem = limits.result_characters, result.error
    sources = tuple(Source(*(_text(part, most) for part in source)) for source in result.sources)
    return ToolResult(_text(result.output, most), None if problem is None else _text(problem, most), sources)


def _within(tool: Tool, arguments: dict[str, Any], seconds: float) -> ToolResult:
    """The tool's result. A thread that does not come back is left to itself: the tools that run or read what others
    wrote have limits of their own, and end."""
    results: list[ToolResult] = []

    def work() -> None:
        try:
            results.append(tool.call(arguments))
        except BaseException as error:  # noqa: BLE001  # whatever it is, the model is told and the conversation goes on
            results.append(_failed(f"{tool.name} failed: {type(error).__name__}: {error}"))

    thread = threading.Thread(target=work, name=f"tool-{tool.name}", daemon=True)
    thread.start()
    thread.join(seconds)
    return results[0] if results else _failed(f"{tool.name} did not answer within {seconds:g} s")


def _text(found: str, characters: int) -> str:
    """Of bounded length, and such that a tokenizer takes it."""
    return shortened(found, characters).encode("utf-8", "replace").decode()


def _failed(reason: str) -> ToolResult:
    return ToolResult("", " ".join(_text(reason, ERROR_CHARACTERS).split()))
