"""The learner on rollouts that lie there: what becomes likelier, what sharing does not change, kills."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.rl.small_rl import (
    GROUPS,
    SAMPLES,
    STEPS,
    apart,
    base,
    job_of,
    learned,
    quiet,
    spawn,
    told,
    weights_of,
    write_rollouts,
)  # fmt: skip

from webtochat.errors import UserError
from webtochat.model import export
from webtochat.rl.batches import minibatches
from webtochat.rl.learner import learn_rank
from webtochat.rl.policy import Policy
from webtochat.train.loop import Diverged


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield base(tmp_path_factory.mktemp("rl"))
    torch.set_flush_denormal(False)  # which a learner in this process has set, and other tests draw such numbers


def curve(directory: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def test_the_policy_tells_the_log_probabilities_of_the_transformer(given: Path) -> None:
    model = export.load(str(given / "model")).eval()
    policy = Policy.of(model, valued=True).eval()
    tokens, mask = torch.randint(0, 250, (3, 9)), (torch.rand(3, 8) < 0.5).float()
    with torch.no_grad():
        logprobs, entropies, values = policy(tokens[:, :-1], tokens[:, 1:], mask, 0.7)
        wanted = (model(tokens[:, :-1]) / 0.7).log_softmax(-1)
    chosen = wanted.gather(-1, tokens[:, 1:, None])[..., 0]
    assert torch.allclose(logprobs, chosen * mask, atol=1e-5)
    assert torch.allclose(entropies, -(wanted.exp() * wanted).sum(-1) * mask, atol=1e-4)
    assert not values.any() and set(policy.plain().state_dict()) == set(model.state_dict())


@pytest.mark.parametrize("algorithm", ["grpo", "dr_grpo", "dapo", "rloo", "reinforce", "ppo", "gspo"])
def test_what_is_rewarded_becomes_likelier(given: Path, tmp_path: Path, algorithm: str) -> None:
    clip = {"clip_low": 0.2, "clip_high": 0.2} if algorithm == "gspo" else {}
    job = job_of(tmp_path, given, algorithm=algorithm, **clip)
    written = write_rollouts(job, given)
    learned(job)
    before, after = (
        Policy.of(export.load(str(each / "model")), valued=False).eval() for each in (given, tmp_path)
    )

    def margin(policy: Policy) -> float:
        """Mean log-probability of the rewarded answers less that of the others."""
        sums: dict[float, list[float]] = {0.0: [], 1.0: []}
        for row in (row for rows in written for row in rows):
            sums[row["reward"]].append(sum(told(policy, row["ids"], row["own"])) / sum(row["own"]))
        good, bad = sums[1.0], sums[0.0]
        return sum(good) / len(good) - sum(bad) / len(bad)

    assert margin(after) > margin(before) + 0.05
    points = curve(tmp_path)
    assert [point["step"] for point in points] == [1, 2, 3, 4]
    assert points[0]["gap"] < 1e-5 and 0 < points[0]["entropy"] < 7
    assert ("kl" in points[0]) == (algorithm == "grpo") and ("value_loss" in points[0]) == (algorithm == "ppo")


SHARED: list[dict[str, Any]] = [
    {"algorithm": "grpo", "kl": 0.5, "kl_in": "reward", "minibatches": 2, "passes": 2},
    {"algorithm": "ppo", "kl": 0.1, "kl_in": "reward"},
]


def test_workers_and_passes_do_not_change_what_is_learned(given: Path, tmp_path: Path) -> None:
    ways = {"alone": {}, "passes": {"device_batch_tokens": 60}, "workers": {"device_batch_tokens": 60}}
    made = {
        (number, way): job_of(tmp_path / f"{number}-{way}", given, **section, **placed)
        for number, section in enumerate(SHARED) for way, placed in ways.items()
    }  # fmt: skip
    for job in made.values():
        write_rollouts(job, given)
    spawn(*(job for (_, way), job in made.items() if way == "workers"))
    for number in range(len(SHARED)):
        learned(made[number, "alone"])
        learned(made[number, "passes"])
        alone = tmp_path / f"{number}-alone"
        moved = apart(given, alone)
        assert moved > 1e-3
        for way in ("passes", "workers"):
            other = tmp_path / f"{number}-{way}"
            assert apart(alone, other) < 2e-3 * moved + 1e-5
            for one, two in zip(curve(alone), curve(other), strict=True):
                assert two == pytest.approx(one, rel=2e-3, abs=1e-5)


def test_a_killed_learner_makes_the_same_weights_again(given: Path, tmp_path: Path) -> None:
    """It dies in its last step, goes back to the checkpoint of the second, and hands out the same versions."""
    whole = job_of(tmp_path / "whole", given)
    write_rollouts(whole, given)
    wanted = learned(whole)
    assert sorted(wanted) == [1, 2, 3, 4]
    job = job_of(tmp_path / "killed", given)
    write_rollouts(job, given)

    def dying(version: int, weights: object) -> None:
        if version == STEPS:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn_rank(job, quiet, dying, 1)
    written = tmp_path / "killed" / "_scratch" / "checkpoints" / "step-00000002" / "checkpoint.json"
    deadline = time.monotonic() + 60
    while not written.exists():  # by a thread, which a real kill would have taken along
        assert time.monotonic() < deadline
        time.sleep(0.01)
    again = learned(job)
    assert again == {version: wanted[version] for version in (2, 3, 4)}
    assert curve(tmp_path / "killed") == curve(tmp_path / "whole")


def test_a_step_with_nothing_to_learn_changes_nothing(given: Path, tmp_path: Path) -> None:
    job = job_of(tmp_path, given, algorithm="dapo")
    write_rollouts(job, given, rewarded=lambda answer, sample: 1.0)
    assert len(set(learned(job).values())) == 1 and apart(given, tmp_path) == 0


def test_answers_without_a_reward_are_no_samples(given: Path, tmp_path: Path) -> None:
    with_none = job_of(tmp_path / "none", given, algorithm="dr_grpo", steps=1)
    write_rollouts(with_none, given, rewarded=lambda answer, sample: None if sample == 2 else float("red" in answer))
    rows = write_rollouts(with_none, given, rewarded=lambda answer, sample: None if sample == 2 else float(sample))[0]
    kept = [row for row in rows if row["reward"] is not None]
    [[micro]] = minibatches(kept, [row["group"] for row in kept], 1, None, 0, 1, 0)
    assert sorted(micro.places_B.tolist()) == list(range(GROUPS * (SAMPLES - 1)))
    learned(with_none)
    assert curve(tmp_path / "none")[0]["tokens"] == sum(sum(row["own"]) for row in kept)


def test_lora_learns_thin_matrices_and_hands_on_a_plain_model(given: Path, tmp_path: Path) -> None:
    job = job_of(tmp_path, given, lora={"rank": 4}, kl=0.1)
    write_rollouts(job, given)
    learned(job)
    before, after = weights_of(given), weights_of(tmp_path)
    changed = {name for name, each in before.items() if not torch.equal(each, after[name])}
    assert changed and all(".layers." in name for name in changed)


def test_what_is_no_number_stops_the_run(given: Path, tmp_path: Path) -> None:
    job = job_of(tmp_path, given, algorithm="dr_grpo")
    write_rollouts(job, given, rewarded=lambda answer, sample: 1e38 * 10 ** (sample % 2))
    with pytest.raises(Diverged, match="diverged at step 1"):
        learned(job)


def test_minibatches_share_out_every_answer_once() -> None:
    rows = [
        {"ids": [1] * (3 + place % 5), "own": [0, *[1] * (2 + place % 5)], "logprobs": [0.0] * (3 + place % 5),
         "reward": 1.0} for place in range(23)
    ]  # fmt: skip
    groups = [place // 4 for place in range(23)]
    found: list[int] = []
    for rank in range(3):
        parts = minibatches(rows, groups, 2, 20, rank, 3, 0)
        assert [len(part) for part in parts] == [len(part) for part in minibatches(rows, groups, 2, 20, 0, 3, 0)]
        for part in parts:
            found += [place for micro in part for place in micro.places_B.tolist() if place >= 0]
            assert all(micro.tokens_BT.numel() <= 20 or len(micro.tokens_BT) == 1 for micro in part)
            assert all(not micro.mask_BT[micro.places_B < 0].any() for micro in part)
    assert sorted(found) == list(range(23))


def test_what_does_not_go_together_is_one_line(given: Path, tmp_path: Path) -> None:
    for wrong in ({"algorithm": "grpo", "advantage": "gae"}, {"algorithm": "ppo", "advantage": "group_std"}):
        with pytest.raises(ValueError, match="value head"):
            job_of(tmp_path, given, **wrong)
    with pytest.raises(ValueError, match="no reward nonsense; there are exact"):
        job_of(tmp_path, given, rewards={"weights": {"nonsense": 1}})
    assert issubclass(Diverged, UserError)
