"""Plans: counted from the structure, held against counters."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from webtochat import recipe
from webtochat.errors import UserError
from webtochat.model.config import ModelConfig
from webtochat.model.transformer import Transformer
from webtochat.recipe import Model, Pretrain, Recipe
from webtochat.train.optimizer import at_width
from webtochat.train.plan import activation_bytes, budget, plan, table

RECIPES = Path(__file__).resolve().parents[2] / "recipes"


@pytest.mark.parametrize(("name", "devices", "parameters", "hours"), [
    ("one-gpu", 1, 124e6, 12), ("gpt2", 8, 480e6, 6), ("1b", 32, 1.15e9, 12), ("demo", 1, 1.93e6, 1),
])  # fmt: skip
def test_every_recipe_has_a_plan_and_a_model(name: str, devices: int, parameters: float, hours: float) -> None:
    made = plan(recipe.load(str(RECIPES / f"{name}.yaml")), devices, "H100", 0.4)
    with torch.device("meta"):
        model = Transformer(made.config)
    assert sum(each.numel() for each in model.parameters()) == made.config.parameters
    assert made.config.parameters == pytest.approx(parameters, rel=0.03) and 0 < made.hours < hours
    assert all(what and much for what, much in table(made))


def test_activations_are_those_that_autograd_holds() -> None:
    config = ModelConfig.of(Model(depth=6, width=192, head_size=64, max_positions=64), 32)
    model = Transformer(config, seed=1)
    tokens_BT = torch.zeros(4, 64, dtype=torch.long)
    weights = {each.untyped_storage().data_ptr() for each in model.parameters()}
    held: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        hidden_BTD = model.hidden(tokens_BT)
    assert hidden_BTD.requires_grad
    assert activation_bytes(config, 4 * 64, cuda=False) == pytest.approx(sum(held.values()), rel=0.05)


def settings(**sections: dict) -> Recipe:
    return Recipe.model_validate({"name": "r", "tokens": {"sequence_length": 512}, **sections})


def test_hours_and_steps() -> None:
    made = plan(settings(pretrain={"tokens": 1_000_000, "batch_tokens": 8192}), 2, "NVIDIA A100-SXM4-80GB", 0.5)
    assert (made.steps, made.tokens, made.device_tokens, made.passes) == (123, 123 * 8192, 4096, 1)
    assert made.hours == pytest.approx(made.flops / (2 * 312e12 * 0.5) / 3600)
    # 16 windows on 3 devices: one has 6 and the others wait for it.
    three = plan(settings(pretrain={"tokens": 1_000_000, "batch_tokens": 8192}), 3, "A100", 0.5)
    assert three.hours == pytest.approx(made.hours * 2 / 3 * 18 / 16)
    parts = plan(settings(pretrain={"batch_tokens": 8192}, cluster={"device_batch_tokens": 1024}), 1, "L4", 0.5)
    assert (parts.device_tokens, parts.passes) == (1024, 8)


def test_a_budget_by_the_models_size() -> None:
    """One function for the plan and the stage: whole steps that first reach it."""
    by_size = settings(model={"depth": 4}, pretrain={"tokens_per_parameter": 20, "batch_tokens": 8192})
    made = plan(by_size, 1, "H100", 0.4)
    assert (8192 // 512, made.steps) == budget(by_size, made.config)
    assert made.tokens - made.step_tokens < 20 * made.config.parameters <= made.tokens


def test_a_learning_rate_by_the_models_width() -> None:
    given = Pretrain(lr=1e-2, lr_width=96)
    assert (at_width(given, 96).lr, at_width(given, 192).lr) == (1e-2, 5e-3)
    assert at_width(Pretrain(lr=1e-2), 192).lr == 1e-2


@pytest.mark.parametrize(("sections", "device", "told"), [
    ({}, "Babbage", "--device Babbage is not in the table"),
    ({"tokens": {"sequence_length": 4096}}, "L4", "more than model.max_positions"),
    ({"model": {"depth": 24}, "pretrain": {"batch_tokens": 1 << 20}}, "L4", r"cluster\.device_batch_tokens=\d+ fits"),
    ({"model": {"depth": 64}}, "L4", "lower model.depth, set cluster.shard or take"),
])  # fmt: skip
def test_what_cannot_be(sections: dict, device: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        plan(settings(**sections), 1, device, 0.4)


def test_sharded_it_takes_less() -> None:
    large = {"model": {"depth": 40}, "pretrain": {"batch_tokens": 1 << 16}, "cluster": {"shard": True}}
    assert plan(settings(**large), 64, "H100", 0.4).states < plan(settings(**large), 8, "H100", 0.4).states < 60e9
    with pytest.raises(UserError, match=r"set cluster\.shard"):
        plan(settings(**large | {"cluster": {}}), 64, "H100", 0.4)


def test_what_is_said_to_fit_fits() -> None:
    large = {"model": {"depth": 24}, "pretrain": {"batch_tokens": 1 << 20}}
    with pytest.raises(UserError) as told:
        plan(settings(**large), 1, "L4", 0.4)
    fits = int(str(told.value).rsplit("device_batch_tokens=", 1)[1].split()[0])
    plan(settings(**large, cluster={"device_batch_tokens": fits}), 1, "L4", 0.4)
    with pytest.raises(UserError):
        plan(settings(**large, cluster={"device_batch_tokens": fits + 512}), 1, "L4", 0.4)


def test_recomputation_lets_a_larger_batch_fit() -> None:
    config = ModelConfig.of(Model(depth=24), 32_768)
    assert activation_bytes(config, 2048, recompute=True) < activation_bytes(config, 2048) / 7
    large = {"model": {"depth": 24}, "pretrain": {"batch_tokens": 16_384}}
    with pytest.raises(UserError, match="do not fit"):
        plan(settings(**large), 1, "L4", 0.4)
    assert plan(settings(**large, cluster={"recompute": True}), 1, "L4", 0.4).passes == 1
