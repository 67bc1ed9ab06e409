"""The fleet without engines: whatever dies, and whenever, each group is done once and by weights new enough."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from webtochat.rl.fleet import Fleet, Group, Work

STEPS, PER_STEP = 6, 5


def fleet(staleness: int = 0, engines: int = 2, at_once: int = 2, **changes: object) -> Fleet:
    made = Fleet(STEPS, PER_STEP, PER_STEP, staleness, at_once, **changes)  # type: ignore[arg-type]
    for number in range(engines):
        made.started(str(number), made.added(str(number)))
    return made


def finish(made: Fleet, work: Work, teaches: bool = True) -> None:
    if work.kind in ("renew", "interrupt"):
        made.renewed(work)
    elif made.sampled(work.engine, work.life):
        for group in work.groups:
            made.scored(group, teaches)


def test_strictly_on_policy_they_take_turns() -> None:
    made = fleet()
    first, second = made.work()
    assert [first.kind, second.kind] == ["sample", "sample"] and first.groups == (Group(0, 0), Group(0, 1))
    finish(made, first)
    finish(made, second)
    [third] = made.work()
    assert third.groups == (Group(0, 4),) and made.whole() is None
    finish(made, third)
    assert made.whole() == 0 and made.close(0) == [0, 1, 2, 3, 4]
    assert made.work() == [], "the next step waits for the weights that this one makes"
    made.published(1)
    assert [(work.kind, work.version) for work in made.work()] == [("renew", 1), ("renew", 1)]


def test_a_step_is_shared_out_among_the_engines() -> None:
    first, second = fleet(at_once=64).work()
    assert (len(first.groups), len(second.groups)) == (3, 2)


def test_with_staleness_the_next_step_is_sampled_meanwhile() -> None:
    made = fleet(staleness=1, engines=1)
    seen = []
    while work := made.work():
        seen += work[0].groups
        finish(made, work[0])
        while (step := made.whole()) is not None:
            made.close(step)
    assert seen == [Group(step, number) for step in (0, 1) for number in range(5 * step, 5 * step + 5)]


def test_a_dead_engines_groups_are_done_by_another_and_it_is_not_heard() -> None:
    made = fleet()
    first, second = made.work()
    assert made.lost(first.engine, first.life) and not made.lost(first.engine, first.life)
    finish(made, second)
    [again] = made.work()
    assert again.groups == first.groups and again.engine == second.engine
    assert not made.sampled(first.engine, first.life)
    made.started(first.engine, first.life + 1)
    [other] = made.work()
    assert other.engine == first.engine and other.groups == (Group(0, 4),)


def test_a_replaced_engine_samples_nothing_before_it_has_the_newest_weights() -> None:
    made = fleet(engines=1)
    made.published(3)
    made.remember(3, set(range(15)), [])
    [renew] = made.work()
    finish(made, renew)
    [work] = made.work()
    assert work.version == 3 and work.groups[0] == Group(3, 15)
    made.lost("0", work.life)
    made.started("0", work.life + 1)
    assert [each.kind for each in made.work()] == ["renew"]


def test_where_updates_interrupt_an_engine_that_samples_is_given_the_newest_weights() -> None:
    made = fleet(staleness=2, engines=1, interrupts=True)
    [sample] = made.work()
    made.published(1)
    [interrupt] = made.work()
    assert (interrupt.kind, interrupt.version) == ("interrupt", 1) and made.work() == []
    made.renewed(interrupt)
    assert made.work() == [], "it is at work yet"
    finish(made, sample)
    [sample] = made.work()
    assert (sample.kind, sample.version) == ("sample", 1)
    made.published(2)
    [interrupt] = made.work()
    made.unrenewed(interrupt)  # the learner died with them
    finish(made, sample)
    assert made.work() == [], "it is given them before it samples again"
    made.published(2)
    assert [work.kind for work in made.work()] == ["renew"]


def test_weights_that_died_with_the_learner_are_waited_for() -> None:
    made = fleet(engines=1)
    made.published(2)
    [renew] = made.work()
    made.unrenewed(renew)
    assert made.work() == []
    made.published(1)  # it went back to its checkpoint
    assert made.work() == []
    made.published(2)
    assert [work.kind for work in made.work()] == ["renew"]


def test_groups_that_teach_nothing_are_replaced_up_to_the_limit() -> None:
    made = Fleet(1, 2, 5, 0, at_once=4)
    made.started("0", made.added("0"))
    seen = []
    while work := made.work():
        seen.append(len(work[0].groups))
        finish(made, work[0], teaches=False)
    assert seen == [2, 2, 1] and made.whole() == 0 and made.close(0) == [0, 1, 2, 3, 4]


def test_evaluations_come_at_their_version_or_the_next() -> None:
    made = fleet(engines=1, evaluate_at=[0, 2, 6])
    [first] = made.work()
    assert (first.kind, first.version) == ("evaluate", 0)
    made.lost("0", first.life)
    made.started("0", first.life + 1)
    [again] = made.work()
    assert (again.kind, again.version) == ("evaluate", 0)
    finish(made, again)
    made.published(3)
    made.remember(3, set(range(15)), [])
    kinds = []
    while work := made.work():
        kinds.append((work[0].kind, work[0].version))
        finish(made, work[0])
    assert kinds[:3] == [("renew", 3), ("evaluate", 3), ("sample", 3)] and made.evaluate_at == [6]


def test_what_an_earlier_attempt_lost_is_begun_first() -> None:
    made = fleet(engines=1)
    made.remember(1, {0, 1, 2, 3, 5}, [(Group(1, 4), True), (Group(1, 8), True), (Group(0, 3), True)])
    made.published(1)
    finish(made, made.work()[0])
    seen = []
    while work := made.work():
        seen += work[0].groups
        finish(made, work[0])
    assert seen == [Group(1, 6), Group(1, 7), Group(1, 9)]
    assert made.whole() == 1 and made.close(1) == [4, 6, 7, 8, 9]


@pytest.mark.parametrize("seed", range(40))
def test_whatever_happens_each_number_is_done_once(seed: int) -> None:
    """Engines die at work, driver and learner start again, groups teach or not: all steps end, whole, and no group was
    sampled by weights older than it may be."""
    rng = random.Random(seed)
    staleness, limit, interrupts = rng.randint(0, 2), PER_STEP * rng.choice([1, 3]), rng.random() < 0.5
    closed: dict[int, list[int]] = {}
    kept: dict[Group, bool] = {}

    def begun() -> Fleet:
        made = Fleet(STEPS, PER_STEP, limit, staleness, rng.randint(1, 4), interrupts)
        later = [(group, teaches) for group, teaches in kept.items() if group.step >= len(closed)]
        made.remember(len(closed), {number for numbers in closed.values() for number in numbers}, later)
        for number in range(3):
            made.added(str(number))
        return made

    made, version, under_way = begun(), 0, list[Work]()
    for _ in range(5000):
        event = rng.random()
        if event < 0.01:  # the driver is killed
            made, under_way, version = begun(), [], rng.randint(0, len(closed))
            made.published(version)
        for name, engine in made.engines.items():
            if engine.state == "starting" and rng.random() < 0.5:
                made.started(name, engine.life)
        for work in made.work():
            assert all(group.step - staleness <= work.version <= group.step for group in work.groups)
            under_way.append(work)
        if under_way and event < 0.8:
            work = under_way.pop(rng.randrange(len(under_way)))
            if rng.random() < 0.1:
                made.lost(work.engine, work.life)
            elif work.kind in ("renew", "interrupt"):
                if rng.random() < 0.1:
                    made.unrenewed(work)
                    made.published(made.newest)
                else:
                    made.renewed(work)
            elif made.sampled(work.engine, work.life):
                for group in work.groups:
                    kept[group] = rng.random() < 0.6
                    made.scored(group, kept[group])
        elif version < len(closed):  # the learner goes on
            version += 1
            made.published(version)
        while (step := made.whole()) is not None:
            closed[step] = made.close(step)
        if len(closed) == STEPS:
            break
    assert sorted(closed) == list(range(STEPS))
    times = Counter(number for numbers in closed.values() for number in numbers)
    assert set(times.values()) == {1} and len(times) >= STEPS * PER_STEP
    if max(times) >= len(times):  # a number that is missing was begun for a step that then needed it no more
        assert limit > PER_STEP
