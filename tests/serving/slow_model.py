"""A model that writes its words slowly, in the place of vLLM: the assistant before it is the real one."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray import serve
from tests.inference import tiny

from webtochat import recipe
from webtochat.artifact import Artifact
from webtochat.recipe import Recipe

ROOT = Path(__file__).resolve().parents[2]


class SlowModel:
    """Writes `words` words of a prompt's answer, `seconds` apart. A `broken` one does not start."""

    def __init__(self, name: str, words: int = 200, seconds: float = 0.05, broken: bool = False):
        if broken:
            raise ValueError("no such weights")
        self._name, self._words, self._seconds = name, words, seconds
        self._ids = tiny.tokenizer().encode(f"{name} ")
        self._running = 0

    async def complete(self, request: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        self._running += 1
        words = min(self._words, request["max_tokens"])
        try:
            for number in range(words):
                await asyncio.sleep(self._seconds)
                end = "length" if number == words - 1 else None
                choice = {"index": 0, "text": f"{self._name} ", "token_ids": self._ids, "logprobs": None}
                yield {"choices": [choice | {"finish_reason": end}]}
            read = len(request["prompt"])
            usage = {"prompt_tokens": read, "completion_tokens": words, "total_tokens": read + words}
            yield {"choices": [], "usage": usage}
        finally:
            self._running -= 1

    async def running(self) -> int:
        return self._running

    async def pid(self) -> int:
        return os.getpid()

    async def check_health(self) -> None:
        return None


def deployment(**options: Any) -> Any:
    return serve.deployment(
        SlowModel, name="model", max_ongoing_requests=1000, ray_actor_options={"num_cpus": 0}, health_check_period_s=1,
        max_surge_percent=100, graceful_shutdown_timeout_s=30, graceful_shutdown_wait_loop_s=0.5,
    ).bind(**options)  # fmt: skip


@contextmanager
def ray_serve(port: int, **options: Any) -> Iterator[None]:
    """Ray and Serve, on loopback."""
    import ray

    folders = os.pathsep.join(str(ROOT / name) for name in ("", "platform"))
    ray.init(
        address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="error",
        runtime_env={"env_vars": {"PYTHONPATH": folders}}, **options,
    )  # fmt: skip
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        yield
    finally:
        serve.shutdown()
        ray.shutdown()


def loaded(root: Path, **section: Any) -> tuple[Recipe, Artifact]:
    """A recipe and its newest model."""
    from serving.app import newest_model

    chosen = recipe.load(str(tiny.workspace(root, serve={"temperature": 0.0} | section)))
    return chosen, newest_model(chosen)
