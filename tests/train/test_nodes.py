"""Nodes that are taken away, with and without notice, from a Ray of several nodes on this machine."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from small_training import ROOT, commit_tokens, job_of, quiet, read_curve, run_of, tiny

from webtochat.artifact import Artifact
from webtochat.recipe import Recipe
from webtochat.train import stage
from webtochat.train.rank import pretrain_rank

PREEMPTION = 2
"""As in Ray's autoscaler.proto, DrainNodeReason."""


@pytest.fixture
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Any]]:
    """Two nodes of one CPU beside a head without any. For each test its own Ray: what Ray Train counts as free is up to
    20 s old (AutoscalingCoordinator.TICK_INTERVAL_S), so the second test would be given the nodes of the first. For the
    same reason the first try after a loss may wait for a node that is gone: 10 s here, 60 by default."""
    temporary = tmp_path_factory.mktemp("ray", numbered=True)
    (temporary / "ray").mkdir()
    changed = {
        "RAY_TRAIN_V2_ENABLED": "1", "RAY_USAGE_STATS_ENABLED": "0", "MLFLOW_DISABLE_TELEMETRY": "true",
        "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "0.5", "RAY_TMPDIR": str(temporary),
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "10",
    }  # fmt: skip
    patch = pytest.MonkeyPatch()
    for name, value in changed.items():
        patch.setenv(name, value)
    import ray
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    added = [made.add_node(num_cpus=1) for _ in range(2)]
    paths = ":".join(str(ROOT / folder) for folder in ("platform", "recipes", "jobs"))
    ray.init(
        address=made.address, log_to_driver=False, logging_level="error",
        runtime_env={"env_vars": {"PYTHONPATH": paths, "RAY_TRAIN_V2_ENABLED": "1"}},
    )  # fmt: skip
    yield added
    ray.shutdown()
    made.shutdown()
    patch.undo()


def recipe_of(home: Path, checkpoint_every: int, **placing: object) -> Recipe:
    """150 steps of about 0.1 s."""
    settings = {
        "tokens": 150 * 2048, "batch_tokens": 2048, "lr": 2e-3, "evaluate_every": 0,
        "checkpoint_every": checkpoint_every,
    }  # fmt: skip
    return tiny(
        home, model={"width": 128, "depth": 3}, pretrain=settings,
        cluster={"train_cpus": 1, "notice_seconds": 0.5, **placing},
    )  # fmt: skip


def trained(recipe: Recipe, disturb: Callable[[], None]) -> tuple[Artifact, str]:
    """The stage's artifact and what it showed, `disturb`ed once a step was shown and, where checkpoints are due on the
    way, one stands."""
    run, shown = run_of(recipe)
    checkpoints = Path(recipe.workspace) / recipe.name / "pretrain" / "_scratch" / "checkpoints"
    ended = threading.Event()

    def disturbing() -> None:
        many = recipe.pretrain.checkpoint_every < 150
        while not ("step 1/" in shown.getvalue() and (not many or list(checkpoints.glob("step-*")))):
            if ended.wait(0.05):
                return
        disturb()

    with ThreadPoolExecutor(1) as thread:
        disturbed = thread.submit(disturbing)
        try:
            made = stage.pretrain(run)
        finally:
            ended.set()
        disturbed.result()
    return made, shown.getvalue()


def node_of_worker(nodes: list[Any]) -> Any:
    """The one whose raylet started the training worker."""
    parents = {
        process.ppid() for process in psutil.Process().children(recursive=True)
        if "RayTrainWorker" in " ".join(process.cmdline())
    }  # fmt: skip
    return next(node for node in nodes if node.all_processes["raylet"][0].process.pid in parents)


def test_a_node_that_gives_notice_is_left_with_a_checkpoint(nodes: list[Any], tmp_path: Path) -> None:
    import ray

    commit_tokens(tmp_path)

    def drain() -> None:
        accepted, why = ray._raylet.GcsClient(address=ray.get_runtime_context().gcs_address).drain_node(
            node_of_worker(nodes).node_id, PREEMPTION, "taken back", int(time.time() * 1000) + 4000
        )
        assert accepted, why

    recipe = recipe_of(tmp_path, checkpoint_every=1000, train_retries=0)
    made, shown = trained(recipe, drain)
    assert "a machine is about to be taken away: a checkpoint is written now" in shown
    assert 0 < int(shown.split("going on from the checkpoint of step ")[1].split("/")[0]) < 150
    alone = pretrain_rank(job_of(recipe, tmp_path / "alone"), quiet, 1)
    assert read_curve(Path(made.directory)) == alone.curve


def test_as_many_workers_as_are_left_go_on(nodes: list[Any], tmp_path: Path) -> None:
    commit_tokens(tmp_path)
    recipe = recipe_of(tmp_path, checkpoint_every=30, train_workers=[1, 2])
    lose = partial(nodes[1].kill_all_processes, check_alive=False, allow_graceful=False, wait=True)
    made, shown = trained(recipe, lose)
    assert "training on 2 workers" in shown
    assert "going on from the checkpoint of step " in shown
    alone = pretrain_rank(job_of(recipe, tmp_path / "alone"), quiet, 1)
    one, other = ([point["loss"] for point in curve if "loss" in point] for curve in (
        read_curve(Path(made.directory)), alone.curve
    ))  # fmt: skip
    assert len(one) == 150 and one == pytest.approx(other, abs=1e-5)
