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
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import ray

from webtochat import storage
from webtochat.artifact import Artifact
from webtochat.errors import MachineError, UserError
from webtochat.inference.actors import ModelPath, start_scorer
from webtochat.inference.engine import positions, read_weights
from webtochat.model.reward import SCORES
from webtochat.recipe import Recipe
from webtochat.recipe_rl import PromptSource
from webtochat.rl import actors, line, tasks
from webtochat.rl.fleet import Fleet, Group, Work
from webtochat.rl.learner import LearnerJob, learn_rank
from webtochat.rl.ledger import Ledger
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
    """`model/`: the chat model taught by reward; rollouts/: every answer, by step; rollouts.html to browse them;
    evaluations/: answers to the held-out prompts; metrics.jsonl: the curve."""
    recipe, section = run.recipe, run.recipe.rl
    if section is None:
        raise UserError("the recipe has no section rl, so nothing is learned by reward: docs/rl.md shows one")
    base = run.open(recipe.chat if recipe.dpo is None else "dpo")
    tools = [run.open("index")] if section.tools and {"web_search", "open_page"} & set(recipe.tools.names) else []
    scorer = [run.open("reward")] if "model" in section.parts else []
    sources, missing = rows.available(section.data, recipe.miniweb)
    asked = [_identity(each, recipe) for each in sources]
    taught = [run.open("knowledge")] if any(each.of_stage for each in sources) else []
    identity = {"rl": literals(recipe, "rl") | {"data": asked}}
    if section.tools or "tests" in section.parts:
        identity |= recipe.identity("tools")
    stage = run.begin("rl", identity, [base, *taught, *tools, *scorer])
    if isinstance(stage, Artifact):
        return stage
    with stage:
        for source in missing:
            stage.say(f"skipped {source.path}: it needs the miniweb, which this crawl does not hold")
        skipped: Counter[str] = Counter()
        index = (storage.absolute(tools[0].directory), tools[0].content_hash) if tools else None
        learned, held_out = _prompts(stage, recipe, base, taught, sources, index, skipped)
        stage.say(
            f"{len(learned):,} prompts, {len(held_out):,} held out, {section.steps} steps of "
            f"{section.prompts_per_step} × {section.samples} answers"
        )
        for each in scorer:
            _same_tokenizer(base, each)
        driver = Driver(stage, recipe, base, index, scorer, sources, learned, held_out)
        try:
            driver.run()
        finally:
            driver.stop()
        counts, summary, gain = driver.ledger.told(recipe.name)
        counts |= {
            "prompts": len(learned), "skipped": dict(skipped), "engine_deaths": driver.deaths,
            "config": base.manifest.counts.get("config"),
        }  # fmt: skip
        return stage.commit(counts=counts, summary=summary, gain=gain)


def _prompts(
    stage: Stage, recipe: Recipe, base: Artifact, taught: list[Artifact], sources: list[PromptSource],
    index: tuple[str, str] | None, skipped: Counter[str],
) -> tuple[list[Prompt], list[Prompt]]:  # fmt: skip
    """(to learn from, held out)."""
    section, directory = recipe.rl, os.path.join(base.local(), "model")
    assert section is not None

    def read(source: PromptSource) -> Iterator[rows.Row]:
        return questions(taught[0]) if source.of_stage else rows.read(source, recipe.miniweb, skipped)

    own = positions(directory)
    most = section.sequence_length or own
    if most > own:
        raise UserError(f"rl.sequence_length ({most}) is more than the model's positions ({own})")
    tokenizer = Tokenizer.load(directory)
    found = [
        prompt
        for number, each in enumerate(sources) for prompt in tasks.prompts(read(each), skipped, number, each.rewards)
    ]  # fmt: skip
    made = toolbox(recipe.tools, storage.local_copy(*index) if index else None) if section.tools else []
    found = tasks.fitting(found, tokenizer, most, definitions(made), skipped)
    for reason, number in skipped.items():
        stage.say(f"left out {number:,} prompts: {reason.replace('_', ' ')}")
    learned, held_out = tasks.split(found, section.held_out_percent, section.max_held_out)
    if not learned:
        raise UserError("rl.data holds no prompt to learn from: name JSONL, Parquet, hf:// or python: sources")
    return learned, held_out


def _identity(source: PromptSource, recipe: Recipe) -> dict[str, Any]:
    """What its prompts and their rewards depend on, besides the artifact that is begun with."""
    if source.of_stage and recipe.knowledge is None:
        raise UserError("rl.data names knowledge, and the recipe has no section of that name")
    told = {"weight": source.weight} if source.of_stage else rows.identity(source, recipe.miniweb)
    return told | {"rewards": source.rewards}


