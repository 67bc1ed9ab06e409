"""Train with each combination of settings, with Ray Tune, and show which did best.

python jobs/sweep.py recipes/demo.yaml 'pretrain.lr=[1e-3,3e-3]'
python jobs/sweep.py recipes/demo.yaml 'pretrain.lr=[1e-3,3e-3]' 'model.depth=[2,4]' pretrain.tokens=1_000_000

A list is swept over; the rest are plain overrides. The tokens are the recipe's own, committed before. Each trial is a
whole pretrain in <workspace>/<recipe>/sweep/<trial>/; run again, finished trials are reused and others go on.
"""

from __future__ import annotations

import io
import itertools
import json
import os
import re
import tempfile
import threading
from dataclasses import dataclass
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from job import guarded, parser, started
from webtochat import artifact, recipe, storage
from webtochat.artifact import Artifact
from webtochat.errors import MachineError, UserError
from webtochat.recipe import Recipe
from webtochat.run import Run, Screen
from webtochat.tracking import StageRun

SWEPT = ("pretrain.", "model.")


@dataclass(frozen=True)
class Trial:
    name: str
    """Its directory's: the swept settings."""
    overrides: tuple[str, ...]


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
    combinations = list(itertools.product(*swept))
    return plain, [Trial(re.sub(r"[^\w.,=+-]", "_", ",".join(each)), each) for each in combinations]


def listed(value: str) -> list[str] | None:
    """The items of a YAML list, as they were written; None if it is no list."""
    node = yaml.compose(value) if value.lstrip().startswith("[") else None
    if not isinstance(node, yaml.SequenceNode) or not node.value:
        return None
    return [value[item.start_mark.index : item.end_mark.index] for item in node.value]


class TrialRun(Run):
    """Reads the swept recipe's committed artifacts, writes its own, and leaves tracking to the driver."""

    def __init__(self, chosen: Recipe, inputs: str, messages: Any):
        super().__init__(chosen, Screen(open(os.devnull, "w")))  # noqa: SIM115 (as long as the process)
        self.inputs = inputs
        self.tracking = Relay(chosen.name, messages)  # type: ignore[assignment]

    def open(self, stage: str) -> Artifact:
        return artifact.open_artifact(storage.join(self.inputs, stage), stage)


class Relay:
    """Stands where a trial's MLflow run would, and sends what it is told to the driver: one writer, so that sqlite
    serves."""

    def __init__(self, name: str, messages: Any):
        self.name = name
        self.messages = messages
        self.run_id = None

    def stage(self, stage: str, chosen: dict[str, Any], identity: dict[str, Any], parent: str | None = None) -> Relay:
        self.messages.put((self.name, "begin", (chosen, identity)))
        return self

    def metrics(self, values: dict[str, float], step: int = 0) -> None:
        self.messages.put((self.name, "metrics", (values, step)))

    def text(self, content: str, name: str) -> None:
        self.messages.put((self.name, "text", (content, name)))

    def end(self, status: str) -> None:
        self.messages.put((self.name, "end", (status,)))


def train_trial(config: dict[str, Any]) -> None:
    """What Ray Tune runs for each trial: the pretrain stage in the trial's own directory."""
    from ray import tune

    from webtochat.train.stage import pretrain

    told = config["trial"]
    run = TrialRun(Recipe.model_validate(told["recipe"]), told["inputs"], told["messages"])
    try:
        made = pretrain(run)
    except (UserError, MachineError) as error:
        told["messages"].put((run.recipe.name, "failed", (str(error),)))
        return
    tune.report({key: value for key, value in made.manifest.counts.items() if isinstance(value, float | int)})


def sweep(run: Run, recipe_path: str, plain: list[str], trials: list[Trial], concurrent: int | None) -> Table:
    """Runs the trials that are not committed yet. Raises UserError where none comes to its end."""
    inputs, directory = absolute(run.directory), absolute(storage.join(run.directory, "sweep"))
    for stage in ("tokenizer", "tokens"):
        run.open(stage)
    recipes = [
        recipe.load(recipe_path, [*plain, *trial.overrides]).model_copy(
            update={"workspace": directory, "name": trial.name}
        )
        for trial in trials
    ]
    parent = parent_run(run, directory, trials)
    ending = "FAILED"
    try:
        due = [each for each in recipes if not committed(run, each, inputs)]
        failed = tuned(run, due, inputs, parent, concurrent or at_once(run)) if due else {}
        shown = result(trials, recipes, failed)
        parent.text(as_text(shown), "table.txt")
        ending = "FINISHED"
        return shown
    finally:
        parent.end(ending)


def result(trials: list[Trial], recipes: list[Recipe], failed: dict[str, str]) -> Table:
    made = {each.name: artifact.find(storage.join(each.workspace, each.name, "pretrain")) for each in recipes}
    if not any(made.values()):
        raise UserError("no trial came to its end: " + next(iter(failed.values()), "see the log"))
    return table(trials, made, failed)


def committed(run: Run, trial: Recipe, inputs: str) -> bool:
    """Whether a trial is done. Raises UserError if it was done with other settings."""
    if artifact.find(storage.join(trial.workspace, trial.name, "pretrain")) is None:
        return False
    from webtochat.train.stage import pretrain

    pretrain(TrialRun(trial, inputs, None))  # which finds the same identity, or raises
    run.screen.say(f"  {trial.name}: reused")
    return True


