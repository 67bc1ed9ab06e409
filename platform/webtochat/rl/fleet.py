"""Which engine samples what, as a state machine without I/O: what happened goes in, what is to be done comes out.

Groups (all answers to one prompt) are numbered in the order in which they are begun; the number says which prompt it is
and by which seeds it is drawn. A group belongs to one step. It is *wanted* until an engine takes it, then *out*, then
*done* once its rewards are written down. Where an engine dies, what it had out is wanted again; what it still says
afterwards is not heard. So each number is done once, whatever dies.

An engine is *starting*, then *idle* or *at work*. It begins with the weights of version 0, and before it samples it is
given the newest; while these are not to be had (the learner is starting again) it waits. Where updates interrupt, it is
given them while it samples, too. Version v is what v steps have made of the model. A group of step t may be sampled
with version t - staleness or a newer one.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple


class Group(NamedTuple):
    step: int
    number: int


@dataclass(frozen=True)
class Work:
    """What an engine is to do next. `renew`: take the newest weights; `interrupt`: and go on sampling with them.
    `sample`: answer these groups. `evaluate`: answer the held-out prompts."""

    engine: str
    life: int
    """Of the engine: a replacement's is another."""
    kind: Literal["renew", "interrupt", "sample", "evaluate"]
    version: int
    groups: tuple[Group, ...] = ()


@dataclass
class Engine:
    life: int
    version: int = 0
    state: Literal["starting", "idle", "at work"] = "starting"
    out: tuple[Group, ...] = ()
    coming: int = 0
    """The version that it is given while it samples."""
    evaluating: bool = False


