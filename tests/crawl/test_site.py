"""Capturing hosts: what is fetched, what is not, and that it is the same twice."""

from __future__ import annotations

import gzip
import http.server
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from webtochat import artifact
from webtochat.crawl.host import Answer, Stopped
from webtochat.crawl.listing import read_listing
from webtochat.crawl.site import capture_host, links, normal
from webtochat.crawl.stage import crawl
from webtochat.crawl.warc import Record, records
from webtochat.errors import UserError
from webtochat.recipe import Recipe
from webtochat.recipe_pages import Site
from webtochat.run import Run, Screen

PAGES = {
    "/": '<a href="/a">a</a> <a href=b#part>b</a> <a href="/secret/x">no</a> <a href="http://other.example/">o</a>',
    "/a": "<a href='/deep?x=1&amp;y=2'>deep</a> <a href='mailto:x@y.example'>m</a> <a href='/a'>again</a>",
    "/b": "<a href='/moved'>moved</a>",
    "/deep?x=1&y=2": "the end",
    "/target": "moved here",
    "/secret/x": "hidden",
    **{f"/long/{number}": f'<a href="/long/{number + 1}">on</a>' for number in range(60)},
}


STRANGE = b'<a href="/secret/x">no</a> <a href="/a">yes</a>'


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    asked: ClassVar[list[tuple[str, str]]] = []

    def do_GET(self) -> None:
        Handler.asked.append((self.headers["Host"], self.path))
        if self.path.startswith("/long/"):
            time.sleep(0.02)
        if self.headers["Host"] == "strange.example":
            return self.strange()
        status, headers, body = 200, {"Content-Type": "text/html"}, PAGES.get(self.path, "")
        if self.path == "/robots.txt":
            headers, body = {"Content-Type": "text/plain"}, "User-agent: *\nDisallow: /secret/\n"
        elif self.path == "/away":
            status, headers = 301, {"Location": "http://www.one.example/"}
        elif self.path == "/busy" and Handler.asked.count((self.headers["Host"], "/busy")) < 3:
            status, headers = 503, {"Retry-After": "0"}
        elif self.path == "/cut":
            return self.cut()
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

    def strange(self) -> None:
        body = gzip.compress(STRANGE) if self.path == "/" else b"the end"
        kind = b"text/html\r\nContent-Encoding: gzip" if self.path == "/" else b"text/html"
        if self.path == "/robots.txt":
            body, kind = b"\xef\xbb\xbfUser-agent: *\nDisallow: /secret/\n", b"text/plain"
        self.wfile.write(
            b"HTTP/1.1 200 Gr\xfc\xdfe\r\nX-Name: caf\xe9 \xc3\xbc\r\nX-Long: a\r\n b\r\nContent-Type: "
            + kind + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )  # fmt: skip

    def cut(self) -> None:
        """Tells of more than it sends."""
        self.send_response(200)
        self.send_header("Content-Length", "100")
        self.end_headers()
        self.wfile.write(b"half")
        self.close_connection = True

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
    (record,) = records(io.BytesIO((tmp_path / "x").read_bytes()), 1000)
    assert b"WARC-Truncated: length" in gzip.decompress((tmp_path / "x").read_bytes())
    assert isinstance(record, Record) and len(record.body) == 20


def test_a_busy_page_is_asked_for_again_and_a_cut_one_is_an_error(address: str, tmp_path: Path) -> None:
    Handler.asked.clear()
    section = site(address, start=["http://one.example/busy", "http://one.example/cut", "http://one.example/b"])
    captured = capture_host(section.start, section, str(tmp_path / "x"))
    assert captured.counts == {
        "pages": 4, "status.200": 2, "status.301": 1, "status.404": 1, "error.IncompleteRead": 1,
    }  # fmt: skip
    assert [target for _, target in Handler.asked].count("/busy") == 3  # then it is no more there: 404
    assert urls(tmp_path / "x")[:2] == ["http://one.example/busy", "http://one.example/b"]


def test_strange_servers_are_captured(address: str, tmp_path: Path) -> None:
    """A byte order mark before robots.txt, bodies packed unasked, bytes beyond ASCII in the answer's first lines."""
    Handler.asked.clear()
    section = site(address, "strange.example")
    captured = capture_host(section.start, section, str(tmp_path / "x"))
    assert captured.counts == {"pages": 2, "status.200": 2, "robots": 1}
    with open(tmp_path / "x", "rb") as source:
        found = [each for each in records(source, 1_000_000) if isinstance(each, Record)]
    assert [(each.url[-1], each.status, each.problem) for each in found] == [("/", 200, None), ("a", 200, None)]
    assert found[0].body == STRANGE


def test_a_redirect_to_another_host_is_recorded_and_told(address: str, tmp_path: Path) -> None:
    section = site(address, start=["http://one.example/away"])
    captured = capture_host(section.start, section, str(tmp_path / "x"))
    assert captured.counts == {"pages": 1, "status.301": 1, "redirects_elsewhere": 1}
    assert captured.elsewhere == "www.one.example"


def test_a_capture_ends_when_it_is_told_to(address: str, tmp_path: Path) -> None:
    stop = threading.Event()
    section = site(address, start=["http://one.example/long/0"], requests_per_second=0.1, robots=False)
    threading.Timer(0.3, stop.set).start()
    begun = time.monotonic()
    with pytest.raises(Stopped):
        capture_host(section.start, section, str(tmp_path / "x"), stop=stop)
    assert time.monotonic() - begun < 5


