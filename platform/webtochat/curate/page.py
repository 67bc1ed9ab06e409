"""One page of a crawl to one measured row. A page that a step stops keeps its text and says which step and why."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from webtochat.crawl.warc import Damage, Record
from webtochat.curate import classifier, steps
from webtochat.curate.extract import Extraction, ExtractionError, extract
from webtochat.curate.language import identify
from webtochat.curate.quality import COLUMNS, measured
from webtochat.curate.urls import Blocklists
from webtochat.recipe_pages import Measure

SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("id", "url", "date", "dump", "file_path")]
    + [("offset", pa.int64()), ("status", pa.int32()), ("title", pa.string())]
    + [("text", pa.string()), ("rewritten", pa.string())]
    + [("rewritten_hash", pa.binary(16)), ("rewritten_bytes", pa.int64())]
    + [("language", pa.string()), ("language_score", pa.float64()), ("token_count", pa.int64())]
    + [("languages", pa.list_(pa.string())), ("language_scores", pa.list_(pa.float64()))]
    + [("step", pa.string()), ("reason", pa.string()), ("value", pa.float64()), ("threshold", pa.float64())]
    + [(name, pa.float64()) for name in COLUMNS]
    + [("quality", pa.float64()), ("own", pa.map_(pa.string(), pa.float64()))]
)
"""`step` to `threshold` are set where a page was stopped before it was measured, or by a step of the user's.
`token_count` is null: no tokenizer exists yet. `languages` are the three likeliest; a measurement that was not made is
null. `own` holds those of the user's steps."""

Row = dict[str, Any]
Extract = Callable[[bytes, str | None], Extraction]
Lap = Callable[[str], None]
HTML = re.compile(rb"<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE)


def row_of(
    found: Record | Damage, file_path: str, section: Measure, lists: Blocklists, read: Extract = extract,
    lap: Lap = lambda step: None,
) -> Row:  # fmt: skip
    """The row of a record or damaged region. URL lists and language run before the measurements, as FineWeb's do.
    `lap` is told each step that ends."""
    lap("read")
    if isinstance(found, Damage):
        row = {"id": f"damage:{file_path}:{found.offset}", "file_path": file_path, "offset": found.offset}
        return row | {"dump": section.dump, "step": "read", "reason": found.reason}
    row = {
        "id": found.id or f"record:{file_path}:{found.offset}", "url": found.url, "date": found.date,
        "dump": section.dump, "file_path": file_path, "offset": found.offset, "status": found.status,
    }  # fmt: skip
    reason = lists.reason(found.url)
    lap("url")
    if reason:
        return row | {"step": "url", "reason": reason}
    if found.problem is not None:
        return row | {"step": "read", "reason": found.problem}
    if found.status != 200:
        return row | {"step": "http", "reason": "status", "value": float(found.status), "threshold": 200.0}
    if not is_html(found):
        return row | {"step": "http", "reason": "not_html"}
    try:
        extraction = read(found.body, found.content_type)
    except ExtractionError as error:
        return row | {"step": "extract", "reason": str(error)}
    finally:
        lap("extract")
    return measured_row(row | {"title": extraction.title, "text": extraction.text}, section, lap)


def is_html(record: Record) -> bool:
    """By the declared type; where that says nothing, by the first kilobyte."""
    declared = record.content_type.split(";")[0].strip().lower()
    if declared in ("text/html", "application/xhtml+xml"):
        return True
    vague = declared in ("", "text/plain", "application/octet-stream", "unk", "unknown")
    return vague and HTML.search(record.body[:1024]) is not None


def measured_row(row: Row, section: Measure, lap: Lap = lambda step: None) -> Row:
    """Adds language and, where it is a wanted one, every measurement to a row that has a text; then asks the user's
    steps that are functions, until one of them stops the page."""
    found = identify(row["text"], section.language_model)
    lap("language")
    language, score = found[0]
    row = row | {"language": language, "language_score": score}
    row |= {"languages": [name for name, _ in found], "language_scores": [value for _, value in found]}
    least = section.languages.get(language)
    if section.languages and least is None:
        return row | {"step": "language", "reason": "other_language", "value": score}
    if least is not None and score < least:
        return row | {"step": "language", "reason": "language_score", "value": score, "threshold": least}
    values, rewritten = measured(row["text"], section.lines, section.stop_words.get(language), lap)
    encoded = rewritten.encode()
    digest = hashlib.sha256(encoded).digest()[:16]
    row |= values | {"rewritten": rewritten, "rewritten_hash": digest, "rewritten_bytes": len(encoded)}
    if section.quality_model is not None:
        row |= {"quality": classifier.score(rewritten, section.quality_model)}
        lap("quality")
    for step in steps.functions(section):
        row = steps.asked(row, step)
        lap(step.name)
        if row.get("step") is not None:
            break
    return row
