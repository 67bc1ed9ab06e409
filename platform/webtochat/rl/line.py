"""The line printed for a step of RL, and the same figures for MLflow."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from webtochat.rl.fleet import Work
from webtochat.rl.rollouts import Row, by_group, teaches
from webtochat.train.line import amount, duration


@dataclass(frozen=True)
class Learned:
    """What the learner measured in a step; `step` counts from 1."""

    step: int
    metrics: dict[str, float]


class Clock:
    """How busy the engines are, and how long it still takes."""

    def __init__(self, engines: int):
        self._engines = engines
        self._since = self._started = time.perf_counter()
        self._begun: dict[Work, float] = {}
        self._busy = self._sampling = 0.0
        self._tokens = 0
        self._first: int | None = None

    def began(self, work: Work) -> None:
        if work.kind != "interrupt":  # the engine goes on with what it is at
            self._begun[work] = time.perf_counter()

    def ended(self, work: Work, tokens: int) -> None:
        """`tokens`: that the engine drew."""
        seconds = time.perf_counter() - self._begun.pop(work, time.perf_counter())
        self._busy += seconds
        if tokens:
            self._sampling, self._tokens = self._sampling + seconds, self._tokens + tokens

    def read(self) -> dict[str, float]:
        """Since it was read last."""
        now = time.perf_counter()
        wall = max(now - self._since, 1e-9) * self._engines
        found = {"sampler_idle": max(0.0, 1 - self._busy / wall)}
        if self._sampling:
            found["sampling_tok/s"] = self._engines * self._tokens / self._sampling
        self._since, self._busy, self._sampling, self._tokens = now, 0.0, 0.0, 0
        return found

    def left(self, step: int, steps: int) -> float:
        """Seconds, by those since the first step of this attempt."""
        now = time.perf_counter()
        if self._first is None:
            self._first, self._started = step, now
        return (steps - step) * (now - self._started) / max(1, step - self._first)


def sampled(rows: Sequence[Row]) -> dict[str, float]:
    """What a step's rollouts are like."""
    scored = [row for row in rows if row["reward"] is not None]
    groups = by_group(rows)
    found = {
        "dead": sum(not teaches(each) for each in groups.values()) / max(1, len(groups)),
        "length": mean([sum(row["own"]) for row in rows]),
        "ended": mean([row["finished"] == "stop" for row in rows]),
        "calls": mean([row["calls"] for row in rows]),
        "without_reward": mean([row["reward"] is None for row in rows]),
    }
    if scored:
        found["reward"] = mean([row["reward"] for row in scored])
        found |= {f"reward/{name}": value for name, value in by_part(scored).items()}
    return found


def by_part(rows: Sequence[Row]) -> dict[str, float]:
    """Each part's mean over the rows that have it."""
    found: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row["parts"]:
            found.setdefault(name, []).append(value)
    return {name: mean(values) for name, values in found.items()}


def mean(values: Sequence[float]) -> float:
    return statistics.fmean(values) if values else 0.0


def text(step: int, steps: int, told: dict[str, float], eta_seconds: float) -> str:
    """`told`: of `sampled`, of the learner, and of the driver's clock."""
    parts = [f"step {step}/{steps}", f"reward {told['reward']:.3f}" if "reward" in told else "no reward"]
    parts += [f"{name} {told[name]:.4f}" for name in ("loss", "norm", "kl") if name in told]
    parts.append(f"length {told['length']:.1f}")
    parts += [f"entropy {told['entropy']:.3f}"] if "entropy" in told else []
    parts += [f"{name} {100 * told[name]:.1f}%" for name in ("clipped", "dead") if name in told]
    parts += [f"gap {told['gap']:.1e}"] if "gap" in told else []
    rates = [f"{amount(told[name])}" for name in ("sampling_tok/s", "learning_tok/s") if name in told]
    parts.append(f"{' + '.join(rates)} tok/s" if rates else "")
    idle = [f"{100 * told[name]:.0f}%" for name in ("sampler_idle", "learner_idle") if name in told]
    parts.append(f"idle {' + '.join(idle)}" if idle else "")
    return " | ".join([*filter(None, parts), f"eta {duration(eta_seconds)}"])
