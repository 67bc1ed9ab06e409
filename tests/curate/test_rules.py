"""Each rule on both sides of its threshold, and pages that mean harm."""

from __future__ import annotations

import pytest

from webtochat.curate.decide import decide
from webtochat.curate.extract import ExtractionError, extract
from webtochat.curate.language import identify
from webtochat.curate.quality import measure
from webtochat.errors import UserError
from webtochat.recipe_pages import Curate

GOOD = "\n".join([
    "The old mill stands by the river, and the people of the village have worked in it for many years.",
    "In spring the water is high, so the wheel turns quickly and the flour comes out fine and white.",
    "A miller must listen to the stones, because their sound tells him when to pour more grain.",
    "When the harvest was poor, the family went to the sea and caught herring with borrowed boats.",
    "Nobody remembers who built the bridge, but its arches carry carts to this day.",
    "Children like to sit on the wall and count the ducks that pass with the evening light.",
])  # fmt: skip


def reason(text: str, **curate: object) -> str | None:
    removal = decide(measure(text), Curate.model_validate(curate))
    return f"{removal.step}.{removal.reason}" if removal else None


def test_good_prose_stays() -> None:
    assert reason(GOOD) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (GOOD[:200], "gopher_quality.min_words"),
        (GOOD + "\n\n" + "\n\n".join([GOOD.split("\n")[0]] * 3), "gopher_repetition.max_duplicate_paragraphs"),
        ("buy cheap boots now " * 60, "gopher_repetition"),
        (GOOD.replace("the ", "# ").replace("and", "#").replace(",", " #"), "gopher_quality"),
        ("\n".join("- " + line for line in GOOD.split("\n")), "gopher_quality.max_bullet_lines"),
        ("\n".join(line[:-1] + "..." for line in GOOD.split("\n")), "gopher_quality.max_ellipsis_lines"),
        (GOOD + "\nint main() { return 0; } is a program that does nothing.", "c4.curly_bracket"),
        (GOOD + "\nThen lorem ipsum dolor stood there as a filler.", "c4.lorem_ipsum"),
        (GOOD.replace(".", "").replace(",", "") + " more words", "fineweb.min_punctuated_lines"),
    ],
)
def test_each_fault_has_its_reason(text: str, expected: str) -> None:
    assert (reason(text) or "").startswith(expected)


def test_thresholds_are_the_recipe_s() -> None:
    words = measure(GOOD)["words"]
    assert reason(GOOD, gopher={"min_words": words}) is None
    assert reason(GOOD, gopher={"min_words": words + 1}) == "gopher_quality.min_words"
    removal = decide(measure(GOOD), Curate.model_validate({"gopher": {"min_words": words + 1}}))
    assert removal is not None and (removal.value, removal.threshold) == (words, words + 1)
    assert reason(GOOD + "\nA brace { stands here in the text.", c4={"curly_bracket": False}) is None


def test_measuring_nothing_is_no_fault_of_the_reader() -> None:
    for text in ("", " \n ", ".", "#", "…", "\n\n\n"):
        assert reason(text) is not None


def page(body: str) -> str:
    return f"<html><head><title>A mill</title></head><body><article>{body}</article></body></html>"


def test_charsets() -> None:
    text = "Der Müller über der Brücke mahlt das Getreide für die ganze Straße, und alle freuen sich darüber."
    html = page(f"<p>{text}</p>")
    assert text in extract(html.encode()).text
    assert text in extract(html.encode("latin-1"), "text/html; charset=iso-8859-1").text
    assert text in extract(html.replace("<head>", '<head><meta charset="windows-1252">').encode("cp1252")).text
    assert text in extract(html.encode(), "text/html; charset=no-such-charset").text
    with pytest.raises(ExtractionError, match="unknown_charset"):
        extract(html.encode("latin-1"), "text/html; charset=no-such-charset")
    assert extract(html.encode()).title == "A mill"


def test_many_flat_tags_are_no_depth() -> None:
    html = page("".join(f"<p>Sentence number {number} stands on its own here.<br>" for number in range(3000)))
    assert "Sentence number 2999" in extract(html.encode()).text


def test_what_holds_no_text_is_told() -> None:
    for html in (b"", b"\0\0\0", b"<html></html>", b"<script>var x = 1</script>"):
        with pytest.raises(ExtractionError):
            extract(html)


def test_extraction_is_pure() -> None:
    html = page("".join(f"<p>{line}</p>" for line in GOOD.split("\n")) + "<ul><li>one thing</li><li>another</li></ul>")
    assert len({extract(html.encode()).text for _ in range(5)}) == 1


def test_languages() -> None:
    assert identify(GOOD)[0][0] == "en" and identify(GOOD)[0][1] > 0.6
    assert identify("Die alte Mühle steht am Fluss, und die Leute des Dorfes arbeiten dort seit Jahren.")[0][0] == "de"
    with pytest.raises(UserError, match="language_model"):
        identify("text", "/nowhere/lid.bin")
