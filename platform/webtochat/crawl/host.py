"""One host, asked politely over kept-alive connections: its rate, its map, retries, limits on size and time."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

from webtochat.crawl.decoding import decoded
from webtochat.crawl.fetch import AGENT, pause
from webtochat.recipe_pages import Site

RETRIED = (429, 502, 503, 504)
"""Answers that ask to come again. 403 and 500 are what a site says of one page, and are kept as they are."""
ATTEMPTS = 5
PIECE = 1 << 16
FAULTS = (OSError, http.client.HTTPException)


class Stopped(Exception):
    """The capture was told to end."""


@dataclass
class Answer:
    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes
    truncated: str | None = None
    """WARC-Truncated: `length` or `time`."""

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key.lower() == name), "")

    def text(self) -> bytes:
        """The body without a content encoding, which nobody asked for and some servers apply all the same."""
        encoding = {"content-encoding": self.header("content-encoding")}
        return decoded(self.body, encoding, max(10 * len(self.body), 1 << 20))[0]


class Host:
    """`netloc`: name, and port where it is not the scheme's. Requests wait for the recipe's rate; `stop` ends every
    wait with Stopped."""

    def __init__(self, netloc: str, section: Site, stop: threading.Event | None = None):
        self.netloc = netloc
        self._section = section
        self._stop = stop or threading.Event()
        self._connections: dict[str, http.client.HTTPConnection] = {}
        self._gap = 1 / section.requests_per_second
        self._next = 0.0
        self._known = False
        """Whether the host ever answered: one that never did is not asked again and again."""

    def slow_down(self, seconds: float) -> None:
        """At least so long between requests (robots.txt's Crawl-delay)."""
        self._gap = max(self._gap, seconds)

    def get(self, url: str) -> Answer:
        """One page. Raises OSError or HTTPException where it cannot be read, after several attempts."""
        parts = urlsplit(url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        for attempt in range(ATTEMPTS):
            last = attempt + 1 == ATTEMPTS
            self._wait(self._next - time.monotonic())
            self._next = time.monotonic() + self._gap
            try:
                found = self._ask(parts.scheme, target)
            except FAULTS as error:
                self.close()
                # Nothing is mended by asking again for an address that cannot be asked for.
                if last or not self._known or isinstance(error, http.client.InvalidURL):
                    raise
                self._wait(pause(attempt, None) / 10)
                continue
            self._known = True
            if found.status not in RETRIED or last:
                return found
            self._wait(pause(attempt, found.header("retry-after")))
        raise AssertionError("the last attempt returns or raises")

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()

    def _ask(self, scheme: str, target: str) -> Answer:
        connection = self._connections.get(scheme)
        if connection is None:
            connection = self._connections[scheme] = connect(scheme, self.netloc, self._section)
        connection.request("GET", target, headers={"User-Agent": AGENT})
        deadline = time.monotonic() + self._section.timeout_seconds
        answer = connection.getresponse()
        body, truncated = read(answer, self._section.max_bytes, deadline)
        if truncated:
            connection.close()  # the rest is not worth reading
        answer.close()
        return Answer(answer.status, answer.reason, answer.getheaders(), body, truncated)

    def _wait(self, seconds: float) -> None:
        if self._stop.wait(seconds) if seconds > 0 else self._stop.is_set():
            raise Stopped


def connect(scheme: str, netloc: str, section: Site) -> http.client.HTTPConnection:
    """A connection that is opened when it is first used: to the mapped address where the recipe maps the host (as
    `host` or `host:port`), while URL, Host header and certificate keep the name."""
    kind = http.client.HTTPSConnection if scheme == "https" else http.client.HTTPConnection
    connection = kind(netloc, timeout=section.timeout_seconds)
    mapped = section.resolve.get(f"{connection.host}:{connection.port}", section.resolve.get(netloc))
    if mapped:
        name, _, port = mapped.rpartition(":")
        address = (name.strip("[]"), int(port))

        def to_mapped(_: object, *options: object) -> socket.socket:
            return socket.create_connection(address, *options)  # type: ignore[arg-type]

        connection._create_connection = to_mapped  # type: ignore[attr-defined]  # http.client's own seam
    return connection


def read(answer: http.client.HTTPResponse, max_bytes: int, deadline: float) -> tuple[bytes, str | None]:
    """(body, why it was cut). Raises IncompleteRead where the server told of more than it sent."""
    parts: list[bytes] = []
    size = 0
    while size <= max_bytes:
        piece = answer.read1(min(PIECE, max_bytes + 1 - size))
        if not piece:
            if answer.length:
                raise http.client.IncompleteRead(b"", answer.length)
            return b"".join(parts), None
        parts.append(piece)
        size += len(piece)
        if answer.length == 0:
            break
        if time.monotonic() > deadline:
            return b"".join(parts)[:max_bytes], "time"
    body = b"".join(parts)
    return body[:max_bytes], "length" if size > max_bytes else None
