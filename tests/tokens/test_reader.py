"""Replies read as they come: the same as read whole, however they are cut."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from tests.agent.test_agent import written
from tests.model import qwen

from webtochat.tokens import tokenizer as bpe
from webtochat.tokens.chat import Reader, marker, parse
from webtochat.tokens.imported import adopted
from webtochat.tokens.tokenizer import Tokenizer

CALL = '<tool_call>{"name": "f", "arguments": {"x": "Ä"}}</tool_call>'
PIECES = ["Ä", "日本", "🏴", " ", "\n", "so", "{", CALL, "<tool_call>", "</tool_call>", "<|im_start|>", "<|im_end|>"]


@pytest.fixture(scope="module", params=["ours", "qwen"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    if request.param == "ours":
        return bpe.train(["so it is name arguments f x"] * 3, 300, r"\s?\w+|\s+|[^\s\w]+")
    directory = tmp_path_factory.mktemp("qwen")
    qwen.save_tokenizer(directory)
    return adopted(str(directory), {}).tokenizer


@given(pieces=some.lists(some.sampled_from(PIECES), max_size=8), size=some.integers(1, 7))
@settings(deadline=None)
def test_pieces_say_the_same_as_the_whole(tokenizer: Tokenizer, pieces: list[str], size: int) -> None:
    ids = written(tokenizer, "".join(pieces))
    whole, reader = parse(tokenizer, ids), Reader(tokenizer)
    said = [reader.add(ids[place : place + size]) for place in range(0, len(ids), size)]
    assert "\ufffd" not in "".join(said)
    said.append(reader.close())
    assert reader.reply == whole and "".join(said) == whole.content


def test_what_is_said_comes_at_once(tokenizer: Tokenizer) -> None:
    reader, between = Reader(tokenizer), tokenizer.markers.between
    assert reader.add(tokenizer.encode("It is")) == "It is" and not reader.calling
    letters = tokenizer.encode("日")
    assert len(letters) > 1 and reader.add(letters[:1]) == "" and reader.add(letters[1:]) == "日"
    assert reader.add(tokenizer.encode("\n")) == ("" if between else "\n")
    assert reader.add(marker(tokenizer, "<tool_call>")) == "" and reader.calling
    assert reader.add(tokenizer.encode("so")) == ""
    assert reader.close() == "" and reader.reply.tool_calls == [{"malformed": "so"}]
    assert reader.reply.content == "It is日" + ("" if between else "\n")


def test_where_there_are_no_calls_what_looks_like_one_is_text(tokenizer: Tokenizer) -> None:
    reader = Reader(tokenizer, calls=False)
    reader.add(written(tokenizer, "so" + CALL + "<|im_end|>"))
    assert reader.reply.content == 'so{"name": "f", "arguments": {"x": "Ä"}}' and reader.reply.tool_calls == []
    assert reader.reply.ended and reader.reply.stray


def test_ids_that_no_token_has_are_left_out(tokenizer: Tokenizer) -> None:
    """The rows of a model's embedding may be more than the tokens."""
    reply = parse(tokenizer, [*tokenizer.encode("so"), tokenizer.vocabulary + 3, tokenizer.stops[0]])
    assert (reply.content, reply.ended, reply.stray) == ("so", True, True)