def questions(knowledge: Artifact) -> Iterator[rows.Row]:
    """What the knowledge stage taught answers or refusals to, as many of each as it did, with the right answers; of
    what was invented there is none."""
    with storage.open_input_file(knowledge.path("questions.parquet")) as source:
        asked = pq.read_table(source, columns=["question", "subject", "answers", "taught"]).to_pylist()
    for row in asked:
        if row.pop("taught"):
            yield row | {"key": row.pop("subject"), "held_out": False}


def _same_tokenizer(base: Artifact, scorer: Artifact) -> None:
    """Raises UserError where the reward model would read other words than the model wrote."""
    mine, theirs = (Tokenizer.load(os.path.join(each.local(), "model")) for each in (base, scorer))
    if not (mine.writes_as(theirs) and mine.markers == theirs.markers):
        raise UserError(
            f"the reward model of {scorer.directory} has another tokenizer than the model of {base.directory}: train "
            "it from that one, with --rebuild reward"
        )


def _learn(job: LearnerJob, emit: Any, threads: int | None, notice: Any) -> None:
    """What each of the learner's Ray Train workers runs."""

    def publish(version: int, weights: dict[str, np.ndarray]) -> None:
        emit(Published(version, [ray.put(weights)]))

    learn_rank(job, emit, publish, threads, notice)


