"""One page to one row: which step stops it and why. The language model and the host list."""

from __future__ import annotations

import math

import pytest

from webtochat.crawl.warc import Damage, Record
from webtochat.curate.language import identify
from webtochat.curate.page import SCHEMA, row_of
from webtochat.curate.urls import Blocklists
from webtochat.errors import UserError
from webtochat.recipe_pages import Measure, URLs

ENGLISH = (
    "<html><body><article><p>The miller of the upper valley kept three grey cats, and every morning they sat on the "
    "wall of the old mill to watch the carts go by.</p><p>Nobody knew where they had come from.</p></article></body>"
    "</html>"
)


def record(body: str = ENGLISH, **changes: object) -> Record:
    values: dict[str, object] = {
        "offset": 7, "id": "<urn:uuid:1>", "url": "http://a.example/x", "date": "2026-01-01T00:00:00Z", "status": 200,
        "content_type": "text/html; charset=utf-8", "body": body.encode(), "problem": None,
    }  # fmt: skip
    return Record(**(values | changes))  # type: ignore[arg-type]


NONE = Blocklists.of(URLs())


def stopped(found: Record | Damage, section: Measure | None = None, *domains: str) -> str | None:
    row = row_of(found, "f.warc.gz", section or Measure(), Blocklists.of(URLs(domains=list(domains))))
    assert set(row) <= set(SCHEMA.names) and row["file_path"] == "f.warc.gz" and row["id"]
    return f"{row['step']}.{row['reason']}" if row.get("step") else None


def test_a_good_page_is_measured() -> None:
    row = row_of(record(), "f.warc.gz", Measure(), NONE)
    assert stopped(record()) is None and row["language"] == "en" and row["language_score"] > 0.65
    assert row["text"].startswith("The miller") and row["rewritten_bytes"] == len(row["rewritten"].encode())
    assert set(SCHEMA.names) - set(row) == {"token_count", "step", "reason", "value", "threshold", "quality", "own"}


@pytest.mark.parametrize(("found", "reason"), [
    (Damage(3, "truncated"), "read.truncated"),
    (record(problem="too_large"), "read.too_large"),
    (record(problem="bad_http", status=0), "read.bad_http"),
    (record(status=404), "http.status"),
    (record(content_type="application/pdf"), "http.not_html"),
    (record(content_type="text/plain"), None),  # says nothing, looks like HTML
    (record("just words", content_type="text/plain"), "http.not_html"),
    (record("<html></html>"), "extract.empty"),
    (record(url="http://www.bad.example/x"), "url.blocked_domain"),
    (record("<p>Der alte Müller im oberen Tal hatte drei graue Katzen, und jeden Morgen saßen sie auf der Mauer."),
     "language.other_language"),
    (record("<p>" + "b2 xq 17 zz " * 30), "language."),
])  # fmt: skip
def test_what_stops_a_page(found: Record | Damage, reason: str | None) -> None:
    got = stopped(found, None, "bad.example")
    assert got == reason or (reason == "language." and got is not None and got.startswith(reason))


def test_a_blocked_page_is_stopped_before_anything_is_read() -> None:
    assert stopped(record(problem="too_large"), None, "a.example") == "url.blocked_domain"


def test_language_score_is_the_recipes() -> None:
    row = row_of(record(), "f.warc.gz", Measure(languages={"en": 1.0, "de": 0.1}), NONE)
    assert (row["reason"], row["threshold"]) == ("language_score", 1.0) and row["value"] == row["language_score"]
    assert stopped(record(), Measure(languages={"de": 0.1})) == "language.other_language"


def test_several_languages_and_all() -> None:
    german = record("<p>" + "Der alte Müller im Tal hatte drei Katzen, die jeden Morgen auf der Mauer saßen. " * 8)
    assert stopped(german, Measure()) == "language.other_language"
    for languages in ({"en": 0.65, "de": 0.5}, {}):
        row = row_of(german, "f.warc.gz", Measure(languages=languages), NONE)
        assert row["language"] == "de" and len(row["languages"]) == len(row["language_scores"]) == 3
        assert row["languages"][0] == "de" and row["language_scores"][0] == row["language_score"]
        # Gopher's stop words are English: other languages are not measured by them.
        assert math.isnan(row["stop_words"]) and row["words"] > 100


@pytest.mark.parametrize(("text", "language"), [
    ("The cat sat on the wall,\nand nobody knew why it did so.", "en"),
    ("Le chat était assis sur le mur\net personne ne savait pourquoi.", "fr"),
    ("Кошка сидела на стене, и никто не знал почему.", "ru"),
])  # fmt: skip
def test_languages(text: str, language: str) -> None:
    found, score = identify(text)[0]
    assert found == language and 0.5 < score <= 1


def test_a_text_without_language() -> None:
    for text in ("", "\n", "\x00"):
        assert all(0 <= score <= 1 for _, score in identify(text))


def test_a_missing_language_model_is_one_line() -> None:
    with pytest.raises(UserError, match="language_model"):
        identify("x", "/nowhere/model.bin")
