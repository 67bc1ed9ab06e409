"""Train with each combination of settings, with Ray Tune, and show which did best.

python jobs/sweep.py recipes/demo.yaml 'pretrain.lr=[1e-3,3e-3]'
python jobs/sweep.py recipes/demo.yaml 'pretrain.lr=[1e-3,3e-3]' 'model.depth=[2,4]' pretrain.tokens=1_000_000
python jobs/sweep.py recipes/demo.yaml 'pretrain.lr=[5e-4,1e-3,2e-3,4e-3]' --asha
python jobs/sweep.py recipes/demo.yaml 'model.depth=[1,2,3,4]' pretrain.tokens_per_parameter=4 --predict model.depth=6

A list is swept over; the rest are plain overrides. The tokens are the recipe's own, committed before. Each trial is a
whole pretrain in <workspace>/<recipe>/sweep/<trial>/; run again, finished trials are reused and others go on.

--asha stops poor trials early: at each rung (10 %, 40 % of a trial's steps) one in four goes on. --predict tells the
loss of a larger model from a power law through the others', before it is trained, and then trains it.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
import threading
from typing import Any

from rich.table import Table

from job import guarded, parser, started
from trials import Entry, Halving, Record, Trial, as_text, drawn, foreseen, judged, table, trials_of
from webtochat import artifact, recipe, storage
from webtochat.artifact import Artifact
from webtochat.errors import MachineError, UserError
from webtochat.recipe import Recipe
from webtochat.run import Run, Screen
from webtochat.tracking import StageRun


class TrialRun(Run):
    """Reads the swept recipe's committed artifacts, writes its own, and leaves tracking to the driver."""

    def __init__(self, chosen: Recipe, inputs: str, relay: Relay):
        super().__init__(chosen, Screen(open(os.devnull, "w")))  # noqa: SIM115 (as long as the process)
        self.inputs = inputs
        self.tracking = relay  # type: ignore[assignment]

    def open(self, stage: str) -> Artifact:
        return artifact.open_artifact(storage.join(self.inputs, stage), stage)


class Relay:
    """Stands where a trial's MLflow run would, and sends what it is told to the driver: one writer, so that sqlite
    serves. Evaluations go to Ray Tune as well, which may end the trial there: `tune.report` then raises SystemExit in
    this thread, which is the stage's."""

    def __init__(self, name: str, steps: int, messages: Any):
        self.name = name
        self.steps = steps
        self.messages = messages
        self.run_id = None

    def stage(self, stage: str, chosen: dict[str, Any], identity: dict[str, Any], parent: str | None = None) -> Relay:
        self.messages.put((self.name, "begin", (chosen, identity)))
        return self

    def metrics(self, values: dict[str, float], step: int = 0) -> None:
        self.messages.put((self.name, "metrics", (values, step)))
        if "validation_bpb" in values and 0 < step < self.steps:  # the last is reported when the model is committed
            self.report(step, values["validation_bpb"])

    def report(self, step: int, bits: float) -> None:
        from ray import tune

        tune.report({"percent": 100 * step / self.steps, "validation_bpb": bits})

    def text(self, content: str, name: str) -> None:
        self.messages.put((self.name, "text", (content, name)))

    def end(self, status: str) -> None:
        self.messages.put((self.name, "end", (status,)))


def train_trial(config: dict[str, Any]) -> None:
    """What Ray Tune runs for each trial: the pretrain stage in the trial's own directory."""
    from webtochat.train.stage import pretrain

    told = config["trial"]
    chosen = Recipe.model_validate(told["recipe"])
    relay = Relay(chosen.name, told["steps"], told["messages"])
    for step, bits in told["evaluations"]:  # of earlier attempts
        relay.report(step, bits)
    try:
        made = pretrain(TrialRun(chosen, told["inputs"], relay))
    except (UserError, MachineError) as error:
        told["messages"].put((chosen.name, "failed", (str(error),)))
        relay.report(0, math.inf)  # the scheduler wants a value of every trial; at no percent it counts for nothing
        return
    if "validation_bpb" in made.manifest.counts:
        relay.report(relay.steps, made.manifest.counts["validation_bpb"])


