"""The trials of a sweep: which there are, what is remembered of each, and how they are shown."""

from __future__ import annotations

import io
import itertools
import json
import math
import re
from dataclasses import dataclass

import yaml
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table

from webtochat import storage
from webtochat.artifact import Artifact
from webtochat.errors import UserError
from webtochat.model.config import ModelConfig
from webtochat.recipe import Recipe
from webtochat.train import drawing
from webtochat.train.plan import budget

SWEPT = ("pretrain.", "model.")
RECORD = "trial.json"


@dataclass(frozen=True)
class Trial:
    name: str
    """Its directory's: the swept settings."""
    overrides: tuple[str, ...]


class Halving(BaseModel):
    """When a trial is stopped early: ASHA's settings."""

    grace_period: float
    """Percent of a trial's steps before which it goes on in any case."""
    reduction_factor: float
    """One in so many goes on at each rung; the rungs lie apart by the same factor."""


class Record(BaseModel, ser_json_inf_nan="constants"):
    """What a sweep that is run again needs to know of a trial."""

    evaluations: dict[int, float] = {}
    """Step → held-out bits per byte."""
    stopped: Halving | None = None
    """By which rules it was stopped, at its last evaluation."""

    @staticmethod
    def read(directory: str) -> Record:
        path = storage.join(directory, RECORD)
        return Record.model_validate_json(storage.read_bytes(path)) if storage.exists(path) else Record()

    def write(self, directory: str) -> None:
        storage.write_bytes(storage.join(directory, RECORD), self.model_dump_json(indent=1).encode())


@dataclass
class Entry:
    """A trial with all that is known of it."""

    trial: Trial
    recipe: Recipe
    config: ModelConfig
    steps: int
    step_tokens: int
    record: Record
    made: Artifact | None = None
    failed: str = ""
    """Why there is no model."""

    @staticmethod
    def of(trial: Trial, chosen: Recipe, vocabulary: int) -> Entry:
        config = ModelConfig.of(chosen.model, vocabulary)
        windows, steps = budget(chosen, config)
        step_tokens = windows * chosen.tokens.sequence_length
        return Entry(trial, chosen, config, steps, step_tokens, Record.read(storage.join(chosen.workspace, trial.name)))

    @property
    def directory(self) -> str:
        return storage.join(self.recipe.workspace, self.trial.name)

    @property
    def flops(self) -> float:
        return self.config.flops_per_token(self.recipe.tokens.sequence_length) * self.steps * self.step_tokens

    def curve(self) -> dict[int, float]:
        """Step → held-out bits per byte, or the loss where nothing is held out. Not that of untrained weights."""
        if self.made is None:
            return self.record.evaluations
        points = [json.loads(line) for line in storage.read_bytes(self.made.path("metrics.jsonl")).splitlines()]
        key = "validation_bpb" if "validation_bpb" in self.made.manifest.counts else "loss"
        return {point["step"]: point[key] for point in points if key in point and point["step"]}

    @property
    def ended(self) -> str:
        """How it ended, where not with a model."""
        if self.record.stopped is not None:
            step, bits = max(self.record.evaluations.items())
            return f"stopped at step {step}/{self.steps} with {bits:.4f}"
        return f"failed: {self.failed or 'see the log'}"


def trials_of(overrides: list[str]) -> tuple[list[str], list[Trial]]:
    """(plain overrides, a trial for each combination of the list-valued ones). Raises UserError, one line."""
    plain, swept = [], []
    for override in overrides:
        key, _, value = override.partition("=")
        values = listed(value)
        if values is None:
            plain.append(override)
            continue
        if not key.startswith(SWEPT):
            raise UserError(f"{override!r}: all trials train on the same tokens: sweep over pretrain.* or model.*")
        swept.append([f"{key}={each}" for each in values])
    if not swept:
        raise UserError("nothing to sweep over: give at least one list, such as 'pretrain.lr=[1e-3,3e-3]'")
    return plain, [named(each) for each in itertools.product(*swept)]