@dataclass
class Fleet:
    steps: int
    per_step: int
    """Groups that a step learns from."""
    limit: int
    """Groups that a step may sample in all, those among them that teach nothing."""
    staleness: int
    at_once: int
    """Most groups handed to an engine together; an engine's share of a step, if that is less."""
    interrupts: bool = False
    """Whether an engine that samples is given the newest weights at once."""
    evaluate_at: list[int] = field(default_factory=list)
    """Versions, rising, at which the held-out prompts are asked: at each, or at the next that an engine has."""
    newest: int = 0
    there: bool = True
    """Whether the newest weights can be had."""
    closed: int = 0
    """Steps whose groups are all written down."""
    next_number: int = 0
    holes: list[int] = field(default_factory=list)
    """Lower numbers that are not done and that nobody is at."""
    engines: dict[str, Engine] = field(default_factory=dict)
    wanted: list[Group] = field(default_factory=list)
    unscored: set[Group] = field(default_factory=set)
    """Sampled, with rewards to come."""
    done: dict[int, dict[int, bool]] = field(default_factory=lambda: defaultdict(dict))
    """Step → number → whether it teaches anything."""

    # what happened ---------------------------------------------------------------------------------------------------

    def remember(self, closed: int, numbers: set[int], done: Iterable[tuple[Group, bool]]) -> None:
        """What an earlier attempt wrote down: so many whole steps, made of groups of these numbers, and groups of later
        steps. Numbers between them that were begun and not done are lost with it: they are begun first."""
        self.closed = closed
        known = set(numbers)
        for group, teaches in done:
            if group.number not in known:
                known.add(group.number)
                self.done[group.step][group.number] = teaches
        self.next_number = max(known, default=-1) + 1
        self.holes = sorted(set(range(self.next_number)) - known)

    def started(self, name: str, life: int) -> None:
        """The engine answers. It has the weights that the run began with."""
        if self._lives(name, life):
            self.engines[name].state = "idle"

    def added(self, name: str) -> int:
        """An engine is being started, or started again. Returns its life."""
        life = self.engines[name].life + 1 if name in self.engines else 0
        self.engines[name] = Engine(life)
        return life

    def lost(self, name: str, life: int) -> bool:
        """The engine died: what it had out is wanted again. False: it is known already."""
        if not self._lives(name, life):
            return False
        engine = self.engines[name]
        self.wanted = sorted([*engine.out, *self.wanted])
        if engine.evaluating:
            self.evaluate_at.insert(0, engine.version)
        engine.out, engine.evaluating, engine.state, engine.life = (), False, "starting", engine.life + 1
        engine.version = engine.coming = 0
        return True

    def renewed(self, work: Work) -> None:
        """Also where it was interrupted."""
        if self._lives(work.engine, work.life):
            engine = self.engines[work.engine]
            engine.version = max(engine.version, work.version)
            if work.kind == "renew":
                engine.state = "idle"

    def unrenewed(self, work: Work) -> None:
        """The weights were lost on the way: they died with the learner that had made them."""
        if self._lives(work.engine, work.life):
            engine = self.engines[work.engine]
            if work.kind == "renew":
                engine.state = "idle"
            else:
                engine.coming = engine.version
        self.there = self.there and self.newest > work.version

    def sampled(self, name: str, life: int) -> bool:
        """The engine is free again, and its groups' answers go to be scored. False: it died meanwhile, and others
        sample them."""
        if not self._lives(name, life):
            return False
        engine = self.engines[name]
        self.unscored |= set(engine.out)
        engine.out, engine.evaluating, engine.state = (), False, "idle"
        return True

    def scored(self, group: Group, teaches: bool) -> None:
        """The group is written down."""
        self.unscored.discard(group)
        self.done[group.step][group.number] = teaches

    def published(self, version: int) -> None:
        """The learner hands out weights. A learner that went back to its checkpoint makes the same ones once more."""
        if version >= self.newest:
            self.newest, self.there = version, True

    def _lives(self, name: str, life: int) -> bool:
        return name in self.engines and self.engines[name].life == life

    # what is to be done ----------------------------------------------------------------------------------------------

    def whole(self) -> int | None:
        """The first step that is not closed, if all its groups are done: to be written as the learner's next batch."""
        step = self.closed
        if step >= self.steps or self._missing(step) or any(group.step == step for group in self._open()):
            return None
        return step

    def close(self, step: int) -> list[int]:
        """The numbers of the step's groups, in their order."""
        assert step == self.closed, "steps are closed in order"
        self.closed += 1
        return sorted(self.done.pop(step, {}))

    def work(self) -> list[Work]:
        """Something for each idle engine, as far as there is, and newer weights for those that sample, where updates
        interrupt; it then counts as being done."""
        self._begin()
        found = []
        for name, engine in self.engines.items():
            older = max(engine.version, engine.coming) < self.newest
            if self.interrupts and self.there and engine.out and older:
                engine.coming = self.newest
                found.append(Work(name, engine.life, "interrupt", self.newest))
            elif engine.state == "idle":
                made = self._for(name, engine)
                if made is not None:
                    engine.state, engine.out = "at work", made.groups
                    engine.evaluating = made.kind == "evaluate"
                    found.append(made)
        return found

    def _for(self, name: str, engine: Engine) -> Work | None:
        if engine.version < self.newest:
            return Work(name, engine.life, "renew", self.newest) if self.there else None
        if self.evaluate_at and self.evaluate_at[0] <= engine.version:
            self.evaluate_at = [version for version in self.evaluate_at if version > engine.version]
            return Work(name, engine.life, "evaluate", engine.version)
        ready = [group for group in self.wanted if group.step - self.staleness <= engine.version]
        some = tuple(ready[: min(self.at_once, math.ceil(self.per_step / len(self.engines)))])
        if not some:
            return None
        self.wanted = [group for group in self.wanted if group not in some]
        return Work(name, engine.life, "sample", engine.version, some)

    def _begin(self) -> None:
        """New groups for the steps that may be sampled by now."""
        for step in range(self.closed, min(self.steps, self.newest + self.staleness + 1)):
            for _ in range(self._missing(step)):
                if self.holes:
                    number = self.holes.pop(0)
                else:
                    number, self.next_number = self.next_number, self.next_number + 1
                self.wanted.append(Group(step, number))

    def _missing(self, step: int) -> int:
        """Groups that a step lacks and may yet sample, besides those that are on their way."""
        done, coming = self.done[step], sum(group.step == step for group in self._open())
        return max(0, min(self.per_step - sum(done.values()), self.limit - len(done)) - coming)

    def _open(self) -> list[Group]:
        out = [group for engine in self.engines.values() for group in engine.out]
        return [*self.wanted, *out, *self.unscored]
