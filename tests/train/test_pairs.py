"""Pairs to windows, the loss of Bradley and Terry, and the training of a reward model by it."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from small_training import quiet, read_curve, spawn

from webtochat.model.config import ModelConfig
from webtochat.model.export import export
from webtochat.model.reward import RewardModel
from webtochat.model.transformer import Transformer
from webtochat.recipe import LoRA, Model, Reward
from webtochat.tokens.batches import collate
from webtochat.tokens.preferences import Preference
from webtochat.tokens.tokenizer import Tokenizer
from webtochat.train.pairs import (
    PackedPairs,
    bradley_terry,
    encoded,
    held_out_metrics,
    is_held_out,
    pack_pairs,
)  # fmt: skip
from webtochat.train.rank import FineTuneJob, read_windows, reward_rank, write_windows

LENGTH = 96


def preference(number: int, margin: float = 0.0) -> Preference:
    """Who names the town is chosen."""
    prompt = [{"role": "user", "content": f"Where does Ann live {number}?"}]
    return Preference(prompt, "Ann lives in Rome." * (1 + number % 3), "Ann has two cats.", "test", margin)


def pairs_of(tokenizer: Tokenizer, number: int, margin: float = 0.0) -> list:
    skipped: Counter[str] = Counter()
    found = encoded(tokenizer, [preference(each, margin) for each in range(number)], 64, LENGTH, skipped)
    assert len(found) == number and not skipped
    return found


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Path:
    directory = tmp_path_factory.mktemp("base")
    shape = ModelConfig.of(Model(depth=2, width=32, head_size=16, max_positions=64), tokenizer.vocabulary)
    export(Transformer(shape, seed=1), tokenizer, str(directory / "model"))
    return directory


@pytest.fixture(scope="module")
def windows(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> str:
    found = pairs_of(tokenizer, 48)
    split = [[each for each in found if is_held_out(each.preference, 25) == held] for held in (False, True)]
    path = str(tmp_path_factory.mktemp("windows") / "windows.npz")
    write_windows(path, *(pack_pairs(each, LENGTH, 1.0, tokenizer.pad, 1) for each in split))
    return path


def job_of(base: Path, windows: str, directory: Path, steps: int, **changes: object) -> FineTuneJob:
    settings = Reward(
        data=[], answers={"prompts": [], "judge": "python:a:b"}, checkpoint_every=10, evaluate_every=20,
        **({"lr": 3e-3, "decay_fraction": 0.0, "warmup_fraction": 0.0} | changes.pop("settings", {})),  # type: ignore
    )  # fmt: skip
    return FineTuneJob(
        directory=str(directory), settings=settings, sequence_length=LENGTH, windows_per_step=4, steps=steps,
        base=(str(base), "-"), windows=windows, **changes,  # type: ignore[arg-type]
    )  # fmt: skip


def test_every_pair_stands_once_and_whole(tokenizer: Tokenizer) -> None:
    found = pairs_of(tokenizer, 20, margin=0.5)
    packed = pack_pairs(found, LENGTH, 2.0, tokenizer.pad, 1)
    seen = Counter()
    for number in range(len(packed)):
        tokens, partners, weights, documents = packed.window(number)
        for end in np.flatnonzero(partners):
            other = partners[end]
            answers = [tokens[documents == documents[place]].tolist() for place in (end, other)]
            seen[tuple(map(tuple, answers))] += 1
            assert tokens[end] == tokens[other] == tokenizer.stops[0]
            assert (weights[end], weights[other]) == (1.0, 1.0)  # a margin of 2.0 × 0.5
    assert seen == {(tuple(pair.chosen), tuple(pair.rejected)): 1 for pair in found}
    assert packed.weights.sum() == 2 * len(found)


def test_what_does_not_fit_is_counted(tokenizer: Tokenizer) -> None:
    """An answer may take all the model's positions, and the pair a window of more."""
    skipped: Counter[str] = Counter()
    (whole,) = pairs_of(tokenizer, 1)
    most = max(len(whole.chosen), len(whole.rejected))
    for positions, length in ((most - 1, whole.length), (most, whole.length - 1)):
        assert encoded(tokenizer, [preference(0)], positions, length, skipped) == []
    assert encoded(tokenizer, [preference(0)], most, whole.length, skipped) == [whole]
    broken = Preference([{"role": "judge", "content": "?"}], "Yes.", "No.", "test")
    assert encoded(tokenizer, [broken], 64, LENGTH, skipped) == []
    assert skipped == {"too_long": 2, "unknown_role": 1}


