"""Sizes of the transformer from one dial, its parameters and floating-point operations counted from its structure."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from webtochat.errors import UserError
from webtochat.recipe import Model


@dataclass(frozen=True)
class ModelConfig:
    vocabulary: int
    depth: int
    width: int
    heads: int
    kv_heads: int
    head_size: int
    mlp_width: int
    max_positions: int
    rope_theta: float
    norm_epsilon: float
    tie_embeddings: bool

    @staticmethod
    def of(model: Model, vocabulary: int) -> ModelConfig:
        """What the recipe leaves open follows from `depth`: width 64 × depth, an MLP of 8/3 × width."""
        width = model.width or 64 * model.depth
        heads = model.heads or max(1, width // model.head_size)
        kv_heads = model.kv_heads or heads
        if heads % kv_heads:
            raise UserError(f"model.heads ({heads}) must be a multiple of model.kv_heads ({kv_heads})")
        if model.head_size % 2:
            raise UserError(f"model.head_size ({model.head_size}) must be even: rotary positions turn pairs")
        mlp_width = model.mlp_width or -(-8 * width // 3 // 64) * 64
        return ModelConfig(
            vocabulary, model.depth, width, heads, kv_heads, model.head_size, mlp_width,
            model.max_positions, model.rope_theta, model.norm_epsilon, model.tie_embeddings,
        )  # fmt: skip

    def agrees(self, model: Model) -> None:
        """Raises UserError where a recipe says otherwise than this shape, which is a given model's."""
        for name, held in asdict(self).items():
            told = getattr(model, name, None) if name in model.model_fields_set else None
            if told not in (None, held):
                raise UserError(
                    f"model.{name}={told}, but the model of pretrain.start has {held}: leave it out (model={{}} leaves "
                    "out all)"
                )

    @property
    def parameters(self) -> int:
        attention = self.width * self.head_size * (2 * self.heads + 2 * self.kv_heads) + 2 * self.head_size
        block = attention + 3 * self.width * self.mlp_width + 2 * self.width
        embeddings = self.vocabulary * self.width * (1 if self.tie_embeddings else 2)
        return self.depth * block + embeddings + self.width

    def flops_per_token(self, sequence_length: int, outputs: int | None = None) -> float:
        """Forward and backward, per position: 6 per weight that multiplies (the output layer included, the embedding
        look-up not), and 12 × heads × head size × T per layer for attention, halved as it is causal (Chowdhery et al.
        2022, appendix B). `outputs`: of the head; None: the vocabulary."""
        attention = self.width * self.head_size * (2 * self.heads + 2 * self.kv_heads)
        head = (outputs or self.vocabulary) * self.width
        weights = self.depth * (attention + 3 * self.width * self.mlp_width) + head
        return 6 * weights + 6 * self.depth * self.heads * self.head_size * sequence_length

    def to_hugging_face(self, eos: int, pad: int, bos: int, dtype: str = "float32") -> dict[str, Any]:
        """config.json of transformers' Qwen3, without what it says of the head."""
        return {
            "model_type": "qwen3", "vocab_size": self.vocabulary,
            "hidden_size": self.width, "intermediate_size": self.mlp_width, "num_hidden_layers": self.depth,
            "num_attention_heads": self.heads, "num_key_value_heads": self.kv_heads, "head_dim": self.head_size,
            "hidden_act": "silu", "max_position_embeddings": self.max_positions, "rms_norm_eps": self.norm_epsilon,
            "rope_theta": self.rope_theta, "rope_scaling": None, "attention_bias": False, "attention_dropout": 0.0,
            "tie_word_embeddings": self.tie_embeddings, "use_sliding_window": False, "initializer_range": 0.02,
            "eos_token_id": eos, "pad_token_id": pad, "bos_token_id": bos, "dtype": dtype, "use_cache": True,
        }  # fmt: skip

    @staticmethod
    def from_hugging_face(config: dict[str, Any]) -> ModelConfig:
        """Reads a config.json. Raises UserError for what this transformer does not compute."""
        if config.get("model_type") != "qwen3":
            raise UserError(f"cannot import a {config.get('model_type')} model: only qwen3 is understood")
        if config.get("attention_bias") or config.get("use_sliding_window"):
            raise UserError("cannot import this qwen3 model: it has attention biases or a sliding window")
        if config.get("hidden_act", "silu") != "silu":
            raise UserError(f"cannot import this qwen3 model: its activation is {config['hidden_act']}, not silu")
        rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
        if rope.get("rope_type", rope.get("type", "default")) != "default":
            raise UserError("cannot import this qwen3 model: its rotary positions are scaled (rope_scaling)")
        theta = config.get("rope_theta") or rope.get("rope_theta", 10_000.0)
        try:
            return ModelConfig(
                config["vocab_size"], config["num_hidden_layers"], config["hidden_size"],
                config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"],
                config["intermediate_size"], config["max_position_embeddings"], float(theta), config["rms_norm_eps"],
                bool(config.get("tie_word_embeddings", False)),
            )  # fmt: skip
        except KeyError as error:
            raise UserError(f"cannot import this qwen3 model: its config.json has no {error.args[0]}") from error

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


# Dense bf16 peak of one device in FLOP/s, by a part of the name that torch gives it. Makers' data sheets, no sparsity.
PEAKS = {
    "B200": 2250e12, "H200": 989e12, "H100 NVL": 835e12, "H100 PCIe": 756e12, "H100": 989e12, "GH200": 989e12,
    "A100": 312e12, "L40S": 362e12, "L4": 121e12, "A10G": 70e12, "A10": 125e12, "RTX 4090": 165e12, "RTX 3090": 71e12,
    "V100": 125e12,
}  # fmt: skip


def device_peak(name: str) -> float | None:
    """Peak FLOP/s of a device, or None where it is unknown: then mfu is n/a, never a guess."""
    return next((PEAKS[key] for key in sorted(PEAKS, key=len, reverse=True) if key in name), None)


# Bytes of one device's memory, likewise.
MEMORY = {
    "B200": 180e9, "H200": 141e9, "H100 NVL": 94e9, "H100": 80e9, "GH200": 96e9, "A100": 80e9, "L40S": 48e9, "L4": 24e9,
    "A10G": 24e9, "A10": 24e9, "RTX 4090": 24e9, "RTX 3090": 24e9, "V100": 16e9,
}  # fmt: skip


def device_memory(name: str) -> float | None:
    return next((MEMORY[key] for key in sorted(MEMORY, key=len, reverse=True) if key in name), None)
