"""MLflow: one parent run per recipe, one child run per stage. sqlite beside the artifacts by default; any server by
MLFLOW_TRACKING_URI. Only the driver logs, so sqlite never has two writers. Import of mlflow costs ~2 s: done once,
when a stage really runs.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from webtochat import storage
from webtochat.errors import UserError

PARENT = "mlflow.json"


class StageRun:
    """One child run. `metrics` go out in batches: sqlite takes ~10 ms a transaction."""

    def __init__(self, client: Any, run_id: str):
        self._client = client
        self.run_id = run_id
        self._pending: list[Any] = []
        self._flushed = time.monotonic()

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._pending += [Metric(key, float(value), now, step) for key, value in values.items()]
        if time.monotonic() - self._flushed > 5 or len(self._pending) > 800:
            self.flush()

    def flush(self) -> None:
        pending, self._pending = self._pending, []
        for start in range(0, len(pending), 1000):
            self._client.log_batch(self.run_id, metrics=pending[start : start + 1000])
        self._flushed = time.monotonic()

    def text(self, content: str, name: str) -> None:
        self._client.log_text(self.run_id, content, name)

    def table(self, columns: Mapping[str, list[Any]], name: str) -> None:
        """Rows to look at among the run's artifacts: a table in MLflow's pages where `name` ends in .json."""
        self._client.log_table(self.run_id, dict(columns), name)

    def end(self, status: str, reason: str = "") -> None:
        """`FINISHED`, `FAILED` or `KILLED`; a reason is shown as the run's description."""
        self.flush()
        if reason:
            self._client.set_tag(self.run_id, "mlflow.note.content", reason)
        self._client.set_terminated(self.run_id, status)


@dataclass
class Span:
    """Something that a served model did: an answer (AGENT), or a generation or a call of a tool in it. Times are
    nanoseconds since 1970; texts are None where they are not kept."""

    name: str
    kind: Literal["AGENT", "LLM", "TOOL"]
    began: int
    ended: int = 0
    attributes: dict[str, Any] = field(default_factory=dict)
    asked: str | None = None
    answered: str | None = None


class Tracking:
    def __init__(self, directory: str, workspace: str, name: str):
        self.directory = directory
        self.workspace = workspace
        self.name = name
        self._client: Any = None

    @property
    def uri(self) -> str:
        given = os.environ.get("MLFLOW_TRACKING_URI")
        if given:
            return given
        if storage.is_remote(self.workspace):
            raise UserError(
                f"the workspace {self.workspace} is remote, so MLflow's default sqlite file cannot stand in it: "
                "set MLFLOW_TRACKING_URI to a server"
            )
        return f"sqlite:///{os.path.abspath(self.workspace)}/mlflow.db"

    def command(self) -> str:
        """What to type, or where to go, to look at the runs."""
        if not self.uri.startswith("sqlite:"):
            return self.uri
        return f".venv/bin/mlflow ui --backend-store-uri {self.uri.replace(str(Path.cwd()) + '/', '')}"

    def client(self) -> Any:
        if self._client is None:
            import mlflow

            if not storage.is_remote(self.workspace):
                os.makedirs(self.workspace, exist_ok=True)
            self._client = mlflow.MlflowClient(tracking_uri=self.uri)
        return self._client

    def _experiment(self) -> str:
        found = self.client().get_experiment_by_name(self.name)
        if found is not None:
            return found.experiment_id
        location = None if os.environ.get("MLFLOW_TRACKING_URI") else f"{os.path.abspath(self.workspace)}/mlruns"
        return self.client().create_experiment(self.name, artifact_location=location)

    def _parent(self, recipe: dict[str, Any]) -> str:
        path = storage.join(self.directory, PARENT)
        if storage.exists(path):
            held = json.loads(storage.read_bytes(path))
            if held["uri"] == self.uri:
                return held["run_id"]
        run = self.client().create_run(self._experiment(), run_name=self.name)
        self.client().log_dict(run.info.run_id, recipe, "recipe.yaml")
        storage.write_bytes(path, json.dumps({"uri": self.uri, "run_id": run.info.run_id}).encode())
        return run.info.run_id

    def stage(
        self, stage: str, recipe: dict[str, Any], identity: dict[str, Any], parent: str | None = None
    ) -> StageRun:
        """Starts the child run of a stage, under the recipe's run or the given `parent`."""
        from mlflow.entities import Param

        parent = parent or self._parent(recipe)
        run = self.client().create_run(self._experiment(), run_name=stage, tags={"mlflow.parentRunId": parent})
        params = [Param(key, value[:500]) for key, value in _flatten(identity).items()]
        for start in range(0, len(params), 100):
            self.client().log_batch(run.info.run_id, params=params[start : start + 100])
        return StageRun(self.client(), run.info.run_id)

    def trace(self, whole: Span, parts: Sequence[Span]) -> None:
        """Writes a trace into the recipe's experiment: an answer, and what it was made of."""
        import mlflow

        experiment = self._experiment()
        mlflow.set_tracking_uri(self.uri)

        def begun(span: Span, parent: Any = None) -> Any:
            return mlflow.start_span_no_context(
                span.name, span.kind, parent, span.asked, span.attributes,
                experiment_id=None if parent else experiment, start_time_ns=span.began,
            )  # fmt: skip

        root = begun(whole)
        for part in parts:
            begun(part, root).end(part.answered, end_time_ns=part.ended)
        root.end(whole.answered, end_time_ns=whole.ended)


def _flatten(tree: Any, prefix: str = "") -> dict[str, str]:
    if isinstance(tree, dict) and tree:
        found: dict[str, str] = {}
        for key, value in tree.items():
            found |= _flatten(value, f"{prefix}.{key}" if prefix else str(key))
        return found
    return {prefix: json.dumps(tree) if not isinstance(tree, str) else tree}