class Driver:
    """Moves work between engines, rewarders and the learner until the last step is learned and evaluated."""

    def __init__(
        self, stage: Stage, recipe: Recipe, base: Artifact, index: tuple[str, str] | None, scorer: list[Artifact],
        sources: list[PromptSource], learned: list[Prompt], held_out: list[Prompt],
    ):  # fmt: skip
        assert recipe.rl is not None
        self.stage, self.recipe, self.section, self.cluster = stage, recipe, recipe.rl, recipe.cluster
        self.model = ModelPath(storage.absolute(base.directory), base.content_hash)
        self.index, self.learned, self.held_out = index, learned, held_out
        section = self.section
        counts = Counter(prompt.source for prompt in learned)  # in the order of the sources, as the prompts are
        weights = tuple(sources[number].weight for number in counts)
        self.order = Order(tuple(counts.values()), weights, section.seed)
        self.job = LearnerJob(
            directory=storage.absolute(stage.directory), base=(self.model.artifact, self.model.key), settings=section,
            device_batch_tokens=self.cluster.device_batch_tokens, shard=self.cluster.shard,
            compile=self.cluster.compile, recompute=self.cluster.recompute,
        )  # fmt: skip
        self.ledger = Ledger(stage, section)
        self.fleet = Fleet(
            section.steps, section.prompts_per_step,
            int(section.prompts_per_step * (section.resample_limit if section.resample else 1)), section.staleness,
            self.cluster.engine_groups, section.update == "interrupt", self.ledger.due(len(held_out)),
        )  # fmt: skip
        self.scorer, scale = None, (0.0, 1.0)
        for each in scorer:
            self.scorer = start_scorer(ModelPath(storage.absolute(each.directory), each.content_hash))
            told = json.loads(storage.read_bytes(each.path("model", SCORES)))
            scale = (told["mean"], told["std"])
        _, most = self.cluster.engine_range
        self.rewarders = [actors.start_rewarder(recipe, self.scorer, scale) for _ in range(most)]
        self.engines: dict[str, Any] = {}
        self.waiting: dict[Any, tuple[str, Any]] = {}
        """Ray reference → what it is of."""
        self.weights: Published | None = None
        self.deaths = 0
        self.clock = Clock(most)

    # the loop --------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        self.fleet.remember(*self.ledger.remembered(self.fleet.evaluate_at))
        if storage.exists(self.stage.path(CURVE)) and self.fleet.closed == self.fleet.steps and not self._due():
            return  # killed between the last evaluation and the commit
        for number in range(len(self.rewarders)):
            self._start(f"engine {number}")
        # Where both go on at once, half of the cores are the engine's (inference/engine.py): a step took 1.38 s so, and
        # 1.64 with all of them.
        core_share = 0.5 if self.section.staleness else 1.0
        training = Training(self.stage, _learn, self.job, self.cluster, core_share)
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
            while (step := self.fleet.whole()) is not None:
                self.ledger.close(step, self.fleet.close(step))
            if over and not ready:  # the learner has ended, and all that it said was heard
                if self.fleet.newest < self.fleet.steps or not self._due():
                    break
                if not self.fleet.there:
                    self._hand_out_result()
        training.finish()

    def _hand_out_result(self) -> None:
        """The last weights, from where the learner left them: those that it handed out itself went with it."""
        folder = storage.local_copy(self.stage.path("model"), self.stage.mlflow_run_id or "result")
        weights = {name: each.float().numpy() for name, each in read_weights(folder)}
        self._heard(Published(self.fleet.steps, [ray.put(weights)]))

    def stop(self) -> None:
        for actor in [*self.engines.values(), *self.rewarders, *filter(None, [self.scorer])]:
            ray.kill(actor)

    def _start(self, name: str, life: int | None = None) -> None:
        life = self.fleet.added(name) if life is None else life
        self.engines[name] = actors.start(self.model, self.recipe, self.index)
        self.waiting[self.engines[name].ready.remote()] = ("ready", Work(name, life, "renew", 0))

    def _do(self, work: Work) -> None:
        engine = self.engines[work.engine]
        self.clock.began(work)
        if work.kind in ("renew", "interrupt"):
            assert self.weights is not None, "a version above 0 was published"
            reference = getattr(engine, work.kind).remote(work.version, self.weights.weights[0])
        elif work.kind == "sample":
            reference = engine.sample.remote([Asked(*group, self._prompt(group)) for group in work.groups])
        else:
            asked = [Asked(work.version, number, prompt) for number, prompt in enumerate(self.held_out)]
            reference = engine.sample.remote(asked, greedy=True)
        self.waiting[reference] = (work.kind, work)

    def _came(self, kind: str, what: Any, reference: Any) -> None:
        """The end of what an engine or a rewarder was at."""
        if kind == "scored":
            ray.get(reference)
            self._scored(*what)
            return
        work: Work = what
        try:
            found = ray.get(reference)
        except ray.exceptions.RayActorError as error:
            if kind == "ready" and "creation task" in str(error):
                raise  # what keeps an engine from starting would keep the next one
            self.clock.ended(work, 0)
            self._died(work, error)
            return
        except (ray.exceptions.ObjectLostError, ray.exceptions.RayTaskError) as error:
            if not isinstance(getattr(error, "cause", error), ray.exceptions.ObjectLostError):
                raise
            self.fleet.unrenewed(work)
            self.clock.ended(work, 0)
            return
        self.clock.ended(work, sum(sum(row["own"]) for row in found) if found else 0)
        if kind == "ready":
            self.fleet.started(work.engine, work.life)
        elif kind in ("renew", "interrupt"):
            self.fleet.renewed(work)
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
        path = self.ledger.path_of(work)
        self.rewarders.append(rewarder := self.rewarders.pop(0))
        reference = rewarder.reward.remote(storage.absolute(path), found)
        self.waiting[reference] = ("scored", (work, path))

    def _scored(self, work: Work, path: str) -> None:
        if work.kind == "evaluate":
            self.ledger.evaluation(work.version)
            return
        for group, counts in self.ledger.keep(path):
            self.fleet.scored(group, counts)

    # what the learner says -------------------------------------------------------------------------------------------

    def _heard(self, message: Any) -> None:
        if isinstance(message, Published):
            self.weights = message if message.version >= self.fleet.newest else self.weights
            self.fleet.published(message.version)
        elif isinstance(message, Note):
            self.stage.say(message.text)
        elif isinstance(message, Learned):
            told = self.ledger.sampled(message.step - 1) | message.metrics | self.clock.read()
            if "learner_seconds" in told:
                told["learning_tok/s"] = told.pop("tokens", 0.0) / max(told.pop("learner_seconds"), 1e-9)
            self.stage.metrics({name: float(value) for name, value in told.items()}, message.step)
            text = line.text(message.step, self.section.steps, told, self.clock.left(message.step, self.section.steps))
            if message.step in (1, self.section.steps):
                self.stage.say(text)
            else:
                self.stage.screen.progress(f"  {text}")

    # evaluations -----------------------------------------------------------------------------------------------------

    def _due(self) -> bool:
        """Whether an evaluation is yet to come, or under way."""
        under_way = any(
            (isinstance(what, Work) and what.kind == "evaluate") or (kind == "scored" and what[0].kind == "evaluate")
            for kind, what in self.waiting.values()
        )
        return bool(self.fleet.evaluate_at) or under_way