def sweep(
    run: Run,
    recipe_path: str,
    plain: list[str],
    trials: list[Trial],
    concurrent: int | None = None,
    halving: Halving | None = None,
    target: Trial | None = None,
) -> Table:
    """Runs the trials that are not over yet; then foretells the loss of `target` and trains it. Raises UserError where
    none comes to its end."""
    from webtochat.tokens.tokenizer import Tokenizer

    tokenizer, tokens = run.open("tokenizer"), run.open("tokens")
    vocabulary = Tokenizer.load(tokenizer.local()).vocabulary
    directory = storage.absolute(storage.join(run.directory, "sweep"))
    entries = []
    for trial in [*trials, *([target] if target else [])]:
        chosen = recipe.load(recipe_path, [*plain, *trial.overrides])
        chosen = chosen.model_copy(update={"workspace": directory, "name": trial.name})
        entries.append(Entry.of(trial, chosen, vocabulary))
    if halving or target:
        judged(tokens, entries, halving)
    for entry in entries:
        look_up(run, entry, [tokenizer, tokens], halving)
    parent = parent_run(run, directory, trials)

    def keep(name: str, text: str) -> None:
        parent.text(text, name)
        storage.write_bytes(storage.join(directory, name), text.encode())

    ending = "FAILED"
    try:
        sizes = entries[: len(trials)]
        train(run, sizes, parent, concurrent, halving)
        if target is not None:
            from prediction import compare, foretell

            foretold = foretell(run, sizes, entries[-1], keep)
            train(run, entries[-1:], parent, concurrent, None)
            parent.metrics(compare(run, foretold, entries[-1], keep))
        shown = table(entries)
        keep("table.txt", as_text(shown))
        keep("sweep.svg", drawn(entries))
        ending = "FINISHED"
        return shown
    except (KeyboardInterrupt, SystemExit):
        ending = "KILLED"
        raise
    finally:
        parent.end(ending)


def look_up(run: Run, entry: Entry, inputs: list[Artifact], halving: Halving | None) -> None:
    """What earlier attempts left of a trial. Raises UserError if it was begun with other settings."""
    from webtochat.model.imported import Given
    from webtochat.train.stage import pretrain_identity

    directory = storage.join(entry.directory, "pretrain")
    identity = pretrain_identity(entry.recipe, inputs[1], Given.of(entry.recipe))
    begun = artifact.begin(directory, "pretrain", identity, inputs)
    if isinstance(begun, Artifact):
        entry.made = begun
        run.screen.say(f"  {entry.trial.name}: reused")
    elif entry.record.stopped is not None:
        storage.delete(scratch(entry))
        if entry.record.stopped == halving:
            run.screen.say(f"  {entry.trial.name}: {entry.ended}")
        else:
            entry.record = Record()


def train(run: Run, entries: list[Entry], parent: StageRun, concurrent: int | None, halving: Halving | None) -> None:
    """Has Ray Tune run the trials that are due. Raises UserError where none has come to its end."""
    due = [entry for entry in entries if entry.made is None and entry.record.stopped is None]
    if due:
        tuned(run, entries, due, parent, concurrent or at_once(run), halving)
    for entry in due:
        entry.made = artifact.find(storage.join(entry.directory, "pretrain"))
        if entry.record.stopped is not None:
            storage.delete(scratch(entry))  # its workers may have written on for a second
    if not any(entry.made for entry in entries):
        raise UserError(f"no trial came to its end: {entries[0].ended}")


def tuned(
    run: Run, entries: list[Entry], due: list[Entry], parent: StageRun, concurrent: int, halving: Halving | None
) -> None:
    from ray import tune
    from ray.util.queue import Queue

    messages = Queue(actor_options={"num_cpus": 0})
    scheduler = None
    if halving is not None:
        from asha import Scheduler

        scheduler = Scheduler(halving, lambda name: messages.put((name, "stopped", (halving,))))
        for entry in entries:
            if entry not in due:
                scheduler.remember(entry.trial.name, entry.curve(), entry.steps)
    space = [
        {
            "recipe": each.recipe.model_dump(mode="json"), "inputs": storage.absolute(run.directory),
            "messages": messages, "steps": each.steps, "evaluations": sorted(each.record.evaluations.items()),
        }
        for each in due
    ]  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="webtochat-sweep-") as aside:
        tuner = tune.Tuner(
            # The trial itself only waits: its workers ask for the CPUs and GPUs. (Tune wants something asked for.)
            tune.with_resources(train_trial, {"memory": 1}),
            param_space={"trial": tune.grid_search(space)},
            tune_config=tune.TuneConfig(max_concurrent_trials=concurrent, scheduler=scheduler),
            run_config=tune.RunConfig(storage_path=aside, name="sweep", verbose=0),
        )
        watch(run, tuner, messages, parent, {entry.trial.name: entry for entry in due})


