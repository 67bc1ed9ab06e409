"""Curation from WARC files to deduplicated documents: ours against datatrove's FineWeb recipe, on the same files, with
the same number of workers, one after the other.

python benchmarks/curate.py '../shared/data/warc/pages-*.warc.gz' --peers .venv-peers/bin/python --write

The pages are dealt out into 8 WARC files; both run on 1, 2, 4 and 8 of them, which tells what a run costs to start and
what each further file costs. datatrove's time is that of its local executor, filtering and deduplication; ours that of
the stages measure and curate, and the whole command with the start of Ray. Memory is that of the largest process that
either starts. Ray's share is the stage measure with one worker beside the same function called for the same files in
one process. Takes a quarter of an hour.
"""

from __future__ import annotations

import argparse
import glob
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from warcio.archiveiterator import ArchiveIterator
from warcio.warcwriter import WARCWriter

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # as Ray's workers have it

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "platform"))
FILES = (1, 2, 4, 8)


class Took(NamedTuple):
    seconds: float
    """Of the stages."""
    whole: float
    """Of the command."""
    pages: int
    kept: int
    megabytes: float
    """Resident, of the largest process that it started."""
    measure: float = 0.0


def deal(pattern: str, folder: Path, files: int) -> None:
    """The pages of all WARC files into as many new ones, in turn."""
    with ExitStack() as opened:
        sinks = [opened.enter_context(open(folder / f"{number:02d}.warc.gz", "wb")) for number in range(files)]
        writers = [WARCWriter(sink, gzip=True) for sink in sinks]
        number = 0
        for path in sorted(glob.glob(pattern)):
            for record in ArchiveIterator(opened.enter_context(open(path, "rb"))):
                if record.rec_type == "response":
                    writers[number % files].write_record(record)
                    number += 1


def watched(command: list[str], where: Path) -> tuple[float, float]:
    """Seconds of a command, and the resident megabytes of the largest process below it, looked at five times a
    second."""
    largest = 0.0
    began = time.perf_counter()
    run = psutil.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=where)
    while run.poll() is None:
        for process in run.children(recursive=True):
            with suppress(psutil.Error):
                largest = max(largest, process.memory_info().rss)
        time.sleep(0.2)
    if run.returncode:
        raise SystemExit(f"{' '.join(command)} failed")
    return time.perf_counter() - began, largest / 1e6


def datatrove(folder: Path, work: Path, python: str, workers: int) -> tuple[Took, str]:
    from webtochat.curate.language import model_path

    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    made = work / "datatrove.json"
    command = [os.path.abspath(python), str(ROOT / "benchmarks" / "peers.py"), "datatrove", str(folder)]
    command += [str(work / "datatrove"), model_path(), str(workers), str(made)]
    whole, megabytes = watched(command, work)  # it leaves logs where it runs
    told = json.loads(made.read_text())
    return Took(told["filter"] + told["deduplicate"], whole, 0, told["kept"], megabytes), told["version"]


def ours(folder: Path, work: Path, workers: int) -> Took:
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    recipe = work / "fineweb.yaml"
    recipe.write_text(json.dumps({
        "name": "fineweb", "workspace": str(work / "runs"), "cluster": {"measure_workers": workers},
        "crawl": {"source": "warc", "paths": f"{folder}/*.warc.gz"},
    }))  # fmt: skip
    command = [sys.executable, str(ROOT / "jobs" / "pipeline.py"), str(recipe), "--until", "curate"]
    whole, megabytes = watched(command, work)
    measured, curated = (
        json.loads((work / "runs" / "fineweb" / stage / "manifest.json").read_text()) for stage in ("measure", "curate")
    )
    counts, seconds = curated["counts"], measured["wall_seconds"]
    together = seconds + curated["wall_seconds"]
    return Took(together, whole, counts["measured"], counts["kept"], megabytes, seconds)


def alone(folder: Path) -> float:
    """Seconds of the function that the stage measure spreads, for all files, in this process."""
    from webtochat.curate import tasks
    from webtochat.curate.urls import Blocklists
    from webtochat.recipe_pages import Measure

    section = Measure()
    shared = section, Blocklists.of(section.urls)
    began = time.perf_counter()
    for path in sorted(folder.glob("*.warc.gz")):
        made = {"part": f"{path}.parquet", "seconds": f"{path}.json"}
        tasks.measure_file({"source": str(path), "name": path.name} | made, shared)
    return time.perf_counter() - began