def test_the_loss_is_that_of_each_pair_alone(base: Path, tokenizer: Tokenizer) -> None:
    """Whatever stands beside it in the window; less what the margin asks for."""
    model = RewardModel.begun(str(base / "model"), seed=1)
    found = pairs_of(tokenizer, 6, margin=0.5)
    packed = pack_pairs(found, LENGTH, 2.0, tokenizer.pad, 1)
    total, weight = bradley_terry(model, collate([packed.window(number) for number in range(len(packed))]))
    scores = model.scores_of([ids for pair in found for ids in (pair.chosen, pair.rejected)])
    alone = [
        math.log1p(math.exp(-(chosen - rejected - 1.0)))
        for chosen, rejected in zip(scores[::2], scores[1::2], strict=True)
    ]
    assert weight == len(found) and total.item() == pytest.approx(sum(alone), rel=1e-5)
    assert bradley_terry(model, collate([packed.window(0)._replace(weights=np.zeros(LENGTH))]))[1] == 0


def test_held_out_metrics_are_of_the_pairs(base: Path, tokenizer: Tokenizer) -> None:
    model = RewardModel.begun(str(base / "model"), seed=1)
    found = pairs_of(tokenizer, 7)
    packed = pack_pairs(found, LENGTH, 1.0, tokenizer.pad, 1)
    windows = [packed.window(number) for number in range(len(packed))]
    told = held_out_metrics(model, windows, 2, torch.device("cpu"))
    scores = np.array(model.scores_of([ids for pair in found for ids in (pair.chosen, pair.rejected)])).reshape(-1, 2)
    assert told["validation_accuracy"] == pytest.approx(np.mean(scores[:, 0] > scores[:, 1]))
    assert told["validation_chosen"] == pytest.approx(scores[:, 0].mean(), abs=1e-5)
    assert told["validation_margin"] == pytest.approx(np.mean(scores[:, 0] - scores[:, 1]), abs=1e-5)


def test_what_goes_on_from_a_prompt_is_held_out_with_it() -> None:
    first = {"role": "user", "content": "Hi."}
    more = [first, {"role": "assistant", "content": "Hello."}, {"role": "user", "content": "How are you?"}]
    for percent in range(0, 100, 7):
        sides = {is_held_out(Preference(prompt, "a", "b", "test"), percent) for prompt in ([first], more)}
        assert len(sides) == 1
    assert 20 < sum(is_held_out(preference(number), 25) for number in range(200)) < 80


def test_it_learns_what_is_chosen_and_goes_on_from_a_checkpoint(base: Path, windows: str, tmp_path: Path) -> None:
    reward_rank(job_of(base, windows, tmp_path / "whole", 40), quiet, 1)
    curve = read_curve(tmp_path / "whole")
    evaluated = [point for point in curve if "validation_accuracy" in point]
    assert evaluated[-1]["validation_accuracy"] == 1.0 and evaluated[-1]["validation_margin"] > 2
    for steps in (20, 40):
        reward_rank(job_of(base, windows, tmp_path / "parts", steps), quiet, 1)
    whole, parts = (RewardModel.load(str(tmp_path / each / "model")) for each in ("whole", "parts"))
    assert all(torch.equal(one, two) for one, two in zip(whole.parameters(), parts.parameters(), strict=True))


@pytest.mark.parametrize("shard", [False, True])
def test_two_workers_end_with_the_weights_of_one(base: Path, windows: str, tmp_path: Path, shard: bool) -> None:
    """DDP, and FSDP2 with LoRA, over gloo; passes of one window, so that some are empty."""
    settings = {"settings": {"lora": LoRA(rank=4) if shard else None}}
    reward_rank(job_of(base, windows, tmp_path / "one", 12, **settings), quiet, 1)
    two = job_of(base, windows, tmp_path / "two", 12, shard=shard, device_batch_tokens=LENGTH, **settings)
    spawn(reward_rank, two)
    before = RewardModel.begun(str(base / "model"), seed=1)
    one, two = (RewardModel.load(str(tmp_path / each / "model")) for each in ("one", "two"))
    apart = [(new - old).abs().max() for new, old in zip(one.parameters(), two.parameters(), strict=True)]
    assert max(apart) < 1e-5
    moved = {name for (name, new), old in zip(one.named_parameters(), before.parameters(), strict=True)
             if not torch.equal(new, old)}  # fmt: skip
    assert "score.weight" in moved
    assert shard == ("model.norm.weight" not in moved)


def test_windows_are_read_as_they_were_written(windows: str) -> None:
    training, validation = read_windows(windows, PackedPairs)
    assert training.sequence_length == LENGTH and len(training) > len(validation) > 0
    assert (training.partners > 0).sum() + (validation.partners > 0).sum() == 48
