"""Measure and curate over the cluster. Measuring reads WARC files, one task and one Parquet part each; curating reads
only the parts, so that deciding again with other thresholds is cheap.

Curating takes two passes: every part is decided on its own and tells the hashes of what would stay (16 bytes a page to
the driver); exact duplicates are found among those; then runs of whole parts are packed into output files. Parts, and
pages in them, keep the order of (file_path, offset), so the bytes do not depend on how the work was spread.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray

from webtochat import artifact, storage
from webtochat.artifact import Artifact
from webtochat.crawl import documents
from webtochat.crawl.listing import read_listing
from webtochat.crawl.stream import open_stream
from webtochat.crawl.warc import records
from webtochat.curate import language, parts
from webtochat.curate.decide import Removal, first_broken, rules
from webtochat.curate.guard import GuardedExtraction
from webtochat.curate.page import SCHEMA, measured_row, row_of
from webtochat.curate.quality import COLUMNS
from webtochat.curate.urls import blocklist
from webtochat.errors import UserError
from webtochat.recipe import Curate, Measure
from webtochat.run import Run, Stage

DECIDING = [*parts.STOPPED, *COLUMNS]
DUPLICATE = Removal("duplicates", "exact_duplicate")


# measure -------------------------------------------------------------------------------------------------------------


def measure(run: Run) -> Artifact:
    """Every page of the crawl with its text, language and measurements."""
    if run.recipe.crawl.source == "documents":
        raise UserError("crawl.source is documents: clean text is not measured from WARC files; run jobs/curate.py")
    crawled = run.open("crawl")
    section = run.recipe.measure
    hosts = blocklist(section.blocked_hosts)
    stage = run.begin("measure", measuring_identity(section, hosts), [crawled])
    if isinstance(stage, Artifact):
        return stage
    with stage:
        if run.recipe.crawl.source == "common-crawl" and run.recipe.crawl.crawl_id:
            section = section.model_copy(update={"dump": run.recipe.crawl.crawl_id})
        files = sorted(read_listing(crawled), key=lambda file: file.name)
        paths = {file.name: stage.path(parts.part_name(file.name)) for file in files}
        done = {entry.path for entry in stage.files()}
        todo = [
            {"name": file.name, "source": file.path, "part": paths[file.name]}
            for file in files if paths[file.name] not in done
        ]  # fmt: skip
        finished = spread(_measure_file, todo, (section, hosts), run.recipe.cluster.measure_workers)
        for number, each in enumerate(finished, len(files) - len(todo) + 1):
            stage.progress(number, len(files), "WARC files", each["name"])
        counts = _added([parts.counts_of(path) for path in paths.values()])
        measured = counts["rows"] - sum(counts["stopped"].values())
        stage.metrics({"rows": counts["rows"], "measured": measured} | _named("stopped", counts["stopped"]))
        return stage.commit(
            counts=counts, summary=f"{measured:,} of {counts['rows']:,} pages measured from {len(files)} WARC files",
            gain=f"{measured / max(1, counts['rows']):.0%} are {section.language} text",
        )  # fmt: skip


def measuring_identity(section: Measure, hosts: frozenset[str]) -> dict[str, Any]:
    """What measuring depends on. Files from outside count by their content, wherever they lie."""
    contents = {
        "blocked_hosts": artifact.hash_of(sorted(hosts)),
        "language_model": storage.sha256(language.model_path(section.language_model)),
    }
    return {"measure": section.model_dump(mode="json") | contents}


def spread(
    function: Callable[..., dict[str, Any]], rows: list[dict[str, Any]], shared: Any, workers: int | None
) -> Iterator[dict[str, Any]]:
    """`function(row, shared)` for every row with Ray Data, a task of one CPU each; results as they come."""
    if not rows:
        return
    ray.data.DataContext.get_current().enable_progress_bars = False
    held = ray.put(shared)
    data = ray.data.from_items(rows, override_num_blocks=len(rows))

    def task(row: dict[str, Any], held: list[ray.ObjectRef]) -> dict[str, Any]:
        return function(row, ray.get(held[0]))

    tasks = data.map(
        task,  # type: ignore[arg-type]  # mypy does not see fn_args
        fn_args=[[held]],
        num_cpus=1,
        concurrency=workers and min(workers, len(rows)),
    )
    yield from tasks.iter_rows()


def _measure_file(row: dict[str, Any], shared: tuple[Measure, frozenset[str]]) -> dict[str, Any]:
    """Writes the part of one WARC file."""
    section, hosts = shared
    skipped: Counter[str] = Counter()
    with open_stream(row["source"]) as source, GuardedExtraction(section.page_seconds) as extract:
        found = records(source, section.max_page_bytes, skipped)
        parts.write_part(row["part"], (row_of(each, row["name"], section, hosts, extract) for each in found), skipped)
    return {"name": row["name"]}


def _added(counts: list[dict[str, Any]]) -> dict[str, Any]:
    stopped: Counter[str] = Counter()
    skipped: Counter[str] = Counter()
    for each in counts:
        stopped.update(each["stopped"])
        skipped.update(each["skipped"])
    rows = sum(each["rows"] for each in counts)
    return {"rows": rows, "stopped": _ordered(stopped), "records_skipped": _ordered(skipped)}


def _ordered(counter: Counter[str]) -> dict[str, int]:
    """The most frequent first; of equals by name."""
    return dict(sorted(counter.items(), key=lambda item: (-item[1], item[0])))


def _named(prefix: str, counts: dict[str, int]) -> dict[str, float]:
    return {f"{prefix}.{key}": float(value) for key, value in counts.items()}


# curate --------------------------------------------------------------------------------------------------------------


def curate(run: Run) -> Artifact:
    """The pages that stay and those that go, each with its reason."""
    from_documents = run.recipe.crawl.source == "documents"
    source = run.open("crawl" if from_documents else "measure")
    identity = run.recipe.identity("curate")
    if from_documents:  # measured here, so what measuring depends on is part of the identity
        identity |= measuring_identity(run.recipe.measure, frozenset())
    stage = run.begin("curate", identity, [source])
    if isinstance(stage, Artifact):
        return stage
    with stage:
        section, workers = run.recipe.curate, run.recipe.cluster.measure_workers
        measured = _measured_documents(stage, source, run.recipe.measure, workers) if from_documents else source.files()
        measured = sorted(measured, key=parts.file_of)
        survivors: dict[str, dict[str, Any]] = {}
        for each in spread(_survivors, [{"part": part} for part in measured], section, workers):
            survivors[each["part"]] = each
            stage.progress(len(survivors), len(measured), "parts", "decided")
        ordered = [survivors[part] for part in measured]
        duplicates = exact_duplicates(ordered) if section.exact_duplicates else [[] for _ in ordered]
        runs = pack([each["bytes"] for each in ordered], section.file_bytes)
        rows = [
            {"number": number, "directory": stage.directory, "parts": measured[first:last],
             "duplicates": duplicates[first:last]}
            for number, (first, last) in enumerate(runs)
        ]  # fmt: skip
        removed: Counter[str] = Counter()
        kept = kept_bytes = 0
        for number, each in enumerate(spread(_write_documents, rows, section, workers), 1):
            counts = parts.counts_of(each["path"])
            kept, kept_bytes = kept + counts["kept"], kept_bytes + counts["bytes"]
            removed.update(counts["removed"])
            stage.progress(number, len(rows), "files", "written")
        total = sum(parts.counts_of(part)["rows"] for part in measured)
        if kept + sum(removed.values()) != total:
            raise RuntimeError(f"{total} pages were measured, but {kept} kept and {sum(removed.values())} removed")
        reasons = _ordered(removed)
        for key, count in list(reasons.items())[:12]:
            stage.say(f"{count:>10,} {count / max(1, total):>6.1%}  {key}")
        stage.metrics({"measured": total, "kept": kept, "kept_bytes": kept_bytes} | _named("removed", reasons))
        return stage.commit(
            counts={"measured": total, "kept": kept, "kept_bytes": kept_bytes, "removed": reasons},
            summary=f"kept {kept:,} of {total:,} pages, {kept_bytes / 1e6:.1f} MB",
            gain=f"{1 - kept / max(1, total):.0%} removed, by {len(reasons)} reasons",
        )  # fmt: skip


def _measured_documents(stage: Stage, source: Artifact, section: Measure, workers: int | None) -> list[str]:
    """Clean text as measured parts, under the draft's scratch: from there on it goes the way of crawled pages."""
    rows = [
        {"name": file.name, "source": file.path, "part": stage.scratch("measured", parts.part_name(file.name))}
        for file in read_listing(source)
    ]
    todo = [row for row in rows if not storage.exists(row["part"])]
    for number, each in enumerate(spread(_measure_documents, todo, section, workers), 1):
        stage.progress(number, len(todo), "files", each["name"])
    return [row["part"] for row in rows]


