"""A file of prompts answered on the cluster: Ray Data hands its parts to engines. Beside the file of answers stand, for
as long as it is not whole, the parts, and after that a record of how it was made. A kill loses the parts that are being
answered."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import ray

from webtochat import artifact, storage
from webtochat.artifact import Artifact
from webtochat.errors import UserError
from webtochat.inference import batch
from webtochat.inference.actors import EngineActor, ModelPath, gpus_per_engine
from webtochat.recipe import DataSource, Recipe
from webtochat.run import Screen
from webtochat.tokens import rows
from webtochat.tokens.tokenizer import Tokenizer

PLAN = "plan.json"


def generate(job: Job, screen: Screen) -> str:
    """Answers all prompts. Returns what was done, in a line."""
    plan = job.plan() or _split(job)
    _answer(job, plan["parts"], screen)
    counts = batch.join(job.parts, plan["parts"], job.out)
    storage.write_bytes(job.record, json.dumps(plan | {"counts": counts}, indent=1).encode())
    return job.done() or ""


class Job:
    """A file of prompts (JSONL or Parquet), and the file of answers that is to be made of it."""

    def __init__(self, recipe: Recipe, model: Artifact, prompts: str, out: str):
        """Raises UserError where `out` is there, or begun, and made with something else."""
        if not out.endswith(".jsonl"):
            raise UserError(f"--out {out}: answers are written as JSON lines, to a name that ends in .jsonl")
        self.recipe, self.model, self.prompts = recipe, model, DataSource(path=prompts)
        self.out = storage.absolute(out)
        self.parts, self.record = f"{self.out}.parts", f"{self.out}.made.json"
        self.identity = recipe.identity("generate") | {
            "model": model.content_hash, "system_prompt": recipe.serve.system_prompt,
            "prompts": rows.identity(self.prompts, None),
        }  # fmt: skip
        plan = self.plan()
        changed = artifact.differences(plan["identity"], self.identity) if plan else []
        if changed or (plan is None and storage.exists(self.out)):
            what = f"was made with something else ({'; '.join(changed[:6])})" if changed else "is there already"
            raise UserError(f"{out} {what}: remove it, {self.parts} and {self.record}, or choose another --out")

    def plan(self) -> dict[str, Any] | None:
        """What was begun, if anything was."""
        places = [storage.join(self.parts, PLAN)]
        if storage.exists(self.out):
            places.insert(0, self.record)
        found = next(filter(storage.exists, places), None)
        return json.loads(storage.read_bytes(found)) if found else None

    def done(self) -> str | None:
        """What was done, in a line, where all is."""
        if not (storage.exists(self.out) and storage.exists(self.record)):
            return None
        storage.delete(self.parts)
        made = json.loads(storage.read_bytes(self.record))
        counts = Counter(made["counts"]) + Counter(made["unread"])
        answered = counts.pop("answered", 0)
        failed = "".join(f", {count:,} not ({reason})" for reason, count in counts.most_common())
        return f"{answered:,} answered{failed}"


def _split(job: Job) -> dict[str, Any]:
    """Cuts the prompts into parts. The plan is written when all of them are."""
    unread: Counter[str] = Counter()
    count = batch.split(rows.read(job.prompts, None, unread), job.parts, job.recipe.generate.part_rows)
    plan = {"identity": job.identity, "parts": count, "unread": unread}
    storage.write_bytes(storage.join(job.parts, PLAN), json.dumps(plan).encode())
    return plan


def _answer(job: Job, count: int, screen: Screen) -> None:
    due = [number for number in range(count) if not storage.exists(batch.part_path(job.parts, "answers", number))]
    for done, _ in enumerate(_spread(job, due), count - len(due) + 1):
        screen.progress(f"  generate: {done:,}/{count:,} parts ({100 * done / count:.0f}%)")


def _spread(job: Job, due: list[int]) -> Iterator[dict[str, Any]]:
    """Each part's row as it is answered."""
    if not due:
        return
    cluster = job.recipe.cluster
    gpus, (fewest, most) = gpus_per_engine(cluster.engine_gpus), cluster.engine_range
    ray.data.DataContext.get_current().enable_progress_bars = False
    data = ray.data.from_items([{"part": number} for number in due], override_num_blocks=len(due))
    answered = data.map(
        Answerer,  # type: ignore[arg-type]  # mypy does not see fn_constructor_args
        fn_constructor_args=[job.recipe, ModelPath.of(job.model), job.model.stage != "pretrain", job.parts, gpus],
        num_cpus=1, num_gpus=gpus,
        compute=ray.data.ActorPoolStrategy(min_size=min(max(1, fewest), len(due)), max_size=min(most, len(due))),
    )  # fmt: skip
    yield from answered.iter_rows()


class Answerer:
    """Answers a part, with an engine of its own."""

    def __init__(self, recipe: Recipe, model: ModelPath, chats: bool, parts: str, gpus: int):
        self._engine = EngineActor(
            model, gpus=gpus, kv_cache_gib=recipe.cluster.kv_cache_gib, max_model_length=recipe.serve.max_model_length
        )
        tokenizer = Tokenizer.load(model.local())
        self._asking = batch.Asking(
            tokenizer, self._engine.ready(), chats, recipe.serve.system_prompt, recipe.generate
        )  # fmt: skip
        self._parts = parts

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        section = self._asking.section
        asked = batch.read(batch.part_path(self._parts, "prompts", row["part"]))
        seed = section.seed + row["part"] * section.part_rows
        told = batch.answer(asked, self._engine.generate, self._asking, seed)
        batch.write(batch.part_path(self._parts, "answers", row["part"]), told)
        return row
