"""The loop, its schedule and its line, on a model that trains in a second."""

from __future__ import annotations

import json
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from small_training import job_of, quiet, read_curve, spawn, tiny

from webtochat.recipe import Optimizer, Recipe
from webtochat.tokens.batches import Batch
from webtochat.train.line import Line, amount, duration
from webtochat.train.loop import Diverged, Plan, State, train
from webtochat.train.optimizer import adamw, learning_rate
from webtochat.train.rank import Evaluation, Note, cut, pretrain_rank


def test_the_line_reads_as_agreed() -> None:
    line = Line(401, 32000, 5.4324, 0.4128, 6e-4, None, 10_200, 0.003, 192)
    assert line.text() == (
        "step 401/32000 | loss 5.4324 | norm 0.4128 | lr 6.0e-04 | mfu n/a | 10.2k tok/s | data 0.3% | eta 3m12s"
    )
    fast = Line(401, 32000, 5.4324, 0.4128, 6e-4, 0.412, 1_020_000, 0.003, 11_520)
    assert "mfu 41.2% | 1.02M tok/s" in fast.text() and fast.text().endswith("eta 3h12m")
    assert fast.metrics()["mfu"] == pytest.approx(41.2) and "mfu" not in line.metrics()
    assert (amount(950), duration(12), duration(185_000)) == ("950", "12s", "2d03h")


def test_the_learning_rate_rises_stays_and_falls() -> None:
    at = learning_rate(Optimizer(lr=1.0, warmup_fraction=0.1, decay_fraction=0.4, final_lr_fraction=0.1), 100)
    assert at(0) == pytest.approx(0.1) and at(9) == 1.0 and at(50) == 1.0
    assert at(80) == pytest.approx(0.5 + 0.5 * 0.1) and at(99) == pytest.approx(1 / 40 + 39 / 40 * 0.1)
    assert learning_rate(Optimizer(lr=1.0, warmup_fraction=0, decay_fraction=0), 10)(0) == 1.0


def test_decay_falls_on_matrices_only() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 4, bias=False), torch.nn.RMSNorm(4))
    groups = adamw(dict(model.named_parameters()), Optimizer(weight_decay=0.3)).param_groups
    assert {tuple(p.shape): group["weight_decay"] for group in groups for p in group["params"]} == {
        (4, 4): 0.3, (4,): 0.0,
    }  # fmt: skip


def test_embeddings_may_learn_faster_and_decay_as_much() -> None:
    model = torch.nn.ModuleDict({"embed_tokens": torch.nn.Embedding(4, 2), "inner": torch.nn.Linear(2, 2, bias=False)})
    ends, inner = adamw(dict(model.named_parameters()), Optimizer(weight_decay=0.3, embedding_lr=3)).param_groups
    assert (ends["times"], inner["times"]) == (3.0, 1.0)
    assert ends["times"] * ends["weight_decay"] == pytest.approx(inner["weight_decay"])
    assert ends["params"] == [model["embed_tokens"].weight]


def test_the_loss_falls_and_validation_is_told_before_and_after(workspace: Path, tmp_path: Path) -> None:
    told: list[object] = []
    state = pretrain_rank(job_of(tiny(workspace), tmp_path), told.append, 1)
    losses = [point["loss"] for point in state.curve if "loss" in point]
    assert state.step == 60 and len(losses) == 60
    assert losses[0] > 5 and losses[-1] < 1
    evaluations = [each for each in told if isinstance(each, Evaluation)]
    assert [each.step for each in evaluations] == [0, 20, 40, 60]
    # At the start every token costs log2(vocabulary) bits, more or less.
    assert evaluations[0].metrics["validation_loss"] == pytest.approx(np.log(512), rel=0.1)
    assert evaluations[-1].metrics["validation_bpb"] < 0.15 * evaluations[0].metrics["validation_bpb"]
    assert "→" in evaluations[-1].sample
    lines = [each for each in told if isinstance(each, Line)]
    assert lines[-1].step == 60 and lines[-1].tokens_per_second > 0 and 0 <= lines[-1].data < 1


def test_accumulation_gives_the_same_curve(workspace: Path, tmp_path: Path) -> None:
    """A batch in one pass or in parts of two windows: the same gradient but for rounding."""
    recipe = tiny(workspace, pretrain={"tokens": 20 * 256})
    whole = pretrain_rank(job_of(recipe, tmp_path / "whole"), quiet, 1)
    parts = pretrain_rank(job_of(recipe, tmp_path / "parts", device_batch_tokens=64), quiet, 1)
    assert losses_of(parts) == pytest.approx(losses_of(whole), abs=1e-5)


@pytest.mark.parametrize("way", ["compile", "recompute"])
def test_compiled_or_recomputed_it_learns_the_same(workspace: Path, tmp_path: Path, way: str) -> None:
    recipe = tiny(workspace, pretrain={"tokens": 10 * 256, "evaluate_every": 0})
    plain = pretrain_rank(job_of(recipe, tmp_path / "plain"), quiet, 1)
    other = pretrain_rank(job_of(recipe, tmp_path / "other", **{way: True}), quiet, 1)
    assert losses_of(other) == pytest.approx(losses_of(plain), abs=1e-5)
    assert (tmp_path / "other" / "model" / "config.json").is_file()


