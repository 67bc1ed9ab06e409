"""Measure and curate over the cluster. Measuring reads WARC files, one task and one Parquet part each; curating reads
only the parts, so that deciding again with other thresholds is cheap.

Curating takes two passes: every part is decided on its own and tells the hashes of what would stay (32 bytes a page to
the driver); exact duplicates are found among those; then runs of whole parts are packed into output files. Parts, and
pages in them, keep the order of (file_path, offset), so the bytes do not depend on how the work was spread.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray

from webtochat import storage
from webtochat.artifact import Artifact
from webtochat.crawl.listing import WarcFile, read_listing
from webtochat.crawl.stream import open_stream
from webtochat.crawl.warc import records
from webtochat.curate.decide import Removal, first_broken, rules
from webtochat.curate.page import SCHEMA, measured_row, row_of
from webtochat.curate.quality import COLUMNS
from webtochat.curate.urls import blocklist
from webtochat.errors import UserError
from webtochat.recipe import Curate, Measure
from webtochat.run import Run, Stage

ROWS = 200
"""Rows of a write: bounds the memory of a worker at about this many pages."""
REMOVED_SCHEMA = pa.schema([field for field in SCHEMA if field.name not in ("rewritten", "rewritten_hash")])
KEPT_SCHEMA = pa.schema([
    field for field in REMOVED_SCHEMA if field.name not in ("step", "reason", "value", "threshold")
])  # fmt: skip
DUPLICATE = Removal("duplicates", "exact_duplicate")


# measure -------------------------------------------------------------------------------------------------------------


def measure(run: Run) -> Artifact:
    crawled = run.open("crawl")
    if run.recipe.crawl.source == "documents":
        raise UserError("crawl.source is documents: clean text is not measured from WARC files; run jobs/curate.py")
    stage = run.begin("measure", run.recipe.identity("measure"), [crawled])
    if isinstance(stage, Artifact):
        return stage
    with stage:
        section = run.recipe.measure
        files = sorted(read_listing(crawled), key=lambda file: file.name)
        hosts = blocklist(section.blocked_hosts)
        done = {entry.path for entry in stage.files()}
        todo = [file for file in files if stage.path(part_name(file.name)) not in done]
        context = ray.put((section, hosts))
        rows = [{"file": file, "path": stage.path(part_name(file.name)), "context": [context]} for file in todo]
        for number, found in enumerate(spread(rows, _measure_file, run.recipe.cluster.measure_workers), 1):
            stage.progress(len(files) - len(todo) + number, len(files), "WARC files", found["name"])
        counts = _part_counts([stage.path(part_name(file.name)) for file in files])
        stopped = Counter(counts["stopped"])
        stage.metrics({"rows": counts["rows"], **{f"stopped.{key}": value for key, value in stopped.items()}})
        measured = counts["rows"] - sum(stopped.values())
        return stage.commit(
            counts=counts, summary=f"{measured:,} of {counts['rows']:,} pages measured from {len(files)} WARC files",
            gain=f"{measured / max(1, counts['rows']):.0%} are {section.language} text",
        )  # fmt: skip


def spread(rows: list[dict[str, Any]], function: Any, workers: int | None) -> Iterator[dict[str, Any]]:
    """The function over rows with Ray Data, a row a task, results as they come."""
    if not rows:
        return
    ray.data.DataContext.get_current().enable_progress_bars = False
    data = ray.data.from_items(rows, override_num_blocks=len(rows))
    yield from data.map(function, num_cpus=1, concurrency=workers).iter_rows()


def part_name(name: str) -> str:
    """Of a WARC file: the name without its endings, so that it sorts as the file does."""
    return name.removesuffix(".gz").removesuffix(".warc").replace("/", "_") + ".parquet"


def _measure_file(row: dict[str, Any]) -> dict[str, Any]:
    """Writes the part of one WARC file."""
    file: WarcFile = row["file"]
    section, hosts = ray.get(row["context"][0])
    skipped: Counter[str] = Counter()
    with open_stream(file.path) as source:
        found = records(source, section.max_page_bytes, skipped)
        written = write_part(row["path"], (row_of(each, file.name, section, hosts) for each in found), skipped)
    return {"name": file.name, "rows": written}


def write_part(path: str, rows: Iterable[dict[str, Any]], skipped: Counter[str]) -> int:
    """Writes measured rows with their counts in the file's metadata, so that a resumed run knows them; how many."""
    stopped: Counter[str] = Counter()
    total = 0
    with storage.writing(path) as local, pq.ParquetWriter(local, SCHEMA, compression="zstd") as writer:
        pending: list[dict[str, Any]] = []
        for row in rows:
            total += 1
            if row.get("step"):
                stopped[f"{row['step']}.{row['reason']}"] += 1
            pending.append(row)
            if len(pending) == ROWS:
                writer.write_table(pa.Table.from_pylist(pending, SCHEMA))
                pending = []
        if pending:
            writer.write_table(pa.Table.from_pylist(pending, SCHEMA))
        counts = {"rows": total, "stopped": dict(sorted(stopped.items())), "skipped": dict(sorted(skipped.items()))}
        writer.add_key_value_metadata({"webtochat": json.dumps(counts)})
    return total