def by_step(path: str) -> list[tuple[str, int, float]]:
    """(step, pages that reach it, milliseconds of CPU a page) of one WARC file's pages, in one process."""
    from webtochat.crawl.stream import open_stream
    from webtochat.crawl.warc import records
    from webtochat.curate import blocks, extract, language, main_content, quality
    from webtochat.duplicates import minhash
    from webtochat.recipe_pages import Measure, NearDuplicates

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
    mine: dict[int, Took] = {}
    theirs: dict[int, Took] = {}
    with tempfile.TemporaryDirectory(prefix="webtochat-benchmark-") as temporary:
        work, whole = Path(temporary), Path(temporary) / "warc"
        whole.mkdir()
        deal(options.warc, whole, FILES[-1])
        for files in FILES:
            folder = work / f"warc-{files}"
            folder.mkdir()
            for path in sorted(whole.iterdir())[:files]:
                shutil.copy(path, folder)
            mine[files] = ours(folder, work / "run", options.workers)
            theirs[files], version = datatrove(folder, work / "run", options.peers, options.workers)
            print(f"{files} files: {mine[files].seconds:.0f} s, datatrove {theirs[files].seconds:.0f} s", flush=True)
        one = ours(whole, work / "run", 1)
        pure = alone(whole)
        steps = by_step(str(min(whole.iterdir())))
    told = report(mine, theirs, version, (one.measure, pure), steps, options.workers)
    print(told)
    if options.write:
        from record import record

        record("Curation", "benchmarks/curate.py 'pages-*.warc.gz' --peers … --write", told)


def report(
    mine: dict[int, Took], theirs: dict[int, Took], version: str, share: tuple[float, float],
    steps: list[tuple[str, int, float]], workers: int,
) -> str:  # fmt: skip
    most = FILES[-1]
    pages, other = mine[most].pages, theirs[most].seconds
    rows = [
        (f"datatrove {version}", other, theirs[most].kept), ("measure and curate", mine[most].seconds, mine[most].kept),
        ("the whole command, Ray's start included", mine[most].whole, mine[most].kept),
    ]  # fmt: skip
    table = "".join(
        f"| {name} | {seconds:.0f} | {pages / seconds:.0f} | {other / seconds:.1f} | {kept:,} |\n"
        for name, seconds, kept in rows
    )
    (start, each), (their_start, their_each) = _line(mine), _line(theirs)
    a_file = pages / most
    grown = "".join(
        f"| {files} | {mine[files].pages:,} | {mine[files].seconds:.1f} | {mine[files].megabytes:,.0f} "
        f"| {theirs[files].seconds:.1f} | {theirs[files].megabytes:,.0f} |\n"
        for files in FILES
    )
    by = "".join(f"| {step} | {reached:,} | {milliseconds:.2f} |\n" for step, reached, milliseconds in steps)
    with_ray, pure = share
    return (
        f"{pages:,} pages in {most} WARC files, {workers} workers.\n\n"
        "| | seconds | pages a second | times datatrove | kept |\n| --- | --- | --- | --- | --- |\n"
        f"{table}\nOn the first 1, 2, 4 and 8 of the files; megabytes of the largest process:\n\n"
        "| files | pages | ours, s | MB | datatrove, s | MB |\n| --- | --- | --- | --- | --- | --- |\n"
        f"{grown}\nBy least squares ours takes {start:.1f} s to start and {each:.2f} s for each file "
        f"({a_file / each:.0f} pages a second), datatrove {their_start:.1f} s and {their_each:.2f} s "
        f"({a_file / their_each:.0f}): **{their_each / each:.1f} times** datatrove's speed for each further file.\n\n"
        f"Ray's share: the stage measure with one worker takes {with_ray:.1f} s for the {most} files; the function "
        f"that it spreads, called for each of them in one process, {pure:.1f} s.\n\n"
        f"| step, in one process | pages | ms of CPU a page |\n| --- | --- | --- |\n{by}"
    )


def _line(runs: dict[int, Took]) -> tuple[float, float]:
    """Seconds to start, and for each file, by least squares."""
    slope, start = statistics.linear_regression(list(runs), [took.seconds for took in runs.values()])
    return start, slope


if __name__ == "__main__":
    main()
