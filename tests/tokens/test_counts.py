"""Counts of pre-tokens: cut as Hugging Face cuts, whoever counts them, in bounded memory."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, pre_tokenizers

from webtochat.errors import UserError
from webtochat.recipe import TokenizerSection
from webtochat.tokens import counts
from webtochat.tokens.counts import SCHEMA, Counts

PATTERN = TokenizerSection().pattern
PATTERNS = [PATTERN, r"\p{L}+", r"(a|b)c|\s", r"\s?\p{L}+|\s?[^\s\p{L}]+|\s+"]
HOSTILE = st.text(
    st.one_of(
        st.sampled_from("abcſK'sT  \n\r\t\v\u2028\u00a0\u3000\u200b\u200d\ufeff1٣Ⅷ½²!…#\u0301\u093f한ß\U0001f468\x00"),
        st.characters(exclude_categories=["Cs", "Cn"]),
    ),
    max_size=60,
)


def table(counted: dict[str, int]) -> Counts:
    rows = [{"piece": piece, "count": count} for piece, count in sorted(counted.items())]
    return Counts(pa.Table.from_pylist(rows, SCHEMA), 0, 0)


def as_dict(counted: Counts) -> dict[str, int]:
    return dict(zip(counted.table["piece"].to_pylist(), counted.table["count"].to_pylist(), strict=True))


@pytest.mark.parametrize("pattern", PATTERNS)
@settings(max_examples=300, deadline=None)
@given(text=HOSTILE)
def test_pieces_are_those_of_hugging_face(pattern: str, text: str) -> None:
    theirs = pre_tokenizers.Split(Regex(pattern), "isolated").pre_tokenize_str(text)
    assert counts.splitter(pattern)(text) == [piece for piece, _ in theirs]


@pytest.mark.parametrize(("pattern", "message"), [("(", "no regular expression"), ("a*", "the empty text")])
def test_a_wrong_pattern_is_one_line(pattern: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        counts.splitter(pattern)


def test_counts_do_not_depend_on_the_spreading(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    texts = [f"the {number % 7} old bakers of {number} towns  \n" for number in range(300)]
    whole = counts.count(texts, PATTERN)
    split = counts.splitter(PATTERN)
    assert as_dict(whole) == Counter(piece for text in texts for piece in split(text))
    assert whole.characters == sum(map(len, texts)) and whole.dropped == 0
    monkeypatch.setattr(counts, "BATCH", 10)
    parts = [counts.count(texts[first : first + 77], PATTERN) for first in range(0, 300, 77)]
    for number, part in enumerate(parts):
        counts.write(part, str(tmp_path / f"{number}.parquet"))
    read = [counts.read(str(path)) for path in sorted(tmp_path.iterdir())]
    for some in (parts, parts[::-1], read):
        again = counts.together(some, 10_000)
        assert again.table.equals(whole.table) and again.characters == whole.characters


def test_counts_hold_64_bits() -> None:
    assert as_dict(counts.together([table({"a": 2**62, "b": 1}), table({"a": 2**62 - 1})], 9)) == {
        "a": 2**63 - 1,
        "b": 1,
    }


def test_beyond_the_limit_the_rarest_go_and_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    found = counts.together([table({"a": 5, "b": 1, "c": 1, "d": 2})], 3)
    assert as_dict(found) == {"a": 5, "b": 1, "d": 2} and found.dropped == 1
    monkeypatch.setattr(counts, "BATCH", 50)
    texts = [f" often {number}x" for number in range(3000)]
    kept = counts.count(texts, PATTERN, max_pieces=20)
    assert len(kept.table) == 20 and as_dict(kept)[" often"] == 3000
    everything = sum(as_dict(counts.count(texts, PATTERN)).values())
    assert sum(as_dict(kept).values()) + kept.dropped == everything
