"""The model behind the API: `ray.serve.llm`'s server of vLLM, asked by token ids.

It is held, not inherited from: importing `ray.serve.llm` costs ~20 s, which only the replica pays.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from typing import Any

from serving.stream import merged
from webtochat.inference.actors import ModelPath
from webtochat.inference.engine import CPU_ENVIRONMENT, ENVIRONMENT, positions

GATHER_SECONDS, GATHER_SECONDS_PER_STREAM, GATHER_AT_MOST = 0.05, 0.008, 0.25
"""How long tokens are gathered before they go out together, by how many streams go on: a message on its way through
three processes costs as much as several tokens of a small model. With 32 clients on two cores 750 tokens/s go out, with
0.05 alone 560. Neither the first nor the end is held back."""


def engine_options(gpus: int, max_model_length: int | None, kv_cache_gib: float) -> dict[str, Any]:
    """vLLM's arguments. On CPU float32, eager, and a cache of a set size, so that nothing is compiled or probed."""
    common: dict[str, Any] = {
        "disable_log_stats": True,
        # Small models write white space without end where a grammar lets them.
        "structured_outputs_config": {"backend": "guidance", "disable_any_whitespace": True},
    }
    if max_model_length is not None:
        common["max_model_len"] = max_model_length
    if gpus == 0:
        size = int(kv_cache_gib * 2**30)
        return common | {"enforce_eager": True, "dtype": "float32", "kv_cache_memory_bytes": size}
    return common | {"tensor_parallel_size": gpus, "dtype": "bfloat16"}


class ModelServer:
    """One replica: one engine."""

    async def __init__(self, model: ModelPath, name: str, options: dict[str, Any], gpus: int):
        # Else vLLM's logging closes the handlers that there are, and Serve's then keeps each request's line for good.
        os.environ.update(ENVIRONMENT, VLLM_CONFIGURE_LOGGING="0")
        if gpus == 0:
            os.environ.update(CPU_ENVIRONMENT)
        from ray.llm._internal.common.callbacks.base import CallbackBase
        from ray.serve.llm import LLMConfig
        from ray.serve.llm.deployment import LLMServer

        class NothingToDownload(CallbackBase):
            """The model is on this node. Else a task that downloads nothing would import vLLM once more: ~15 s."""

            async def on_before_node_init(self) -> None:
                self.ctx.run_init_node = False

        directory = model.local()
        options = {"max_model_len": positions(directory)} | options
        resources = {"CPU": 1} if gpus == 0 else {"GPU": 1}
        self._server = LLMServer.sync_init(
            LLMConfig(
                model_loading_config={"model_id": name, "model_source": directory},
                engine_kwargs=options,
                placement_group_config={"bundles": [resources] * max(1, gpus)},
                experimental_configs={"stream_batching_interval_ms": 0},
                log_engine_metrics=False,
                callback_config={"callback_class": NothingToDownload},
            )
        )
        self._streams = 0
        await self._server.start()

    async def complete(self, request: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """Chunks of a streamed completion, as OpenAI's `text_completion`; `{"error": …}` where vLLM refuses.

        `request`: of vLLM's CompletionRequest; its `prompt` is token ids, one list or several.
        """
        from ray.serve.llm.openai_api_models import CompletionRequest

        asked = CompletionRequest(**request, stream=True, stream_options={"include_usage": True})
        self._streams += 1
        try:
            async for chunks in gathered(await self._server.completions(asked), self._gather_seconds):
                if errors := [chunk for chunk in chunks if "error" in chunk]:
                    yield errors[0]
                    return
                yield merged(chunks)
        finally:
            self._streams -= 1

    def _gather_seconds(self) -> float:
        return min(max(GATHER_SECONDS, GATHER_SECONDS_PER_STREAM * self._streams), GATHER_AT_MOST)

    async def check_health(self) -> None:
        await self._server.check_health()


async def gathered(
    stream: AsyncIterator[list[Any]], seconds: Callable[[], float]
) -> AsyncIterator[list[dict[str, Any]]]:
    """The chunks of `ray.serve.llm`'s lists of one: the first as soon as it is there, then those of so many seconds
    together, the last as soon as they are."""
    arrived: list[dict[str, Any]] = []
    first = asyncio.Event()

    async def read() -> None:
        try:
            async for [item] in stream:
                if not isinstance(item, str):
                    arrived.append(item.model_dump(mode="json"))
                elif (data := item.removeprefix("data: ").strip()) != "[DONE]":  # a line of server-sent events
                    arrived.append(json.loads(data))
                first.set()
        finally:
            first.set()

    reading = asyncio.create_task(read())
    try:
        await first.wait()
        while arrived or not reading.done():
            if arrived:
                chunks = arrived[:]
                arrived.clear()
                yield chunks
            await asyncio.wait({reading}, timeout=seconds())
        reading.result()
    finally:
        reading.cancel()
