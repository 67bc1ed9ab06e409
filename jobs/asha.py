"""Asynchronous successive halving (Li et al. 2020) as Ray Tune does it, for trials that may have begun earlier."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from trials import Halving


class Scheduler(ASHAScheduler):
    """Trials are compared at the same percent of their own steps, so that batch and size may differ. `tell(name)` is
    called for a trial as it is stopped."""

    def __init__(self, rules: Halving, tell: Callable[[str], None]):
        super().__init__(
            time_attr="percent", metric="validation_bpb", mode="min", max_t=100, grace_period=rules.grace_period,
            reduction_factor=rules.reduction_factor, stop_last_trials=False,
        )  # fmt: skip
        self.tell = tell

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        decision = super().on_trial_result(tune_controller, trial, result)
        if decision == TrialScheduler.STOP and result["percent"] < 100:
            self.tell(trial.config["trial"]["recipe"]["name"])
        return decision

    def remember(self, name: str, evaluations: dict[int, float], steps: int) -> None:
        """Counts what a trial reported that was over before this attempt."""
        earlier = SimpleNamespace(trial_id=name)
        self.on_trial_add(None, earlier)
        for step, bits in sorted(evaluations.items()):
            super().on_trial_result(None, earlier, {"percent": 100 * step / steps, "validation_bpb": bits})