def scratch(entry: Entry) -> str:
    return storage.join(entry.directory, "pretrain", artifact.SCRATCH)


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


def watch(run: Run, tuner: Any, messages: Any, parent: StageRun, entries: dict[str, Entry]) -> None:
    """Runs the tuner while passing what the trials tell to the screen, to MLflow and to their records."""
    from ray.util.queue import Empty

    ended: list[Any] = []
    thread = threading.Thread(target=lambda: ended.append(fitted(tuner)), daemon=True)
    thread.start()
    children: dict[str, StageRun] = {}
    try:
        while thread.is_alive() or not messages.empty():
            try:
                name, what, told = messages.get(timeout=0.5)
            except Empty:
                continue
            hear(run, entries[name], children, parent, what, told)
    except BaseException:
        for child in children.values():
            child.end("KILLED", "the sweep was interrupted")
        raise
    messages.shutdown()
    if isinstance(ended[0], BaseException):
        raise ended[0]
    for result in ended[0]:
        entry = entries[result.config["trial"]["recipe"]["name"]]
        if result.error is not None and not entry.failed:
            entry.failed = (str(result.error).strip().splitlines() or [""])[-1][:200]
    for name, child in children.items():
        child.end("FAILED", entries[name].failed)


def hear(
    run: Run, entry: Entry, children: dict[str, StageRun], parent: StageRun, what: str, told: tuple[Any, ...]
) -> None:
    """One message of a trial, or of the scheduler about it. What a stopped trial still says is not heard."""
    name = entry.trial.name
    if entry.record.stopped is not None:
        return
    if what == "begin":
        run.screen.say(f"  {name} …")
        children[name] = run.tracking.stage(name, *told, parent=parent.run_id)
    elif what == "failed":
        run.screen.say(f"  {name}: {told[0]}")
        entry.failed = told[0]
    elif what == "stopped":
        (entry.record.stopped,) = told
        entry.record.write(entry.directory)
        storage.delete(scratch(entry))
        run.screen.say(f"  {name}: {entry.ended}")
        if name in children:
            children.pop(name).end("KILLED", f"{entry.ended} bits per byte: not among the best of its rung")
    elif what == "end":
        children.pop(name).end(*told)
    else:
        getattr(children[name], what)(*told)
        if what == "metrics":
            values, step = told
            if "validation_bpb" in values and step:
                entry.record.evaluations[step] = values["validation_bpb"]
                entry.record.write(entry.directory)
            elif "loss" in values:
                run.screen.progress(f"  {name}: step {step} | loss {values['loss']:.4f}")


def fitted(tuner: Any) -> Any:
    """The tuner's results, or the error that ended it."""
    try:
        return tuner.fit()
    except Exception as error:  # noqa: BLE001 (raised again by the thread that waits)
        return error


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--concurrent", type=int, help="trials at the same time; by default what fits")
    arguments.add_argument("--asha", action="store_true", help="stop poor trials early (Li et al. 2020)")
    arguments.add_argument("--grace-period", type=float, default=10, metavar="PERCENT", help=(
        "of a trial's steps, before which --asha does not stop it (10)"
    ))  # fmt: skip
    arguments.add_argument("--reduction-factor", type=float, default=4, help="one in so many goes on (4)")
    arguments.add_argument("--predict", action="append", metavar="key=value", help="a size; once for each swept key")
    options = arguments.parse_intermixed_args()

    def work() -> None:
        plain, trials = trials_of(options.overrides)
        target = foreseen(options.predict, trials) if options.predict else None
        halving = None
        if options.asha:
            halving = Halving(grace_period=options.grace_period, reduction_factor=options.reduction_factor)
            if not (0 < halving.grace_period < 100 and halving.reduction_factor > 1):
                raise UserError("--grace-period is a percentage below 100, --reduction-factor is above 1")
        if target and halving:
            raise UserError("--predict needs trials that come to their end: leave --asha out")
        for trial in [*trials, *([target] if target else [])]:  # a mistake in any of them shows before anything runs
            recipe.load(options.recipe, [*plain, *trial.overrides])
        with started(options.recipe, plain) as run:
            run.screen.say(f"sweep: {len(trials)} trials …")
            shown = sweep(run, options.recipe, plain, trials, options.concurrent, halving, target)
            run.screen.say("\n" + as_text(shown).rstrip())
            run.screen.say(f"look:  {run.tracking.command()}")

    guarded(work)


if __name__ == "__main__":
    main()
