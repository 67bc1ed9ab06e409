"""A training run's ranks as Ray Train's workers."""

from __future__ import annotations

import math
import os
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

import ray
import ray.train
from ray.train.torch import TorchConfig, TorchTrainer
from ray.util.queue import Empty, Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from webtochat import storage
from webtochat.errors import MachineError, UserError
from webtochat.recipe import Cluster
from webtochat.run import Stage

WORKER_ENVIRONMENT = {"GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", "30000")}
"""How long OpenMP's threads spin while they wait for each other. With libgomp's own 300,000, two threads on two cores
lose most of their time as soon as another process is busy (2.2k tokens/s instead of 10.7k; so 2.9k); with none they
lose a third on a machine of their own (7.3k; so 10.1k)."""


class Training:
    """A job's ranks under Ray Train, in the background: a thread of its own waits for them, so that the messages can be
    looked at as they come, and an interrupt reaches the main thread at once.

    A worker or node that dies is replaced `cluster.train_retries` times, from the newest checkpoint.
    """

    def __init__(
        self, stage: Stage, run_rank: Callable[..., Any], job: Any, cluster: Cluster, core_share: float = 1.0
    ):  # fmt: skip
        """`core_share`: of each machine's cores, that the workers' threads are for unless `cluster.train_cpus` says."""
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self.messages = Queue(
            actor_options={"num_cpus": 0, "scheduling_strategy": here}  # not on a node that may be lost
        )
        self._retries = cluster.train_retries
        gpus = cluster.train_gpus
        fewest, most = cluster.workers
        if gpus is None:
            gpus = ray.cluster_resources().get("GPU", 0) >= fewest
        resources: dict[str, float] = {"CPU": cluster.train_cpus or 1, **({"GPU": 1} if gpus else {})}
        filesystem, inner = storage.resolve(stage.scratch("ray"))
        config = {
            "job": job, "messages": self.messages, "threads": cluster.train_cpus, "core_share": core_share,
            "run_rank": run_rank,
        }  # fmt: skip
        trainer = TorchTrainer(
            _rank,
            train_loop_config=config,
            torch_config=TorchConfig(
                backend="nccl" if gpus else "gloo", timeout_s=cluster.collective_seconds
            ),
            scaling_config=ray.train.ScalingConfig(
                num_workers=(fewest, most) if most > fewest else most,  # type: ignore[arg-type]  # as below
                use_gpu=gpus, resources_per_worker=resources,
                # Several CPU workers are for using several machines; GPU workers want to be near each other.
                placement_strategy="PACK" if gpus else "SPREAD",
            ),
            run_config=ray.train.RunConfig(
                name=stage.stage, storage_path=inner, storage_filesystem=filesystem,
                failure_config=ray.train.FailureConfig(max_failures=cluster.train_retries),
                worker_runtime_env={"env_vars": WORKER_ENVIRONMENT},  # type: ignore[call-arg]  # mypy sees the older class
            ),
        )  # fmt: skip
        self._raised: list[BaseException] = []
        self._failures: list[Exception] = []

        def fitting() -> None:
            try:
                trainer.fit()
            except Exception as error:  # noqa: BLE001 (raised again by `finish`, in the thread that waits)
                self._raised.append(error)

        self._thread = threading.Thread(target=fitting, daemon=True)
        self._thread.start()

    def alive(self) -> bool:
        """Whether the ranks are still at it."""
        return self._thread.is_alive()

    def over(self) -> bool:
        """Whether the ranks have ended, and all that they said was taken."""
        return not self.alive() and self.messages.empty()

    def message(self, seconds: float) -> Any:
        """The next one, or None where none comes so long. An error that a rank raised is kept for `finish`."""
        try:
            return self.taken(self.messages.get(timeout=seconds))
        except Empty:
            return None

    def coming(self) -> Any:
        """The next one as a Ray reference, to wait for beside others; to be `taken`."""
        actor: Any = self.messages.actor
        return actor.get.remote()

    def taken(self, message: Any) -> Any:
        """What a message is to the stage: None where it is an error."""
        if isinstance(message, UserError | MachineError):
            self._failures.append(message)
            return None
        return message

    def finish(self) -> None:
        """Raises the UserError or MachineError that a rank raised."""
        self.messages.shutdown()
        if self._failures:
            raise self._failures[0]
        if self._raised:
            traceback.print_exception(self._raised[0], file=sys.stderr)
            causes = getattr(self._raised[0], "worker_failures", {}) or {0: self._raised[0]}
            first = (str(next(iter(causes.values()))).strip().splitlines() or [""])[-1]
            raise MachineError(
                f"training failed {self._retries + 1} times ({first[:200]}): the same command goes on from the newest "
                "checkpoint"
            ) from self._raised[0]


def _rank(config: dict[str, Any]) -> None:
    """What each Ray Train worker runs."""
    job, messages = config["job"], config["messages"]
    context = ray.train.get_context()
    cores = math.ceil(len(os.sched_getaffinity(0)) * config["core_share"])
    threads = config["threads"] or max(1, cores // context.get_local_world_size())

    def emit(message: Any) -> None:
        messages.put(message)

    def notice() -> bool:
        """Of any of the workers' nodes: Ray drains a node that its cloud is about to take back."""
        return ray.train.get_preemption_info() is not None

    try:
        config["run_rank"](job, emit, threads, notice)
    except (UserError, MachineError) as error:
        # Every rank meets these alike, and trying again would meet them again: told to the driver, not to Ray Train.
        if context.get_world_rank() == 0:
            messages.put(error)
