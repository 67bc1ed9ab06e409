"""Answers sent on as they come: as server-sent events, from the first on, so that a refusal is still a status."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing
from typing import Any, TypeVar

from fastapi.responses import StreamingResponse
from starlette.types import Send

from serving.protocol import ApiError, error_body

Item = TypeVar("Item")


async def started(items: AsyncIterator[Item]) -> AsyncIterator[Item]:
    """The same once the first is there, so that a refusal is still a status and not a broken stream."""
    first = await anext(items, None)
    if first is None:
        raise ApiError(500, "the model gave no answer")

    async def all_of_them() -> AsyncIterator[Item]:
        yield first
        async for item in items:
            yield item

    return all_of_them()


class Closing(StreamingResponse):
    """Who hangs up while a piece is sent ends what makes the pieces, now and not when it is collected as garbage."""

    async def stream_response(self, send: Send) -> None:
        async with aclosing(self.body_iterator):
            await super().stream_response(send)


def event_stream(events: AsyncIterator[dict[str, Any]], named: bool = False) -> StreamingResponse:
    """`named`: by their `type`, as the Responses API has it, where no [DONE] stands at the end."""

    def line(event: dict[str, Any]) -> str:
        name = f"event: {event['type']}\n" if named and "type" in event else ""
        return f"{name}data: {json.dumps(event, ensure_ascii=False)}\n\n"

    async def lines() -> AsyncIterator[str]:
        try:
            async for event in events:
                yield line(event)
        except asyncio.CancelledError:
            raise
        except ApiError as error:
            yield line(error.body)
        except Exception as error:  # noqa: BLE001 (the status has gone out: the stream itself must say what broke)
            yield line(error_body(f"the model stopped: {type(error).__name__}", "server_error"))
        if not named:
            yield "data: [DONE]\n\n"

    return Closing(lines(), media_type="text/event-stream", headers={"Cache-Control": "no-cache"})


def merged(chunks: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """One of several `text_completion` chunks in a row."""
    choices: dict[int, dict[str, Any]] = {}
    last: dict[str, Any] = {}
    for last in chunks:
        for choice in last["choices"]:
            whole = choices.setdefault(choice["index"], choice | {"text": "", "token_ids": [], "logprobs": None})
            whole["text"] += choice["text"]
            whole["token_ids"] += choice.get("token_ids") or []
            whole["finish_reason"] = choice["finish_reason"] or whole["finish_reason"]
            before, more = whole["logprobs"] or {}, choice["logprobs"] or {}
            whole["logprobs"] = {name: before.get(name, []) + more[name] for name in more} or whole["logprobs"]
    return last | {"choices": [choices[index] for index in sorted(choices)]}
