"""The server: sites by Host, keep-alive, refusals, speed."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator

import pytest

from miniweb import web
from miniweb.server import Served, serve
from miniweb.settings import Settings

SETTINGS = Settings(scale=0.05, docstring_bytes=60_000)


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serve(SETTINGS) as running:
        yield running


def connect(served: Served) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(served.address, timeout=10)


def test_every_page_comes_back_whole_and_quickly(served: Served) -> None:
    pages = list(web.pages(SETTINGS))
    connection = connect(served)
    began = time.perf_counter()
    for page in pages:
        connection.request("GET", page.path, headers={"Host": page.host})
        response = connection.getresponse()
        assert response.read() == page.body
        assert response.status == page.status
        assert page.headers.items() <= dict(response.getheaders()).items()
        assert response.getheader("Date") is None
    # All on one connection; a whole web is some 6,000 pages.
    assert len(pages) / (time.perf_counter() - began) > 100


def test_addresses_and_starts(served: Served) -> None:
    names = web.hosts(SETTINGS)
    assert served.start == [f"http://{name}/" for name in names]
    assert served.resolve == dict.fromkeys(names, served.address)
    assert served.address.startswith("127.0.0.1:")


def test_unknown_and_refused(served: Served) -> None:
    connection = connect(served)
    for host, path, status in (("nobody.example", "/", 404), (web.BLOCKED[0], "/no", 404)):
        connection.request("GET", path, headers={"Host": host})
        response = connection.getresponse()
        response.read()
        assert response.status == status
    connection.request("HEAD", "/?again=1", headers={"Host": web.BLOCKED[0] + ":80"})
    response = connection.getresponse()
    assert (response.status, response.read()) == (200, b"") and int(response.getheader("Content-Length") or 0) > 100
    connection.request("POST", "/", body=b"GET / HTTP/1.1\r\n\r\n", headers={"Host": web.BLOCKED[0]})
    assert connection.getresponse().status == 405


def test_robots_hide_pages(served: Served) -> None:
    hidden = [page for page in web.pages(SETTINGS) if page.source == "hidden"]
    assert hidden and all(page.path.startswith("/private/") for page in hidden)
    rules = {page.host: page.body for page in web.pages(SETTINGS) if page.path == "/robots.txt"}
    assert set(rules) == set(web.hosts(SETTINGS))
    assert all(b"Disallow: /private/" in rules[page.host] for page in hidden)


def test_closing_ends_the_server() -> None:
    with serve(SETTINGS) as running:
        connect(running).request("GET", "/")
    with pytest.raises(OSError):
        connect(running).request("GET", "/")
