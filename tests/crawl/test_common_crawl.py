"""A local server laid out as Common Crawl's, which also cuts connections and says that it is busy."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import threading
import time
from collections import Counter
from collections.abc import Iterator
from email.utils import formatdate
from typing import ClassVar

import pytest

from webtochat import storage
from webtochat.crawl import common_crawl, fetch
from webtochat.crawl.fetch import HttpReader
from webtochat.crawl.stream import StoreReader, open_stream
from webtochat.errors import MachineError, UserError
from webtochat.recipe_pages import Crawl

ID = "CC-MAIN-2026-43"
PATHS = [f"crawl-data/{ID}/segments/1/warc/{ID}-{number:05d}.warc.gz" for number in range(5)]
FILES = {path: bytes(range(256)) * (4000 + number) for number, path in enumerate(PATHS)}
FILES[f"crawl-data/{ID}/warc.paths.gz"] = gzip.compress("\n".join(PATHS).encode())


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    asked: ClassVar[Counter[str]] = Counter()
    cut_after: ClassVar[int | None] = None
    busy: ClassVar[int] = 0
    shift: ClassVar[int] = 0
    """By how much a range is answered wrongly."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        Handler.asked[self.command] += 1
        body = FILES.get(self.path[1:])
        if Handler.busy > 0:
            Handler.busy -= 1
            return self.answer(503 if Handler.busy % 2 else 429, b"", {"Retry-After": "0"})
        if body is None:
            return self.answer(404, b"")
        etag = {"ETag": f'"{hashlib.md5(body).hexdigest()}"'}
        wanted = self.headers.get("Range")
        if wanted and self.headers.get("If-Range", etag["ETag"]) == etag["ETag"]:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            Handler.asked["range"] += 1
            start += Handler.shift
            return self.answer(
                206, body[start:], etag | {"Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"}
            )
        return self.answer(200, body, etag)

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if Handler.cut_after is not None and len(body) > Handler.cut_after:
            self.wfile.write(body[: Handler.cut_after])
            self.wfile.flush()
            self.close_connection = True
            return
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def server() -> Iterator[str]:
    Handler.asked, Handler.cut_after, Handler.busy, Handler.shift = Counter(), None, 0, 0
    serving = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{serving.server_address[1]}"
    serving.shutdown()
    serving.server_close()


def section(server: str, **changes: object) -> Crawl:
    return Crawl(**{"source": "common-crawl", "crawl_id": ID, "base_url": server, **changes})  # type: ignore[arg-type]


def test_files_by_number_and_by_bytes(server: str) -> None:
    told: list[tuple[int, int | None]] = []
    files = common_crawl.listing(section(server, max_files=2), lambda *progress: told.append(progress))
    assert [file.name for file in files] == [f"{ID}-00000.warc.gz", f"{ID}-00001.warc.gz"]
    assert files[0].size == len(FILES[PATHS[0]]) and files[0].path.startswith(server) and files[0].etag
    assert told == [(1, 2), (2, 2)]
    assert len(common_crawl.listing(section(server, max_bytes=3_200_000), lambda *_: None)) == 3


def test_mistakes_are_one_line(server: str) -> None:
    with pytest.raises(UserError, match=r"5 WARC files.*set crawl.max_files or crawl.max_bytes"):
        common_crawl.listing(section(server), lambda *_: None)
    with pytest.raises(UserError, match="no crawl CC-MAIN-1999-01"):
        common_crawl.listing(section(server, crawl_id="CC-MAIN-1999-01", max_files=1), lambda *_: None)
    with pytest.raises(UserError, match="is not one of Common Crawl's"):
        common_crawl.listing(section(server, crawl_id="../x", max_files=1), lambda *_: None)


def test_a_cut_read_goes_on_where_it_was(server: str) -> None:
    Handler.cut_after = 300_000
    waits: list[float] = []
    reader = HttpReader(f"{server}/{PATHS[0]}", sleep=waits.append)
    whole = b"".join(iter(lambda: reader.read(65_536), b""))
    assert whole == FILES[PATHS[0]]
    assert Handler.asked["range"] == 3 == len(waits)


def test_a_busy_server_is_waited_for(server: str) -> None:
    Handler.busy = 4
    waits: list[float] = []
    assert fetch.request("GET", f"{server}/{PATHS[1]}", sleep=waits.append).content == FILES[PATHS[1]]
    assert waits == [0.0] * 4  # as its Retry-After asks
    assert fetch.pause(3, None) > fetch.pause(0, None) and fetch.pause(20, None) <= 90


