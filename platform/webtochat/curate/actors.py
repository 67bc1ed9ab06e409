"""The user's steps that are classes: each in Ray actors of its own, which hold the model that it made once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import ray

from webtochat.curate import parts, steps
from webtochat.curate.clock import Clock
from webtochat.recipe import Actors
from webtochat.recipe_pages import Measure, Step


def judged(step: Step, section: Measure, settings: Actors, rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Every row's part through the step; results as they come."""
    if not rows:
        return
    data = ray.data.from_items(rows, override_num_blocks=len(rows))
    asked = data.map(
        Judge,  # type: ignore[arg-type]  # mypy does not see fn_constructor_args
        fn_constructor_args=[step, section, settings], num_cpus=settings.cpus, num_gpus=settings.gpus,
        compute=ray.data.ActorPoolStrategy(size=min(settings.number, len(rows))),
    )  # fmt: skip
    yield from asked.iter_rows()


class Judge:
    """Writes a WARC file's part anew, with the step's answers to its measured pages."""

    def __init__(self, step: Step, section: Measure, settings: Actors):
        self.step, self.section, self.settings = step, section, settings
        self.model = steps.loaded(step.path)(**step.arguments)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        clock = Clock()
        skipped = Counter(parts.counts_of(row["source"])["skipped"])
        parts.write_part(row["part"], steps.not_all_failed(self._answered(row["source"]), self.section), skipped)
        clock.lap(self.step.name)
        clock.write(row["seconds"])
        return {"name": row["name"]}

    def _answered(self, source: str) -> Iterator[steps.Row]:
        """The rows in their order, the measured ones asked `batch` at a time."""
        for table in parts.read_part(source):
            rows = [row | {"own": dict(row["own"] or [])} for row in table.to_pylist()]
            places = [place for place, row in enumerate(rows) if row["step"] is None]
            for start in range(0, len(places), self.settings.batch):
                asked = places[start : start + self.settings.batch]
                answers = steps.asked_together([rows[place] for place in asked], self.step, self.model)
                for place, answer in zip(asked, answers, strict=True):
                    rows[place] = answer
            yield from rows
