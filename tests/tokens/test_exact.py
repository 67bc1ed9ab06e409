"""Ids are the same by our encoding, Hugging Face's, tiktoken's and transformers', in thirty scripts."""

from __future__ import annotations

import json
import random
import time
import unicodedata
from pathlib import Path

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st
from tiktoken.load import load_tiktoken_bpe

from webtochat.recipe import TokenizerSection
from webtochat.tokens import counts
from webtochat.tokens import tokenizer as bpe
from webtochat.tokens.tokenizer import LONG_RUN, Tokenizer

PATTERN = TokenizerSection().pattern
SCRIPTS = {
    "Latin": (0x41, 0x24F), "Greek": (0x370, 0x3FF), "Cyrillic": (0x400, 0x52F), "Armenian": (0x531, 0x58A),
    "Hebrew": (0x591, 0x5F4), "Arabic": (0x600, 0x6FF), "Syriac": (0x700, 0x74F), "Thaana": (0x780, 0x7B1),
    "NKo": (0x7C0, 0x7FA), "Devanagari": (0x900, 0x97F), "Bengali": (0x980, 0x9FE), "Gurmukhi": (0xA01, 0xA76),
    "Gujarati": (0xA81, 0xAFF), "Oriya": (0xB01, 0xB77), "Tamil": (0xB82, 0xBFA), "Telugu": (0xC00, 0xC7F),
    "Kannada": (0xC80, 0xCF2), "Malayalam": (0xD00, 0xD7F), "Sinhala": (0xD81, 0xDF4), "Thai": (0xE01, 0xE5B),
    "Lao": (0xE81, 0xEDF), "Tibetan": (0xF00, 0xFDA), "Myanmar": (0x1000, 0x109F), "Georgian": (0x10A0, 0x10FF),
    "Hangul": (0xAC00, 0xD7A3), "Ethiopic": (0x1200, 0x139F), "Cherokee": (0x13A0, 0x13FD), "Khmer": (0x1780, 0x17F9),
    "Kana": (0x3041, 0x30FF), "Han": (0x4E00, 0x9FFF), "Emoji": (0x1F300, 0x1FAFF), "Gothic": (0x10330, 0x1034A),
}  # fmt: skip
BETWEEN = [
    " ", " ", " ", " ", "  ", "\n", "\r\n", "\t", "\n\n ", "\u00a0", "\u3000", "\u200d", "\ufe0f", ", ", ". ", "-",
    "'s ", "'LL ", " 12", "2024", "٣٤", "…", "\u0301", "<|im_end|>", "_", "//", "\x00", "½",
]  # fmt: skip


def letters(first: int, last: int) -> list[str]:
    return [chr(each) for each in range(first, last + 1) if unicodedata.category(chr(each)) not in ("Cn", "Cs")]


def documents(number: int, seed: int) -> list[str]:
    """Words of a few letters, so that there is something to merge; one in four documents mixes two scripts."""
    rng = random.Random(seed)
    scripts = {name: letters(*span) for name, span in SCRIPTS.items()}
    words = {
        name: ["".join(rng.choices(known, k=rng.randint(1, 7))) for _ in range(300)] for name, known in scripts.items()
    }
    made = []
    for _ in range(number):
        names = rng.sample(sorted(scripts), 2 if rng.random() < 0.25 else 1)
        drawn = [rng.choice(words[rng.choice(names)]) + rng.choice(BETWEEN) for _ in range(rng.randint(0, 25))]
        made.append("".join(drawn))
    return made


@pytest.fixture(scope="module")
def learned() -> Tokenizer:
    return bpe.train(documents(3000, seed=1), 4096, PATTERN)


def test_10_000_documents_in_thirty_scripts(
    learned: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoTokenizer

    assert len(SCRIPTS) >= 30 and learned.vocabulary == 4096 and learned.fast
    texts = documents(10_000, seed=1)[3000:] + documents(3000, seed=2)
    ours = learned.encode_batch(texts)
    assert sum(map(len, ours)) < 0.8 * sum(len(text.encode()) for text in texts)
    assert [learned.bytes_of(ids) for ids in ours] == [text.encode() for text in texts]
    assert [each.ids for each in learned.backend.encode_batch(texts, add_special_tokens=False)] == ours
    learned.save(str(tmp_path))
    learned.save_ranks(str(tmp_path / "tokenizer.tiktoken"))
    plain = [text.replace("<|im_end|>", "") for text in texts]  # transformers takes markers for themselves
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert theirs(plain, add_special_tokens=False)["input_ids"] == learned.encode_batch(plain)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")
    ranks = load_tiktoken_bpe(str(tmp_path / "tokenizer.tiktoken"))
    split = json.loads((tmp_path / "tokenizer.json").read_text())["pre_tokenizer"]["pretokenizers"][0]
    outside = tiktoken.Encoding("x", pat_str=split["pattern"]["Regex"], mergeable_ranks=ranks, special_tokens={})
    assert outside.encode_ordinary_batch(texts) == ours


@settings(max_examples=300, deadline=None)
@given(st.text(st.one_of(st.sampled_from("aab  \n'sé1中"), st.characters(exclude_categories=["Cs"])), max_size=80))
def test_any_text_at_all(learned: Tokenizer, text: str) -> None:
    assert learned.encode(text) == learned.backend.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("pattern", [r"\p{L}+", r"(a|b)c|\s", r" ?\p{L}+(?=\s)"])
def test_a_pattern_that_leaves_something_out_loses_nothing(pattern: str) -> None:
    texts = documents(200, seed=3)
    made = bpe.train(texts, 600, pattern)
    assert made.fast and made.encode_batch(texts) == [made.backend.encode(text).ids for text in texts]
    assert [made.decode(ids) for ids in made.encode_batch(texts)] == texts


def test_a_tokenizer_from_elsewhere_is_left_to_its_own_library(learned: Tokenizer) -> None:
    from tokenizers import Tokenizer as Backend

    for change in ({"normalizer": {"type": "NFC"}}, {"pre_tokenizer": None}):
        other = Tokenizer(Backend.from_str(json.dumps(json.loads(learned.backend.to_str()) | change)))
        assert other.fast is None
        assert other.encode("e\u0301 abc") == other.backend.encode("e\u0301 abc").ids


@pytest.mark.parametrize("unit", ["a", " ", "\n", "!", "7", "é", "中", " \n", "abcdefghij", "\u0301"])
def test_long_pieces_take_time_by_their_length(learned: Tokenizer, unit: str) -> None:
    def seconds(characters: int) -> float:
        text = (unit * characters)[:characters] + "x"
        began = time.process_time()
        assert learned.decode(learned.encode(text)) == text
        return time.process_time() - began

    seconds(1000)
    assert seconds(1_000_000) < 100 * max(seconds(100_000), 0.02)


def test_long_runs_of_spaces_are_the_same_on_both_ways(learned: Tokenizer) -> None:
    for length in (LONG_RUN - 1, LONG_RUN + 1, 10 * LONG_RUN):
        text = "a" + " " * length + "b"
        assert learned.encode(text) == learned.backend.encode(text).ids


def test_a_piece_s_merges_end_in_its_tokens(learned: Tokenizer) -> None:
    split = counts.splitter(PATTERN)
    for text in documents(50, seed=4):
        assert learned.pieces(text) == split(text)
        for piece in split(text):
            applied = learned.merging(piece)
            assert len(piece.encode()) - len(applied) == len(learned.encode(piece))
            assert all(learned.bytes_of([256 + rank]) == learned.bytes_of([one, two]) for rank, one, two in applied)
