"""Whatever a file holds, every response and every damaged region is told, and nothing else happens."""

from __future__ import annotations

import gzip
import io
import os
import random
import time
import tracemalloc
import zlib
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from webtochat.crawl.decoding import decoded
from webtochat.crawl.warc import Damage, Record, records

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "warc"
LIMIT = 1_000_000


def response(number: int, body: bytes = b"<html>hello</html>", http: bytes | None = None, length: int | None = None):
    http = http or b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n"
    block = http + body
    head = (
        f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Record-ID: <urn:uuid:{number}>\r\n"
        f"WARC-Target-URI: http://a.example/{number}\r\nWARC-Date: 2026-01-01T00:00:00Z\r\n"
        f"Content-Length: {len(block) if length is None else length}\r\n\r\n"
    )
    return head.encode() + block + b"\r\n\r\n"


def read(data: bytes, limit: int = LIMIT) -> tuple[list[str], list[str], Counter[str]]:
    """(ids of whole records, reasons of damage and problems, skipped by type)."""
    skipped: Counter[str] = Counter()
    found = list(records(io.BytesIO(data), limit, skipped))
    offsets = [each.offset for each in found]
    assert len(set(offsets)) == len(offsets) and offsets == sorted(offsets)
    good = [each.id[10:-1] for each in found if isinstance(each, Record) and not each.problem]
    bad = [each.reason if isinstance(each, Damage) else each.problem for each in found]
    return good, [reason for reason in bad if reason], skipped


@pytest.mark.parametrize("packed", [True, False])
def test_records_come_in_order(packed: bool) -> None:
    pack = gzip.compress if packed else bytes
    request = b"WARC/1.0\r\nWARC-Type: request\r\nContent-Length: 3\r\n\r\nGET\r\n\r\n"
    good, bad, skipped = read(b"".join(map(pack, [response(0), request, response(1), response(2)])))
    assert (good, bad, skipped) == (["0", "1", "2"], [], {"request": 1})


def test_a_corrupt_member_costs_itself_alone() -> None:
    noise = random.Random(1).randbytes(3000)
    members = [gzip.compress(response(number, b"<html>" + noise)) for number in range(5)]
    members[2] = members[2][:900] + bytes(byte ^ 0x55 for byte in members[2][900:960]) + members[2][960:]
    assert read(b"".join(members))[:2] == (["0", "1", "3", "4"], ["bad_gzip"])


def test_a_member_that_runs_on_into_the_next_gives_them_back() -> None:
    """Flag 4 of a gzip header: the next two bytes tell the length of a field to pass over, here most of the file."""
    body = random.Random(1).randbytes(3000)
    members = [bytearray(gzip.compress(response(number, body))) for number in range(60)]
    members[1][3] = 4
    assert read(b"".join(map(bytes, members)))[:2] == (
        [str(number) for number in range(60) if number != 1],
        ["bad_gzip"],
    )


@pytest.mark.parametrize("packed", [True, False])
def test_a_truncated_file_gives_what_it_has(packed: bool) -> None:
    pack = gzip.compress if packed else bytes
    data = b"".join(pack(response(number, random.Random(number).randbytes(2000))) for number in range(3))
    assert read(data[:-700])[:2] == (["0", "1"], ["truncated"])


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("wrong", [20, 5000])
def test_a_wrong_length_is_told_and_the_next_record_read(packed: bool, wrong: int) -> None:
    pack = gzip.compress if packed else bytes
    data = b"".join(map(pack, [response(0), response(1, length=wrong), response(2), *[response(3)] * 3 * (not packed)]))
    assert read(data)[:2] == (["0", "2"] + ["3"] * 3 * (not packed), ["wrong_length"])


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("declared", [5, 2000, 3 * LIMIT, 10**12, 10**30])
def test_a_wrong_length_among_many_costs_itself_alone(packed: bool, declared: int) -> None:
    """`packed`: the whole file is one gzip member."""
    rest = [response(number, b"<html>" + b"x" * 50_000) for number in range(2, 80)]
    data = response(0) + response(1, length=declared) + b"".join(rest)
    good, bad, _ = read(gzip.compress(data, 1) if packed else data)
    assert (good, bad) == (["0", *map(str, range(2, 80))], ["wrong_length"])


@pytest.mark.parametrize("packed", [True, False])
def test_what_follows_a_huge_record_is_read(packed: bool) -> None:
    data = response(0) + response(1, b"v" * 15 * LIMIT) + response(2)
    assert read(gzip.compress(data, 1) if packed else data)[:2] == (["0", "2"], ["too_large"])


def test_each_lost_record_is_told_where_a_whole_one_stands_between() -> None:
    members = [gzip.compress(response(number, random.Random(number).randbytes(3000))) for number in range(4)]
    for number in (1, 2):
        members[number] = members[number][:900] + bytes(60) + members[number][960:]
    request = gzip.compress(b"WARC/1.0\r\nWARC-Type: request\r\nContent-Length: 3\r\n\r\nGET\r\n\r\n")
    assert read(request.join(members))[:2] == (["0", "3"], ["bad_gzip", "bad_gzip"])


