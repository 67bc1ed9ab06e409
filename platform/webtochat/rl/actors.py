"""What samples rollouts, with weights that are replaced while it lives, and what rewards them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from queue import SimpleQueue
from typing import Any

import numpy as np
import ray

from webtochat import storage
from webtochat.inference.actors import ModelPath, gpus_per_engine
from webtochat.inference.engine import Engine
from webtochat.recipe import Recipe
from webtochat.rl import rewards, rollouts
from webtochat.rl.rollouts import Asked, Row
from webtochat.tokens.tokenizer import Tokenizer
from webtochat.tools.toolbox import toolbox

ASIDE = "aside"
"""The thread of what does not wait for its turn."""


class Sampler:
    """`index`: where the search index lies, if tools are called. One call at a time, but for `interrupt`."""

    def __init__(self, model: ModelPath, recipe: Recipe, index: tuple[str, str] | None, gpus: int):
        assert recipe.rl is not None
        directory, cluster = model.local(), recipe.cluster
        self._recipe, self._section, self._version = recipe, recipe.rl, 0
        self._coming: SimpleQueue[tuple[int, dict[str, np.ndarray]]] = SimpleQueue()
        self._tokenizer = Tokenizer.load(directory)
        self._tools = toolbox(recipe.tools, storage.local_copy(*index) if index else None) if recipe.rl.tools else []
        self._engine = Engine(
            directory, kv_cache_gib=cluster.kv_cache_gib, gpus=gpus, logprobs=True, seed=recipe.rl.seed,
            max_model_length=recipe.rl.sequence_length,
        )  # fmt: skip

    def ready(self) -> None:
        """Returns once the engine is started."""

    def renew(self, version: int, weights: dict[str, np.ndarray]) -> None:
        """Takes the weights of this version."""
        import torch

        tensors = ((name, torch.from_numpy(each.copy())) for name, each in weights.items())
        self._engine.replace_weights(tensors, version)
        self._version = version

    @ray.method(concurrency_group=ASIDE)
    def interrupt(self, version: int, weights: dict[str, np.ndarray]) -> None:
        """Has what is sampled go on with the weights of this version."""
        self._coming.put((version, weights))

    def sample(self, asked: Sequence[Asked], greedy: bool = False) -> list[Row]:
        """Answers to each prompt; `greedy`: one, the likeliest."""
        section, limits = self._section, self._recipe.tools
        return rollouts.sample(
            asked, self._tokenizer, partial(self._engine.generate, between=self._take), greedy=greedy,
            samples=1 if greedy else section.samples, sampling=section, limits=limits, tools=self._tools,
            positions=self._engine.max_model_length, seed=section.seed, threads=self._recipe.cluster.tool_threads,
        )  # fmt: skip

    def _take(self) -> None:
        while not self._coming.empty():
            version, weights = self._coming.get()
            if version > self._version:
                self.renew(version, weights)


class Rewarder:
    """`scorer`: the reward model's, if it counts; `scale`: mean and standard deviation of what it gives."""

    def __init__(self, recipe: Recipe, scorer: Any, scale: tuple[float, float]):
        assert recipe.rl is not None
        section = recipe.rl

        def model(ids: list[list[int]]) -> list[float]:
            return [(score - scale[0]) / scale[1] for score in ray.get(scorer.scores_of.remote(ids))]

        self._weights, python, most = section.rewards.weights, recipe.tools.python, section.max_new_tokens
        self._parts = rewards.parts(section.parts, section.rewards, python, recipe.cluster, most, model)

    def reward(self, path: str, found: list[Row]) -> None:
        """Rewards answers and writes them down."""
        scored = rewards.score([rollouts.answered(row) for row in found], self._parts, self._weights)
        rollouts.write(path, rollouts.rewarded(found, scored))


def start_rewarder(recipe: Recipe, scorer: Any, scale: tuple[float, float]) -> Any:
    """One lives as long as the run: a task each time had its worker started anew, as Ray ends those that idle for a
    second, and steps on the reward model took 7.5 s of which sampling and learning were 2.6."""
    options = {"num_cpus": 0, "scheduling_strategy": "SPREAD", "max_restarts": -1, "max_task_retries": 3}
    return ray.remote(Rewarder).options(**options).remote(recipe, scorer, scale)


def start(model: ModelPath, recipe: Recipe, index: tuple[str, str] | None) -> Any:
    """A handle of a started actor; starting goes on in the background until `ready` returns."""
    gpus = gpus_per_engine(recipe.cluster.engine_gpus)
    options: dict[str, Any] = {"num_gpus": gpus, "num_cpus": 1, "concurrency_groups": {ASIDE: 1}}
    return ray.remote(**options)(Sampler).remote(model, recipe, index, gpus)