def test_a_hostile_page_costs_little() -> None:
    for body in (b"<a " * 300_000, b'<a href="x' * 100_000, b"<a href=" * 100_000):
        begun = time.process_time()
        list(links("http://a.example/", Answer(200, "OK", [("Content-Type", "text/html")], body)))
        assert time.process_time() - begun < 10


def test_two_captures_are_equal_byte_for_byte(address: str, tmp_path: Path) -> None:
    for name in ("x", "y"):
        capture_host(["http://one.example/"], site(address), str(tmp_path / name))
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()


def test_addresses_are_normal() -> None:
    assert normal("http://A.Example#x") == "http://a.example/"
    page = Answer(200, "OK", [("Content-Type", "text/html")], b'<a href="http://[bad/">x</a><a href=" /y ">')
    assert list(links("http://a.example/z", page)) == ["http://a.example/y"]


def test_links_are_as_browsers_take_them() -> None:
    body = '<base href="/deep/"><a class=x href="ü?q=a b">1</a><a href=":80//x">2</a><A HREF=c#d>3</A>'.encode()
    page = Answer(200, "OK", [("Content-Type", "Text/HTML")], body)
    assert list(links("http://a.example/z", page))[::2] == [
        "http://a.example/deep/%C3%BC?q=a%20b", "http://a.example/deep/c",
    ]  # fmt: skip
    moved = Answer(302, "Found", [("Location", "http://A.example:80/z?a=%C3%BC&b")], b"")
    assert list(links("http://a.example/", moved)) == ["http://a.example/z?a=%C3%BC&b"]


@pytest.fixture
def quiet(tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
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
    counts = {"pages": 6, "status.200": 5, "status.301": 1, "robots": 1}
    told = json.dumps({"counts": counts, "elsewhere": None})
    (done / "_scratch/hosts/one.example.json").write_text(told)
    Handler.asked.clear()
    resumed = crawl(half, settings)
    assert resumed.content_hash == made.content_hash
    assert {host for host, _ in Handler.asked} == {"two.example"}


def test_no_host_at_all_is_the_user_s_mistake_and_is_asked_again(address: str, quiet: Path) -> None:
    settings = Site(start=["http://gone.example/"], resolve={"gone.example": "127.0.0.1:1"}, requests_per_second=1000)
    with pytest.raises(UserError, match="no host could be captured"):
        crawl(run_of(quiet, source="site", site={"start": settings.start}), settings)
    settings.resolve["gone.example"] = address  # mended
    assert crawl(run_of(quiet, source="site", site={"start": settings.start}), settings).manifest.counts["pages"] == 6


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


def test_mistaken_addresses_are_one_line(quiet: Path) -> None:
    for start in ("ftp://a.example/", "a.example", "http://a.example:x/", "http://" + "a" * 70 + ".example/"):
        with pytest.raises(UserError, match="is not an http"):
            crawl(run_of(quiet, source="site", site={"start": [start]}))
        (quiet / "r/crawl/draft.json").unlink()
    with pytest.raises(UserError, match="is not address:port"):
        crawl(run_of(quiet, source="site", site={"start": ["http://a.example/"], "resolve": {"a.example": "there"}}))


CAPTURE = """
import json, sys
sys.path[:0] = sys.argv[1].split(":")
from webtochat.crawl.stage import crawl
from webtochat.recipe import Recipe
from webtochat.run import Run

class Untracked:  # the import of MLflow would be most of this process's life
    run_id = None
    stage = lambda self, *_: self
    metrics = text = end = lambda *_: None

run = Run(Recipe.model_validate(json.loads(sys.argv[2])))
run.tracking = Untracked()
crawl(run)
"""


def test_a_killed_capture_goes_on_and_ends_the_same(address: str, quiet: Path) -> None:
    settings = site(address, "one.example", start=["http://one.example/", "http://two.example/long/0"])
    settings.resolve["two.example"] = address
    recipe = {"name": "r", "workspace": str(quiet), "crawl": {"source": "site", "site": settings.model_dump()}}
    process = subprocess.Popen(
        [sys.executable, "-c", CAPTURE, ":".join(sys.path), json.dumps(recipe)], stdout=subprocess.DEVNULL
    )
    done = quiet / "r/crawl/_scratch/hosts/one.example.json"
    deadline = time.monotonic() + 60
    while not done.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert done.exists() and not (quiet / "r/crawl/manifest.json").exists()
    Handler.asked.clear()
    resumed = crawl(Run(Recipe.model_validate(recipe), Screen(open(os.devnull, "w"))))  # noqa: SIM115
    assert {host for host, _ in Handler.asked} == {"two.example"}
    whole = crawl(Run(Recipe.model_validate(recipe | {"name": "s"}), Screen(open(os.devnull, "w"))))  # noqa: SIM115
    assert resumed.content_hash == whole.content_hash and resumed.manifest.counts == whole.manifest.counts
    assert not list((quiet / "r/crawl").rglob("*partial*"))


def test_relative_paths_and_twice_named_files(quiet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("a", "b"):
        (quiet / folder).mkdir()
        (quiet / folder / "same.warc.gz").write_bytes(folder.encode())
    monkeypatch.chdir(quiet / "a")
    paths = ["*.warc.gz", "../a/same.warc.gz", "../b/*"]
    files = read_listing(crawl(run_of(quiet, source="warc", paths=paths)))
    assert sorted(Path(file.path).read_bytes() for file in files) == [b"a", b"b"]
    assert len({file.name for file in files}) == 2 and all(file.name.endswith("-same.warc.gz") for file in files)
