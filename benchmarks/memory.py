"""Memory of a worker on one large WARC file: the pages of others again and again, under other addresses, until it is as
large as Common Crawl's. The tasks of measure and curate run on it in one process, as a worker runs them.

python benchmarks/memory.py '../shared/data/warc/pages-*.warc.gz' --megabytes 1000 --write

Takes ten minutes.
"""

from __future__ import annotations

import argparse
import glob
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # as Ray's workers have it

import psutil
from warcio.archiveiterator import ArchiveIterator
from warcio.warcwriter import WARCWriter

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "platform"))
LOOKS = 10


def grow(pattern: str, path: Path, size: int) -> int:
    """Writes a WARC file of at least `size` bytes. Returns its pages."""
    pages = turn = 0
    with open(path, "wb") as sink:
        writer = WARCWriter(sink, gzip=True)
        while sink.tell() < size:
            turn += 1
            for each in sorted(glob.glob(pattern)):
                with open(each, "rb") as source:
                    for record in ArchiveIterator(source):
                        if record.rec_type != "response" or sink.tell() >= size:
                            continue
                        address = record.rec_headers.get_header("WARC-Target-URI")
                        record.rec_headers.replace_header("WARC-Target-URI", f"{address}#{turn}")
                        record.rec_headers.remove_header("WARC-Record-ID")
                        writer.write_record(record)
                        pages += 1
    return pages


class Watch(threading.Thread):
    """Resident megabytes of this process, ten times a second: (seconds since the start, megabytes)."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seen: list[tuple[float, float]] = []
        self.ended = threading.Event()

    def run(self) -> None:
        process, began = psutil.Process(), time.perf_counter()
        while not self.ended.wait(0.1):
            self.seen.append((time.perf_counter() - began, process.memory_info().rss / 1e6))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("warc", help="a glob of WARC files")
    arguments.add_argument("--megabytes", type=int, default=1000)
    arguments.add_argument("--write", action="store_true", help="put the figures into docs/benchmarks.md")
    options = arguments.parse_args()

    from webtochat.curate import tasks
    from webtochat.curate.urls import Blocklists
    from webtochat.recipe_pages import Curate, Measure

    section, rows = Measure(), []
    with tempfile.TemporaryDirectory(prefix="webtochat-benchmark-") as temporary:
        folder = Path(temporary)
        pages = grow(options.warc, folder / "large.warc.gz", options.megabytes * 1_000_000)
        part, signed = str(folder / "large.parquet"), str(folder / "signed.parquet")
        written = {
            "number": 0, "first": 0, "directory": str(folder), "parts": [part], "signed": [signed],
            "duplicates": str(folder / "none"), "samples": str(folder / "samples.json"),
        }  # fmt: skip
        warc = {"source": str(folder / "large.warc.gz"), "name": "large", "part": part, "seconds": str(folder / "1")}
        runs = (
            ("measure", tasks.measure_file, warc, (section, Blocklists.of(section.urls))),
            ("sign", tasks.sign_part, {"part": part, "signed": signed, "seconds": str(folder / "2")}, (Curate(), None)),
            ("write documents", tasks.write_documents, written, Curate()),
        )
        for name, function, row, shared in runs:
            watch = Watch()
            watch.start()
            began = time.perf_counter()
            function(row, shared)
            seconds = time.perf_counter() - began
            watch.ended.set()
            watch.join()
            looks = [
                max((size for at, size in watch.seen if number <= at * LOOKS / seconds < number + 1), default=0.0)
                for number in range(LOOKS)
            ]
            rows.append((name, seconds, max(looks), looks))
            print(name, f"{seconds:.0f} s", [round(look) for look in looks], flush=True)
    told = (
        f"One WARC file of {options.megabytes:,} MB, {pages:,} pages, in one process. Resident megabytes, the most in "
        "each tenth of the time:\n\n"
        "| task | seconds | most | by tenths |\n| --- | --- | --- | --- |\n"
        + "".join(
            f"| {name} | {seconds:.0f} | {most:,.0f} | {', '.join(f'{look:,.0f}' for look in looks)} |\n"
            for name, seconds, most, looks in rows
        )
    )
    print(told)
    if options.write:
        from record import record

        record("Memory", f"benchmarks/memory.py 'pages-*.warc.gz' --megabytes {options.megabytes} --write", told)


if __name__ == "__main__":
    main()