def _part_counts(paths: list[str]) -> dict[str, Any]:
    total = 0
    stopped: Counter[str] = Counter()
    skipped: Counter[str] = Counter()
    for path in paths:
        with storage.open_input_file(path) as source:
            counts = json.loads(pq.ParquetFile(source).metadata.metadata[b"webtochat"])
        total += counts["rows"]
        stopped.update(counts["stopped"])
        skipped.update(counts["skipped"])
    return {"rows": total, "stopped": dict(stopped.most_common()), "records_skipped": dict(skipped.most_common())}


# curate --------------------------------------------------------------------------------------------------------------


def curate(run: Run) -> Artifact:
    documents = run.recipe.crawl.source == "documents"
    source = run.open("crawl" if documents else "measure")
    # Documents are measured here, so what measuring depends on is part of the identity.
    sections = ("measure", "curate") if documents else ("curate",)
    stage = run.begin("curate", run.recipe.identity(*sections), [source])
    if isinstance(stage, Artifact):
        return stage
    with stage:
        section, workers = run.recipe.curate, run.recipe.cluster.measure_workers
        parts = _measured_documents(stage, source, run.recipe.measure, workers) if documents else source.files()
        thresholds = ray.put(section)
        candidates: list[dict[str, Any]] = []
        decided = ({"part": part, "context": [thresholds]} for part in parts)
        for number, found in enumerate(spread(list(decided), _survivors, workers), 1):
            candidates.append(found)
            stage.progress(number, len(parts), "parts", "decided")
        candidates.sort(key=lambda found: found["part"])
        duplicates = exact_duplicates(candidates) if section.exact_duplicates else [[] for _ in candidates]
        files = pack([found["bytes"] for found in candidates], section.file_bytes)
        context = ray.put((section, candidates, duplicates))
        rows = [
            {"number": number, "first": first, "last": last, "directory": stage.directory, "context": [context]}
            for number, (first, last) in enumerate(files)
        ]
        kept, kept_bytes, measured, removed = 0, 0, 0, Counter[str]()
        for written in spread(rows, _write_files, workers):
            kept += written["kept"]
            kept_bytes += written["bytes"]
            measured += written["rows"]
            removed.update(json.loads(written["removed"]))
        assert kept + sum(removed.values()) == measured, "a page was lost between measuring and curating"
        _say_reasons(stage, removed, measured)
        stage.metrics({"kept": kept, "kept_bytes": kept_bytes, **{f"removed.{key}": n for key, n in removed.items()}})
        return stage.commit(
            counts={
                "measured": measured, "kept": kept, "kept_bytes": kept_bytes, "removed": dict(removed.most_common()),
            },
            summary=f"kept {kept:,} of {measured:,} pages, {kept_bytes / 1e6:.1f} MB",
            gain=f"{1 - kept / max(1, measured):.0%} removed, by {len(removed)} reasons",
        )  # fmt: skip


def _say_reasons(stage: Stage, removed: Counter[str], measured: int) -> None:
    for key, count in removed.most_common(8):
        stage.say(f"{count:>8,}  {count / max(1, measured):>5.1%}  {key}")


def _measured_documents(stage: Stage, source: Artifact, section: Measure, workers: int | None) -> list[str]:
    """Clean text as measured parts, under the draft's scratch: from there on it goes the way of crawled pages."""
    files = sorted(read_listing(source), key=lambda file: file.name)
    parts = [stage.scratch("parts", part_name(file.name)) for file in files]
    context = ray.put(section)
    rows = [
        {"file": file, "path": part, "context": [context]}
        for file, part in zip(files, parts, strict=True) if not storage.exists(part)
    ]  # fmt: skip
    for number, _ in enumerate(spread(rows, _measure_documents, workers), 1):
        stage.progress(number, len(rows), "files", "measured")
    return parts


def _measure_documents(row: dict[str, Any]) -> dict[str, Any]:
    from webtochat.crawl.documents import rows as document_rows

    section = ray.get(row["context"][0])

    def measured() -> Iterator[dict[str, Any]]:
        names = set(SCHEMA.names)
        for batch in document_rows(row["file"].path, row["file"].name):
            for number, document in enumerate(batch.to_pylist()):
                known = {key: value for key, value in document.items() if key in names}
                if not known.get("text"):
                    yield known | {"step": "read", "reason": "no_text"}
                    continue
                yield measured_row(known | {"offset": known.get("offset", number)}, section)

    return {"rows": write_part(row["path"], measured(), Counter())}