def test_a_share_is_cut_into_passes() -> None:
    batch = Batch(*(torch.arange(5 * 8).view(5, 8) + number for number in range(4)))
    parts = cut(batch, 16, torch.device("cpu"))
    assert [len(part.tokens_BT) for part in parts] == [2, 2, 1]
    assert torch.equal(torch.cat([part.documents_BT for part in parts]), batch.documents_BT)
    assert len(cut(batch, 1, torch.device("cpu"))) == 5 and len(cut(batch, None, torch.device("cpu"))) == 1


@pytest.mark.parametrize(("bad", "at", "spike", "told"), [
    (float("nan"), 7, None, r"diverged at step 8 \(loss nan, "),
    (100.0, 77, 5.0, r"diverged at step 78 \(loss \d+\.\d+, 1\.0000 before, "),
])  # fmt: skip
def test_a_loss_that_is_no_number_or_jumps_stops_the_run_and_is_not_saved(
    bad: float, at: int, spike: float | None, told: str
) -> None:
    model = torch.nn.Linear(2, 1)
    saved: list[int] = []

    def loss(model: torch.nn.Module, micro: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return model(torch.zeros(1, 2)).sum() * 0 + micro.sum(), torch.tensor(1.0)

    def batches(consumed: int) -> list[torch.Tensor]:
        return [torch.tensor(bad if consumed == at else 1.0)]

    with pytest.raises(Diverged, match=told) as stopped:
        train(
            model=model, optimizers=[torch.optim.SGD(model.parameters(), lr=0.1)], lr_at=lambda step: 0.1,
            batches=batches, loss=loss, plan=Plan(100, 1, 1, 1.0, 0, 5, spike=spike), state=State(),
            save=lambda state: saved.append(state.step), evaluate=lambda state: {}, log=quiet,
        )  # fmt: skip
    assert saved == list(range(5, at, 5))
    again = pickle.loads(pickle.dumps(stopped.value))  # as it comes back from a worker
    assert str(again) == str(stopped.value) and again.step == at + 1


def test_the_documents_of_a_step_that_diverges_are_told(workspace: Path, tmp_path: Path) -> None:
    recipe = tiny(workspace, pretrain={"lr": 1e30, "clip": 1e30})
    told: list[object] = []
    with pytest.raises(Diverged) as stopped:
        pretrain_rank(job_of(recipe, tmp_path), told.append, 1)
    assert any(isinstance(each, Note) and "diverged.json" in each.text for each in told)
    written = json.loads((tmp_path / "_scratch" / "diverged.json").read_text())
    assert written["step"] == stopped.value.step
    assert len(written["windows"]) == 8
    for each in written["windows"]:
        assert set(each) == {"corpus", "window", "documents"} and each["documents"]
        assert each["corpus"] == str(workspace / "tiny" / "tokens")


def losses_of(state: State) -> list[float]:
    return [point["loss"] for point in state.curve if "loss" in point]


def by_two(recipe: Recipe, directory: Path, shard: bool) -> None:
    # Sharded, in passes of two windows as well: gradients are put together after the last.
    spawn(pretrain_rank, job_of(recipe, directory, shard=shard, device_batch_tokens=64 if shard else None))


@pytest.mark.parametrize("shard", [False, True])
def test_two_workers_learn_what_one_does(workspace: Path, tmp_path: Path, shard: bool) -> None:
    """DDP and FSDP2 over gloo; nine windows a step, so the second worker's last one has weight zero."""
    recipe = tiny(workspace, pretrain={"tokens": 20 * 288, "batch_tokens": 288})
    one = pretrain_rank(job_of(recipe, tmp_path / "one"), quiet, 1)
    by_two(recipe, tmp_path / "two", shard)
    curve = [point for point in read_curve(tmp_path / "two") if "loss" in point]
    assert len(curve) == 20
    assert [point["loss"] for point in curve] == pytest.approx(losses_of(one), abs=1e-5)
    assert read_curve(tmp_path / "two")[-1]["validation_bpb"] == pytest.approx(
        one.curve[-1]["validation_bpb"], abs=1e-5
    )
    # A checkpoint of two workers serves one: nothing is left to train, so the same model comes out.
    again = pretrain_rank(job_of(recipe, tmp_path / "two"), quiet, 1)
    assert again.step == 20 and Counter(map(str, again.curve)) == Counter(map(str, read_curve(tmp_path / "two")))


def test_as_many_workers_as_there_are_go_on_where_others_stopped(workspace: Path, tmp_path: Path) -> None:
    """One worker, two with a share each, two with all of it, and one again: the curve of one that was left alone."""

    def until(step: int) -> Recipe:
        settings = {"tokens": step * 288, "batch_tokens": 288, "warmup_fraction": 0.0, "decay_fraction": 0.0}
        return tiny(workspace, pretrain=settings | {"evaluate_every": 0, "checkpoint_every": 5})

    alone = pretrain_rank(job_of(until(150), tmp_path / "alone"), quiet, 1)
    pretrain_rank(job_of(until(40), tmp_path / "together"), quiet, 1)
    by_two(until(80), tmp_path / "together", shard=True)
    by_two(until(120), tmp_path / "together", shard=False)
    together = pretrain_rank(job_of(until(150), tmp_path / "together"), quiet, 1)
    assert together.step == 150 and losses_of(together) == pytest.approx(losses_of(alone), abs=1e-5)