def _measure_documents(row: dict[str, Any], section: Measure) -> dict[str, Any]:
    def measured() -> Iterator[dict[str, Any]]:
        for batch in documents.rows(row["source"], row["name"]):
            for document in batch.to_pylist():
                if (document["text"] or "").strip():
                    yield measured_row(document, section)
                else:
                    yield document | {"step": "read", "reason": "no_text"}

    parts.write_part(row["part"], measured(), Counter())
    return {"name": row["name"]}


def decisions(table: pa.Table, section: Curate) -> list[Removal | None]:
    """For each measured row: why it goes, or None."""
    ordered = rules(section)
    found: list[Removal | None] = []
    for row in table.select(DECIDING).to_pylist():
        if row["step"] is not None:
            found.append(Removal(*(row[name] for name in parts.STOPPED)))
        else:
            found.append(first_broken(row, ordered))
    return found


def _survivors(row: dict[str, Any], section: Curate) -> dict[str, Any]:
    """First pass over a part: rows that no rule removes, the hashes of their texts (16 bytes each), their bytes."""
    with storage.open_input_file(row["part"]) as source:
        table = pq.read_table(source, columns=[*DECIDING, "rewritten_hash", "rewritten_bytes"])
    staying = [number for number, removal in enumerate(decisions(table, section)) if removal is None]
    kept = table.take(pa.array(staying, pa.int64()))
    return {
        "part": row["part"], "rows": staying, "hashes": b"".join(kept["rewritten_hash"].to_pylist()),
        "bytes": sum(kept["rewritten_bytes"].to_pylist()),
    }  # fmt: skip


