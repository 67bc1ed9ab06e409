"""Conversations to windows: whose tokens are learned, what is kept apart, what is left out."""

from __future__ import annotations

from collections import Counter

import numpy as np
import torch

from webtochat.model.config import ModelConfig
from webtochat.model.transformer import Transformer
from webtochat.recipe import Model
from webtochat.tokens.batches import collate
from webtochat.tokens.chat import Rendered, render
from webtochat.tokens.tokenizer import MESSAGE_END, PAD, Tokenizer
from webtochat.train.packing import held_out, pack, pack_rows, rendered_rows
from webtochat.train.rank import cross_entropy


def chat(question: str, answer: str, system: str | None = None) -> dict[str, object]:
    messages = [{"role": "system", "content": system}] if system else []
    return {"messages": [*messages, {"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def some(count: int) -> list[dict[str, object]]:
    return [chat(f"Where is {number}?", "Ann lives in Rome." * (1 + number % 3)) for number in range(count)]


def test_the_assistants_tokens_alone_are_targets(tokenizer: Tokenizer) -> None:
    row = chat("Where does Bob live?", "Bob lives in Oslo.", "Be brief.")
    packed, _, _ = pack_rows(tokenizer, [row], 64, 0, 1)
    batch = collate([packed.window(0)])
    learned = batch.targets_BT[0][batch.weights_BT[0] > 0].tolist()
    assert learned == [*tokenizer.encode("Bob lives in Oslo."), tokenizer.special(MESSAGE_END)]


def test_every_conversation_stands_once_and_whole(tokenizer: Tokenizer) -> None:
    rows = some(40)
    rendered = [render(tokenizer, row["messages"]) for row in rows]
    packed = pack(rendered, 96, tokenizer.special(PAD), 1)
    found = Counter()
    for window in range(len(packed)):
        tokens, documents = packed.tokens[window], packed.documents[window]
        for document in range(documents.max() + 1):
            found[tuple(tokens[documents == document].tolist())] += 1
    for one in rendered:
        assert found[tuple(one.ids)] == 1
        del found[tuple(one.ids)]
    assert all(set(padding) == {tokenizer.special(PAD)} for padding in found)
    assert packed.weights.sum() == sum(map(sum, (one.loss_mask for one in rendered)))
    assert np.array_equal(packed.tokens, pack(rendered, 96, tokenizer.special(PAD), 1).tokens)
    assert not np.array_equal(packed.tokens, pack(rendered, 96, tokenizer.special(PAD), 2).tokens)


def test_little_room_is_wasted() -> None:
    lengths = np.random.default_rng(0).integers(5, 60, 500)
    packed = pack([Rendered([1] * length, [0] * (length - 1) + [1]) for length in lengths], 127, 0, 1)
    assert 1 - lengths.sum() / packed.tokens.size < 0.03


def test_a_conversation_does_not_see_its_neighbours(tokenizer: Tokenizer) -> None:
    """The loss of a packed window is the sum of those of its conversations alone."""
    model = Transformer(ModelConfig.of(Model(depth=2, width=32, head_size=16, max_positions=128), 512), seed=1)
    rendered = [render(tokenizer, row["messages"]) for row in some(3)]
    together = pack(rendered, 120, tokenizer.special(PAD), 1)
    assert len(together) == 1
    total, weight = cross_entropy(model, collate([together.window(0)]))
    apart = [cross_entropy(model, collate([pack([one], 120, 0, 1).window(0)])) for one in rendered]
    assert weight == sum(each for _, each in apart)
    torch.testing.assert_close(total, torch.stack([each for each, _ in apart]).sum(), rtol=1e-5, atol=1e-5)


def test_what_cannot_be_learned_is_counted(tokenizer: Tokenizer) -> None:
    skipped: Counter[str] = Counter()
    rows = [
        {"text": "no messages"}, {"messages": "none"}, {"messages": ["hi"]}, {"messages": []},
        chat("long", "word " * 200), {"messages": [{"role": "user", "content": "alone"}]},
        {"messages": [{"role": "assistant", "content": 5}]}, chat("fine", "yes"),
    ]  # fmt: skip
    kept = rendered_rows(tokenizer, rows, 64, skipped)
    assert [row for row, _ in kept] == rows[-1:]
    assert skipped == {
        "no_messages": 3, "a_message_is_not_an_object": 1, "too_long": 1, "nothing_from_the_assistant": 1,
        "content_is_not_text": 1,
    }  # fmt: skip


def test_copies_of_a_row_are_held_out_together(tokenizer: Tokenizer) -> None:
    rows = some(200)
    out = [row for row in rows if held_out(row, 10)]
    assert 8 < len(out) < 35
    _, validation, counts = pack_rows(tokenizer, rows * 2, 96, 10, 1)
    assert counts["validation_conversations"] == 2 * len(out) and len(validation) > 0
    assert counts["conversations"] + counts["validation_conversations"] == counts["rows"] == 400
