"""Curation from WARC files to deduplicated documents: ours against datatrove's FineWeb recipe, on the same files, with
the same number of workers, one after the other.

python benchmarks/curate.py '../shared/data/warc/pages-*.warc.gz' --peers .venv-peers/bin/python --write

datatrove's time is that of its local executor, filtering and deduplication; ours that of the stages measure and curate,
and the whole command with the start of Ray. The milliseconds by step are those of the pure functions in one process.
"""

from __future__ import annotations

import argparse
import glob
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # as Ray's workers have it

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "platform"))


def datatrove(folder: Path, work: Path, python: str, workers: int) -> dict[str, Any]:
    from webtochat.curate.language import model_path

    made = work / "datatrove.json"
    command = [os.path.abspath(python), str(ROOT / "benchmarks" / "peers.py"), "datatrove", str(folder)]
    command += [str(work / "datatrove"), model_path(), str(workers), str(made)]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL, cwd=work)  # it leaves logs where it runs
    return json.loads(made.read_text())


def ours(folder: Path, work: Path, workers: int) -> dict[str, Any]:
    recipe = work / "fineweb.yaml"
    recipe.write_text(json.dumps({
        "name": "fineweb", "workspace": str(work / "runs"), "cluster": {"measure_workers": workers},
        "crawl": {"source": "warc", "paths": f"{folder}/*.warc.gz"},
    }))  # fmt: skip
    began = time.perf_counter()
    command = [sys.executable, str(ROOT / "jobs" / "pipeline.py"), str(recipe), "--until", "curate"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    manifests = {
        stage: json.loads((work / "runs" / "fineweb" / stage / "manifest.json").read_text())
        for stage in ("measure", "curate")
    }
    return {
        "whole": time.perf_counter() - began, "pages": manifests["curate"]["counts"]["measured"],
        "kept": manifests["curate"]["counts"]["kept"],
        **{stage: manifest["wall_seconds"] for stage, manifest in manifests.items()},
    }  # fmt: skip


def by_step(path: str) -> list[tuple[str, int, float]]:
    """(step, pages that reach it, milliseconds of CPU a page) of one WARC file's pages, in one process."""
    from webtochat.crawl.stream import open_stream
    from webtochat.crawl.warc import records
    from webtochat.curate import blocks, extract, language, main_content, quality
    from webtochat.duplicates import minhash
    from webtochat.recipe import Measure, NearDuplicates

    section = Measure()
    spent: Counter[str] = Counter()
    pages: Counter[str] = Counter()

    def timed(step: str, function: Callable[..., Any], *arguments: Any) -> Any:
        began = time.process_time()
        try:
            return function(*arguments)
        finally:
            spent[step] += time.process_time() - began
            pages[step] += 1

    with open_stream(path) as source:
        found = records(source, section.max_page_bytes, Counter())
        while (record := timed("read the record", next, found, None)) is not None:
            try:
                markup = timed("decode", extract.decode, record.body, record.content_type)
            except extract.ExtractionError:
                continue
            page = timed("parse, blocks", blocks.read, markup)
            text = extract.written(timed("main content", main_content.main_content, page))
            [(name, score), *_] = timed("language", language.identify, text)
            if score < section.languages.get(name, 2):
                continue
            _, rewritten = timed("measure", quality.measured, text, section.lines, section.stop_words[name])
            timed("MinHash", minhash.buckets, rewritten, NearDuplicates())
    return [(step, pages[step], 1000 * spent[step] / pages[step]) for step in spent]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("warc", help="a glob of WARC files")
    arguments.add_argument("--peers", required=True, help="a Python that has requirements/peers.txt")
    arguments.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    arguments.add_argument("--write", action="store_true", help="put the figures into docs/benchmarks.md")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="webtochat-benchmark-") as temporary:
        work, folder = Path(temporary), Path(temporary) / "warc"
        folder.mkdir()
        for path in sorted(glob.glob(options.warc)):
            shutil.copy(path, folder)
        told = report(
            ours(folder, work, options.workers), datatrove(folder, work, options.peers, options.workers),
            by_step(str(min(folder.iterdir()))), options.workers,
        )  # fmt: skip
    print(told)
    if options.write:
        from record import record

        record("Curation", "benchmarks/curate.py 'pages-*.warc.gz' --peers … --write", told)


def report(mine: dict[str, Any], theirs: dict[str, Any], steps: list[tuple[str, int, float]], workers: int) -> str:
    stages, other = mine["measure"] + mine["curate"], theirs["filter"] + theirs["deduplicate"]
    rows = [
        ("datatrove " + theirs["version"], other, theirs["kept"]), ("measure and curate", stages, mine["kept"]),
        ("the whole command, Ray's start included", mine["whole"], mine["kept"]),
    ]  # fmt: skip
    table = "".join(
        f"| {name} | {seconds:.0f} | {mine['pages'] / seconds:.0f} | {other / seconds:.1f} | {kept:,} |\n"
        for name, seconds, kept in rows
    )
    by = "".join(f"| {step} | {pages:,} | {milliseconds:.2f} |\n" for step, pages, milliseconds in steps)
    return (
        f"{mine['pages']:,} pages, {workers} workers.\n\n"
        "| | seconds | pages a second | times datatrove | kept |\n| --- | --- | --- | --- | --- |\n"
        f"{table}\n| step, in one process | pages | ms of CPU a page |\n| --- | --- | --- |\n{by}"
    )


if __name__ == "__main__":
    main()
