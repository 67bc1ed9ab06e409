"""The sections of a recipe that training sections are made of: data, optimizer, fine-tuning."""

from __future__ import annotations

import re
from typing import ClassVar, Literal

from pydantic import Field

from webtochat.recipe_file import Section


class DataSource(Section):
    """Rows from a JSONL or Parquet path or glob, `hf://`, or `python:module:function` (called with the miniweb's
    settings where it takes an argument)."""

    STAGES: ClassVar[tuple[str, ...]] = ()
    """What `path` may name beside these: a stage of the same recipe, for what it made."""

    path: str
    weight: float = 1.0
    needs: Literal["miniweb"] | None = None
    """Skipped, by name, where the crawl does not hold it."""

    @property
    def of_stage(self) -> bool:
        return self.path in self.STAGES

    @property
    def stem(self) -> str:
        """The file's or the function's name."""
        return re.split("[/:]", self.path)[-1].split(".")[0]


class LoRA(Section):
    """Train thin matrices beside those of the blocks; they are added to these at the end."""

    rank: int = Field(16, ge=1)
    alpha: float = 32.0
    """Their product counts alpha / rank times."""


class Optimizer(Section):
    optimizer: Literal["adamw", "muon"] = "adamw"
    """muon: for the matrices of the blocks; AdamW for the rest."""
    lr: float = 3e-3
    embedding_lr: float = Field(1.0, gt=0)
    """Times `lr`: of embeddings and output layer."""
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    clip: float = 1.0
    spike: float | None = None
    """A step whose loss lies so many nats above the median of the 50 before it stops the run."""
    warmup_fraction: float = 0.02
    decay_fraction: float = 0.3
    """Share of the steps at the end over which the learning rate falls linearly to `final_lr_fraction`."""
    final_lr_fraction: float = 0.0


class FineTune(Optimizer):
    lr: float = 1e-3
    weight_decay: float = 0.0
    lora: LoRA | None = None
    """None: all weights are trained."""
    epochs: float = 2
    batch_tokens: int = 8192
    sequence_length: int | None = None
    """The model's max_positions."""
    validation_percent: float = 2.0
    evaluate_every: int = 200
    checkpoint_every: int = 200
    keep_checkpoints: int = 2
    seed: int = 1


class FromPairs(FineTune):
    """Of pairs of answers."""

    epochs: float = 1
    sequence_length: int | None = None
    """Of a window, which holds both answers of a pair: twice the model's max_positions."""
    validation_percent: float = 10.0
    """Of prompts, by hash of the first thing that the user says."""