def tuned(run: Run, due: list[Recipe], inputs: str, parent: StageRun, concurrent: int) -> dict[str, str]:
    """Has Ray Tune run the trials. Returns why trials failed."""
    from ray import tune
    from ray.util.queue import Queue

    messages = Queue(actor_options={"num_cpus": 0})
    space = [{"recipe": each.model_dump(mode="json"), "inputs": inputs, "messages": messages} for each in due]
    with tempfile.TemporaryDirectory(prefix="webtochat-sweep-") as scratch:
        tuner = tune.Tuner(
            # The trial itself only waits: its workers ask for the CPUs and GPUs. (Tune wants something asked for.)
            tune.with_resources(train_trial, {"memory": 1}),
            param_space={"trial": tune.grid_search(space)},
            tune_config=tune.TuneConfig(max_concurrent_trials=concurrent),
            run_config=tune.RunConfig(storage_path=scratch, name="sweep", verbose=0),
        )
        return watch(run, tuner, messages, parent)


def absolute(path: str) -> str:
    return path if storage.is_remote(path) else os.path.abspath(path)


def at_once(run: Run) -> int:
    """Trials that fit side by side. On CPUs one for each machine's worth of workers: two would share the same cores."""
    import ray

    workers, _ = run.recipe.cluster.workers
    gpus = int(ray.cluster_resources().get("GPU", 0))
    machines = sum(node["Alive"] for node in ray.nodes())
    return max(1, (gpus if gpus >= workers and run.recipe.cluster.train_gpus is not False else machines) // workers)


def parent_run(run: Run, directory: str, trials: list[Trial]) -> StageRun:
    """The sweep's MLflow run, under the recipe's: the one of earlier attempts where it is known."""
    path = storage.join(directory, "mlflow.json")
    if storage.exists(path):
        held = json.loads(storage.read_bytes(path))
        if held["uri"] == run.tracking.uri:
            return StageRun(run.tracking.client(), held["run_id"])
    whole = run.recipe.model_dump(mode="json")
    begun = run.tracking.stage("sweep", whole, {"trials": [trial.name for trial in trials]})
    storage.write_bytes(path, json.dumps({"uri": run.tracking.uri, "run_id": begun.run_id}).encode())
    return begun


def watch(run: Run, tuner: Any, messages: Any, parent: StageRun) -> dict[str, str]:
    """Runs the tuner while passing what the trials tell to the screen and to MLflow. Returns why trials failed."""
    from ray.util.queue import Empty

    ended: list[Any] = []
    thread = threading.Thread(target=lambda: ended.append(fitted(tuner)), daemon=True)
    thread.start()
    children: dict[str, StageRun] = {}
    failed: dict[str, str] = {}
    while thread.is_alive() or not messages.empty():
        try:
            name, what, told = messages.get(timeout=0.5)
        except Empty:
            continue
        if what == "begin":
            run.screen.say(f"  {name} …")
            children[name] = run.tracking.stage(name, *told, parent=parent.run_id)
        elif what == "failed":
            run.screen.say(f"  {name}: {told[0]}")
            failed[name] = told[0]
        else:
            getattr(children[name], what)(*told)
            if what == "metrics" and "loss" in told[0]:
                run.screen.progress(f"  {name}: step {told[1]} | loss {told[0]['loss']:.4f}")
    messages.shutdown()
    if isinstance(ended[0], BaseException):
        raise ended[0]
    for result in ended[0]:
        if result.error is not None:
            name = result.config["trial"]["recipe"]["name"]
            failed.setdefault(name, (str(result.error).strip().splitlines() or [""])[-1][:200])
    return failed


def fitted(tuner: Any) -> Any:
    """The tuner's results, or the error that ended it."""
    try:
        return tuner.fit()
    except Exception as error:  # noqa: BLE001 (raised again by the thread that waits)
        return error


def table(trials: list[Trial], made: dict[str, Artifact | None], failed: dict[str, str]) -> Table:
    """A row for each trial; the best one is marked."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    keys = [override.partition("=")[0] for override in trials[0].overrides]
    for column in (*keys, "validation bpb", "loss", "seconds", ""):
        shown.add_column(column, justify="right" if column else "left")
    scores = {name: score(each) for name, each in made.items() if each is not None}
    best = min(scores, key=lambda name: scores[name])
    for trial in trials:
        values = [override.partition("=")[2] for override in trial.overrides]
        one = made[trial.name]
        if one is None:
            shown.add_row(*values, "-", "-", "-", f"failed: {failed.get(trial.name, 'see the log')}")
            continue
        counts = one.manifest.counts
        bits = f"{counts['validation_bpb']:.4f}" if "validation_bpb" in counts else "-"
        mark = "best" if trial.name == best else ""
        shown.add_row(*values, bits, f"{counts['loss']:.4f}", f"{one.manifest.wall_seconds:,.0f}", mark)
    return shown


def score(made: Artifact) -> float:
    """Lower is better: held-out bits per byte, or the loss where nothing is held out."""
    return made.manifest.counts.get("validation_bpb", made.manifest.counts["loss"])


def as_text(shown: Table) -> str:
    console = Console(file=io.StringIO(), width=150)
    with console.capture() as captured:
        console.print(shown)
    return captured.get()


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--concurrent", type=int, help="trials at the same time; by default what fits")
    options = arguments.parse_intermixed_args()

    def work() -> None:
        plain, trials = trials_of(options.overrides)
        for trial in trials:  # a mistake in any of them shows before anything runs
            recipe.load(options.recipe, [*plain, *trial.overrides])
        with started(options.recipe, plain) as run:
            run.screen.say(f"sweep: {len(trials)} trials …")
            shown = sweep(run, options.recipe, plain, trials, options.concurrent)
            run.screen.say("\n" + as_text(shown).rstrip())
            run.screen.say(f"look:  {run.tracking.command()}")

    guarded(work)


if __name__ == "__main__":
    main()
