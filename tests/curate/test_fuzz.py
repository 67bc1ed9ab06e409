"""Mutated records between intact ones: nothing raises, every intact record comes out, every row has a text that can be
written or a reason why not. `PYTHONPATH=platform python tests/curate/test_fuzz.py 100000` runs as many as it is told.

A mutated record is a gzip member of its own, damaged before it was compressed (its headers, its HTML) or after. The
intact ones around it are members too: what is lost must end with the member that is damaged.
"""

from __future__ import annotations

import gzip
import io
import os
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from webtochat.crawl.stream import open_stream
from webtochat.crawl.warc import records
from webtochat.curate import parts, tasks
from webtochat.curate.guard import GuardedExtraction
from webtochat.curate.page import row_of
from webtochat.curate.urls import Blocklists
from webtochat.recipe_pages import Curate, Measure, URLs

SECTION, LISTS = Measure(page_seconds=2), Blocklists.of(URLs())
AT_ONCE = 100
TEXT = b"<p>The miller of our town has a boat, and when it rains the whole council asks him for a ride home.</p>"
PIECES = [
    b"<div>" * 3000, b"</p>" * 500, b"<!--", b"<script>", b"<plaintext>", b"<table><tr><td>" * 50, b"&#xD800;", b"&#0;",
    b"<a href='", b"<svg><title>", b"\x00\x00", b"\xff\xfe", b"\xed\xa0\x80", b"w" * 50_000, b"<select><option>a",
    b"<meta charset=utf-16>", b"<br>" * 800, b"\xc2\x85\xe2\x80\xa8", b"]]>", b"<p " + b"x=1 " * 500 + b">",
]  # fmt: skip
HEADERS = [
    b"Content-Encoding: gzip\r\n", b"Content-Encoding: br\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Content-Type: text/html; charset=utf-7\r\n", b"Content-Length: 99999999\r\n", b"Content-Length: -1\r\n", b":\r\n",
    b"X: " + b"y" * 9000 + b"\r\n",
]  # fmt: skip


def record(address: str, body: bytes, header: bytes = b"") -> bytes:
    http = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n" + header + b"\r\n" + body
    return (
        f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: {address}\r\nWARC-Record-ID: <urn:x:{address}>\r\n"
        f"WARC-Date: 2026-01-01T00:00:00Z\r\nContent-Type: application/http; msgtype=response\r\n"
        f"Content-Length: {len(http)}\r\n\r\n"
    ).encode() + http + b"\r\n\r\n"  # fmt: skip


def mutated(rng: random.Random, number: int) -> bytes:
    """A gzip member with a record in which something is wrong."""
    page = bytearray(b"<html><title>t</title><body>" + TEXT * rng.randint(1, 8) + b"</body></html>")
    for _ in range(rng.randint(0, 3)):
        page[(at := rng.randrange(len(page))) : at + rng.choice((0, 1, 40))] = rng.choice(PIECES)
    header = rng.choice(HEADERS) if rng.random() < 0.3 else b""
    raw = bytearray(record(f"http://mutated.example/{number}", bytes(page), header))
    if rng.random() < 0.3:  # anywhere, the WARC header included
        for _ in range(rng.randint(1, 8)):
            raw[rng.randrange(len(raw) if rng.random() < 0.5 else 300)] = rng.randrange(256)
    if rng.random() < 0.1:
        del raw[rng.randrange(len(raw)) :]
    member = bytearray(gzip.compress(bytes(raw), 1))
    if rng.random() < 0.15:
        for _ in range(rng.randint(1, 4)):
            member[rng.randrange(10, len(member))] ^= 1 << rng.randrange(8)
    if rng.random() < 0.05:
        del member[rng.randrange(12, len(member)) :]
    return bytes(member)


def fuzz(count: int, seed: int) -> Counter[str]:
    """What became of `count` mutated records and as many intact ones."""
    told: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder, GuardedExtraction(SECTION.page_seconds) as extract:
        for batch in range(0, count, AT_ONCE):
            rng = random.Random(f"{seed}:{batch}")
            sink, wanted = io.BytesIO(), set()
            for number in range(batch, min(count, batch + AT_ONCE)):
                sink.write(mutated(rng, number))
                address = f"http://intact.example/{number}"
                wanted.add(address)
                sink.write(gzip.compress(record(address, b"<html><body>" + TEXT * 2 + b"</body></html>"), 1))
            path, part = Path(folder) / "a.warc.gz", f"{folder}/{batch}.parquet"
            path.write_bytes(sink.getvalue())
            skipped: Counter[str] = Counter()
            with open_stream(str(path)) as source:
                found = records(source, SECTION.max_page_bytes, skipped)
                rows = (row_of(each, "a", SECTION, LISTS, extract) for each in found)
                parts.write_part(part, rows, skipped)
            counts = parts.counts_of(part)
            for table in parts.read_part(part):
                for row, removal in zip(table.to_pylist(), tasks.decisions(table, Curate()), strict=True):
                    told[f"{removal.step}.{removal.reason}" if removal else "kept"] += 1
                    wanted.discard(row["url"])
                    counts["rows"] -= 1
                    assert row["text"] or row["step"] in ("read", "http", "extract", "url"), row
            assert not wanted, f"seed {seed}, batch {batch}: lost {sorted(wanted)[:3]}"
            assert counts["rows"] == 0
            told.update(skipped)
            os.unlink(part)
    return told


def test_mutated_records_are_counted_and_no_intact_one_is_lost() -> None:
    told = fuzz(400, seed=1)
    assert sum(told.values()) >= 700 and sum(count for reason, count in told.items() if reason.startswith("read.")) > 10


if __name__ == "__main__":
    began = time.perf_counter()
    for reason, number in fuzz(int(sys.argv[1]), seed=2).most_common():
        print(f"{number:>9,}  {reason}")
    print(f"{time.perf_counter() - began:.0f} s")
