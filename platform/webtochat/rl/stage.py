"""The rl stage: engines sample answers to prompts, tasks reward them, the learner makes the good ones likelier, and its
weights go to the engines without a restart. This file moves things; what is to be done next, fleet.py says.

Every group of answers is written down once it is rewarded, every step once its groups are there (`rollouts/`), which is
what the learner waits for. So whatever is killed, the same command goes on: the learner from its checkpoint, over the
steps that are written; the engines with the groups that are not.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
import torch

from webtochat import storage
from webtochat.artifact import Artifact
from webtochat.errors import MachineError, UserError
from webtochat.inference.actors import ModelPath
from webtochat.inference.engine import positions
from webtochat.recipe import Recipe
from webtochat.rl import actors, line, losses, report, rewards, rollouts, tasks
from webtochat.rl.fleet import Fleet, Group, Work
from webtochat.rl.learner import LearnerJob, learn_rank
from webtochat.rl.line import Clock, Learned
from webtochat.rl.rollouts import Asked, Row
from webtochat.rl.tasks import Prompt
from webtochat.run import Run, Stage
from webtochat.tokens import rows
from webtochat.tokens.batches import Order
from webtochat.tokens.tokenizer import Tokenizer
from webtochat.tools.tool import definitions
from webtochat.tools.toolbox import toolbox
from webtochat.train.actors import Training
from webtochat.train.rank import CURVE, Note
from webtochat.train.stage import literals


@dataclass(frozen=True)
class Published:
    """Weights that the learner hands out. A list, so that only the engines fetch what is referred to."""

    version: int
    weights: list[Any]


def rl(run: Run) -> Artifact:
    """`model/`: the chat model taught by reward; rollouts/: every answer, by step; rollouts.html: some of them to browse;
    evaluations/: answers to the held-out prompts; metrics.jsonl: the curve."""
    recipe, section = run.recipe, run.recipe.rl
    if section is None:
        raise UserError("the recipe has no section rl, so nothing is learned by reward: docs/rl.md shows one")
    base = run.open("sft" if recipe.knowledge is None else "knowledge")
    tools = [run.open("index")] if section.tools and {"web_search", "open_page"} & set(recipe.tools.names) else []
    sources, missing = rows.available(section.data, recipe.miniweb)
    identity = {"rl": literals(recipe, "rl") | {"data": [rows.identity(each, recipe.miniweb) for each in sources]}}
    if section.tools or "tests" in section.rewards.weights:
        identity |= recipe.identity("tools")
    stage = run.begin("rl", identity, [base, *tools])
    if isinstance(stage, Artifact):
        return stage
    with stage:
        for source in missing:
            stage.say(f"skipped {source.path}: it needs the miniweb, which this crawl does not hold")
        skipped: Counter[str] = Counter()
        index = (storage.absolute(tools[0].directory), tools[0].content_hash) if tools else None
        learned, held_out = _prompts(recipe, base, sources, index, skipped)
        for reason, number in skipped.items():
            if number:
                stage.say(f"left out {number:,} prompts: {reason.replace('_', ' ')}")
        stage.say(f"{len(learned):,} prompts, {len(held_out):,} held out, {section.steps} steps of "
                  f"{section.prompts_per_step} × {section.samples} answers")  # fmt: skip
        driver = Driver(stage, recipe, base, index, learned, held_out)
        try:
            driver.run()
        finally:
            driver.stop()
        counts, summary, gain = driver.told()
        counts |= {"prompts": len(learned), "skipped": dict(skipped), "config": base.manifest.counts.get("config")}
        return stage.commit(counts=counts, summary=summary, gain=gain)


def _prompts(
    recipe: Recipe, base: Artifact, sources: list[rows.DataSource], index: tuple[str, str] | None, skipped: Counter[str]
) -> tuple[list[Prompt], list[Prompt]]:
    """(to learn from, held out)."""
    section, directory = recipe.rl, os.path.join(base.local(), "model")
    assert section is not None
    own = positions(directory)
    most = section.sequence_length or own
    if most > own:
        raise UserError(f"rl.sequence_length ({most}) is more than the model's positions ({own})")
    tokenizer = Tokenizer.load(directory)
    found = tasks.prompts((row for each in sources for row in rows.read(each, recipe.miniweb, skipped)), skipped)
    made = toolbox(recipe.tools, storage.local_copy(*index) if index else None) if section.tools else []
    found = tasks.fitting(found, tokenizer, most, definitions(made), skipped)
    learned, held_out = tasks.split(found, section.held_out_percent, section.max_held_out)
    if not learned:
        raise UserError("rl.data holds no prompt to learn from: name JSONL, Parquet, hf:// or python: sources")
    return learned, held_out


def _learn(job: LearnerJob, emit: Any, threads: int | None, notice: Any) -> None:
    """What each of the learner's Ray Train workers runs."""

    def publish(version: int, weights: dict[str, np.ndarray]) -> None:
        emit(Published(version, [ray.put(weights)]))

    learn_rank(job, emit, publish, threads, notice)


