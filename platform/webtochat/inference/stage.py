"""A file of prompts answered on the cluster: Ray Data hands its parts to engines. Beside the file of answers stand, for
as long as it is not whole, the parts, and after that a record of how it was made. A kill loses the parts that are being
answered."""

from __future__ import annotations

import json
import os
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


def generate(recipe: Recipe, model: Artifact, prompts: str, out: str, screen: Screen) -> str:
    """Answers `prompts` (JSONL or Parquet) into `out` (JSONL), row for row. Returns what was done, in a line. Raises
    UserError where `out` was made with something else."""
    if not out.endswith(".jsonl"):
        raise UserError(f"--out {out}: answers are written as JSON lines, to a name that ends in .jsonl")
    out = out if storage.is_remote(out) else os.path.abspath(out)
    parts, record = f"{out}.parts", f"{out}.made.json"
    source = DataSource(path=prompts)
    identity = recipe.identity("generate") | {
        "model": model.content_hash, "system_prompt": recipe.serve.system_prompt,
        "prompts": rows.identity(source, None),
    }  # fmt: skip
    plan = _held(record, storage.join(parts, PLAN))
    changed = artifact.differences(plan["identity"], identity) if plan else []
    if changed or (plan is None and storage.exists(out)):
        what = f"was made with something else ({'; '.join(changed[:6])})" if changed else "is there already"
        raise UserError(f"{out} {what}: remove it with {parts} and {record}, or choose another --out")
    if plan is None or not storage.exists(record):
        plan = plan or _split(source, parts, identity)
        _answer(recipe, model, parts, plan["parts"], screen)
        counts = batch.join(parts, plan["parts"], out)
        storage.write_bytes(record, json.dumps(plan | {"counts": counts}, indent=1).encode())
    storage.delete(parts)
    return _told(json.loads(storage.read_bytes(record)))


def _held(*paths: str) -> dict[str, Any] | None:
    found = next(filter(storage.exists, paths), None)
    return json.loads(storage.read_bytes(found)) if found else None


def _split(source: DataSource, parts: str, identity: dict[str, Any]) -> dict[str, Any]:
    """Cuts the prompts into parts. The plan is written when all of them are."""
    unread: Counter[str] = Counter()
    count = batch.split(rows.read(source, None, unread), parts, identity["generate"]["part_rows"])
    plan = {"identity": identity, "parts": count, "unread": unread}
    storage.write_bytes(storage.join(parts, PLAN), json.dumps(plan).encode())
    return plan


def _answer(recipe: Recipe, model: Artifact, parts: str, count: int, screen: Screen) -> None:
    due = [number for number in range(count) if not storage.exists(batch.part_path(parts, "answers", number))]
    for done, _ in enumerate(_spread(recipe, model, parts, due), count - len(due) + 1):
        screen.progress(f"  generate: {done:,}/{count:,} parts ({100 * done / count:.0f}%)")


def _spread(recipe: Recipe, model: Artifact, parts: str, due: list[int]) -> Iterator[dict[str, Any]]:
    """Each part's row as it is answered."""
    if not due:
        return
    gpus, engines = gpus_per_engine(recipe.cluster.engine_gpus), recipe.cluster.engines
    fewest, most = (engines, engines) if isinstance(engines, int) else engines
    ray.data.DataContext.get_current().enable_progress_bars = False
    data = ray.data.from_items([{"part": number} for number in due], override_num_blocks=len(due))
    answered = data.map(
        Answerer,  # type: ignore[arg-type]  # mypy does not see fn_constructor_args
        fn_constructor_args=[recipe, ModelPath.of(model), model.stage != "pretrain", parts, gpus],
        num_cpus=1, num_gpus=gpus,
        compute=ray.data.ActorPoolStrategy(
            min_size=min(max(1, fewest), len(due)), max_size=min(most, len(due))
        ),
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


def _told(made: dict[str, Any]) -> str:
    counts = Counter(made["counts"]) + Counter(made["unread"])
    answered = counts.pop("answered", 0)
    return f"{answered:,} answered" + "".join(f", {count:,} not ({reason})" for reason, count in counts.most_common())
