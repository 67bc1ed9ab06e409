"""The assistant without Ray and vLLM: its routes over HTTP, an engine that writes what it is told, the real tools."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import openai
import pytest
import uvicorn
from serving.assistant import Assistant, Settings, api
from serving.protocol import Function
from tests.agent.test_agent import written
from tests.inference import tiny

from webtochat.model import export
from webtochat.recipe_tools import Tools
from webtochat.tokens.tokenizer import Tokenizer
from webtochat.tools import tool
from webtochat.tools.tool import Tool, ToolResult

LIMITS = Tools(max_rounds=3, call_seconds=5, result_characters=600)
SLOW = 7
"""The seed of a request whose ids take their time."""


class Engine:
    """Takes the place of the handle of `ModelServer`. `texts`: what it writes for each request, with markers as they
    are written, or as ids; or a function of the request. One id a chunk. `left`: answers that were broken off."""

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        self.texts: list[str | list[int]] | Callable[[dict[str, Any]], str] = []
        self.asked: list[dict[str, Any]] = []
        self.left = 0
        self.complete = SimpleNamespace(remote=self._complete)

    def options(self, **_: Any) -> Engine:
        return self

    def told(self, *texts: str | list[int]) -> None:
        self.texts, self.asked = list(texts), []

    async def _complete(self, asked: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        self.asked.append(asked)
        text = self.texts.pop(0) if isinstance(self.texts, list) else self.texts(asked)
        if text == "refused":
            yield {"error": {"message": "the grammar is none", "type": "BadRequestError", "param": None, "code": 400}}
            return
        ids = text if isinstance(text, list) else written(self.tokenizer, text)
        ended = False
        try:
            for place in range(len(ids)):
                await asyncio.sleep(0.01 if asked["seed"] == SLOW else 0)
                if text == "broken" and place:
                    raise RuntimeError("the engine is gone")
                yield {"choices": [choice := self._choice(asked, ids[: place + 1])]}
                if ended := choice["finish_reason"] is not None:
                    break
            yield {"choices": [], "usage": dict.fromkeys(("prompt_tokens", "completion_tokens", "total_tokens"), 1)}
        finally:
            self.left += not ended

    def _choice(self, asked: dict[str, Any], ids: list[int]) -> dict[str, Any]:
        """As vLLM tells of the last of these ids."""
        said, token = self.tokenizer.decode(ids), ids[-1]
        stopped = token in asked["stop_token_ids"] or any(stop in said for stop in asked["stop"])
        reason = "stop" if stopped else "length" if len(ids) == asked["max_tokens"] else None
        logprobs = None
        if asked.get("logprobs") is not None:
            tops = {f"token_id:{token}": -0.5} | {f"token_id:{other}": -1.0 - other for other in range(2)}
            logprobs = {"tokens": [f"token_id:{token}"], "token_logprobs": [-0.5], "top_logprobs": [tops]}
        return {"index": 0, "text": "", "token_ids": [token], "logprobs": logprobs, "finish_reason": reason}


class Box:
    """Takes the place of the handle of `ToolServer`."""

    def __init__(self, tools: list[Tool]):
        self.tools, self.called = tools, list[tuple[str, dict[str, Any]]]()
        self.call = SimpleNamespace(remote=self._call)

    async def _call(self, name: str, arguments: dict[str, Any]) -> ToolResult:
        self.called.append((name, arguments))
        return await asyncio.to_thread(tool.call, self.tools, name, arguments, LIMITS)

    @property
    def functions(self) -> tuple[Function, ...]:
        return tuple(
            Function(name=each.name, description=each.description, parameters=each.parameters) for each in self.tools
        )


class Served:
    def __init__(self, port: int, engine: Engine, box: Box):
        self.port, self.engine, self.box = port, engine, box
        self.client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="x", max_retries=0, timeout=30)


@contextmanager
def served(root: Path, tools: list[Tool]) -> Iterator[Served]:
    words = tiny.tokenizer()
    export.export(tiny.transformer(words, seed=1), words, str(root / "model"))
    engine, box = Engine(words), Box(tools)
    settings = Settings(
        name="fake", created="2026-01-01T00:00:00Z", stage="sft", temperature=0.7, system_prompt=None,
        max_model_length=2000, limits=LIMITS, tools=box.functions, taught=True,
    )  # fmt: skip
    assistant: Any = Assistant.__mro__[1](engine, box, SimpleNamespace(local=lambda: str(root / "model")), settings)
    server = uvicorn.Server(uvicorn.Config(api, port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ray.serve.get_replica_context", lambda: SimpleNamespace(servable_object=assistant))
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield Served(server.servers[0].sockets[0].getsockname()[1], engine, box)
        finally:
            server.should_exit = True
            thread.join(10)