def exact_duplicates(ordered: list[dict[str, Any]]) -> list[list[int]]:
    """For each part: its rows whose text stood in an earlier row. The first in (file_path, offset) stays."""
    seen: set[bytes] = set()
    found = []
    for part in ordered:
        again = []
        for position, row in enumerate(part["rows"]):
            digest = part["hashes"][16 * position : 16 * position + 16]
            if digest in seen:
                again.append(row)
            seen.add(digest)
        found.append(again)
    return found


def pack(sizes: list[int], file_bytes: int) -> list[tuple[int, int]]:
    """Runs [first, last) of parts whose kept texts come to about `file_bytes`, in order."""
    runs, first, size = [], 0, 0
    for number, each in enumerate(sizes, 1):
        size += each
        if size >= file_bytes or number == len(sizes):
            runs.append((first, number))
            first, size = number, 0
    return runs


def _write_documents(row: dict[str, Any], section: Curate) -> dict[str, Any]:
    """Second pass: the kept and the removed documents of a run of parts, a file each. The kept file comes last, with
    the counts of both."""
    name = f"{row['number']:05d}.parquet"
    path = storage.join(row["directory"], "kept", name)
    if storage.exists(path):
        return {"path": path}
    removed: Counter[str] = Counter()
    counts: dict[str, Any] = {"kept": 0, "bytes": 0, "removed": removed}
    with (
        parts.writing(path, parts.KEPT_SCHEMA, counts) as kept,
        parts.writing(storage.join(row["directory"], "removed", name), parts.REMOVED_SCHEMA, {}) as gone,
    ):
        for part, duplicates in zip(row["parts"], row["duplicates"], strict=True):
            again, position = {int(number) for number in duplicates}, 0
            for table in parts.read_part(part):
                removals = [
                    DUPLICATE if position + number in again else removal
                    for number, removal in enumerate(decisions(table, section))
                ]
                position += len(removals)
                staying = table.filter(pa.array([removal is None for removal in removals], pa.bool_()))
                kept.add(_with(staying, "text", staying["rewritten"]))
                gone.add(_removed(table, removals))
                removed.update(f"{removal.step}.{removal.reason}" for removal in removals if removal is not None)
                counts["kept"] += len(staying)
                counts["bytes"] += sum(staying["rewritten_bytes"].to_pylist())
    return {"path": path}


def _removed(table: pa.Table, removals: list[Removal | None]) -> pa.Table:
    """The rows that go, with the reason of each."""
    going = table.filter(pa.array([removal is not None for removal in removals], pa.bool_()))
    for name in parts.STOPPED:
        values = [getattr(removal, name) for removal in removals if removal is not None]
        going = _with(going, name, pa.array(values, SCHEMA.field(name).type))
    return going


def _with(table: pa.Table, name: str, values: Any) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), SCHEMA.field(name), values)
