"""What is noted of one request while it is answered: for the access log, metrics and traces. The assistant tells of its
generations by `watched` and of its tools by `called`."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from webtochat.tracking import Span

Outcome = Literal["ok", "error", "timeout", "refused"]


@dataclass
class Turn:
    method: str
    path: str
    client: str | None
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    began: int = field(default_factory=time.time_ns)
    ended: int = 0
    key: str | None = None
    """The key's name."""
    status: int = 0
    refusal: str | None = None
    """The `code` of what was refused before anybody answered, or took too long."""
    failure: str | None = None
    """What ended a generation before its end: a class of errors."""
    first_token: int = 0
    prompt_tokens: int = 0
    """Of all generations."""
    completion_tokens: int = 0
    spans: list[Span] = field(default_factory=list)
    asked: str | None = None
    """The request's body, where texts are kept."""
    began_to_answer: Callable[[], None] = lambda: None
    """Called at the first token."""

    @property
    def seconds(self) -> float:
        return (self.ended - self.began) / 1e9

    @property
    def first_token_seconds(self) -> float | None:
        return (self.first_token - self.began) / 1e9 if self.first_token else None

    def whole(self) -> Span:
        """All of it, as the root of a trace."""
        kept = ("id", "key", "path", "status", "prompt_tokens", "completion_tokens", "first_token_seconds")
        told = {name: getattr(self, name) for name in kept}
        answered = [span.answered for span in self.spans if span.kind == "LLM" and span.answered is not None]
        return Span("turn", "AGENT", self.began, self.ended, told, self.asked, answered[-1] if answered else None)

    def line(self) -> dict[str, Any]:
        """For the access log."""
        first = self.first_token_seconds
        told = {
            "time": datetime.fromtimestamp(self.began / 1e9, UTC).isoformat(timespec="milliseconds"),
            "id": self.id, "client": self.client, "key": self.key, "method": self.method, "path": self.path,
            "status": self.status, "seconds": round(self.seconds, 4), "refusal": self.refusal,
            "failure": self.failure, "first_token_seconds": first and round(first, 4),
            "prompt_tokens": self.prompt_tokens, "completion_tokens": self.completion_tokens,
            "tools": [[span.name, span.attributes["outcome"]] for span in self.spans if span.kind == "TOOL"],
        }  # fmt: skip
        if self.asked is not None:
            told |= {"asked": self.asked, "answered": [span.answered for span in self.spans if span.kind == "LLM"]}
        return told


TURN: ContextVar[Turn | None] = ContextVar("turn", default=None)


def watched(
    chunks: AsyncIterator[dict[str, Any]], prompt: Sequence[int] | Sequence[Sequence[int]]
) -> AsyncIterator[dict[str, Any]]:
    """The chunks of a generation as they come, noted in the turn. `prompt`: ids, one list or several. Until the model
    tells its count of tokens those of its chunks count: a client that leaves just before the end has had them."""
    turn = TURN.get()
    read = sum(1 if isinstance(each, int) else len(each) for each in prompt)
    return chunks if turn is None else _noted(chunks, read, turn)


async def _noted(
    chunks: AsyncIterator[dict[str, Any]], prompt_tokens: int, turn: Turn
) -> AsyncIterator[dict[str, Any]]:
    span = Span("generation", "LLM", time.time_ns())
    turn.spans.append(span)
    texts: dict[int, str] = {}
    tokens, usage = 0, None
    try:
        async for chunk in chunks:
            if not turn.first_token:
                turn.first_token = time.time_ns()
                turn.began_to_answer()
            usage = chunk.get("usage") or usage
            tokens += sum(len(choice.get("token_ids") or ()) or 1 for choice in chunk.get("choices", ()))
            for choice in chunk.get("choices", ()) if turn.asked is not None else ():
                texts[choice["index"]] = texts.get(choice["index"], "") + choice["text"]
            yield chunk
    except BaseException as error:
        turn.failure = type(error).__name__
        raise
    finally:
        told = usage or {"prompt_tokens": prompt_tokens, "completion_tokens": tokens}
        for name in ("prompt_tokens", "completion_tokens"):
            span.attributes[name] = told[name]
            setattr(turn, name, getattr(turn, name) + told[name])
        span.answered = "\n".join(texts.values()) if turn.asked is not None else None
        span.ended = time.time_ns()


def called(tool: str, outcome: Outcome, began: int, asked: str = "", answered: str = "") -> None:
    """Notes a call of a tool that has ended, in the task of the request that it is for (or a copy of its context).
    `tool`: one that there is, as metrics count by it. `began`: time.time_ns() when it did."""
    turn = TURN.get()
    if turn is not None:
        texts = (asked, answered) if turn.asked is not None else (None, None)
        turn.spans.append(Span(tool, "TOOL", began, time.time_ns(), {"outcome": outcome}, *texts))
