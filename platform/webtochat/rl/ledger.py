"""What is written down of a run: groups of answers as they are rewarded, whole steps for the learner, evaluations. From
these files an attempt knows what those before it did.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import torch

from webtochat import storage
from webtochat.errors import UserError
from webtochat.recipe_rl import RL
from webtochat.rl import line, losses, report, rollouts
from webtochat.rl.fleet import Group, Work
from webtochat.rl.rollouts import Row
from webtochat.run import Stage
from webtochat.train.rank import CURVE


class Ledger:
    def __init__(self, stage: Stage, section: RL):
        self._stage, self._section = stage, section
        self._rows: dict[int, list[Row]] = {}
        """By number of the group; of steps that are not closed."""
        self._written: dict[str, set[int]] = {}
        """Files of groups → the numbers of those whose steps are not closed."""
        self._sampled: dict[int, dict[str, float]] = {}
        self._dead_steps = 0
        self.evaluated: dict[int, dict[str, float]] = {}
        """Version → what was measured."""

    # groups and steps ------------------------------------------------------------------------------------------------

    def path_of(self, work: Work) -> str:
        """Of the file that what was sampled is to be written to, with its rewards."""
        if work.kind == "evaluate":
            return self._evaluation(work.version)
        name = f"{work.groups[0].number:08d}-{work.engine.replace(' ', '-')}-{work.life}-{work.version}.parquet"
        return self._stage.scratch("groups", name)

    def keep(self, path: str, known: set[int] | None = None) -> list[tuple[Group, bool]]:
        """Takes over the groups of a file but those that are `known`. Returns each, and whether it is one of those that
        its step wants."""
        groups = rollouts.by_group(rollouts.read(path))
        groups = {number: some for number, some in groups.items() if number not in (known or set())}
        self._rows |= groups
        self._written[path] = set(groups)
        every = not self._section.resample
        return [
            (Group(some[0]["step"], number), every or rollouts.teaches(some)) for number, some in groups.items()
        ]  # fmt: skip

    def close(self, step: int, numbers: list[int]) -> None:
        """Writes down a step, which is what the learner waits for. Raises UserError where nothing was to be learned of
        many in a row."""
        made = [row for number in numbers for row in self._rows.pop(number)]
        self._compare(made)
        self._sampled[step] = line.sampled(made)
        self._alive(made)
        rollouts.write(rollouts.step_path(self._stage.directory, step), made)
        for path, left in list(self._written.items()):
            left -= set(numbers)
            if not left:
                del self._written[path]
                storage.delete(path)

    def _compare(self, made: list[Row]) -> None:
        """Tells of each answer its advantage, for people: the learner reckons with what it adds to rewards."""
        scored = [row for row in made if row["reward"] is not None]
        if self._section.advantage != "gae" and scored:
            worth = torch.tensor([row["reward"] for row in scored])
            found = losses.advantages(self._section.advantage, worth, [row["group"] for row in scored])
            for row, value in zip(scored, found.tolist(), strict=True):
                row["advantage"] = value

    def _alive(self, made: list[Row]) -> None:
        self._dead_steps = 0 if rollouts.lessons(made, self._section) else self._dead_steps + 1
        if self._dead_steps >= self._section.dead_steps:
            failed = Counter(row["failed"] for row in made if row["failed"]).most_common(1)
            raise UserError(
                f"in {self._dead_steps} steps no group had rewards that differ, so there is nothing to learn "
                + (f"(no reward: {failed[0][0]})" if failed else f"(reward {made[0]['reward']:g})" if made else "")
                + ": choose prompts that are right sometimes, raise rl.samples or rl.temperature, or change rl.rewards"
            )

    def sampled(self, step: int) -> dict[str, float]:
        """What the answers of a step were like."""
        if step not in self._sampled:
            self._sampled[step] = line.sampled(rollouts.read(rollouts.step_path(self._stage.directory, step)))
        return self._sampled.pop(step)

    # evaluations -----------------------------------------------------------------------------------------------------

    def due(self, prompts: int) -> list[int]:
        """Versions at which so many held-out prompts are to be asked."""
        every, steps = self._section.evaluate_every, self._section.steps
        return sorted({0, steps, *(range(every, steps, every) if every else ())}) if prompts else []

    def evaluation(self, version: int) -> None:
        """Measures and tells of one that is written down."""
        found = rollouts.read(self._evaluation(version))
        told = {"held_out/reward": line.mean([row["reward"] for row in found if row["reward"] is not None])}
        told |= {f"held_out/{name}": value for name, value in line.by_part(found).items()}
        self.evaluated[version] = told
        self._stage.metrics(told, version)
        shown = " | ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in told.items())
        self._stage.say(f"step {version} | {shown} | {len(found)} prompts")
        for row in found[:1]:
            self._stage.say("  " + " ".join(f"{row['prompt']} → {row['answer']}".split())[:150])

    def _evaluation(self, version: int) -> str:
        return self._stage.path("evaluations", f"step-{version:06d}.parquet")

    # an earlier attempt, and the end ---------------------------------------------------------------------------------

    def remembered(self, due: list[int]) -> tuple[int, set[int], list[tuple[Group, bool]]]:
        """(whole steps, numbers of their groups, further groups): see `Fleet.remember`. Takes the evaluations that are
        there out of `due`."""
        steps, directory = self._section.steps, self._stage.directory
        there = {entry.path for entry in storage.files_below(self._stage.path("rollouts"))}
        closed = next(step for step in range(steps + 1) if rollouts.step_path(directory, step) not in there)
        read = [rollouts.read(rollouts.step_path(directory, step), ["group"]) for step in range(closed)]
        numbers = {row["group"] for rows in read for row in rows}
        done: list[tuple[Group, bool]] = []
        for entry in storage.files_below(self._stage.scratch("groups")):
            done += self.keep(entry.path, numbers | set(self._rows))
        for version in list(due):
            if storage.exists(self._evaluation(version)):
                due.remove(version)
                self.evaluation(version)
        if closed or done:
            self._stage.say(f"{closed} steps and {len(done)} further groups were sampled before")
        return closed, numbers, done

    def told(self, name: str) -> tuple[dict[str, Any], str, str]:
        """(counts, summary, gain); writes what is looked at: the curve with its evaluations, and the page."""
        path, steps = self._stage.path(CURVE), self._section.steps
        by_step = {point["step"]: point for point in map(json.loads, storage.read_bytes(path).splitlines())}
        for version, measured in self.evaluated.items():
            by_step.setdefault(version, {"step": version}).update(measured)
        storage.write_bytes(path, "".join(json.dumps(by_step[step]) + "\n" for step in sorted(by_step)).encode())
        kept = [rollouts.step_path(self._stage.directory, step) for step in range(steps)]
        page = report.html(name, report.drawn(kept, self._section.report_rollouts))
        storage.write_bytes(self._stage.path("rollouts.html"), page.encode())
        self._stage.tracked.text(page, "rollouts.html")
        reasons = Counter(row["failed"] or "rewarded" for path in kept for row in rollouts.read(path, ["failed"]))
        held_out = {str(version): measured for version, measured in sorted(self.evaluated.items())}
        counts = {"steps": steps, "rollouts": dict(reasons), "held_out": held_out}
        gain = ""
        if {0, steps} <= set(self.evaluated):
            first, last = (self.evaluated[version]["held_out/reward"] for version in (0, steps))
            gain = f"held-out reward {first:.3f} → {last:.3f}"
        return counts, f"{sum(reasons.values()):,} answers in {steps} steps", gain
