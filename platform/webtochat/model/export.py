"""Hugging Face checkpoints out and in: safetensors that transformers, vLLM and llama.cpp load as they are."""

from __future__ import annotations

import json
import os

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from webtochat.errors import UserError
from webtochat.model.config import ModelConfig
from webtochat.model.transformer import Decoder, Transformer
from webtochat.tokens.tokenizer import Tokenizer

WEIGHTS = "model.safetensors"


def export(model: Decoder, tokenizer: Tokenizer, directory: str) -> None:
    """Writes config.json, generation_config.json, the weights (float32) and the tokenizer's files."""
    os.makedirs(directory, exist_ok=True)
    stops, pad, begin = tokenizer.stops, tokenizer.pad, tokenizer.separator
    config = model.config.to_hugging_face(eos=stops[0], pad=pad, bos=begin) | model.HUGGING_FACE
    generation = {"eos_token_id": stops[:2], "pad_token_id": pad, "bos_token_id": begin}
    for name, content in [("config.json", config), ("generation_config.json", generation)]:
        with open(os.path.join(directory, name), "w", encoding="utf-8") as sink:
            json.dump(content, sink, indent=1)
    tied = {"lm_head.weight"} if model.config.tie_embeddings else set()
    weights = {
        name: tensor.detach().to("cpu", torch.float32).contiguous()
        for name, tensor in model.state_dict().items() if name not in tied
    }  # fmt: skip
    save_file(weights, os.path.join(directory, WEIGHTS), metadata={"format": "pt"})
    tokenizer.save(directory)


def read_config(directory: str) -> ModelConfig:
    """The shape of a checkpoint. Raises UserError where there is none, or one that is not understood."""
    path = os.path.join(directory, "config.json")
    if not os.path.isfile(path):
        raise UserError(f"no model in {directory}: config.json is missing")
    try:
        with open(path, encoding="utf-8") as source:
            content = json.load(source)
    except ValueError as error:
        raise UserError(f"{path} is not JSON: export or download the model again") from error
    return ModelConfig.from_hugging_face(content)


def load(directory: str) -> Transformer:
    """A Qwen3-architecture checkpoint, ours or another's. Raises UserError where it does not fit its own config."""
    config = read_config(directory)
    model, weights = Transformer(config), read_weights(directory)
    if config.tie_embeddings and "model.embed_tokens.weight" in weights:
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    load_weights(model, weights, directory)
    return model


def read_weights(directory: str) -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint's files, by name. Raises UserError for a damaged file."""
    weights: dict[str, torch.Tensor] = {}
    for name in sorted(os.listdir(directory)):
        if name.endswith(".safetensors"):
            try:
                weights |= load_file(os.path.join(directory, name))
            except SafetensorError as error:
                raise UserError(f"{os.path.join(directory, name)} is damaged ({error}): fetch it again") from error
    return weights


def load_weights(model: Decoder, weights: dict[str, torch.Tensor], origin: str) -> None:
    """Copies weights in. A missing or unknown name or another shape is one line, with the first that differs."""
    own = model.state_dict()
    for name, tensor in own.items():
        if name not in weights:
            raise UserError(f"{origin} does not fit the model: it has no {name}")
        if weights[name].shape != tensor.shape:
            raise UserError(
                f"{origin} does not fit the model: {name} is {list(weights[name].shape)}, not {list(tensor.shape)}"
            )
    unknown = sorted(name for name in weights if name not in own and not name.endswith("rotary_emb.inv_freq"))
    if unknown:
        raise UserError(f"{origin} does not fit the model: it has {unknown[0]} besides")
    model.load_state_dict({name: weights[name] for name in own})
