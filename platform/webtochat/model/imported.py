"""A Qwen3-architecture model from elsewhere, with its own tokenizer: what a recipe may start from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from webtochat import start
from webtochat.errors import UserError
from webtochat.model.config import ModelConfig
from webtochat.model.export import load, read_config
from webtochat.model.transformer import Transformer
from webtochat.recipe import Recipe
from webtochat.start import Start
from webtochat.tokens.imported import Adopted, adopted
from webtochat.tokens.tokenizer import Tokenizer


@dataclass(frozen=True)
class Given:
    """The model of pretrain.start, wherever it is needed."""

    start: Start
    markers: dict[str, str | None]
    add_markers: bool

    @staticmethod
    def of(recipe: Recipe) -> Given | None:
        if recipe.pretrain.start is None:
            return None
        found = start.find(recipe.pretrain.start, start.MODEL_FILES)
        return Given(found, recipe.tokenizer.markers, recipe.pretrain.add_markers)

    @property
    def identity(self) -> dict[str, Any]:
        return {"start": self.start.identity, "markers": self.markers, "add_markers": self.add_markers}

    def described(self) -> tuple[ModelConfig, Adopted]:
        """Its shape, with rows for every id of its tokenizer (Qwen's embeddings have some to spare). No weights."""
        directory = self.start.local()
        config, found = read_config(directory), adopted(directory, self.markers, self.add_markers)
        known = min(found.added, default=found.tokenizer.vocabulary)
        if known > config.vocabulary:
            raise UserError(
                f"{directory} holds embeddings of {config.vocabulary:,} ids and a tokenizer of {known:,}: take both "
                "from one model"
            )
        return replace(config, vocabulary=max(config.vocabulary, found.tokenizer.vocabulary)), found

    def loaded(self) -> tuple[Transformer, Tokenizer]:
        config, found = self.described()
        model = load(self.start.local())
        if found.added:
            grow(model, found.added, config.vocabulary)
        return model, found.tokenizer


@torch.no_grad()
def grow(model: Transformer, added: list[int], vocabulary: int) -> None:
    """Room for `vocabulary` ids. Those that were added begin as the mean of all before them: so the model gives them a
    middling probability, and the others' hardly change (Hewitt 2021)."""
    for module in (model.model.embed_tokens, model.lm_head):
        old_VD = module.weight
        mean_D = old_VD[: min(added)].mean(0)
        new_VD = torch.cat([old_VD, mean_D.expand(max(0, vocabulary - len(old_VD)), -1)])
        new_VD[added] = mean_D
        module.weight = nn.Parameter(new_VD)
    if model.config.tie_embeddings:
        model.lm_head.weight = model.model.embed_tokens.weight
    model.config = replace(model.config, vocabulary=vocabulary)
