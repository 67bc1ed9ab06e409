"""What is written down and found again, and what the stage refuses in one line, without Ray or an engine."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from tests.inference import tiny

from webtochat import artifact
from webtochat import recipe as recipes
from webtochat.errors import UserError
from webtochat.recipe_rl import RL
from webtochat.rl import rollouts
from webtochat.rl.fleet import Group, Work
from webtochat.rl.ledger import Ledger
from webtochat.rl.stage import rl
from webtochat.run import Run, Screen, Stage


def run_at(root: Path, **section: Any) -> tuple[Run, io.StringIO]:
    (root / "prompts.jsonl").write_text('{"question": "Who?", "answer": "red"}\n')
    told = {"data": [{"path": str(root / "prompts.jsonl")}], "steps": 3, "prompts_per_step": 2, "samples": 2} | section
    path, shown = tiny.workspace(root, rl=told), io.StringIO()
    return Run(recipes.load(str(path)), Screen(shown)), shown


def row(group: int, step: int, sample: int, reward: float | None, **changes: Any) -> dict[str, Any]:
    return {
        "step": step, "group": group, "sample": sample, "prompt": f"{group}?", "answer": "red",
        "truth": '{"answers": ["red"], "tests": []}', "reward": reward, "parts": [("numeric", reward or 0.0)],
        "advantage": None, "failed": "" if reward is not None else "numeric:no_answers", "finished": "stop", "calls": 0,
        "conversation": "red", "ids": [1, 2], "own": [0, 1], "logprobs": [0.0, -1.0], "versions": [0, 0],
    } | changes  # fmt: skip


def work(number: int, step: int, engine: str = "engine 0") -> Work:
    return Work(engine, 0, "sample", step, (Group(step, number), Group(step, number + 1)))


def sampled(ledger: Ledger, number: int, step: int, rewards: list[float | None]) -> str:
    path = ledger.path_of(work(number, step))
    pairs = [(number, 0), (number, 1), (number + 1, 0), (number + 1, 1)]
    rollouts.write(path, [row(group, step, each, reward) for (group, each), reward in zip(pairs, rewards, strict=True)])
    return path


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    draft = artifact.begin(str(tmp_path / "rl"), "rl", {"rl": 1}, [])
    assert isinstance(draft, artifact.Draft)
    tracked: Any = SimpleNamespace(run_id="", metrics=lambda *_: None)
    return Stage(draft, Screen(io.StringIO()), tracked)


def test_an_attempt_knows_what_the_one_before_wrote(stage: Stage) -> None:
    section = RL(steps=3, algorithm="dr_grpo", evaluate_every=2)
    ledger = Ledger(stage, section)
    assert ledger.due(10) == [0, 2, 3] and ledger.due(0) == []
    for number in (0, 2, 4):
        path = sampled(ledger, number, number // 2, [1.0, 0.0, None, 1.0])
        assert ledger.keep(path) == [(Group(number // 2, number), True), (Group(number // 2, number + 1), True)]
    ledger.close(0, [0, 1])
    rollouts.write(ledger.path_of(Work("engine 0", 0, "evaluate", 0)), [row(0, 0, 0, 1.0)])

    due = [0, 2, 3]
    again = Ledger(stage, section)
    closed, numbers, done = again.remembered(due)
    assert (closed, numbers, due) == (1, {0, 1}, [2, 3]) and again.evaluated[0]["held_out/reward"] == 1.0
    assert sorted(done) == [(Group(1, 2), True), (Group(1, 3), True), (Group(2, 4), True), (Group(2, 5), True)]
    first = again.sampled(0)
    assert first == ledger.sampled(0) and first["reward"] == pytest.approx(2 / 3) and first["without_reward"] == 0.25
    kept = rollouts.read(rollouts.step_path(stage.directory, 0))
    assert [each["advantage"] for each in kept] == [0.5, -0.5, None, 0.0]


def test_groups_that_were_written_twice_count_once(stage: Stage) -> None:
    """A file that outlived its step: the kill came between the step's and its end."""
    section = RL(steps=3, algorithm="dr_grpo")
    ledger = Ledger(stage, section)
    path = sampled(ledger, 0, 0, [1.0, 0.0, 1.0, 0.0])
    held = Path(path).read_bytes()
    ledger.keep(path)
    ledger.close(0, [0, 1])
    assert not Path(path).exists()
    Path(path).write_bytes(held)
    assert Ledger(stage, section).remembered([]) == (1, {0, 1}, [])


def test_groups_that_teach_nothing_are_not_counted_where_others_are_sampled(stage: Stage) -> None:
    ledger = Ledger(stage, RL(algorithm="dapo"))
    assert [counts for _, counts in ledger.keep(sampled(ledger, 0, 0, [1.0, 1.0, 1.0, 0.0]))] == [False, True]


def test_where_nothing_is_to_be_learned_the_run_stops(stage: Stage) -> None:
    ledger = Ledger(stage, RL(algorithm="dr_grpo", dead_steps=2))
    for step, rewards in enumerate([[1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]):
        ledger.keep(sampled(ledger, 2 * step, step, list(rewards)))
        ledger.close(step, [2 * step, 2 * step + 1])
    ledger.keep(sampled(ledger, 6, 3, [None, None, None, None]))
    with pytest.raises(UserError, match=r"in 2 steps no group had rewards that differ.*no reward: numeric:no_answers"):
        ledger.close(3, [6, 7])


def test_what_cannot_be_learned_from_is_one_line(tmp_path: Path) -> None:
    run, shown = run_at(tmp_path)
    with pytest.raises(UserError, match="no section rl"):
        rl(Run(run.recipe.model_copy(update={"rl": None}), Screen(io.StringIO())))
    path = tmp_path / "tiny.yaml"
    told = yaml.safe_load(path.read_text())

    def refused(match: str, **section: Any) -> None:
        path.write_text(yaml.safe_dump(told | {"rl": told["rl"] | section}))
        made = Run(recipes.load(str(path)), Screen(shown))
        made.rebuild = True
        with pytest.raises(UserError, match=match) as raised:
            rl(made)
        assert "\n" not in str(raised.value)

    refused(r"rl\.sequence_length \(300\) is more than the model's positions \(256\)", sequence_length=300)
    refused("no file matches", data=[{"path": str(tmp_path / "none.jsonl")}])
    refused("holds no committed reward", rewards={"weights": {"model": 1.0}})
    (tmp_path / "prompts.jsonl").write_text(json.dumps({"question": "Ada " * 300}) + "\n{}\n")
    refused("rl.data holds no prompt to learn from")
    assert "left out 1 prompts: prompt longer than the model's positions" in shown.getvalue()
    with pytest.raises(UserError, match=r"unknown key rl\.sample; did you mean samples"):
        recipes.load(str(path), ["rl.sample=3"])


def test_a_reward_model_of_other_words_is_refused(tmp_path: Path) -> None:
    from webtochat.tokens import tokenizer as bpe

    run, _ = run_at(tmp_path, rewards={"weights": {"model": 1.0}})
    home = tmp_path / "runs" / "tiny" / "reward"
    bpe.train(["another text altogether"] * 30, 300, tiny.PATTERN).save(str(home / "model"))
    tiny.commit(home, "reward", [])
    with pytest.raises(UserError, match="has another tokenizer than the model of"):
        rl(run)
