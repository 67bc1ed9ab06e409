"""Capturing hosts: what is fetched, what is not, and that it is the same twice."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from webtochat import artifact
from webtochat.crawl import documents
from webtochat.crawl.listing import read_listing
from webtochat.crawl.site import capture_host, links, normal
from webtochat.crawl.stage import crawl
from webtochat.crawl.warc import Record, records
from webtochat.errors import UserError
from webtochat.recipe import Recipe, Site
from webtochat.run import Run, Screen

PAGES = {
    "/": '<a href="/a">a</a> <a href=b#part>b</a> <a href="/secret/x">no</a> <a href="http://other.example/">o</a>',
    "/a": "<a href='/deep?x=1&amp;y=2'>deep</a> <a href='mailto:x@y.example'>m</a> <a href='/a'>again</a>",
    "/b": "<a href='/moved'>moved</a>",
    "/deep?x=1&y=2": "the end",
    "/target": "moved here",
    "/secret/x": "hidden",
}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    asked: ClassVar[list[tuple[str, str]]] = []

    def do_GET(self) -> None:
        Handler.asked.append((self.headers["Host"], self.path))
        status, headers, body = 200, {"Content-Type": "text/html"}, PAGES.get(self.path, "")
        if self.path == "/robots.txt":
            headers, body = {"Content-Type": "text/plain"}, "User-agent: *\nDisallow: /secret/\n"
        elif self.path == "/moved":
            status, headers = 301, {"Location": "/target"}
        elif self.path not in PAGES:
            status = 404
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    serving = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{serving.server_address[1]}"
    serving.shutdown()
    serving.server_close()


def site(address: str, *hosts: str, **changes: object) -> Site:
    names = hosts or ("one.example",)
    given = {
        "start": [f"http://{name}/" for name in names], "resolve": dict.fromkeys(names, address),
        "requests_per_second": 1000,
    }  # fmt: skip
    return Site(**{**given, **changes})  # type: ignore[arg-type]


def urls(path: Path) -> list[str]:
    with open(path, "rb") as source:
        return [each.url for each in records(source, 1_000_000) if isinstance(each, Record)]


def test_links_of_the_host_are_followed_and_robots_obeyed(address: str, tmp_path: Path) -> None:
    Handler.asked.clear()
    path = tmp_path / "one.warc.gz"
    captured = capture_host(["http://one.example/"], site(address), str(path))
    expected = ["/", "/a", "/b", "/deep?x=1&y=2", "/moved", "/target"]
    assert urls(path) == [f"http://one.example{target}" for target in expected]
    assert captured.counts == {"pages": 6, "status.200": 5, "status.301": 1, "robots": 1}
    assert {host for host, _ in Handler.asked} == {"one.example"}
    assert not any(target.startswith("/secret") for _, target in Handler.asked)


def test_a_limit_is_kept_and_told(address: str, tmp_path: Path) -> None:
    captured = capture_host(["http://one.example/"], site(address, max_pages=2), str(tmp_path / "x"))
    assert captured.counts["pages"] == 2 and captured.counts["over_limit"] > 0


def test_a_long_page_is_cut(address: str, tmp_path: Path) -> None:
    captured = capture_host(["http://one.example/"], site(address, max_bytes=20, max_pages=1), str(tmp_path / "x"))
    assert captured.counts["pages"] == 1
    (record,) = records(open(tmp_path / "x", "rb"), 1000)
    assert isinstance(record, Record) and len(record.body) == 20


def test_two_captures_are_equal_byte_for_byte(address: str, tmp_path: Path) -> None:
    for name in ("x", "y"):
        capture_host(["http://one.example/"], site(address), str(tmp_path / name))
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()


def test_addresses_are_normal() -> None:
    assert normal("http://A.Example#x") == "http://a.example/"
    from webtochat.crawl.site import Answer

    page = Answer(200, "OK", [("Content-Type", "text/html")], b'<a href="http://[bad/">x</a><a href=" /y ">', False)
    assert list(links("http://a.example/z", page)) == ["http://a.example/y"]


@pytest.fixture
def quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


def run_of(workspace: Path, **crawl_section: object) -> Run:
    recipe = Recipe.model_validate({"name": "r", "workspace": str(workspace), "crawl": crawl_section})
    return Run(recipe, Screen(open(workspace / "screen.txt", "a")))


def test_the_stage_captures_hosts_and_goes_on_after_a_kill(address: str, quiet: Path) -> None:
    settings = site(address, "one.example", "two.example", "gone.example")
    settings.resolve["gone.example"] = "127.0.0.1:1"
    run = run_of(quiet, source="site", site={"start": settings.start})
    made = crawl(run, settings)
    assert [file.name for file in read_listing(made)] == ["one.example.warc.gz", "two.example.warc.gz"]
    counts = made.manifest.counts
    assert counts["pages"] == 12 and counts["hosts_failed"] == 1 and counts["error.ConnectionRefusedError"] == 1
    assert made.verify() == []

    # As a kill leaves it: one host done, the other not, no manifest.
    half = run_of(quiet, source="site", site={"start": settings.start})
    half.directory = str(quiet / "half")
    (quiet / "screen.txt").write_text("")
    begun = artifact.begin(str(quiet / "half" / "crawl"), "crawl", made.manifest.identity, [])
    assert isinstance(begun, artifact.Draft)
    done = quiet / "half" / "crawl"
    for name in ("warc", "_scratch/hosts"):
        (done / name).mkdir(parents=True)
    (done / "warc/one.example.warc.gz").write_bytes((quiet / "r/crawl/warc/one.example.warc.gz").read_bytes())
    (done / "_scratch/hosts/one.example.json").write_text(json.dumps({"pages": 6, "status.200": 5, "status.301": 1,
                                                                      "robots": 1}))  # fmt: skip
    Handler.asked.clear()
    resumed = crawl(half, settings)
    assert resumed.content_hash == made.content_hash
    assert {host for host, _ in Handler.asked} == {"two.example"}


def test_no_host_at_all_is_the_user_s_mistake(quiet: Path) -> None:
    settings = Site(start=["http://gone.example/"], resolve={"gone.example": "127.0.0.1:1"})
    with pytest.raises(UserError, match="no host could be captured"):
        crawl(run_of(quiet, source="site", site={"start": settings.start}), settings)


def test_outside_files_are_listed_or_copied(quiet: Path) -> None:
    for number in range(2):
        (quiet / f"{number}.warc.gz").write_bytes(b"x" * number)
    listed = crawl(run_of(quiet, source="warc", paths=[f"{quiet}/*.warc.gz"]))
    assert [file.path for file in read_listing(listed)] == [f"{quiet}/0.warc.gz", f"{quiet}/1.warc.gz"]
    with pytest.raises(UserError, match="no file matches"):
        crawl(run_of(quiet, source="warc", paths=[f"{quiet}/*.nothing"]))
    other = run_of(quiet, source="warc", paths=[f"{quiet}/*.warc.gz"], copy_files=True)
    other.directory = str(quiet / "copied")
    copied = read_listing(crawl(other))
    assert copied[1].path.endswith("copied/crawl/warc/1.warc.gz") and Path(copied[1].path).read_bytes() == b"x"


def test_documents_are_read_with_fineweb_s_columns(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"text": ["one", None], "url": ["http://a.example/", "u"], "id": ["7", "8"]}),
                   tmp_path / "d.parquet")  # fmt: skip
    (tmp_path / "d.jsonl").write_text('{"text": "two", "extra": 1}\nnot json\n{"text": 5}\n')
    parquet = [row for batch in documents.rows(str(tmp_path / "d.parquet"), "d") for row in batch.to_pylist()]
    lines = [row for batch in documents.rows(str(tmp_path / "d.jsonl"), "l") for row in batch.to_pylist()]
    assert [(row["id"], row["text"]) for row in parquet] == [("7", "one"), ("8", None)]
    assert [row["text"] for row in lines] == ["two", None, None] and len({row["id"] for row in lines}) == 3
