"""Hugging Face checkpoints out and in: safetensors that transformers, vLLM and llama.cpp load as they are."""

from __future__ import annotations

import json
import os

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from webtochat.errors import UserError
from webtochat.model.config import ModelConfig
from webtochat.model.transformer import Transformer
from webtochat.tokens.tokenizer import END_OF_TEXT, MESSAGE_END, PAD, Tokenizer

WEIGHTS = "model.safetensors"


def export(model: Transformer, tokenizer: Tokenizer, directory: str) -> None:
    """Writes config.json, generation_config.json, the weights (float32) and the tokenizer's files."""
    os.makedirs(directory, exist_ok=True)
    end, stop = tokenizer.special(END_OF_TEXT), tokenizer.special(MESSAGE_END)
    config = model.config.to_hugging_face(eos=stop, pad=tokenizer.special(PAD), bos=end)
    generation = {"eos_token_id": [stop, end], "pad_token_id": tokenizer.special(PAD), "bos_token_id": end}
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


def load(directory: str) -> Transformer:
    """A Qwen3-architecture checkpoint, ours or another's. Raises UserError where it does not fit its own config."""
    path = os.path.join(directory, "config.json")
    if not os.path.isfile(path):
        raise UserError(f"no model in {directory}: config.json is missing")
    try:
        with open(path, encoding="utf-8") as source:
            content = json.load(source)
    except ValueError as error:
        raise UserError(f"{path} is not JSON: export or download the model again") from error
    config = ModelConfig.from_hugging_face(content)
    model = Transformer(config)
    weights: dict[str, torch.Tensor] = {}
    for name in sorted(os.listdir(directory)):
        if name.endswith(".safetensors"):
            try:
                weights |= load_file(os.path.join(directory, name))
            except SafetensorError as error:
                raise UserError(f"{os.path.join(directory, name)} is damaged ({error}): fetch it again") from error
    if config.tie_embeddings and "model.embed_tokens.weight" in weights:
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    load_weights(model, weights, directory)
    return model


def load_weights(model: Transformer, weights: dict[str, torch.Tensor], origin: str) -> None:
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
