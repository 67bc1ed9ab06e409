"""One run of a recipe: where its artifacts are, what stands on the screen, what is tracked.

A stage is a function from a `Run` to its `Artifact`:

    def tokenizer(run: Run) -> Artifact:
        curated = run.open("curate")
        stage = run.begin("tokenizer", run.recipe.identity("tokenizer"), [curated])
        if isinstance(stage, Artifact):
            return stage
        with stage:
            ...                                    # files under stage.path(…); stage.progress(…); stage.metrics(…)
            return stage.commit(counts={…}, summary="4,096 tokens from 8.1 MB")
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, TextIO

from webtochat import artifact, storage
from webtochat.artifact import Artifact, Draft
from webtochat.recipe import Recipe
from webtochat.tracking import StageRun, Tracking


class Screen:
    """Where a person looks: whole lines, and one progress line that is rewritten in place on a terminal."""

    def __init__(self, stream: TextIO | None = None):
        self.stream = stream or sys.stdout
        self._shown = 0.0
        self._open = False

    def say(self, line: str) -> None:
        if self._open:
            self.stream.write("\r\x1b[K")
            self._open = False
        self.stream.write(line + "\n")
        self.stream.flush()

    def progress(self, line: str) -> None:
        """At most four times a second on a terminal, every ten seconds into a file."""
        now = time.monotonic()
        terminal = self.stream.isatty()
        if now - self._shown < (0.25 if terminal else 10):
            return
        self._shown = now
        if terminal:
            self.stream.write(f"\r\x1b[K{line[:118]}")
            self.stream.flush()
            self._open = True
        else:
            self.say(line)


class Stage(Draft):
    """A draft with a screen and an MLflow run. As a context manager: a failure ends the MLflow run as FAILED and leaves
    what is whole for the next attempt."""

    def __init__(self, draft: Draft, screen: Screen, tracked: StageRun):
        self.__dict__.update(draft.__dict__)
        self.screen = screen
        self.tracked = tracked
        self.mlflow_run_id = tracked.run_id
        self.committed: Artifact | None = None

    def say(self, line: str) -> None:
        self.screen.say(f"  {line}")

    def progress(self, done: float, total: float | None, unit: str, note: str = "") -> None:
        of = f"/{total:,.0f} {unit} ({100 * done / total:.0f}%)" if total else f" {unit}"
        self.screen.progress(f"  {self.stage}: {done:,.0f}{of}{'  ' + note if note else ''}")

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        self.tracked.metrics(values, step)

    def commit(self, *, counts: dict[str, Any], summary: str, gain: str = "") -> Artifact:
        self.committed = super().commit(counts=counts, summary=summary, gain=gain)
        self.tracked.text(self.committed.manifest.model_dump_json(indent=1), artifact.MANIFEST)
        return self.committed

    def __enter__(self) -> Stage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        stopped = kind in (KeyboardInterrupt, SystemExit)
        try:
            if self.committed is None:
                self.interrupted()
        finally:
            self.tracked.end("FINISHED" if kind is None else "KILLED" if stopped else "FAILED")


class Run:
    """`parent_run_id`: the MLflow run to nest the stages' runs in, where it is not the recipe's own (sweeps)."""

    def __init__(self, recipe: Recipe, screen: Screen | None = None, parent_run_id: str | None = None):
        self.recipe = recipe
        self.screen = screen or Screen()
        self.directory = storage.join(recipe.workspace, recipe.name)
        self.tracking = Tracking(self.directory, recipe.workspace, recipe.name)
        self.parent_run_id = parent_run_id
        self.rebuild = False
        """True: an output of another identity is deleted and made anew."""

    def open(self, stage: str) -> Artifact:
        """A stage's committed output. Raises UserError that names the job to run."""
        return artifact.open_artifact(storage.join(self.directory, stage), stage)

    def begin(self, stage: str, identity: dict[str, Any], inputs: list[Artifact]) -> Artifact | Stage:
        directory = storage.join(self.directory, stage)
        if self.rebuild:
            artifact.discard_other(directory, stage, identity, inputs)
        begun = artifact.begin(directory, stage, identity, inputs)
        if isinstance(begun, Artifact):
            self.screen.say(f"{stage}: reused ({begun.manifest.summary})")
            return begun
        recipe = self.recipe.model_dump(mode="json")
        self.screen.say(f"{stage} …")
        return Stage(begun, self.screen, self.tracking.stage(stage, recipe, identity, self.parent_run_id))

    def discard(self, stage: str) -> None:
        """Deletes what a stage made. Only where the user asked for it."""
        storage.delete(storage.join(self.directory, stage))
