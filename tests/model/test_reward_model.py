"""The reward model is transformers' Qwen3ForSequenceClassification, and scores an answer alike wherever it stands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tests.inference import tiny

from webtochat.errors import UserError
from webtochat.model.export import export, load
from webtochat.model.reward import SCORES, RewardModel, answered
from webtochat.tokens import tokenizer as bpe
from webtochat.tokens.tokenizer import Tokenizer

EXCHANGES = [
    ([{"role": "user", "content": question}], answer)
    for question, answer in [*tiny.questions(), ("Ada", ""), ("What colour does Bo like? " * 6, "No.")]
]


@pytest.fixture(scope="module")
def chat() -> str:
    return str(tiny.committed() / "sft" / "model")


@pytest.fixture(scope="module")
def words(chat: str) -> Tokenizer:
    return Tokenizer.load(chat)


@pytest.fixture(scope="module")
def model(chat: str) -> RewardModel:
    return RewardModel.begun(chat, seed=1).eval()


def test_transformers_gives_the_same_scores(model: RewardModel, words: Tokenizer, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    export(model, words, str(tmp_path))
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path, dtype=torch.float32).eval()
    ids = [torch.tensor(answered(words, *exchange)) for exchange in EXCHANGES]
    padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=theirs.config.pad_token_id)
    with torch.no_grad():
        given = theirs(padded).logits[:, 0].tolist()
    assert theirs.config.num_labels == 1
    assert model.scores(words, EXCHANGES) == pytest.approx(given, abs=1e-5)
    assert RewardModel.load(str(tmp_path), words).scores(words, EXCHANGES) == model.scores(words, EXCHANGES)


def test_a_score_is_the_same_alone_padded_and_packed(model: RewardModel, words: Tokenizer) -> None:
    together = model.scores(words, EXCHANGES)
    alone = [model.scores(words, [exchange])[0] for exchange in EXCHANGES]
    ids = [answered(words, *exchange) for exchange in EXCHANGES]
    documents = [number for number, each in enumerate(ids) for _ in each]
    with torch.no_grad():
        scores_BT = model(torch.tensor([[token for each in ids for token in each]]), torch.tensor([documents]))
    ends = torch.tensor([len(each) for each in ids]).cumsum(0) - 1
    assert together == pytest.approx(alone, abs=1e-5)
    assert scores_BT[0, ends].tolist() == pytest.approx(alone, abs=1e-5)


def test_a_new_head_is_the_seed_s_on_the_chat_model_s_body(chat: str, model: RewardModel) -> None:
    assert torch.equal(model.model.embed_tokens.weight, load(chat).model.embed_tokens.weight)
    heads = [RewardModel.begun(chat, seed).score.weight for seed in (1, 2)]
    assert torch.equal(heads[0], model.score.weight) and not torch.equal(*heads)
    assert heads[0].std().item() == pytest.approx(65**-0.5, rel=0.3)


def test_an_answer_ends_at_its_own_marker(words: Tokenizer) -> None:
    ids = answered(words, *EXCHANGES[0])
    assert ids[-1] == words.stops[0] and words.decode(ids).endswith("Ada likes red.<|im_end|>")
    with pytest.raises(ValueError, match="no messages"):
        answered(words, "What?", "That.")  # type: ignore[arg-type]


def test_what_it_cannot_score_is_said(model: RewardModel, words: Tokenizer) -> None:
    assert model.scores(words, []) == []
    with pytest.raises(ValueError, match="too long"):
        model.scores(words, [([{"role": "user", "content": "Ada likes red. " * 100}], "Yes.")])
    with pytest.raises(ValueError, match="no ids"):
        model.scores_of([[]])


def test_another_model_s_directory_or_tokenizer_is_one_line(
    chat: str, model: RewardModel, words: Tokenizer, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="holds no reward model"):
        RewardModel.load(chat)
    export(model, words, str(tmp_path))
    (tmp_path / SCORES).write_text(json.dumps({"mean": 2.0, "std": 0.5}))
    made = RewardModel.load(str(tmp_path))
    assert (made.mean, made.std) == (2.0, 0.5)
    other = bpe.train(tiny.texts(20), 300, tiny.PATTERN)
    with pytest.raises(UserError, match=r"another tokenizer \(356 ids\) than .* \(300\)"):
        RewardModel.load(str(tmp_path), other)
    bpe.train([Path(__file__).read_text()], 400, tiny.PATTERN).save(str(tmp_path))
    with pytest.raises(UserError, match="take both from one model"):
        RewardModel.load(str(tmp_path))
