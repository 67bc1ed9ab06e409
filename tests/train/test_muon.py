"""Muon: orthogonal steps, on the matrices it is for, exact on the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_training import job_of, quiet, tiny

from webtochat.model.config import ModelConfig
from webtochat.model.transformer import Transformer
from webtochat.recipe import Model, Optimizer
from webtochat.train.loop import State
from webtochat.train.optimizer import Muon, optimizers, orthogonal
from webtochat.train.rank import pretrain_rank


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 8, 24), (2, 24, 8)])
def test_all_singular_values_come_near_one(shape: tuple[int, ...]) -> None:
    found = orthogonal(torch.randn(shape, generator=torch.Generator().manual_seed(1)))
    assert found.shape == shape and found.dtype == torch.float32
    values = torch.linalg.svdvals(found)
    assert values.min() > 0.4 and values.max() < 1.3
    assert torch.equal(orthogonal(torch.zeros(1, 4, 4)), torch.zeros(1, 4, 4))


def test_matrices_of_the_blocks_go_to_muon_and_the_rest_to_adamw() -> None:
    model = Transformer(ModelConfig.of(Model(depth=2, width=32, head_size=16, tie_embeddings=False), 64), seed=1)
    muon, other = optimizers(model, Optimizer(optimizer="muon"))
    names = {id(each): name for name, each in model.named_parameters()}
    mine = {names[id(each)] for group in muon.param_groups for each in group["params"]}
    rest = {names[id(each)] for group in other.param_groups for each in group["params"]}
    assert len(mine) == 2 * 7 and all(".layers." in name and "norm" not in name for name in mine)
    assert mine | rest == set(names.values()) and not mine & rest
    assert len(optimizers(model, Optimizer())) == 1


def test_a_step_is_as_large_as_one_of_adamw() -> None:
    weight = torch.nn.Parameter(torch.zeros(64, 32))
    weight.grad = torch.randn(64, 32, generator=torch.Generator().manual_seed(2)) * 1e-6
    Muon([weight], lr=0.01, weight_decay=0.0).step()
    assert weight.detach().square().mean().sqrt() == pytest.approx(0.01 * 0.2, rel=0.25)


def losses_of(state: State) -> list[float]:
    return [point["loss"] for point in state.curve if "loss" in point]


def test_it_learns_and_a_batch_in_parts_gives_the_same_curve(workspace: Path, tmp_path: Path) -> None:
    recipe = tiny(workspace, pretrain={"tokens": 150 * 256, "optimizer": "muon", "evaluate_every": 0})
    whole = pretrain_rank(job_of(recipe, tmp_path / "whole"), quiet, 1)
    parts = pretrain_rank(job_of(recipe, tmp_path / "parts", device_batch_tokens=64), quiet, 1)
    assert losses_of(whole)[-1] < 1
    assert losses_of(parts) == pytest.approx(losses_of(whole), abs=1e-4)


def test_killed_it_goes_on_the_same(workspace: Path, tmp_path: Path) -> None:
    settings = {"optimizer": "muon", "warmup_fraction": 0.0, "decay_fraction": 0.0, "evaluate_every": 0}
    whole = tiny(workspace, pretrain=settings | {"tokens": 30 * 256})
    half = tiny(workspace, pretrain=settings | {"tokens": 10 * 256})
    alone = pretrain_rank(job_of(whole, tmp_path / "alone"), quiet, 1)
    pretrain_rank(job_of(half, tmp_path / "again"), quiet, 1)
    again = pretrain_rank(job_of(whole, tmp_path / "again"), quiet, 1)
    assert losses_of(again) == losses_of(alone)


def test_an_unknown_optimizer_is_refused() -> None:
    with pytest.raises(ValueError, match="optimizer"):
        Optimizer(optimizer="adam")  # type: ignore[arg-type]
