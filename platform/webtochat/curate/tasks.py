"""What a worker does with one file: measures its pages, decides on them, writes what stays and what goes. Each task
writes whole files, and leaves alone what is there."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from webtochat import storage
from webtochat.crawl import documents
from webtochat.crawl.stream import open_stream
from webtochat.crawl.warc import records
from webtochat.curate import parts, pii, samples, steps
from webtochat.curate.clock import Clock
from webtochat.curate.contamination import EvaluationSets
from webtochat.curate.decide import Removal, first_broken, rules
from webtochat.curate.guard import GuardedExtraction
from webtochat.curate.page import SCHEMA, measured_row, row_of
from webtochat.curate.quality import COLUMNS
from webtochat.curate.urls import Blocklists
from webtochat.duplicates import minhash, signatures
from webtochat.recipe_pages import Curate, Measure

DECIDING = [*parts.STOPPED, *COLUMNS, "quality", "own"]
SHOWN = ["id", "url", "title", "text", *parts.STOPPED]
EXACT, NEAR = Removal("duplicates", "exact_duplicate"), Removal("duplicates", "near_duplicate")


def measure_file(row: dict[str, Any], shared: tuple[Measure, Blocklists]) -> dict[str, Any]:
    """Writes the part of one WARC file."""
    section, lists = shared
    skipped: Counter[str] = Counter()
    clock = Clock()
    with open_stream(row["source"]) as source, GuardedExtraction(section.page_seconds) as extract:
        found = records(source, section.max_page_bytes, skipped)
        rows = (row_of(each, row["name"], section, lists, extract, clock.lap) for each in found)
        parts.write_part(row["part"], steps.not_all_failed(rows, section), skipped)
    clock.write(row["seconds"])
    return {"name": row["name"]}


def measure_documents(row: dict[str, Any], section: Measure) -> dict[str, Any]:
    clock = Clock()

    def measured() -> Iterator[dict[str, Any]]:
        for batch in documents.rows(row["source"], row["name"]):
            clock.lap("read")
            for document in batch.to_pylist():
                if (document["text"] or "").strip():
                    yield measured_row(document, section, clock.lap)
                else:
                    yield document | {"step": "read", "reason": "no_text"}

    parts.write_part(row["part"], steps.not_all_failed(measured(), section), Counter())
    clock.write(row["seconds"])
    return {"name": row["name"]}


def decisions(table: pa.Table, section: Curate) -> list[Removal | None]:
    """For each measured row: why it goes, or None."""
    ordered = rules(section)
    found: list[Removal | None] = []
    for row in table.select(DECIDING).to_pylist():
        if row["step"] is not None:
            found.append(Removal(*(row[name] for name in parts.STOPPED)))
        else:
            found.append(first_broken(row | dict(row["own"] or ()), ordered))
    return found


def sign_part(row: dict[str, Any], shared: tuple[Curate, EvaluationSets | None]) -> dict[str, Any]:
    """First pass over a part: of what no rule removes, the signatures, or the evaluation set that it holds a text of.
    Returns its bytes of text."""
    if not storage.exists(row["signed"]):
        section, sets = shared
        clock = Clock()
        signed: list[dict[str, Any]] = []
        position = 0
        for table in parts.read_part(row["part"]):
            removals = decisions(table, section)
            staying = [number for number, removal in enumerate(removals) if removal is None]
            texts = table.select(["rewritten", "rewritten_hash", "rewritten_bytes"]).take(pa.array(staying, pa.int64()))
            clock.lap("decide")
            for number, page in zip(staying, texts.to_pylist(), strict=True):
                held = sets.within(page["rewritten"]) if sets else None
                if sets:
                    clock.lap("contamination")
                if held is not None:
                    signed.append({"row": position + number, "bytes": 0, "evaluation_set": held[0], "runs": held[1]})
                    continue
                near = section.near_duplicates and minhash.buckets(page["rewritten"], section.near_duplicates)
                clock.lap("duplicates")
                signed.append({
                    "row": position + number, "text_hash": page["rewritten_hash"], "bytes": page["rewritten_bytes"],
                    "buckets": [] if near is None else near,
                })  # fmt: skip
            position += len(removals)
        clock.seconds.pop("decide", None)  # no step removes a page by it
        clock.write(row["seconds"])
        signatures.write(row["signed"], signed)
    return {"part": row["part"], "bytes": sum(signatures.read(row["signed"], ["bytes"])["bytes"].to_pylist())}


def pack(sizes: list[int], file_bytes: int) -> list[tuple[int, int]]:
    """Runs [first, last) of parts whose kept texts come to about `file_bytes`, in order."""
    runs, first, size = [], 0, 0
    for number, each in enumerate(sizes, 1):
        size += each
        if size >= file_bytes or number == len(sizes):
            runs.append((first, number))
            first, size = number, 0
    return runs


def write_documents(row: dict[str, Any], section: Curate) -> dict[str, Any]:
    """Second pass: the kept and the removed documents of a run of parts, a file each. The kept file comes last, with
    the counts of both."""
    name = f"{row['number']:05d}.parquet"
    path = storage.join(row["directory"], "kept", name)
    if storage.exists(path):
        return {"path": path}
    removed: Counter[str] = Counter()
    replaced: Counter[str] = Counter()
    counts: dict[str, Any] = {"kept": 0, "bytes": 0, "removed": removed, "pii": replaced}
    drawn: samples.Drawn = {}
    again = _duplicates(row["duplicates"])
    with (
        parts.writing(path, parts.KEPT_SCHEMA, counts) as kept,
        parts.writing(storage.join(row["directory"], "removed", name), parts.REMOVED_SCHEMA, {}) as gone,
    ):
        for number, (part, signed) in enumerate(zip(row["parts"], row["signed"], strict=True), row["first"]):
            held = _contaminated(signed)
            position = 0
            for table in parts.read_part(part):
                removals = decisions(table, section)
                stands: list[int | None] = [None] * len(removals)
                for place, removal in enumerate(removals):
                    if removal is None:
                        removals[place] = held.get(position + place)
                    if (number, position + place) in again:
                        removals[place], stands[place] = again[number, position + place]
                position += len(removals)
                staying = table.filter(pa.array([removal is None for removal in removals], pa.bool_()))
                texts = []
                for text in staying["rewritten"].to_pylist():
                    clean, found = pii.replaced(text, section.pii)
                    texts.append(clean)
                    replaced.update(found)
                    counts["bytes"] += len(clean.encode())
                kept.add(_with(staying, "text", pa.array(texts, pa.string())))
                going = _removed(table, removals)
                gone.add(going)
                stands = [place for place, removal in zip(stands, removals, strict=True) if removal is not None]
                for page, stay in zip(going.select(SHOWN).to_pylist(), stands, strict=True):
                    samples.draw(drawn, page | {"kept": stay})
                removed.update(f"{removal.step}.{removal.reason}" for removal in removals if removal is not None)
                counts["kept"] += len(staying)
        storage.write_bytes(row["samples"], json.dumps(drawn).encode())
    return {"path": path}


def _duplicates(path: str) -> dict[tuple[int, int], tuple[Removal, int]]:
    """(part, row) of the documents that stood before; and the key of the one that did."""
    if not storage.exists(path):
        return {}
    columns = [column.to_pylist() for column in signatures.read(path, ["part", "row", "exact", "kept"]).columns]
    return {(part, row): (EXACT if exact else NEAR, kept) for part, row, exact, kept in zip(*columns, strict=True)}


def _contaminated(signed: str) -> dict[int, Removal]:
    """Rows of a part that hold a text of an evaluation set."""
    table = signatures.read(signed, ["row", "evaluation_set", "runs"])
    table = table.filter(table["evaluation_set"].is_valid())
    columns = [column.to_pylist() for column in table.columns]
    return {row: Removal("contamination", name, float(runs)) for row, name, runs in zip(*columns, strict=True)}


def _removed(table: pa.Table, removals: list[Removal | None]) -> pa.Table:
    """The rows that go, with the reason of each."""
    going = table.filter(pa.array([removal is not None for removal in removals], pa.bool_()))
    for name in parts.STOPPED:
        values = [getattr(removal, name) for removal in removals if removal is not None]
        going = _with(going, name, pa.array(values, SCHEMA.field(name).type))
    return going


def _with(table: pa.Table, name: str, values: Any) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), SCHEMA.field(name), values)
