"""HTML to text: what is kept, which charset, and pages made to hang a parser."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from webtochat.curate.extract import ExtractionError, decode, extract
from webtochat.curate.guard import GuardedExtraction, is_plain

ARTICLE = """<html><head><title> The  bread
oven </title><style>p {color: red}</style><script>var x = "<p>not text</p>";</script></head><body>
<nav><ul><li><a href="/">Home</a></li><li><a href="/about">About us</a></li></ul></nav>
<div><div><main><article><h1>The bread oven</h1>
<p>The old baker built an oven of clay &amp; straw, and the whole village came to see it.</p>
<ul><li>First he dug the clay.</li><li>Then he cut the straw.</li></ul>
<p>Café bread was his gift to the village.</p></article></main></div></div>
<footer>Copyright 2026, all rights reserved. <a href="/terms">Terms</a></footer></body></html>"""


def test_the_main_text_stays_in_readable_lines() -> None:
    found = extract(ARTICLE.encode())
    assert found.title == "The bread oven"
    lines = [line.strip() for line in found.text.splitlines() if line.strip()]
    assert lines[-4:] == [
        "The old baker built an oven of clay & straw, and the whole village came to see it.",
        "- First he dug the clay.", "- Then he cut the straw.", "Café bread was his gift to the village.",
    ]  # fmt: skip
    for gone in ("About us", "Copyright", "not text", "color"):
        assert gone not in found.text


def test_the_same_bytes_give_the_same_text_whatever_was_read_before() -> None:
    first = extract(ARTICLE.encode())
    for _ in range(3):
        assert extract(ARTICLE.encode()) == first


@pytest.mark.parametrize(("html", "content_type", "expected"), [
    ("é".encode(), "text/html; charset=windows-1252", "é"),  # valid UTF-8 wins over a wrong header
    ("é".encode("cp1252"), "text/html; charset=ISO-8859-1", "é"),
    ("“é”".encode("cp1252"), "text/html; charset=iso-8859-1", "“é”"),  # as browsers read it
    ('<meta charset="windows-1251">привет'.encode("cp1251"), None, '<meta charset="windows-1251">привет'),
    ("日本".encode("shift_jis"), 'text/html; charset="x-sjis"', "日本"),
    ("héllo".encode("utf-16"), None, "héllo"),
    (b"\xef\xbb\xbfx", None, "x"),
    (b'<meta charset=utf-16><p>caf\xe9', None, '<meta charset=utf-16><p>café'),
])  # fmt: skip
def test_charsets(html: bytes, content_type: str | None, expected: str) -> None:
    assert decode(html, content_type) == expected


def test_undeclared_bytes_are_guessed() -> None:
    russian = "Старый пекарь построил печь из глины и соломы, и вся деревня пришла посмотреть на неё. " * 5
    assert decode(russian.encode("koi8-r")) == russian


def test_a_page_cut_inside_a_character_is_still_utf8() -> None:
    cut = ("déjà vu, " * 50).encode() + b"\xc3"
    assert decode(cut, "text/html; charset=utf-8") == "déjà vu, " * 50 + "\ufffd"


@pytest.mark.parametrize("charset", ["x-klingon", "idna", "unicode_escape"])
def test_an_unknown_charset_is_a_reason(charset: str) -> None:
    with pytest.raises(ExtractionError, match="unknown_charset"):
        extract("<p>prix: \xe9\xe8\xe0 \xe9t\xe9".encode("cp1252"), f"text/html; charset={charset}")
    assert extract(b"<p>plain ascii text", f"text/html; charset={charset}").text == "plain ascii text"


@pytest.mark.parametrize("html", [b"", b"   ", b"<html><body></body></html>", b"<script>1</script>"])
def test_a_page_without_text_is_a_reason(html: bytes) -> None:
    with pytest.raises(ExtractionError, match="empty"):
        extract(html)


def test_what_is_nested_or_unclosed_is_read() -> None:
    began = time.process_time()
    sentence = b"A line of text that goes on for a while, and then for a while more."
    for markup in (b"<div>" * 5_000 + sentence, b"<b><i>" * 5_000 + sentence, b"<table><tr><td>" * 3_000 + sentence):
        assert extract(markup).text == sentence.decode()
    assert len(extract(b"<p>" + sentence + b"<br>" * 3000).text) == len(sentence)
    assert len(extract((b"<p>" + sentence + b"<br>") * 3000).text) > 200_000
    assert time.process_time() - began < 10


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.binary(max_size=300), st.lists(st.sampled_from([
    b"<div", b">", b"</div>", b"<p>", b"<table>", b"<td>", b"<!--", b"]]>", b"&#xD800;", b"\xff", b"text ", b"<svg>",
    b'="', b"<title>", b"\x00", b"<plaintext>", b"<select><option>", b"charset=utf-7", b"<meta ",
])).map(b"".join)))  # fmt: skip
def test_any_bytes_are_a_text_or_a_reason(html: bytes) -> None:
    try:
        found = extract(html)
    except ExtractionError as error:
        assert str(error) in {"unknown_charset", "empty"}
    else:
        assert found.text.strip() and found.text.encode() and "\n" not in found.title


def test_pages_that_take_the_parser_minutes_are_ended() -> None:
    attributes = b"<div " + b" ".join(b"a%d=1" % number for number in range(100_000)) + b">text"
    large = b"<p>hello <b>there</b> reader</p>" * 4_000
    with GuardedExtraction(1) as guarded:
        with pytest.raises(ExtractionError, match="timeout"):
            guarded(attributes)
        assert guarded(ARTICLE.encode()) == extract(ARTICLE.encode())
        assert not is_plain(large) and guarded(large, "text/html") == extract(large)  # the next child is a fresh one
        with pytest.raises(ExtractionError, match="timeout"):  # the parser's time grows with the square of the depth
            guarded(b"<div>" * 100_000 + b"x")
