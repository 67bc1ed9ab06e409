"""What must hold before a job runs on a cluster: that every node reads the workspace, and that MLflow's store is fit
for more than one."""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from webtochat.recipe import Recipe

PROBE_SECONDS = 60


def several(nodes: Sequence[dict[str, Any]]) -> bool:
    """Whether the work is, or will be, on more than one node: a lone node without CPUs is the head of a cluster whose
    workers come up when they are asked for."""
    return len(nodes) > 1 or not any(node["Resources"].get("CPU") for node in nodes)


def check(recipe: Recipe) -> None:
    """Raises UserError if a node cannot read the workspace, or if MLflow would write a sqlite file that several nodes
    share. Nodes that come up later are not seen: they fail in the stage that first reads there."""
    import ray

    from webtochat.errors import UserError
    from webtochat.tracking import Tracking

    alive = [node for node in ray.nodes() if node["Alive"]]
    if not several(alive):
        return
    tracking = Tracking(recipe.workspace, recipe.workspace, recipe.name)
    if tracking.uri.startswith("sqlite:"):
        raise UserError(
            "MLflow's sqlite file does not bear a cluster of several nodes: start `mlflow server` where they reach it, "
            "and set MLFLOW_TRACKING_URI to its address"
        )
    unread = probe(recipe.workspace, alive)
    if unread:
        raise UserError(
            f"the workspace {recipe.workspace} is not shared: "
            + "; ".join(f"node {name} {why}" for name, why in unread.items())
            + ". Set WEBTOCHAT_WORKSPACE (or workspace=) to storage that every node sees, such as s3://bucket/runs"
        )


def probe(workspace: str, alive: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Writes a file into the workspace and reads it on each node. Returns the nodes that could not, with the reason."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from webtochat import storage

    @ray.remote(num_cpus=0, max_retries=0)
    def read(path: str) -> bytes | None:  # nested, so that it travels by value: jobs/ is not on the workers' path
        from webtochat import storage

        return storage.read_bytes(path) if storage.exists(path) else None

    token = uuid.uuid4().hex.encode()
    path = storage.join(
        workspace if storage.is_remote(workspace) else os.path.abspath(workspace), ".probe-" + uuid.uuid4().hex
    )
    storage.write_bytes(path, token)
    try:
        asked = {
            read.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(path):
            f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
            for node in alive
        }  # fmt: skip
        answered, silent = ray.wait(list(asked), num_returns=len(asked), timeout=PROBE_SECONDS)
        unread = {asked[each]: f"did not answer within {PROBE_SECONDS} s" for each in silent}
        for each in answered:
            try:
                found = ray.get(each)
            except ray.exceptions.RayError as error:
                lines = str(error).strip().splitlines()
                unread[asked[each]] = f"failed to read it ({lines[-1] if lines else type(error).__name__})"
                continue
            if found != token:
                unread[asked[each]] = "does not see a file that the driver wrote there"
        return unread
    finally:
        storage.delete(path)