@pytest.mark.parametrize(
    "bomb",
    [b"\n" * 30_000_000, b"WARC/1.0\r\n" * 300_000, b"WARC/1.0\r\n\r\n" * 300_000, b"\0" * 30_000_000,
     b"WARC/1.0\r\nContent-Length: 900000\r\n\r\n" * 100_000],
    ids=["newlines", "endless headers", "empty headers", "zeros", "wrong lengths"],
)  # fmt: skip
@pytest.mark.parametrize("packed", [True, False])
def test_what_is_made_to_cost_time_costs_little(bomb: bytes, packed: bool) -> None:
    begun = time.process_time()
    data = gzip.compress(bomb, 1) + gzip.compress(response(0)) if packed else bomb + b"\r\n\r\n" + response(0)
    good, bad, _ = read(data)
    assert good == ["0"] or (bad[0] == "wrong_length" and not packed)
    assert time.process_time() - begun < 20


def test_a_bomb_is_not_inflated() -> None:
    bomb = gzip.compress(response(1, b"\0" * 60_000_000))
    tracemalloc.start()
    good, bad, _ = read(gzip.compress(response(0)) + bomb + gzip.compress(response(2)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert good == ["0", "2"] and bad == ["too_large"] and peak < 12 * LIMIT


def test_a_bomb_inside_the_http_body_is_not_inflated() -> None:
    http = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Encoding: gzip\r\n\r\n"
    assert read(response(0, gzip.compress(b"\0" * 50_000_000), http))[1] == ["too_large"]


def test_bodies_are_decoded() -> None:
    import brotli

    page = b"<html><p>the text of a page</p></html>" * 20
    cases = {
        b"gzip": gzip.compress(page), b"deflate": zlib.compress(page), b"br": brotli.compress(page),
        b"zstd": pa.compress(page, "zstd", asbytes=True),
        # Stored decoded under their old headers, as Common Crawl once did.
        b"gzip ": page, b"br ": page, b"deflate ": page, b"zstd ": page,
    }  # fmt: skip
    for encoding, body in cases.items():
        http = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Encoding: " + encoding + b"\r\n\r\n"
        (record,) = records(io.BytesIO(response(0, body, http)), LIMIT)
        assert isinstance(record, Record) and record.body == page, encoding
    chunked = b"5\r\n<html\r\n3;x=y\r\n>hi\r\n0\r\n\r\n"
    http = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    (record,) = records(io.BytesIO(response(0, chunked, http)), LIMIT)
    assert isinstance(record, Record) and record.body == b"<html>hi"


def test_whatever_the_bytes_the_encoding_is_undone() -> None:
    """Compressed bytes may look like the beginning of a page, and a page like that of a compressed body."""
    import brotli

    for seed in range(100):
        source = random.Random(seed)
        words = " ".join("".join(source.choices("abcdefghijklmnop", k=source.randint(2, 9))) for _ in range(300))
        page = f"{source.choice(['<html>', ' <!DOCTYPE html>', '{', 'plain '])}{words}".encode()
        raw = zlib.compressobj(wbits=-15)
        packed = {"br": brotli.compress(page), "deflate": raw.compress(page) + raw.flush(), "gzip": gzip.compress(page)}
        for encoding, body in packed.items():
            for stored in (body, page):
                assert decoded(stored, {"content-encoding": encoding}, LIMIT) == (page, None), (seed, encoding)
        assert decoded(packed["gzip"][:20] + packed["br"], {"content-encoding": "gzip"}, LIMIT)[1] == "bad_encoding"


def test_what_is_no_http_is_told() -> None:
    assert read(response(0, b"x", b"ICY 200 OK\r\n\r\n"))[1] == ["bad_http"]
    assert read(b"something else entirely\n" * 10)[1] == ["not_warc"]
    assert read(b"")[:2] == ([], [])


def test_a_header_without_end_or_length_is_told() -> None:
    endless = b"WARC/1.0\r\n" + b"X: y\r\n" * 40_000
    assert read(endless + response(1))[:2] == (["1"], ["bad_header"])
    assert read(response(0).replace(b"Content-Length", b"Content-Width") + response(1))[1] == ["bad_header"]


MEMBERS = [gzip.compress(response(number, b"<html>text</html>" * 9)) for number in range(6)]
WHOLE = b"".join(MEMBERS)


@settings(max_examples=1000, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), max_size=8), st.integers(0, 200))
def test_no_mutation_crashes_or_loses_the_rest(changes: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(WHOLE)
    for position, value in changes:
        data[position] = value
    good, bad, _ = read(bytes(data[: len(data) - cut]))
    cut_between = cut == len(MEMBERS[-1])  # leaves a whole file of five
    assert len(good) >= 6 - len(changes) - 2 and (len(good) == 6 or bad or cut_between)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400), st.integers(0, 1500), st.integers(0, 2000), st.booleans())
def test_no_insertion_crashes_plain_or_one_member(noise: bytes, at: int, cut: int, packed: bool) -> None:
    data = b"".join(response(number, b"<html>text</html>" * 9) for number in range(6))
    data = data[:at] + noise + data[at + cut % 300 :]
    read(gzip.compress(data)[: -(cut % 50) or None] if packed else data, limit=300)


def test_the_edge_cases_people_collected() -> None:
    folder = SHARED / "edge"
    if not folder.is_dir():
        assert not os.environ.get("CI"), f"{folder} must be there in CI"
        pytest.skip(f"no {folder}")
    responses = 0
    for path in sorted(folder.iterdir()):
        with open(path, "rb") as source:
            found = list(records(source, LIMIT))
        responses += sum(isinstance(each, Record) for each in found)
        if path.name.endswith((".arc", ".arc.gz")):
            assert [each.reason for each in found if isinstance(each, Damage)] == ["not_warc"]
    assert responses >= 100
