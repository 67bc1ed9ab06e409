"""One conversation of a user, a model and its tools, as a state machine: ids that were generated go in, the calls that
they make come out, results go in, and the next prompt is there. No engine, no threads, no text in between: ids stay as
they were generated, so that what is trained on or cached is what was drawn.

    while not conversation.finished:
        calls = conversation.generated(ids)          # of a completion of conversation.ids
        if not conversation.finished:
            conversation.answered([result of each call])
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from webtochat.recipe_tools import Tools
from webtochat.tokens.chat import Message, Reply, following, parse, render
from webtochat.tokens.tokenizer import Tokenizer
from webtochat.tools.tool import Tool, definitions

NOT_A_CALL = 'error: this is no call; write {"name": "…", "arguments": {…}}'


class Call(NamedTuple):
    name: str
    arguments: dict[str, Any]


class Conversation:
    """`ids`: all of it, from the first prompt to the last answer; while it goes on, the next prompt. `own`: 1 where an
    id was generated. `logprobs`: of each id as it was drawn, and `versions`: of the weights that drew it; 0 where none
    was told. `replies`: what each completion says. `finished`: None while it goes on; `stop` after an answer that calls
    nothing; `length` where a completion was cut, or where no more fits; `rounds` where the model still calls after
    `max_rounds`."""

    def __init__(
        self, tokenizer: Tokenizer, messages: list[Message], tools: Sequence[Tool] = (), *, positions: int,
        section: Tools | None = None,
    ):  # fmt: skip
        """`tools`: those that it is told of; without any, what looks like a call is an answer. `positions`: of the
        model; the recipe may allow less. Raises ValueError where the messages are no conversation."""
        section = section or Tools()
        self.tools = tools
        self.ids = render(tokenizer, messages, add_generation_prompt=True, tools=definitions(tools)).ids
        self.own = [0] * len(self.ids)
        self.logprobs = [0.0] * len(self.ids)
        self.versions = [0] * len(self.ids)
        self.replies: list[Reply] = []
        self.finished: Literal["stop", "length", "rounds"] | None = None
        self.tokenizer = tokenizer
        self._rounds = section.max_rounds
        self._most = min(positions, section.max_tokens or positions)
        if self.room < 1:
            self.finished = "length"

    @property
    def room(self) -> int:
        """How many more ids fit."""
        return self._most - len(self.ids)

    def generated(self, ids: list[int], logprobs: Sequence[float] = (), versions: Sequence[int] = ()) -> list[Call]:
        """Takes a completion, with its stop token if one ended it. Returns the calls to make: there may be none though
        it goes on, where all that looks like one is none."""
        self._add(ids, 1, logprobs, versions)
        reply = parse(self.tokenizer, ids)
        self.replies.append(reply)
        if not reply.tool_calls or not self.tools:
            self.finished = "stop" if reply.ended else "length"
        elif len(self.replies) > self._rounds:
            self.finished = "rounds"
        if self.finished:
            return []
        return [Call(**call["function"]) for call in reply.tool_calls if "function" in call]

    def answered(self, results: Sequence[str]) -> None:
        """Takes the text that each of these calls gave, in their order."""
        reply, told = self.replies[-1], iter(results)
        texts = [next(told) if "function" in call else NOT_A_CALL for call in reply.tool_calls]
        ids = following(self.tokenizer, [{"role": "tool", "content": text} for text in texts])
        if not reply.ended:
            ids = [self.tokenizer.stops[0], *ids]
        if len(ids) < self.room:
            self._add(ids, 0)
        else:
            self.finished = "length"

    def _add(
        self, ids: Sequence[int], own: int, logprobs: Sequence[float] = (), versions: Sequence[int] = ()
    ) -> None:  # fmt: skip
        self.ids += ids
        self.own += [own] * len(ids)
        self.logprobs += logprobs or [0.0] * len(ids)
        self.versions += versions or [0] * len(ids)
