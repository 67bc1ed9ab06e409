"""Measure and curate over the cluster. Measuring reads WARC files, one task and one Parquet part each; curating reads
only the parts, so that deciding again with other thresholds is cheap.

Curating takes three passes: every part is decided on its own, and signatures are written of what would stay; duplicates
are found among these (duplicates/stage.py); then runs of whole parts are packed into output files. Parts, and pages in
them, keep the order of (file_path, offset), so the bytes do not depend on how the work was spread.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import ray

from webtochat import artifact, storage
from webtochat.artifact import Artifact
from webtochat.crawl import documents
from webtochat.crawl.listing import read_listing
from webtochat.crawl.stream import open_stream
from webtochat.crawl.warc import records
from webtochat.curate import language, main_content, parts, pii
from webtochat.curate.decide import Removal, first_broken, rules
from webtochat.curate.guard import GuardedExtraction
from webtochat.curate.page import SCHEMA, measured_row, row_of
from webtochat.curate.quality import COLUMNS
from webtochat.curate.urls import Blocklists
from webtochat.duplicates import minhash, signatures
from webtochat.duplicates import stage as duplicates
from webtochat.errors import UserError
from webtochat.recipe import Curate, Measure
from webtochat.run import Run, Stage

DECIDING = [*parts.STOPPED, *COLUMNS]
EXACT, NEAR = Removal("duplicates", "exact_duplicate"), Removal("duplicates", "near_duplicate")


# measure -------------------------------------------------------------------------------------------------------------


def measure(run: Run) -> Artifact:
    """Every page of the crawl with its text, language and measurements."""
    if run.recipe.crawl.source == "documents":
        raise UserError("crawl.source is documents: clean text is not measured from WARC files; run jobs/curate.py")
    crawled = run.open("crawl")
    section = run.recipe.measure
    lists = Blocklists.of(section.urls)
    stage = run.begin("measure", measuring_identity(section, lists), [crawled])
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
        finished = spread(_measure_file, todo, (section, lists), run.recipe.cluster.measure_workers)
        for number, each in enumerate(finished, len(files) - len(todo) + 1):
            stage.progress(number, len(files), "WARC files", each["name"])
        counts = _added([parts.counts_of(path) for path in paths.values()])
        measured = counts["rows"] - sum(counts["stopped"].values())
        stage.metrics({"rows": counts["rows"], "measured": measured} | _named("stopped", counts["stopped"]))
        return stage.commit(
            counts=counts, summary=f"{measured:,} of {counts['rows']:,} pages measured from {len(files)} WARC files",
            gain=f"{measured / max(1, counts['rows']):.0%} are {'/'.join(section.languages) or 'readable'} text",
        )  # fmt: skip


def measuring_identity(section: Measure, lists: Blocklists | None) -> dict[str, Any]:
    """What measuring depends on. Files from outside count by their content, wherever they lie."""
    contents = {
        "urls": lists.fingerprint() if lists else None,
        "main_content": storage.sha256(str(main_content.WEIGHTS)),
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


def _measure_file(row: dict[str, Any], shared: tuple[Measure, Blocklists]) -> dict[str, Any]:
    """Writes the part of one WARC file."""
    section, lists = shared
    skipped: Counter[str] = Counter()
    with open_stream(row["source"]) as source, GuardedExtraction(section.page_seconds) as extract:
        found = records(source, section.max_page_bytes, skipped)
        parts.write_part(row["part"], (row_of(each, row["name"], section, lists, extract) for each in found), skipped)
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
    earlier = [artifact.open_artifact(directory, "curate") for directory in run.recipe.curate.earlier]
    for made in earlier:
        if made.manifest.identity["curate"]["near_duplicates"] != identity["curate"]["near_duplicates"]:
            raise UserError(f"curate.earlier: {made.directory} was made with other settings of near_duplicates")
    identity["curate"]["earlier"] = [made.content_hash for made in earlier]
    if from_documents:  # measured here, so what measuring depends on is part of the identity
        identity |= measuring_identity(run.recipe.measure, None)
    stage = run.begin("curate", identity, [source])
    if isinstance(stage, Artifact):
        return stage
    with stage:
        section, workers = run.recipe.curate, run.recipe.cluster.measure_workers
        measured = _measured_documents(stage, source, run.recipe.measure, workers) if from_documents else source.files()
        measured = sorted(measured, key=parts.file_of)
        signed = [stage.path("signatures", parts.part_name(parts.file_of(part))) for part in measured]
        todo = [{"part": part, "signed": path} for part, path in zip(measured, signed, strict=True)]
        sizes: dict[str, int] = {}
        for each in spread(_sign_part, todo, section, workers):
            sizes[each["part"]] = each["bytes"]
            stage.progress(len(sizes), len(measured), "parts", "decided")
        runs = pack([sizes[part] for part in measured], section.file_bytes)
        known = [path for made in earlier for path in made.files("signatures/")]
        stage.screen.progress("  curate: looking for duplicates")
        duplicates.find(
            [(path, number) for number, path in enumerate([*known, *signed])],
            [len(known) + first for first, _ in runs], stage.scratch("duplicates"),
            section.exact_duplicates, section.near_duplicates is not None,
        )  # fmt: skip
        rows = [
            {"number": number, "directory": stage.directory, "parts": measured[first:last], "first": len(known) + first,
             "duplicates": duplicates.path_of(stage.scratch("duplicates"), number)}
            for number, (first, last) in enumerate(runs)
        ]  # fmt: skip
        removed: Counter[str] = Counter()
        replaced: Counter[str] = Counter()
        kept = kept_bytes = 0
        for number, each in enumerate(spread(_write_documents, rows, section, workers), 1):
            counts = parts.counts_of(each["path"])
            kept, kept_bytes = kept + counts["kept"], kept_bytes + counts["bytes"]
            removed.update(counts["removed"])
            replaced.update(counts["pii"])
            stage.progress(number, len(rows), "files", "written")
        total = sum(parts.counts_of(part)["rows"] for part in measured)
        if kept + sum(removed.values()) != total:
            raise RuntimeError(f"{total} pages were measured, but {kept} kept and {sum(removed.values())} removed")
        reasons = _ordered(removed)
        for key, count in list(reasons.items())[:12]:
            stage.say(f"{count:>10,} {count / max(1, total):>6.1%}  {key}")
        found = _ordered(replaced)
        if found:
            stage.say("replaced " + ", ".join(f"{count:,} {kind}" for kind, count in found.items()))
        numbers = {"measured": total, "kept": kept, "kept_bytes": kept_bytes}
        stage.metrics(numbers | _named("removed", reasons) | _named("pii", found))
        return stage.commit(
            counts=numbers | {"removed": reasons, "pii": found},
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


def _sign_part(row: dict[str, Any], section: Curate) -> dict[str, Any]:
    """First pass over a part: the signatures of what no rule removes. Returns its bytes of text."""
    if not storage.exists(row["signed"]):
        signed: list[dict[str, Any]] = []
        position = 0
        for table in parts.read_part(row["part"]):
            removals = decisions(table, section)
            staying = [number for number, removal in enumerate(removals) if removal is None]
            texts = table.select(["rewritten", "rewritten_hash", "rewritten_bytes"]).take(pa.array(staying, pa.int64()))
            for number, page in zip(staying, texts.to_pylist(), strict=True):
                near = section.near_duplicates and minhash.buckets(page["rewritten"], section.near_duplicates)
                signed.append({
                    "row": position + number, "text_hash": page["rewritten_hash"], "bytes": page["rewritten_bytes"],
                    "buckets": [] if near is None else near,
                })  # fmt: skip
            position += len(removals)
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


def _write_documents(row: dict[str, Any], section: Curate) -> dict[str, Any]:
    """Second pass: the kept and the removed documents of a run of parts, a file each. The kept file comes last, with
    the counts of both."""
    name = f"{row['number']:05d}.parquet"
    path = storage.join(row["directory"], "kept", name)
    if storage.exists(path):
        return {"path": path}
    removed: Counter[str] = Counter()
    replaced: Counter[str] = Counter()
    counts: dict[str, Any] = {"kept": 0, "bytes": 0, "removed": removed, "pii": replaced}
    again = _duplicates(row["duplicates"])
    with (
        parts.writing(path, parts.KEPT_SCHEMA, counts) as kept,
        parts.writing(storage.join(row["directory"], "removed", name), parts.REMOVED_SCHEMA, {}) as gone,
    ):
        for number, part in enumerate(row["parts"], row["first"]):
            position = 0
            for table in parts.read_part(part):
                removals = [
                    again.get((number, place), removal)
                    for place, removal in enumerate(decisions(table, section), position)
                ]
                position += len(removals)
                staying = table.filter(pa.array([removal is None for removal in removals], pa.bool_()))
                texts = []
                for text in staying["rewritten"].to_pylist():
                    clean, found = pii.replaced(text, section.pii)
                    texts.append(clean)
                    replaced.update(found)
                    counts["bytes"] += len(clean.encode())
                kept.add(_with(staying, "text", pa.array(texts, pa.string())))
                gone.add(_removed(table, removals))
                removed.update(f"{removal.step}.{removal.reason}" for removal in removals if removal is not None)
                counts["kept"] += len(staying)
    return {"path": path}


def _duplicates(path: str) -> dict[tuple[int, int], Removal]:
    """(part, row) of the documents that stood before."""
    if not storage.exists(path):
        return {}
    columns = [column.to_pylist() for column in signatures.read(path, ["part", "row", "exact"]).columns]
    return {(part, row): EXACT if exact else NEAR for part, row, exact in zip(*columns, strict=True)}


def _removed(table: pa.Table, removals: list[Removal | None]) -> pa.Table:
    """The rows that go, with the reason of each."""
    going = table.filter(pa.array([removal is not None for removal in removals], pa.bool_()))
    for name in parts.STOPPED:
        values = [getattr(removal, name) for removal in removals if removal is not None]
        going = _with(going, name, pa.array(values, SCHEMA.field(name).type))
    return going


def _with(table: pa.Table, name: str, values: Any) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), SCHEMA.field(name), values)
