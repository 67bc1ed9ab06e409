"""Where turns are told when they have ended: the access log, Prometheus metrics (Ray's), traces in MLflow."""

from __future__ import annotations

import json
import logging
import os
import queue
import sys
import threading
import time
from dataclasses import dataclass
from logging.handlers import RotatingFileHandler

from serving.gate import Account, Door
from serving.turn import Turn
from webtochat import storage
from webtochat.recipe_operation import Operation
from webtochat.tracking import Tracking

SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60]
RATES = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000]
MOST_TRACES = 1000
"""That wait to be written."""


@dataclass(frozen=True)
class Place:
    """Where a server runs, and by which settings. `workspace`: as any node finds it."""

    section: Operation
    loopback: bool
    workspace: str
    name: str


def door_of(place: Place | None) -> Door:
    """For one replica of the assistant. Without a place nothing is told of what it answers."""
    if place is None:
        return Door(Operation(), loopback=True)
    section, metrics = place.section, Metrics()
    accounts: list[Account] = [metrics]
    if section.access_log:
        accounts.append(AccessLog(place.workspace, place.name, section.access_log_mb))
    if section.traces:
        tracking = Tracking(storage.join(place.workspace, place.name), place.workspace, place.name)
        accounts.append(Traces(tracking, metrics))
    return Door(section, place.loopback, accounts, metrics.queue)


class AccessLog:
    """A line of JSON for each turn: in the run's logs, of a remote workspace on this process's own output."""

    def __init__(self, workspace: str, name: str, megabytes: int):
        self._handler: logging.Handler = logging.StreamHandler(sys.stdout)
        if not storage.is_remote(workspace):
            folder = os.path.join(workspace, name, "logs")
            os.makedirs(folder, exist_ok=True)
            path = os.path.join(folder, f"access-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.jsonl")
            self._handler = RotatingFileHandler(path, maxBytes=megabytes * 1_000_000, backupCount=1, encoding="utf-8")

    def tell(self, turn: Turn) -> None:
        self._handler.handle(logging.makeLogRecord({"msg": json.dumps(turn.line(), ensure_ascii=False)}))


class Metrics:
    """Ray adds them up over the replicas of each node and serves them for Prometheus (docs/operation.md)."""

    def __init__(self) -> None:
        from ray.serve import metrics

        self._requests = metrics.Counter("webtochat_requests", "Requests answered.", tag_keys=("path", "status"))
        self._refused = metrics.Counter("webtochat_refused", "Requests refused at the door.", tag_keys=("reason",))
        self._running = metrics.Gauge("webtochat_running", "Requests that are being answered.")
        self._waiting = metrics.Gauge("webtochat_waiting", "Of those, requests without a first token.")
        self._first = metrics.Histogram("webtochat_first_token_seconds", "Time to first token.", boundaries=SECONDS)
        self._took = metrics.Histogram("webtochat_seconds", "Time to the last byte.", SECONDS, tag_keys=("path",))
        self._rate = metrics.Histogram("webtochat_tokens_per_second", "Of one answer, after its first token.", RATES)
        self._tokens = metrics.Counter("webtochat_tokens", "Tokens read and written.", tag_keys=("kind",))
        self._calls = metrics.Counter("webtochat_tool_calls", "Calls of tools.", tag_keys=("tool", "outcome"))
        self._dropped = metrics.Counter("webtochat_traces_dropped", "Traces that MLflow was too slow for.")

    def queue(self, running: int, waiting: int) -> None:
        self._running.set(running)
        self._waiting.set(waiting)

    def dropped(self) -> None:
        self._dropped.inc()

    def tell(self, turn: Turn) -> None:
        if turn.refusal:
            self._refused.inc(tags={"reason": turn.refusal})
        # Whoever is refused, or asks for what is not there, may write anything.
        path = "other" if turn.refusal or turn.status in (404, 405) else turn.path
        self._requests.inc(tags={"path": path, "status": str(turn.status)})
        self._took.observe(max(turn.seconds, 1e-6), tags={"path": path})
        if turn.first_token_seconds is not None:
            self._first.observe(turn.first_token_seconds)
            writing = (turn.ended - turn.first_token) / 1e9
            if turn.completion_tokens > 1 and writing > 0:
                self._rate.observe((turn.completion_tokens - 1) / writing)
        for kind, count in (("prompt", turn.prompt_tokens), ("completion", turn.completion_tokens)):
            if count:
                self._tokens.inc(count, tags={"kind": kind})
        for span in turn.spans:
            if span.kind == "TOOL":
                self._calls.inc(tags={"tool": span.name, "outcome": span.attributes["outcome"]})


class Traces:
    """Written by a thread of its own: nobody waits for MLflow. What it cannot keep up with is dropped and counted."""

    def __init__(self, tracking: Tracking, metrics: Metrics):
        self._tracking = tracking
        self._metrics = metrics
        self._turns: queue.Queue[Turn] = queue.Queue(MOST_TRACES)
        threading.Thread(target=self._write, daemon=True).start()

    def tell(self, turn: Turn) -> None:
        if not turn.spans:
            return
        try:
            self._turns.put_nowait(turn)
        except queue.Full:
            self._metrics.dropped()

    def _write(self) -> None:
        while True:
            turn = self._turns.get()
            try:
                self._tracking.trace(turn.whole(), turn.spans)
            except Exception:  # whatever MLflow's store has, the next turn is told all the same
                self._metrics.dropped()
                logging.getLogger("webtochat").exception("a trace was not written")
