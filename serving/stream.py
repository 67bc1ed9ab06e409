"""The model's chunks: waited for, gathered, and sent on as server-sent events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi.responses import StreamingResponse

from serving.protocol import ApiError, error_body


async def started(chunks: AsyncIterator[dict[str, Any]]) -> AsyncIterator[dict[str, Any]]:
    """The same chunks once the first is there, so that a refusal is still a status and not a broken stream."""
    first = await anext(chunks, None)
    if first is None:
        raise ApiError(500, "the model gave no answer")
    if "error" in first:
        told = first["error"]
        status = told.get("code") if isinstance(told.get("code"), int) else 500
        raise ApiError(status, str(told.get("message")), param=told.get("param"))

    async def all_of_them() -> AsyncIterator[dict[str, Any]]:
        yield first
        async for chunk in chunks:
            yield chunk

    return all_of_them()


async def collected(
    chunks: AsyncIterator[dict[str, Any]],
) -> tuple[dict[int, str], dict[int, str], dict[str, Any]]:
    """(text by choice, finish reason by choice, usage)."""
    texts: dict[int, str] = {}
    reasons: dict[int, str] = {}
    usage: dict[str, Any] = {}
    async for chunk in chunks:
        if "error" in chunk:
            raise ApiError(500, str(chunk["error"].get("message")))
        for choice in chunk["choices"]:
            texts[choice["index"]] = texts.get(choice["index"], "") + choice["text"]
            if choice["finish_reason"]:
                reasons[choice["index"]] = choice["finish_reason"]
        if chunk.get("usage"):
            usage = usage_of(chunk)
    return texts, reasons, usage


def usage_of(chunk: dict[str, Any]) -> dict[str, Any]:
    return {key: chunk["usage"][key] for key in ("prompt_tokens", "completion_tokens", "total_tokens")}


def event_stream(events: AsyncIterator[dict[str, Any]]) -> StreamingResponse:
    async def lines() -> AsyncIterator[str]:
        try:
            async for event in events:
                yield f"data: {json.dumps(event, ensure_ascii=False)}\n\n"
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 (the status has gone out: the stream itself must say what broke)
            yield f"data: {json.dumps(error_body(f'the model stopped: {type(error).__name__}', 'server_error'))}\n\n"
        yield "data: [DONE]\n\n"

    return StreamingResponse(lines(), media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