def _score(written: str, found: list[Row], recipe: Recipe, model: Any) -> dict[int, bool]:
    """A task: rewards the answers of some groups and writes them down. Returns which of them teach anything."""
    section = recipe.rl
    assert section is not None
    parts = rewards.parts(section.rewards, recipe.tools.python, recipe.cluster, section.max_new_tokens, model)
    scored = rewards.score([rollouts.answered(row) for row in found], parts, section.rewards.weights)
    found = rollouts.rewarded(found, scored)
    rollouts.write(written, found)
    return {number: rollouts.teaches(some) for number, some in rollouts.by_group(found).items()}


class Driver:
    """Moves work between engines, scoring tasks and the learner until the last step is learned and evaluated."""

    def __init__(
        self, stage: Stage, recipe: Recipe, base: Artifact, index: tuple[str, str] | None, learned: list[Prompt],
        held_out: list[Prompt],
    ):  # fmt: skip
        assert recipe.rl is not None
        self.stage, self.recipe, self.section, self.cluster = stage, recipe, recipe.rl, recipe.cluster
        self.model = ModelPath(storage.absolute(base.directory), base.content_hash)
        self.index, self.learned, self.held_out = index, learned, held_out
        section = self.section
        self.order = Order((len(learned),), (1.0,), section.seed)
        self.job = LearnerJob(
            directory=storage.absolute(stage.directory), base=(self.model.artifact, self.model.key), settings=section,
            device_batch_tokens=self.cluster.device_batch_tokens, shard=self.cluster.shard,
            compile=self.cluster.compile, recompute=self.cluster.recompute,
        )  # fmt: skip
        self.fleet = Fleet(
            section.steps, section.prompts_per_step,
            int(section.prompts_per_step * (section.resample_limit if section.resample else 1)), section.staleness,
            self.cluster.engine_groups, self._evaluations_due(),
        )  # fmt: skip
        self.engines: dict[str, Any] = {}
        self.waiting: dict[Any, tuple[str, Any]] = {}
        """Ray reference → what it is of."""
        self.weights: Published | None = None
        self.rows: dict[int, list[Row]] = {}
        """By number of the group; of steps that are not closed."""
        self.written: dict[str, set[int]] = {}
        """Files of rewarded groups → the numbers of those that are not closed."""
        self.measured: dict[int, dict[str, float]] = {}
        """What was sampled for a step, until the learner tells of it."""
        self.evaluated: dict[int, dict[str, float]] = {}
        self.deaths = self.dead_steps = 0
        self.clock = Clock(self.cluster.engines)
        self.training: Training | None = None

    # the loop --------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        self._remember()
        if storage.exists(self.stage.path(CURVE)) and self.fleet.closed == self.fleet.steps and not self._due():
            return  # killed between the last evaluation and the commit
        for number in range(self.cluster.engines):
            self._start(f"engine {number}")
        self.training = training = Training(self.stage, self.job, self.cluster, _learn)
        self.waiting[training.coming()] = ("message", None)
        while True:
            for work in self.fleet.work():
                self._do(work)
            over = not training.alive()
            ready, _ = ray.wait(list(self.waiting), timeout=0.5, fetch_local=False)
            for reference in ready:
                kind, what = self.waiting.pop(reference)
                if kind == "message":
                    self._heard(training.taken(ray.get(reference)))
                    self.waiting[training.coming()] = ("message", None)
                else:
                    self._came(kind, what, reference)
            self._close()
            if over and not ready and not (self.fleet.newest == self.fleet.steps and self._due()):
                break  # the learner has ended, and all that it said was heard
        training.finish()

    def stop(self) -> None:
        for engine in self.engines.values():
            ray.kill(engine)

    def _start(self, name: str, life: int | None = None) -> None:
        life = self.fleet.added(name) if life is None else life
        self.engines[name] = actors.start(self.model, self.recipe, self.index)
        self.waiting[self.engines[name].ready.remote()] = ("ready", Work(name, life, "renew", 0))

    def _do(self, work: Work) -> None:
        engine = self.engines[work.engine]
        self.clock.began(work)
        if work.kind == "renew":
            assert self.weights is not None, "a version above 0 was published"
            reference = engine.renew.remote(work.version, self.weights.weights[0])
        elif work.kind == "sample":
            reference = engine.sample.remote([Asked(*group, self._prompt(group)) for group in work.groups])
        else:
            asked = [Asked(work.version, number, prompt) for number, prompt in enumerate(self.held_out)]
            reference = engine.sample.remote(asked, greedy=True)
        self.waiting[reference] = (work.kind, work)

    def _came(self, kind: str, what: Any, reference: Any) -> None:
        """The end of what an engine or a scoring task was at."""
        if kind == "scored":
            self._scored(what, ray.get(reference))
            return
        work: Work = what
        try:
            found = ray.get(reference)
        except ray.exceptions.RayActorError as error:
            self.clock.ended(work, 0)
            self._died(work, error)
            return
        except (ray.exceptions.ObjectLostError, ray.exceptions.RayTaskError) as error:
            if not isinstance(getattr(error, "cause", error), ray.exceptions.ObjectLostError):
                raise
            self.fleet.unrenewed(work.engine, work.life, work.version)
            self.clock.ended(work, 0)
            return
        self.clock.ended(work, sum(sum(row["own"]) for row in found) if found else 0)
        if kind == "ready":
            self.fleet.started(work.engine, work.life)
        elif kind == "renew":
            self.fleet.renewed(work.engine, work.life, work.version)
        elif self.fleet.sampled(work.engine, work.life):
            self._to_score(work, found)

    def _died(self, work: Work, error: Exception) -> None:
        if not self.fleet.lost(work.engine, work.life):
            return
        self.deaths += 1
        first = (str(error).strip().splitlines() or [""])[0][:120]
        if self.deaths > self.cluster.engine_retries:
            raise MachineError(
                f"engines died {self.deaths} times ({first}): the same command goes on from here; "
                "cluster.engine_retries says how often one is replaced"
            ) from error
        self.stage.say(f"{work.engine} died and is replaced; its {len(work.groups)} prompts are sampled again")
        self._start(work.engine, work.life + 1)

    # groups and steps ------------------------------------------------------------------------------------------------

    def _prompt(self, group: Group) -> Prompt:
        return self.learned[self.order.windows(group.number, 1)[0]]

    def _to_score(self, work: Work, found: list[Row]) -> None:
        if work.kind == "evaluate":
            written = self._evaluation(work.version)
        else:
            written = self.stage.scratch("groups", f"{work.groups[0].number:08d}-{work.life}-{work.version}.parquet")
        task = ray.remote(_score).options(num_cpus=0)
        self.waiting[task.remote(storage.absolute(written), found, self.recipe, None)] = ("scored", (work, written))

    def _scored(self, what: tuple[Work, str], teaching: dict[int, bool]) -> None:
        work, written = what
        if work.kind == "evaluate":
            self._tell_evaluation(work.version)
            return
        self._keep(written, rollouts.by_group(rollouts.read(written)))
        for group in work.groups:
            self.fleet.scored(group, self._counts(teaching.get(group.number, False)))

    def _keep(self, written: str, groups: dict[int, list[Row]]) -> None:
        self.rows |= groups
        self.written[written] = set(groups)

    def _counts(self, teaches: bool) -> bool:
        """Whether a group is one of those that a step wants."""
        return teaches or not self.section.resample

    def _close(self) -> None:
        """Writes down the steps whose groups are there: the learner waits for these files."""
        while (step := self.fleet.whole()) is not None:
            numbers = self.fleet.close(step)
            made = [row for number in numbers for row in self.rows.pop(number)]
            self._compare(made)
            self.measured[step] = line.sampled(made)
            self._alive(made)
            rollouts.write(self.job.rollouts(step), made)
            for path, left in list(self.written.items()):
                left -= set(numbers)
                if not left:
                    del self.written[path]
                    storage.delete(path)

    def _compare(self, made: list[Row]) -> None:
        """Tells of each answer its advantage, for people: the learner reckons with what it adds to rewards."""
        scored = [row for row in made if row["reward"] is not None]
        if self.section.advantage != "gae" and scored:
            worth = torch.tensor([row["reward"] for row in scored])
            found = losses.advantages(self.section.advantage, worth, [row["group"] for row in scored])
            for row, value in zip(scored, found.tolist(), strict=True):
                row["advantage"] = value

    def _alive(self, made: list[Row]) -> None:
        """Raises UserError where nothing was to be learned of many steps in a row."""
        self.dead_steps = 0 if rollouts.lessons(made, self.section) else self.dead_steps + 1
        if self.dead_steps >= self.section.dead_steps:
            failed = Counter(row["failed"] for row in made if row["failed"]).most_common(1)
            raise UserError(
                f"in {self.dead_steps} steps no group had rewards that differ, so there is nothing to learn "
                + (f"(no reward: {failed[0][0]})" if failed else f"(reward {made[0]['reward']:g})" if made else "")
                + ": choose prompts that are right sometimes, raise rl.samples or rl.temperature, or change rl.rewards"
            )

    # what the learner says -------------------------------------------------------------------------------------------

    def _heard(self, message: Any) -> None:
        if isinstance(message, Published):
            self.weights = message if message.version >= self.fleet.newest else self.weights
            self.fleet.published(message.version)
        elif isinstance(message, Note):
            self.stage.say(message.text)
        elif isinstance(message, Learned):
            told = self.measured.pop(message.step - 1, {}) | message.metrics | self.clock.read()
            if "learner_seconds" in told:
                told["learning_tok/s"] = told.pop("tokens", 0.0) / max(told.pop("learner_seconds"), 1e-9)
            self.stage.metrics({name: float(value) for name, value in told.items()}, message.step)
            text = line.text(message.step, self.section.steps, told, self.clock.left(message.step, self.section.steps))
            if message.step in (1, self.section.steps):
                self.stage.say(text)
            else:
                self.stage.screen.progress(f"  {text}")

    # evaluations -----------------------------------------------------------------------------------------------------

    def _evaluations_due(self) -> list[int]:
        every, steps = self.section.evaluate_every, self.section.steps
        versions = sorted({0, steps, *(range(every, steps, every) if every else ())})
        return versions if self.held_out else []

    def _due(self) -> bool:
        """Whether an evaluation is yet to come, or under way."""
        under_way = any(
            (isinstance(what, Work) and what.kind == "evaluate") or (kind == "scored" and what[0].kind == "evaluate")
            for kind, what in self.waiting.values()
        )
        return bool(self.fleet.evaluate_at) or under_way

    def _evaluation(self, version: int) -> str:
        return self.stage.path("evaluations", f"step-{version:06d}.parquet")

    def _tell_evaluation(self, version: int) -> None:
        found = rollouts.read(self._evaluation(version))
        told = {"held_out/reward": line.mean([row["reward"] for row in found if row["reward"] is not None])}
        for name in self.section.rewards.weights:
            told[f"held_out/{name}"] = line.mean([dict(row["parts"]).get(name, 0.0) for row in found])
        self.evaluated[version] = told
        self.stage.metrics(told, version)
        shown = " | ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in told.items())
        self.stage.say(f"step {version} | {shown} | {len(found)} prompts")
        if found:
            first = found[0]
            self.stage.say("  " + " ".join(f"{first['prompt']} → {first['answer']}".split())[:150])

    # an earlier attempt, and the end ---------------------------------------------------------------------------------

    def _remember(self) -> None:
        """What is written down already."""
        known = {entry.path.rsplit("/", 1)[-1] for entry in storage.files_below(self.stage.path("rollouts"))}
        closed = next(step for step in range(self.section.steps + 1) if f"step-{step:06d}.parquet" not in known)
        numbers = {row["group"] for step in range(closed) for row in rollouts.read(self.job.rollouts(step), ["group"])}
        done = []
        for entry in storage.files_below(self.stage.scratch("groups")):
            groups = rollouts.by_group(rollouts.read(entry.path))
            groups = {number: some for number, some in groups.items() if number not in numbers | set(self.rows)}
            self._keep(entry.path, groups)
            done += [
                (Group(some[0]["step"], number), self._counts(rollouts.teaches(some)))
                for number, some in groups.items()
            ]  # fmt: skip
        self.fleet.remember(closed, numbers, done)
        for version in list(self.fleet.evaluate_at):
            if storage.exists(self._evaluation(version)):
                self.fleet.evaluate_at.remove(version)
                self._tell_evaluation(version)
        if closed or done:
            self.stage.say(f"{closed} steps and {len(done)} further groups were sampled before")

    def told(self) -> tuple[dict[str, Any], str, str]:
        """(counts, summary, gain)."""
        path, steps = self.stage.path(CURVE), self.section.steps
        curve = [json.loads(each) for each in storage.read_bytes(path).splitlines()]
        by_step: dict[int, dict[str, float]] = {point["step"]: point for point in curve}
        for version, told in self.evaluated.items():
            by_step.setdefault(version, {"step": version}).update(told)
        storage.write_bytes(path, "".join(json.dumps(by_step[step]) + "\n" for step in sorted(by_step)).encode())
        kept = [self.job.rollouts(step) for step in range(steps)]
        storage.write_bytes(
            self.stage.path("rollouts.html"),
            report.html(self.recipe.name, report.drawn(kept, self.section.report_rollouts)).encode(),
        )
        groups = Counter[str]()
        for path in kept:
            for row in rollouts.read(path, ["failed"]):
                groups[row["failed"] or "rewarded"] += 1
        counts = {"steps": steps, "rollouts": dict(groups), "engine_deaths": self.deaths} | {
            "held_out": {str(version): told for version, told in sorted(self.evaluated.items())}
        }
        gain = ""
        if self.held_out and {0, steps} <= set(self.evaluated):
            first, last = (self.evaluated[version]["held_out/reward"] for version in (0, steps))
            gain = f"held-out reward {first:.3f} → {last:.3f}"
        return counts, f"{sum(groups.values()):,} answers in {steps} steps", gain
