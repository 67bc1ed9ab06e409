"""The Ray Serve application: the model (vLLM by `ray.serve.llm`), and before it the assistant, which speaks OpenAI's
API and serves the chat page, on one port.

    serve run serving.app:build recipe=recipes/demo.yaml workspace=/data/runs
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.serve import Application
from ray.serve.handle import DeploymentHandle

from serving.accounts import Place
from serving.assistant import Assistant, Settings
from serving.gate import LOOPBACK
from serving.keys import VARIABLE
from serving.model import ModelServer, engine_options
from serving.tools import ToolServer, offered
from webtochat import artifact, recipe, storage
from webtochat.artifact import Artifact
from webtochat.errors import UserError
from webtochat.inference.actors import ModelPath, gpus_per_engine
from webtochat.recipe import Cluster, Recipe

STAGES = ("rl", "dpo", "knowledge", "sft", "pretrain")
"""Whose model is served: the first that is committed."""
MAX_ONGOING = 1000
WAIT_SECONDS = 0.5
"""How often a replica that is to go looks whether its answers have ended."""
UPSCALE_SECONDS = 5
"""Of more requests than the engines are for, before another is started."""


def build(args: dict[str, str]) -> Application:
    """`recipe`: its path. Every other argument overrides a key of it, as `section.key: value`."""
    given = dict(args)
    path = given.pop("recipe", None)
    if path is None:
        raise UserError("which recipe? serve run serving.app:build recipe=recipes/demo.yaml")
    chosen = recipe.load(path, [f"{key}={value}" for key, value in given.items()])
    shared = os.environ.get("WEBTOCHAT_WORKSPACE")
    if shared and "workspace" not in given:
        chosen = chosen.model_copy(update={"workspace": shared})
    if not ray.is_initialized():  # `serve run` builds the application before it joins a cluster
        sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "jobs"))
        from job import join

        join(chosen)
    return application(chosen)


def newest_model(chosen: Recipe) -> Artifact:
    """The chat model, else the base model. Raises UserError where there is none."""
    directory = storage.join(chosen.workspace, chosen.name)
    for stage in STAGES:
        found = artifact.find(storage.join(directory, stage))
        if found is not None:
            return found
    raise UserError(f"no model in {directory}: run jobs/pipeline.py first (make demo)")


def taught(chosen: Recipe) -> bool:
    """Whether the model that is served was shown tools."""
    tuned = artifact.find(storage.join(chosen.workspace, chosen.name, "sft"))
    return tuned is not None and "demonstrations" in tuned.manifest.inputs


def application(chosen: Recipe) -> Application:
    """The application for a recipe's newest model. Asks the running cluster whether it has GPUs."""
    found = newest_model(chosen)
    return assistant(chosen, found, model(chosen, found))


def model(chosen: Recipe, found: Artifact) -> Application:
    gpus = gpus_per_engine(chosen.cluster.engine_gpus)
    options = engine_options(gpus, chosen.serve.max_model_length, chosen.cluster.kv_cache_gib)
    return serve.deployment(
        ModelServer, name="model", **replicas(chosen.cluster), max_ongoing_requests=MAX_ONGOING,
        ray_actor_options={"num_cpus": 1}, health_check_period_s=10, max_surge_percent=100,
        graceful_shutdown_timeout_s=chosen.serve.drain_seconds, graceful_shutdown_wait_loop_s=WAIT_SECONDS,
    ).bind(ModelPath.of(found), name_of(chosen), options, gpus)  # fmt: skip


def assistant(chosen: Recipe, found: Artifact, model: Application | DeploymentHandle) -> Application:
    """`model`: in the same application, or running in one of its own. A new replica is up before an old one goes, and
    this one ends its answers first."""
    section = chosen.serve
    if section.keys and not section.keys.startswith(VARIABLE):
        section = section.model_copy(update={"keys": storage.absolute(section.keys)})
    limits, index, functions = offered(chosen)
    tools = serve.deployment(
        ToolServer, name="tools", num_replicas=chosen.cluster.tool_replicas, ray_actor_options={"num_cpus": 0},
        max_ongoing_requests=chosen.cluster.tool_threads, graceful_shutdown_timeout_s=5,
    ).bind(limits, index, chosen.cluster.tool_threads) if functions else None  # fmt: skip
    settings = Settings(
        name=name_of(chosen), created=found.manifest.created, stage=found.stage, temperature=chosen.serve.temperature,
        system_prompt=chosen.serve.system_prompt, max_model_length=chosen.serve.max_model_length, limits=limits,
        tools=tuple(functions), taught=taught(chosen), cite_share=chosen.serve.cite_share,
        place=Place(section, section.host in LOOPBACK, storage.absolute(chosen.workspace), chosen.name),
    )  # fmt: skip
    return serve.deployment(
        Assistant, name="assistant", max_ongoing_requests=MAX_ONGOING, ray_actor_options={"num_cpus": 0},
        max_surge_percent=100, graceful_shutdown_timeout_s=chosen.serve.drain_seconds,
        graceful_shutdown_wait_loop_s=WAIT_SECONDS,
    ).bind(model, tools, ModelPath.of(found), settings)  # fmt: skip


def name_of(chosen: Recipe) -> str:
    """In the API."""
    return chosen.serve.model_name or chosen.name


def replicas(cluster: Cluster) -> dict[str, Any]:
    """How many engines there are, as Serve takes it."""
    fewest, most = cluster.engine_range
    if fewest == most:
        return {"num_replicas": most}
    return {
        "autoscaling_config": {
            "min_replicas": fewest, "max_replicas": most, "target_ongoing_requests": cluster.engine_requests,
            "downscale_delay_s": cluster.engine_idle_seconds, "upscale_delay_s": UPSCALE_SECONDS,
        }
    }  # fmt: skip
