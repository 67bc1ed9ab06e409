"""What goes out of the model's replica in one message."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from serving.model import GATHER_AT_MOST, GATHER_SECONDS, ModelServer, gathered
from serving.stream import merged

DONE = "data: [DONE]\n\n"


def line(text: str, ended: str | None = None) -> str:
    choice = {"index": 0, "text": text, "token_ids": [0] * len(text), "logprobs": None, "finish_reason": ended}
    return f"data: {json.dumps({'id': 'a', 'choices': [choice]})}\n\n"


async def stream(*items: Any) -> AsyncIterator[list[Any]]:
    """Numbers are seconds to wait, errors are raised."""
    for item in items:
        if isinstance(item, float):
            await asyncio.sleep(item)
        elif isinstance(item, Exception):
            raise item
        else:
            yield [item]


async def texts(seconds: float, *items: Any) -> list[str]:
    pieces = [merged(chunks) async for chunks in gathered(stream(*items), lambda: seconds)]
    return ["".join(choice["text"] for choice in piece["choices"]) for piece in pieces]


def test_the_first_goes_out_alone_the_rest_together_and_the_end_at_once() -> None:
    items = [line("a"), 0.05, line("b"), line("c"), 0.25, line("d"), 0.05, line("e", "stop"), DONE]
    assert asyncio.run(texts(0.2, *items)) == ["a", "bc", "de"]
    began = time.monotonic()
    assert asyncio.run(texts(30.0, *items)) == ["a", "bcde"] and time.monotonic() - began < 5


def test_what_ends_it_is_raised_after_what_came_before() -> None:
    seen: list[Any] = []

    async def all_of_them() -> None:
        async for chunks in gathered(stream(line("a"), ValueError("died")), lambda: 0.0):
            seen.extend(chunks)

    with pytest.raises(ValueError, match="died"):
        asyncio.run(all_of_them())
    assert [chunk["choices"][0]["text"] for chunk in seen] == ["a"]


def test_who_leaves_ends_the_reading() -> None:
    ended = []

    async def endless() -> AsyncIterator[list[Any]]:
        try:
            while True:
                yield [line("a")]
                await asyncio.sleep(0.001)
        finally:
            ended.append(True)

    async def leave() -> None:
        pieces = gathered(endless(), lambda: 0.01)
        await anext(pieces)
        await pieces.aclose()
        await asyncio.sleep(0.05)

    asyncio.run(leave())
    assert ended


def test_a_refusal_is_passed_on() -> None:
    refusal = SimpleNamespace(model_dump=lambda mode: {"error": {"message": "too long", "code": 400}})

    async def answer() -> list[Any]:
        return [chunks async for chunks in gathered(stream(refusal), lambda: 30.0)]

    assert asyncio.run(answer()) == [[{"error": {"message": "too long", "code": 400}}]]


def test_more_streams_are_gathered_longer() -> None:
    server = object.__new__(ModelServer)
    waits = []
    for server._streams in (1, 8, 16, 1000):
        waits.append(server._gather_seconds())
    assert waits == sorted(waits) and (waits[0], waits[-1]) == (GATHER_SECONDS, GATHER_AT_MOST)