def named(overrides: tuple[str, ...]) -> Trial:
    return Trial(re.sub(r"[^\w.,=+-]", "_", ",".join(overrides)), overrides)


def foreseen(overrides: list[str], trials: list[Trial]) -> Trial:
    """The trial whose loss is foretold. Raises UserError where it does not follow from those that are swept."""
    target = named(tuple(overrides))
    keys = [override.partition("=")[0] for override in trials[0].overrides]
    given = [override.partition("=")[0] for override in overrides]
    if given != keys or not all(key.startswith("model.") for key in keys):
        raise UserError(
            f"--predict foretells a size from sizes: give one value for each key that is swept ({', '.join(keys)}), "
            "all of them model.*"
        )
    if target in trials:
        raise UserError(f"{target.name} is one of the sizes that are swept: predict one that is not")
    return target


def listed(value: str) -> list[str] | None:
    """The items of a YAML list, as they were written; None if it is no list."""
    node = yaml.compose(value) if value.lstrip().startswith("[") else None
    if not isinstance(node, yaml.SequenceNode) or not node.value:
        return None
    return [value[item.start_mark.index : item.end_mark.index] for item in node.value]


def judged(tokens: Artifact, entries: list[Entry], halving: Halving | None) -> None:
    """Raises UserError where trials cannot be told apart: nothing held out, or no evaluation before a trial's end."""
    held_out = [file.size for name, file in tokens.manifest.files.items() if re.match(r"validation/.*\.bin$", name)]
    if not sum(held_out):
        raise UserError("no tokens are held out to judge trials by: raise tokens.validation_percent")
    for entry in entries if halving else []:
        every = entry.recipe.pretrain.evaluate_every
        evaluated = range(every, entry.steps, every) if every else []
        if not any(100 * step / entry.steps >= halving.grace_period for step in evaluated):
            raise UserError(
                f"{entry.trial.name}: no evaluation between {halving.grace_period:g} % of its {entry.steps} steps and "
                f"the end: lower pretrain.evaluate_every ({every}) or --grace-period"
            )


def table(entries: list[Entry]) -> Table:
    """A row for each trial; the best one is marked."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    keys = [override.partition("=")[0] for override in entries[0].trial.overrides]
    for column in (*keys, "validation bpb", "loss", "seconds", ""):
        shown.add_column(column, justify="right" if column else "left")
    best = best_of(entries)
    for entry in entries:
        values = [override.partition("=")[2] for override in entry.trial.overrides]
        if entry.made is None:
            shown.add_row(*values, "-", "-", "-", entry.ended)
            continue
        counts = entry.made.manifest.counts
        bits = f"{counts['validation_bpb']:.4f}" if "validation_bpb" in counts else "-"
        mark = "best" if entry is best else ""
        shown.add_row(*values, bits, f"{counts['loss']:.4f}", f"{entry.made.manifest.wall_seconds:,.0f}", mark)
    return shown


def best_of(entries: list[Entry]) -> Entry:
    """By held-out bits per byte, or the loss where nothing is held out."""
    done = [(entry.made.manifest.counts, entry) for entry in entries if entry.made is not None]
    return min(done, key=lambda each: each[0].get("validation_bpb", each[0]["loss"]))[1]


def drawn(entries: list[Entry]) -> str:
    """Every trial's curve."""
    best = best_of(entries)

    def points(entry: Entry) -> list[tuple[float, float]]:
        return [(step * entry.step_tokens, each) for step, each in sorted(entry.curve().items()) if math.isfinite(each)]

    curves = [
        drawing.Curve(
            entry.trial.name, points(entry), "best" if entry is best else "stopped" if entry.record.stopped else ""
        )
        for entry in entries
    ]  # fmt: skip
    counts = best.made.manifest.counts
    return drawing.trials(curves, "validation bits per byte" if "validation_bpb" in counts else "loss, nats per token")


def as_text(shown: Table) -> str:
    console = Console(file=io.StringIO(), width=150)
    with console.capture() as captured:
        console.print(shown)
    return captured.get()
