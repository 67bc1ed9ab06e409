"""The index stage over the cluster: one task per file of kept documents writes its segments; the list of all of them
makes the index."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from webtochat import storage
from webtochat.artifact import Artifact
from webtochat.curate.parts import read_part
from webtochat.curate.stage import spread
from webtochat.errors import UserError
from webtochat.recipe_tools import Index
from webtochat.run import Run
from webtochat.tools.index import Document, batches, write_meta, write_segment

LONGEST_TITLE = 200


def index(run: Run) -> Artifact:
    """A full-text index of the kept documents."""
    section = run.recipe.index
    curated = run.open("curate")
    stage = run.begin("index", run.recipe.identity("index"), [curated])
    if isinstance(stage, Artifact):
        return stage
    with stage:
        paths = curated.files("kept/")
        rows: list[dict[str, Any]] = [
            {"number": number, "path": path, "directory": stage.directory,
             "done": stage.scratch("segments", f"{number:05d}.json")}
            for number, path in enumerate(paths)
        ]  # fmt: skip
        there = {entry.path for entry in storage.files_below(stage.scratch("segments"))}
        todo = [row for row in rows if row["done"] not in there]
        for done, _ in enumerate(spread(_index_file, todo, section, None), len(rows) - len(todo) + 1):
            stage.progress(done, len(rows), "files", "indexed")
        entries = [entry for row in rows for entry in json.loads(storage.read_bytes(row["done"]))]
        documents = sum(entry["max_doc"] for entry in entries)
        if not documents:
            raise UserError("curate kept no document to index: loosen its thresholds or crawl more")
        write_meta(entries, section, stage.directory)
        size = sum(entry.size for entry in stage.files())
        stage.metrics({"documents": documents, "bytes": size})
        return stage.commit(
            counts={"documents": documents, "segments": len(entries), "bytes": size},
            summary=f"{documents:,} documents in {len(entries):,} segments, {size / 1e6:.1f} MB",
        )


def _index_file(row: dict[str, Any], section: Index) -> dict[str, Any]:
    """Writes the segments of one file of kept documents, and notes it as done when they are whole."""
    entries = []
    for number, batch in enumerate(batches(_documents(row["path"]), section)):
        entries += write_segment(batch, section, f"{row['number']}/{number}", row["directory"])
    storage.write_bytes(row["done"], json.dumps(entries).encode())
    return {"path": row["path"]}


def _documents(path: str) -> Iterator[Document]:
    """Kept documents; of one without a title the first line, of one without an address its id."""
    for table in read_part(path):
        for row in table.select(["id", "url", "title", "text"]).to_pylist():
            title = (row["title"] or "").strip() or row["text"].strip().split("\n", 1)[0]
            yield Document(title[:LONGEST_TITLE], row["url"] or row["id"], row["text"])
