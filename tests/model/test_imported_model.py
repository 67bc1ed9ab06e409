"""A Qwen3 checkpoint comes in and goes out as transformers computes it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tests.model import qwen

from webtochat.errors import UserError
from webtochat.model import export
from webtochat.model.imported import Given
from webtochat.recipe import Recipe
from webtochat.train.rank import import_rank


def given(directory: Path, **pretrain: object) -> Given:
    recipe = Recipe.model_validate({"name": "x", "pretrain": {"start": str(directory), "tokens": 0, **pretrain}})
    found = Given.of(recipe)
    assert found is not None
    return found


@pytest.mark.parametrize("tied", [True, False])
def test_logits_are_transformers_before_and_after(tmp_path: Path, tied: bool) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    theirs = AutoModelForCausalLM.from_pretrained(
        qwen.save_model(tmp_path / "given", tied=tied), dtype=torch.float32
    ).eval()
    model, tokenizer = given(tmp_path / "given").loaded()
    assert len(model.model.embed_tokens.weight) == 512 > tokenizer.vocabulary
    import_rank(str(tmp_path), given(tmp_path / "given"))
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32).eval()
    tokens_BT = torch.randint(0, tokenizer.vocabulary, (3, 40), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        told = theirs(tokens_BT).logits
        for ours in (model.eval()(tokens_BT), again(tokens_BT).logits):
            assert (ours - told).abs().max() < 1e-5
    words = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert words.chat_template == qwen.template() and words.encode("Ann lives") == tokenizer.encode("Ann lives")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    generation = json.loads((tmp_path / "model" / "generation_config.json").read_text())
    end, separator = words.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    assert (config["eos_token_id"], config["pad_token_id"], config["vocab_size"]) == (end, separator, 512)
    assert generation["eos_token_id"] == [end, separator]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("spare", [0, 1, 100])
def test_markers_that_are_added_begin_as_the_mean(tmp_path: Path, tied: bool, spare: int) -> None:
    """In rows to spare, or in new ones. What the model says otherwise is unchanged."""
    ids = qwen.save_tokenizer(tmp_path / "probe", plain=[])
    rows = ids + spare
    qwen.save_model(tmp_path / "given", tied=tied, rows=rows, plain=[], chat_template=qwen.template(False))
    before, _ = given(tmp_path / "given").loaded()
    after, tokenizer = given(tmp_path / "given", add_markers=True).loaded()
    assert tokenizer.vocabulary == ids + 4 and after.config.vocabulary == max(rows, ids + 4)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        old, new = before.state_dict()[name], after.state_dict()[name]
        assert len(new) == after.config.vocabulary and torch.equal(new[:ids], old[:ids])
        assert torch.equal(new[ids : ids + 4], old[:ids].mean(0).expand(4, -1))
        assert torch.equal(new[ids + 4 :], old[ids + 4 :])
    assert (after.lm_head.weight is after.model.embed_tokens.weight) == tied
    tokens_BT = torch.randint(0, ids, (1, 20))
    with torch.no_grad():
        assert torch.allclose(before.eval()(tokens_BT)[..., :ids], after.eval()(tokens_BT)[..., :ids], atol=1e-6)
    import_rank(str(tmp_path), given(tmp_path / "given", add_markers=True))
    again = export.load(str(tmp_path / "model"))
    assert torch.equal(again.lm_head.weight, after.lm_head.weight)


def test_what_does_not_belong_together_is_one_line(tmp_path: Path) -> None:
    qwen.save_model(tmp_path / "given", rows=300)
    with pytest.raises(UserError, match=r"embeddings of 300 ids and a tokenizer of \d+: take both from one model"):
        given(tmp_path / "given").loaded()
    qwen.save_model(tmp_path / "torn")
    next((tmp_path / "torn").glob("model-00002-*")).unlink()
    with pytest.raises(UserError, match="does not fit the model: it has no "):
        given(tmp_path / "torn").loaded()
    (tmp_path / "torn" / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"no tokenizer\.json"):
        given(tmp_path / "torn").described()


def test_a_recipe_may_not_say_otherwise_than_the_checkpoint(tmp_path: Path) -> None:
    qwen.save_model(tmp_path)
    config, _ = given(tmp_path).described()
    for model in ({}, {"width": 64, "depth": 2, "seed": 7}, {"heads": None}):
        config.agrees(Recipe.model_validate({"name": "x", "model": model}).model)
    with pytest.raises(UserError, match=r"^model\.depth=4, but the model of pretrain.start has 2: leave it out "):
        config.agrees(Recipe.model_validate({"name": "x", "model": {"depth": 4}}).model)
    with pytest.raises(ValueError, match="tokens=0 trains nothing"):
        Recipe.model_validate({"name": "x", "pretrain": {"tokens": 0}})


def test_a_run_from_it_is_planned_by_its_own_shape(tmp_path: Path) -> None:
    from webtochat.train.plan import plan

    qwen.save_model(tmp_path)
    made = plan(
        Recipe.model_validate({
            "name": "x", "tokens": {"sequence_length": 128}, "pretrain": {"start": str(tmp_path), "tokens": 10_000},
        }), 1, "H100", 0.4,
    )  # fmt: skip
    assert (made.config.width, made.config.vocabulary) == (64, 512)
