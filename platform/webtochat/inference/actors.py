"""Models as Ray actors. The engine: one per process, since vLLM reads its environment once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import ray

from webtochat import storage
from webtochat.artifact import Artifact
from webtochat.inference.engine import Completion, Engine, read_config, read_weights


class ModelPath(NamedTuple):
    """Where a trained model is, so that any node can take its own copy."""

    artifact: str
    key: str
    folder: str = "model"

    @staticmethod
    def of(artifact: Artifact) -> ModelPath:
        return ModelPath(artifact.directory, artifact.content_hash)

    def local(self) -> str:
        """A directory on this node with config.json, the weights and the tokenizer."""
        return os.path.join(storage.local_copy(self.artifact, self.key), self.folder)


def gpus_per_engine(wanted: int | None) -> int:
    """GPUs for one engine: as wanted, else one where the cluster has any."""
    if wanted is not None:
        return wanted
    return 1 if ray.cluster_resources().get("GPU", 0) >= 1 else 0


class EngineActor:
    """Holds one `Engine`; arguments as its."""

    def __init__(self, model: ModelPath, **options: Any):
        directory = model.local()
        self._config = read_config(directory)
        self._engine = Engine(directory, **options)

    def ready(self) -> int:
        """Positions that fit in one prompt with its completion."""
        return self._engine.max_model_length

    def generate(self, prompts: Sequence[Sequence[int]], **options: Any) -> list[list[Completion]]:
        return self._engine.generate(prompts, **options)

    def load(self, model: ModelPath) -> None:
        """Takes another model of the same shape in the place of this one. Costs ~0.1 s, where a new engine costs 6 to
        30. Raises ValueError if the shapes differ."""
        directory = model.local()
        if read_config(directory) != self._config:
            raise ValueError(f"{directory} is a model of another shape")
        self._engine.replace_weights(read_weights(directory))


class ScorerActor:
    """Holds a reward model, on a GPU where it has one."""

    def __init__(self, model: ModelPath):
        import torch

        from webtochat.model.reward import RewardModel

        self._model = RewardModel.load(model.local()).to("cuda" if torch.cuda.is_available() else "cpu")

    def scores_of(self, sequences: Sequence[Sequence[int]]) -> list[float]:
        """As the model's."""
        return self._model.scores_of(sequences)


def start_scorer(model: ModelPath, gpus: int | None = None) -> Any:
    """A handle of a started ScorerActor."""
    return ray.remote(ScorerActor).options(num_gpus=min(1, gpus_per_engine(gpus)), num_cpus=1).remote(model)


def start(model: ModelPath, *, gpus: int | None = None, cpus: float = 1, **options: Any) -> Any:
    """A handle of a started actor; starting goes on in the background until `ready` returns.

    `gpus`: None takes one where the cluster has any. `options`: the engine's.
    """
    gpus = gpus_per_engine(gpus)
    return ray.remote(EngineActor).options(num_gpus=gpus, num_cpus=cpus).remote(model, gpus=gpus, **options)
