"""Measurements: each against a text whose value is known by hand, and laws that hold for any text."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from webtochat.curate.quality import COLUMNS, measure, measured, rewrite
from webtochat.curate.words import count, words_of
from webtochat.recipe_pages import Lines

PROSE = (
    "The miller of the upper valley kept three grey cats. Every morning they sat on the wall, and people said that "
    "rain would follow.\nNobody knew where the cats had come from. They were not to be bought or sold with the mill."
)


@pytest.mark.parametrize(("text", "words"), [
    ("Don't go, it's late.", ["Do", "n't", "go", ",", "it", "'s", "late", "."]),
    ("We cannot; they’re here!", ["We", "can", "not", ";", "they", "’re", "here", "!"]),
    ("Dr. Ada met J. Hart in the U.S. at 10 a.m. (late)", ["Dr.", "Ada", "met", "J.", "Hart", "in", "the", "U.S.", "at",
                                                          "10", "a.m.", "(", "late", ")"]),
    ("a well-known 10-year plan and/or 5%", ["a", "well", "-", "known", "10", "-", "year", "plan", "and/or", "5", "%"]),
    ("$1,200.50 for 3kg", ["$", "1,200.50", "for", "3", "kg"]),
    ("see https://a.example/x-y?z=1, or mail me@b.example.", ["see", "https://a.example/x-y?z=1", ",", "or", "mail",
                                                               "me@b.example", "."]),
    ("wait... what — “now”?!", ["wait", "...", "what", "—", "“", "now", "”", "?", "!"]),
    ("", []),
    (" \n ", []),
])  # fmt: skip
def test_words(text: str, words: list[str]) -> None:
    assert words_of(text) == words


@pytest.mark.parametrize(("line", "sentences"), [
    ("One. Two! Three?", 3), ("One. And an end without a stop", 2), ("no stop", 1), ("", 0),
    ("Dr. Hart of the U.S. came at 3.50 p.m. on Monday.", 1), ("He said: “Go.” She went.", 2), ("Well... no.", 1),
])  # fmt: skip
def test_sentences(line: str, sentences: int) -> None:
    assert count(line) == (len(words_of(line)), sentences)


def test_long_pieces_without_spaces_take_linear_time() -> None:
    assert len(words_of("(" * 300_000)) == 300_000
    assert words_of("a" * 300_000) == ["a" * 300_000]


def test_repeated_lines_and_paragraphs() -> None:
    text = "one two\n\none two\n\nthree four\nfive six"
    found = measure(text)
    # Lines: one two, one two, three four, five six. Paragraphs: the same but the last two are one.
    assert found["duplicate_lines"] == 1 / 4 and found["duplicate_line_characters"] == 7 / len(text)
    assert found["duplicate_paragraphs"] == 1 / 3 and found["duplicate_paragraph_characters"] == 7 / len(text)


def test_ngrams() -> None:
    text = "a b c a b c a b x"
    found = measure(text)
    assert found["top_2gram"] == 3 * 3 / len(text)  # "a b" three times
    assert found["top_3gram"] == 2 * 5 / len(text)
    text = "p q r s t u p q r s t v p q r s t"
    found = measure(text)
    assert found["duplicate_5grams"] == 10 / len(text)  # "p q r s t" twice again, without its spaces
    assert found["duplicate_6grams"] == 0 == found["duplicate_10grams"]


def simple_duplicates(words: list[str], n: int) -> int:
    """The definition: a repeat is passed over whole."""
    seen, characters, position = set(), 0, 0
    while position <= len(words) - n:
        gram = tuple(words[position : position + n])
        if gram in seen:
            characters += sum(map(len, gram))
            position += n
        else:
            seen.add(gram)
            position += 1
    return characters


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(["a", "bb", "ccc", "d"]), min_size=1, max_size=80))
def test_ngrams_follow_their_definition(words: list[str]) -> None:
    text = " ".join(words)
    found = measure(text)
    for n in range(5, 11):
        assert found[f"duplicate_{n}grams"] == pytest.approx(simple_duplicates(words, n) / len(text))
    for n in (2, 3, 4):
        grams = Counter(" ".join(words[at : at + n]) for at in range(len(words) - n + 1))
        top = grams.most_common(1)[0] if grams else ("", 0)
        assert found[f"top_{n}gram"] == pytest.approx(len(top[0]) * top[1] / len(text))


def test_gopher_quality() -> None:
    found = measure("• Big #red cats...\n- 42 7 8 the end…\nplain and of")
    # Words: • Big # red cats ... | - 42 7 8 the end … | plain and of
    assert found["words"] == 12  # all but # ... - …
    assert found["mean_word_length"] == len("•Bigredcats4278theendplainandof") / 12
    assert found["hash_per_word"] == 1 / 16 and found["ellipsis_per_word"] == 2 / 16
    assert found["bullet_lines"] == 2 / 3 == found["ellipsis_lines"]
    assert found["alpha_words"] == 8 / 16 and found["stop_words"] == 3


def test_line_rules() -> None:
    text, removed = rewrite(
        "A line that stays[12] here.\nToo short\n\n  padded line stays too[edit]  \nPlease enable JavaScript to go on\n"
        "We use cookies on this site\nsee " + "x" * 1001 + " and more\nThe last one [citation needed] stays.", Lines(),
    )  # fmt: skip
    assert text == "A line that stays here.\npadded line stays too\nThe last one  stays."
    assert removed == {"lines_long_word": 1, "lines_few_words": 1, "lines_javascript": 1, "lines_policy": 1}
    assert rewrite("one two\nthree", Lines(min_words=1))[0] == "one two\nthree"


def test_document_rules_see_the_rewritten_text() -> None:
    text = "Javascript { is } off here. Yes. No. Yes. No.\nLorem Ipsum stands in this line.\nA second line. It has two."
    values, rewritten = measured(text, Lines(), None)
    assert rewritten == "Lorem Ipsum stands in this line.\nA second line. It has two."
    assert values["curly_bracket"] == 0 and values["lorem_ipsum"] == 1 and values["sentences"] == 3


def test_fineweb_rules() -> None:
    text = "A long line of text that ends with a full stop.\na short one here\nsays “quite so”\na short one here"
    values = measured(text, Lines(), None)[0]
    assert values["punctuated_lines"] == 1 / 4 and values["short_lines"] == 3 / 4
    assert values["duplicate_rewritten_line_characters"] == 16 / len(text.replace("\n", ""))
    assert values["newlines_per_word"] == 3 / len(words_of(text))
    assert measured(text, Lines(short=10), None)[0]["short_lines"] == 0


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=400))
def test_any_text_has_every_measurement(text: str) -> None:
    values, rewritten = measured(text, Lines(), ["the"])
    assert tuple(values) == COLUMNS and all(value >= 0 for value in values.values())
    shares = [name for name in COLUMNS if name.startswith("duplicate_") or name.endswith(("_lines", "alpha_words"))]
    assert all(values[name] <= 1 for name in shares if not name.startswith("lines_"))
    assert measured(text, Lines(), ["the"])[1] == rewritten and rewrite(rewritten, Lines())[0] is not None


def test_prose_repeats_nothing() -> None:
    values = measure(PROSE)
    assert values["duplicate_lines"] == values["duplicate_5grams"] == 0
    assert values["sentences"] == 4 and values["stop_words"] >= 5 and values["alpha_words"] > 0.8
