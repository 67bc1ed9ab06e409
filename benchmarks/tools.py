"""How long the tools take: a program in each backend of `python`, building the index, and a search in it.

python benchmarks/tools.py --documents ../shared/data/prose/enwiki-sample.jsonl.gz --write
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "platform"))

PROGRAMS = {"one sum": "12345 * 6789", "a loop of 100,000": "x = 0\nfor n in range(100000): x += n * n\nx"}
SEARCHES = 500
WORDS = 12
"""Of a long query: the first words of a document."""


def milliseconds(function: Callable[[], object], times: int) -> list[float]:
    took = []
    for _ in range(times):
        began = time.perf_counter()
        function()
        took.append(1000 * (time.perf_counter() - began))
    return took


def shown(took: list[float]) -> str:
    return f"{statistics.median(took):.1f} (of 20 the slowest: {sorted(took)[len(took) * 19 // 20]:.1f})"


def programs(times: int) -> Iterable[str]:
    from webtochat.errors import UserError
    from webtochat.recipe_tools import PythonTool
    from webtochat.tools.python import run

    yield "| program | backend | ms a call, median |\n| --- | --- | --- |"
    for name, program in PROGRAMS.items():
        for backend in ("monty", "bubblewrap"):
            section = PythonTool(backend=backend, seconds=60)
            try:
                run(program, section)
            except UserError as error:
                yield f"| {name} | {backend} | – ({error}) |"
                continue
            yield f"| {name} | {backend} | {shown(milliseconds(lambda: run(program, section), times))} |"  # noqa: B023


def searches(path: Path) -> Iterable[str]:
    from webtochat.recipe_tools import Index, WebTool
    from webtochat.tools.index import Document, SearchIndex, batches, write_meta, write_segment

    with gzip.open(path, "rt", encoding="utf-8") as source:
        rows = [json.loads(line) for line in source]
    documents = [Document(row["title"], row["url"], row["text"]) for row in rows]
    section, web = Index(), WebTool()
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        entries = []
        for number, batch in enumerate(batches(documents, section)):
            entries += write_segment(batch, section, str(number), folder)
        write_meta(entries, section, folder)
        built = time.perf_counter() - began
        text = sum(len(each.text.encode()) for each in documents) / 1e6
        size = sum(file.stat().st_size for file in Path(folder).iterdir()) / 1e6
        index = SearchIndex(folder)
        yield (
            f"\n{len(documents):,} documents, {text:.1f} MB of text: indexed in {built:.1f} s by one process, "
            f"{size:.1f} MB.\n\n| query | ms, median |\n| --- | --- |"
        )
        some = documents[:: max(1, len(documents) // SEARCHES)]
        for name, queries in {
            "titles": [each.title for each in some],
            f"first {WORDS} words": [" ".join(each.text.split()[:WORDS]) for each in some],
        }.items():
            took = []
            for query in queries:
                began = time.perf_counter()
                index.search(query, web)
                took.append(1000 * (time.perf_counter() - began))
            yield f"| {name} | {shown(took)} |"
        first = sum(index.search(each.title, web)[0].url == each.url for each in some)
        yield f"\nOf {len(some)} titles {100 * first / len(some):.1f} % find their own document first."


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--documents", type=Path, help="JSONL of title, url and text, gzipped")
    arguments.add_argument("--times", type=int, default=50)
    arguments.add_argument("--write", action="store_true", help="put the figures into docs/benchmarks.md")
    options = arguments.parse_args()
    told = list(programs(options.times))
    if options.documents:
        told += searches(options.documents)
    print("\n".join(told))
    if options.write:
        from record import record

        record("Tools", "benchmarks/tools.py --documents … --write", "\n".join(told))


if __name__ == "__main__":
    main()