DECIDING = ["step", "reason", "value", "threshold", "rewritten_hash", *COLUMNS]


def decisions(table: pa.Table, section: Curate) -> list[Removal | None]:
    """For each row of a part: why it goes, or None."""
    ordered = rules(section)
    columns = {name: table[name].to_pylist() for name in DECIDING}
    names = list(columns)
    found: list[Removal | None] = []
    for values in zip(*columns.values(), strict=True):
        row = dict(zip(names, values, strict=True))
        if row["step"] is not None:
            found.append(Removal(row["step"], row["reason"], row["value"], row["threshold"]))
        else:
            found.append(first_broken(row, ordered))
    return found


def _survivors(row: dict[str, Any]) -> dict[str, Any]:
    """First pass over a part: rows that no rule removes, with the hashes and bytes of their texts."""
    with storage.open_input_file(row["part"]) as source:
        table = pq.read_table(source, columns=[*DECIDING, "rewritten"])
    removals = decisions(table, ray.get(row["context"][0]))
    kept = [number for number, removal in enumerate(removals) if removal is None]
    hashes, texts = table["rewritten_hash"], table["rewritten"]
    size = sum(len(texts[number].as_py().encode("utf-8", "surrogatepass")) for number in kept)
    return {"part": row["part"], "rows": kept, "hashes": [hashes[number].as_py() for number in kept], "bytes": size}


def exact_duplicates(candidates: list[dict[str, Any]]) -> list[list[int]]:
    """For each part in order: rows whose text stood in an earlier row. The first in (file_path, offset) stays."""
    seen: set[bytes] = set()
    duplicates: list[list[int]] = []
    for part in candidates:
        again = []
        for row, digest in zip(part["rows"], part["hashes"], strict=True):
            key = bytes.fromhex(digest)
            if key in seen:
                again.append(row)
            seen.add(key)
        duplicates.append(again)
    return duplicates


def pack(sizes: list[int], file_bytes: int) -> list[tuple[int, int]]:
    """Runs [first, last) of parts whose kept texts come to about `file_bytes`, in order."""
    runs, first, size = [], 0, 0
    for number, each in enumerate(sizes, 1):
        size += each
        if size >= file_bytes or number == len(sizes):
            runs.append((first, number))
            first, size = number, 0
    return runs


def _write_files(row: dict[str, Any]) -> dict[str, Any]:
    """Second pass: the kept and the removed documents of a run of parts, a file each."""
    section, candidates, duplicates = ray.get(row["context"][0])
    name = f"{row['number']:05d}.parquet"
    kept_path, removed_path = (storage.join(row["directory"], folder, name) for folder in ("kept", "removed"))
    counts: Counter[str] = Counter()
    kept = size = total = 0
    with (
        storage.writing(kept_path) as kept_local,
        storage.writing(removed_path) as removed_local,
        pq.ParquetWriter(kept_local, KEPT_SCHEMA, compression="zstd") as kept_writer,
        pq.ParquetWriter(removed_local, REMOVED_SCHEMA, compression="zstd") as removed_writer,
    ):
        for part in range(row["first"], row["last"]):
            again = set(duplicates[part])
            position = 0
            with storage.open_input_file(candidates[part]["part"]) as source:
                for batch in pq.ParquetFile(source).iter_batches(batch_size=2000):
                    table = pa.Table.from_batches([batch])
                    removals = [
                        DUPLICATE if position + number in again else removal
                        for number, removal in enumerate(decisions(table, section))
                    ]
                    position += len(removals)
                    staying = table.filter(pa.array([removal is None for removal in removals]))
                    staying = staying.set_column(staying.schema.get_field_index("text"), "text", staying["rewritten"])
                    going = _with_removals(table, [removal for removal in removals if removal is not None], removals)
                    kept_writer.write_table(staying.select(KEPT_SCHEMA.names).cast(KEPT_SCHEMA))
                    removed_writer.write_table(going.select(REMOVED_SCHEMA.names).cast(REMOVED_SCHEMA))
                    counts.update(f"{removal.step}.{removal.reason}" for removal in removals if removal is not None)
                    kept += len(staying)
                    size += sum(len(text.encode("utf-8", "surrogatepass")) for text in staying["text"].to_pylist())
                    total += len(removals)
    return {"kept": kept, "bytes": size, "rows": total, "removed": json.dumps(counts)}


def _with_removals(table: pa.Table, removed: list[Removal], removals: list[Removal | None]) -> pa.Table:
    going = table.filter(pa.array([removal is not None for removal in removals]))
    for name in ("step", "reason", "value", "threshold"):
        field = SCHEMA.field(name)
        values = pa.array([getattr(removal, name) for removal in removed], field.type)
        going = going.set_column(going.schema.get_field_index(name), field, values)
    return going
