"""The transformer is transformers' Qwen3, number for number."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from webtochat.errors import UserError
from webtochat.model import export
from webtochat.model.config import ModelConfig, device_peak
from webtochat.model.generate import generate
from webtochat.model.transformer import Transformer, attend, block_mask, document_mask
from webtochat.recipe import Model
from webtochat.tokens import tokenizer as bpe

PATTERN = r"\p{N}| ?\p{L}+|\s+|[^\s\p{L}\p{N}]+"


def small(**changes: object) -> ModelConfig:
    model = Model(**{"depth": 2, "width": 64, "head_size": 16, "max_positions": 64, **changes})  # type: ignore[arg-type]
    return ModelConfig.of(model, 300)


@pytest.mark.parametrize("changes", [{}, {"tie_embeddings": False, "rope_theta": 1e6}, {"heads": 4, "kv_heads": 2}])
def test_logits_agree_with_transformers(tmp_path: Path, changes: dict) -> None:
    from transformers import AutoModelForCausalLM

    tokenizer = bpe.train(["some words here"], 300, PATTERN)
    model = Transformer(small(**changes), seed=3).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # norms that are not all ones
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    export.export(model, tokenizer, str(tmp_path))
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    assert type(theirs).__name__ == "Qwen3ForCausalLM"
    tokens_BT = torch.randint(0, 300, (3, 40), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        assert (model(tokens_BT) - theirs(tokens_BT).logits).abs().max() < 1e-5
        again = export.load(str(tmp_path)).eval()
        assert torch.equal(again(tokens_BT), model(tokens_BT))


@pytest.mark.parametrize("tied", [True, False])
def test_parameters_are_counted_from_the_structure(tied: bool) -> None:
    config = small(tie_embeddings=tied, heads=4, kv_heads=2)
    assert config.parameters == sum(parameter.numel() for parameter in Transformer(config).parameters())


def test_flops_are_those_of_a_counter() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    config = small()
    model = Transformer(config, seed=1)
    tokens_BT = torch.zeros(2, 64, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        torch.nn.functional.cross_entropy(model(tokens_BT).flatten(0, 1), tokens_BT.flatten()).backward()
    counted = counter.get_total_flops() / tokens_BT.numel()
    # The counter takes the whole T × T square of attention; ours is causal, half of it.
    attention = 6 * config.depth * config.heads * config.head_size * 64
    assert counted == pytest.approx(config.flops_per_token(64) + attention, rel=0.12)


def test_attention_stays_within_documents() -> None:
    model = Transformer(small(), seed=1).eval()
    first, second = torch.randint(0, 300, (1, 7)), torch.randint(0, 300, (1, 9))
    documents_BT = torch.tensor([[0] * 7 + [1] * 9])
    with torch.no_grad():
        packed = model(torch.cat([first, second], 1), documents_BT)
        alone = model(first)
    assert torch.allclose(packed[:, :7], alone, atol=1e-5)
    mask = document_mask(documents_BT)[0, 0]
    assert not mask[7:, :7].any() and not mask[:7, 7:].any() and mask.diagonal().all()


def test_the_loss_is_cross_entropy_and_skips_what_bears_none() -> None:
    model = Transformer(small(), seed=1)
    tokens_BT, targets_BT = torch.randint(0, 300, (2, 3, 30)).unbind()
    targets_BT[0, :10] = -100
    chunked = model(tokens_BT, None, targets_BT)
    plain = torch.nn.functional.cross_entropy(model(tokens_BT).flatten(0, 1), targets_BT.flatten(), reduction="sum")
    assert chunked.item() == pytest.approx(plain.item(), rel=1e-5)
    chunked.backward()
    ours = model.model.layers[0].mlp.up_proj.weight.grad.clone()
    model.zero_grad()
    plain.backward()
    assert torch.allclose(ours, model.model.layers[0].mlp.up_proj.weight.grad, atol=1e-4)


def test_another_shape_is_refused_in_one_line(tmp_path: Path) -> None:
    tokenizer = bpe.train(["some words here"], 300, PATTERN)
    export.export(Transformer(small(), seed=1), tokenizer, str(tmp_path))
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "intermediate_size": 64}))
    with pytest.raises(UserError, match=r"mlp.*\[.*\], not \[.*\]"):
        export.load(str(tmp_path))
    with pytest.raises(UserError, match=r"config\.json is missing"):
        export.load(str(tmp_path / "nowhere"))
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 1}))
    with pytest.raises(UserError, match=r"layers\.1.* besides"):
        export.load(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps(config))
    weights = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights[:-100])
    with pytest.raises(UserError, match="damaged"):
        export.load(str(tmp_path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "llama"}, "only qwen3"), ({"attention_bias": True}, "biases"),
        ({"hidden_act": "gelu"}, "gelu"), ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "scaled"),
        ({"head_dim": None}, "head_dim"),
    ],
)  # fmt: skip
def test_what_it_would_compute_otherwise_is_not_imported(changes: dict, message: str) -> None:
    config = small().to_hugging_face(1, 2, 3) | changes
    config = {key: value for key, value in config.items() if value is not None}
    with pytest.raises(UserError, match=message):
        ModelConfig.from_hugging_face(config)


def test_heads_must_divide() -> None:
    with pytest.raises(UserError, match=r"multiple of model\.kv_heads"):
        small(heads=4, kv_heads=3)
    with pytest.raises(UserError, match="even"):
        small(head_size=15)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_both_masks_are_one() -> None:
    """FlexAttention's blocks, as CUDA gets them, against the dense mask (forward: it has no backward on CPU)."""
    documents_BT = torch.tensor([[0] * 40 + [1] * 100 + [2] * 60, [0] * 150 + [1] * 50])
    q, k, v = torch.randn(2, 4, 200, 32), torch.randn(2, 2, 200, 32), torch.randn(2, 2, 200, 32)
    with torch.no_grad():
        difference = attend(q, k, v, block_mask(documents_BT)) - attend(q, k, v, document_mask(documents_BT))
    assert difference.abs().max() < 1e-5


def test_initialisation_is_the_seed_s() -> None:
    one, two, other = (Transformer(small(), seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["model.embed_tokens.weight"], other["model.embed_tokens.weight"])


def test_blocks_may_begin_by_passing_on_what_they_get() -> None:
    model = Transformer(small(), seed=1, zero_residual=True)
    x_BTD = torch.randn(2, 8, 64)
    rotary = model._rotary_of(8, x_BTD.device)
    assert all(torch.equal(block(x_BTD, rotary, None), x_BTD) for block in model.model.layers)


def test_generate_stops() -> None:
    model = Transformer(small(), seed=1)
    free = generate(model, [5, 6], 8)
    assert len(free) == 8 and generate(model, [5, 6], 8, frozenset({free[2]}))[-1] == free[2]
    assert generate(model, [5], 8, temperature=1.0, seed=4) == generate(model, [5], 8, temperature=1.0, seed=4)


def test_a_device_is_known_or_none() -> None:
    assert device_peak("NVIDIA H100 80GB HBM3") == 989e12
    assert device_peak("NVIDIA H100 PCIe") == 756e12
    assert device_peak("Some CPU") is None
