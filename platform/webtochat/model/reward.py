"""A reward model: the transformer's body and one linear layer, which gives a conversation a score at the last token of
its answer. Module names are those of transformers' `Qwen3ForSequenceClassification`, so that it exports as is.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from webtochat.errors import UserError
from webtochat.model.config import ModelConfig
from webtochat.model.export import load, load_weights, read_config, read_weights
from webtochat.model.transformer import Decoder
from webtochat.tokens.chat import Message, render
from webtochat.tokens.tokenizer import Tokenizer

SCORES = "scores.json"
"""Beside the weights: mean and standard deviation of the scores of held-out answers."""
POSITIONS = 16_384
"""Of one forward pass, where many answers are scored."""


class RewardModel(Decoder):
    HUGGING_FACE: ClassVar[dict[str, Any]] = {
        "architectures": ["Qwen3ForSequenceClassification"], "id2label": {"0": "score"}, "label2id": {"score": 0},
    }  # fmt: skip
    outputs = 1

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        self.score = nn.Linear(config.width, 1, bias=False)
        self.mean, self.std = 0.0, 1.0
        """Of the scores of held-out answers: (score - mean) / std is a reward of ordinary size."""

    @staticmethod
    def begun(directory: str, seed: int) -> RewardModel:
        """A chat model's body under a new head, drawn with a standard deviation of 1/√(width + 1) (Stiennon et al.
        2020), so that scores begin at about one."""
        chat = load(directory)
        model = RewardModel(chat.config)
        model.model = chat.model
        drawn_1D = torch.randn(1, chat.config.width, generator=torch.Generator().manual_seed(seed))
        model.score.weight = nn.Parameter(drawn_1D / math.sqrt(chat.config.width + 1))
        return model

    @staticmethod
    def load(directory: str, tokenizer: Tokenizer | None = None) -> RewardModel:
        """What `export` wrote. `tokenizer`: the one whose ids it will score. Raises UserError where the directory holds
        no reward model, or one of another tokenizer."""
        config = read_config(directory)
        told = json.loads(Path(directory, "config.json").read_text(encoding="utf-8"))
        if told.get("architectures") != RewardModel.HUGGING_FACE["architectures"]:
            raise UserError(f"{directory} holds no reward model: its config.json says {told.get('architectures')}")
        own = Tokenizer.load(directory)
        if tokenizer is not None and not (own.writes_as(tokenizer) and own.markers == tokenizer.markers):
            raise UserError(
                f"the reward model {directory} was trained with another tokenizer ({own.vocabulary:,} ids) than the "
                f"model whose answers it is to score ({tokenizer.vocabulary:,}): train it from that model"
            )
        if own.vocabulary > config.vocabulary:
            raise UserError(
                f"{directory} holds embeddings of {config.vocabulary:,} ids and a tokenizer of {own.vocabulary:,}: "
                "take both from one model"
            )
        model = RewardModel(config)
        load_weights(model, read_weights(directory), directory)
        path = Path(directory, SCORES)
        if path.is_file():
            known = json.loads(path.read_text(encoding="utf-8"))
            model.mean, model.std = known["mean"], known["std"]
        return model.eval()

    def forward(self, tokens_BT: Tensor, documents_BT: Tensor | None = None) -> Tensor:
        """scores_BT, float32: of the text up to each position. That at the last token of an answer counts. Padding
        stands behind, where no answer sees it. `documents_BT`: attention stays within equal numbers, so that several
        answers may stand in a window."""
        return self.score(self.hidden(tokens_BT, documents_BT))[..., 0].float()

    def scores(self, tokenizer: Tokenizer, exchanges: Sequence[tuple[list[Message], str]]) -> list[float]:
        """Of each answer to the messages before it. Raises ValueError with a short reason for what is no conversation
        or does not fit the model."""
        return self.scores_of([answered(tokenizer, *each) for each in exchanges])

    @torch.no_grad()
    def scores_of(self, sequences: Sequence[Sequence[int]]) -> list[float]:
        """The same of ids that end with the answer's last token (its end marker), in passes of at most POSITIONS
        tokens, of like lengths. Raises ValueError as `scores`."""
        longest = max(map(len, sequences), default=0)
        if longest > self.config.max_positions or not all(sequences):
            raise ValueError("too long" if longest > self.config.max_positions else "no ids")
        device = next(self.parameters()).device
        order = sorted(range(len(sequences)), key=lambda number: len(sequences[number]))
        found = [0.0] * len(sequences)
        while order:
            size = max(1, POSITIONS // len(sequences[order[-1]]))
            some, order = order[-size:], order[:-size]
            lengths = torch.tensor([len(sequences[number]) for number in some], device=device)
            tokens_BT = nn.utils.rnn.pad_sequence([torch.tensor(sequences[number]) for number in some], True)
            scores_B = self(tokens_BT.to(device))[torch.arange(len(some), device=device), lengths - 1]
            for number, score in zip(some, scores_B.tolist(), strict=True):
                found[number] = score
        return found


def answered(tokenizer: Tokenizer, messages: list[Message], answer: str, tools: Sequence[Any] = ()) -> list[int]:
    """Ids of a conversation with its last answer, up to that one's end marker. Raises ValueError with a short reason
    where it is no conversation."""
    if not isinstance(messages, list):
        raise ValueError("no messages")
    rendered = render(tokenizer, [*messages, {"role": "assistant", "content": answer}], tools=tools)
    own = len(rendered.loss_mask) - rendered.loss_mask[::-1].index(1)
    return rendered.ids[:own]