def test_a_server_that_stays_busy_is_a_machine_s_fault(server: str) -> None:
    Handler.busy = 1000
    with pytest.raises(MachineError, match="8 times over"):
        fetch.request("GET", f"{server}/{PATHS[0]}", sleep=lambda _: None)
    assert Handler.asked["GET"] == 8


def test_a_file_that_changed_is_not_mixed(server: str) -> None:
    Handler.cut_after = 300_000
    reader = HttpReader(f"{server}/{PATHS[2]}", sleep=lambda _: None)
    original = FILES[PATHS[2]]
    reader.read(1000)
    FILES[PATHS[2]] = original[::-1]
    try:
        with pytest.raises(MachineError, match="changed while it was read"):
            while reader.read(100_000):
                continue
    finally:
        FILES[PATHS[2]] = original


def test_a_reader_starts_where_it_is_told(server: str) -> None:
    body = FILES[PATHS[0]]
    reader = HttpReader(f"{server}/{PATHS[0]}", start=len(body) - 10)
    assert reader.read(100) == body[-10:] and reader.read(100) == b""


def test_a_range_that_was_not_asked_for_is_refused(server: str) -> None:
    Handler.cut_after, Handler.shift = 300_000, 5
    reader = HttpReader(f"{server}/{PATHS[0]}", sleep=lambda _: None)
    with pytest.raises(MachineError, match="another range"):
        while reader.read(100_000):
            continue


def test_retry_after_may_be_a_date() -> None:
    soon = formatdate(time.time() + 30, usegmt=True)
    assert 25 < fetch.pause(0, soon) <= 30
    assert fetch.pause(0, formatdate(time.time() - 30, usegmt=True)) == 0
    assert fetch.pause(0, "soon") <= 1.5 and fetch.pause(0, "86400") == 120


def test_a_listing_that_is_none(server: str) -> None:
    name = f"crawl-data/{ID}/warc.paths.gz"
    held, FILES[name] = FILES[name], b"<html>login</html>"
    try:
        with pytest.raises(UserError, match="is no list of paths"):
            common_crawl.listing(section(server, max_files=1), lambda *_: None)
    finally:
        FILES[name] = held


def test_the_same_crawl_in_a_bucket(server: str, bucket: str) -> None:
    for path, body in FILES.items():
        storage.write_bytes(f"{bucket}/{path}", body)
    files = common_crawl.listing(section(bucket, max_files=3), lambda *_: None)
    told = common_crawl.listing(section(server, max_files=3), lambda *_: None)
    assert [(file.name, file.size) for file in files] == [(file.name, file.size) for file in told]
    with open_stream(files[0].path) as source:
        assert source.read(len(FILES[PATHS[0]]) + 1) == FILES[PATHS[0]]
    with pytest.raises(UserError, match="no crawl CC-MAIN-1999-01"):
        common_crawl.listing(section(bucket, crawl_id="CC-MAIN-1999-01", max_files=1), lambda *_: None)


class Busy(http.server.BaseHTTPRequestHandler):
    """A store of one object, with an error that its own client does not try again after (that it does after a 503)."""

    protocol_version = "HTTP/1.1"
    body = bytes(range(256)) * 80_000  # three pieces
    refused: ClassVar[int] = 0
    asked: ClassVar[int] = 0

    def do_HEAD(self) -> None:
        self.answer(200, b"", len(self.body))

    def do_GET(self) -> None:
        if Busy.refused > 0:
            Busy.refused -= 1
            return self.answer(400, b"<Error><Code>Tired</Code><Message>later</Message></Error>")
        Busy.asked += 1
        first, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
        piece = self.body[int(first) : int(last) + 1]
        self.answer(206, piece)

    def answer(self, status: int, body: bytes, length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


def test_a_busy_store_is_asked_again_and_in_large_pieces(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="nothing at"):
        StoreReader(f"{bucket}/none.warc.gz").read(10)
    serving = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Busy)
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{serving.server_address[1]}")
    waits: list[float] = []
    Busy.refused, Busy.asked = 3, 0
    reader = StoreReader("s3://another-bucket/file.warc.gz", sleep=waits.append)
    whole = b"".join(iter(lambda: reader.read(65_536), b""))
    reader.close()
    assert whole == Busy.body and Busy.asked <= 4 and len(waits) == 3
    Busy.refused = 10_000
    reader = StoreReader("s3://another-bucket/file.warc.gz", sleep=waits.append)
    with pytest.raises(MachineError, match="8 times over"):
        reader.read(10)
    serving.shutdown()
    serving.server_close()
