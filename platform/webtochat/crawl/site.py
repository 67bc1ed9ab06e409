"""Captures hosts to WARC, politely: robots.txt, a rate, a page limit. One WARC file per host.

Record ids and dates follow from the content (uuid5 of address and payload; the page's Last-Modified or a fixed date),
so two captures of the same pages are equal byte for byte.
"""

from __future__ import annotations

import hashlib
import http.client
import io
import re
import time
import uuid
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from html import unescape
from urllib.parse import urldefrag, urljoin, urlsplit
from urllib.robotparser import RobotFileParser

from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from webtochat.crawl.fetch import AGENT, BUSY, pause
from webtochat.recipe import Site

LINK = re.compile(rb"<a\s[^>]*?href\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s>]+))", re.IGNORECASE)
UNDATED = "2000-01-01T00:00:00Z"
ATTEMPTS = 5
FAULTS = (OSError, http.client.HTTPException)


@dataclass
class Answer:
    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes
    truncated: bool

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key.lower() == name), "")


@dataclass
class Captured:
    """What became of one host."""

    host: str
    counts: Counter[str] = field(default_factory=Counter)
    """`pages`, `status.200`…, `robots`, `over_limit`, and errors by reason."""


class Host:
    """One host over one kept-alive connection, at most so many requests a second."""

    def __init__(self, scheme: str, netloc: str, section: Site):
        self.netloc = netloc
        address = section.resolve.get(netloc, netloc)
        kind = http.client.HTTPSConnection if scheme == "https" else http.client.HTTPConnection
        self._connection = kind(address, timeout=section.timeout_seconds)
        self._gap = 1 / section.requests_per_second
        self._next = 0.0
        self._max_bytes = section.max_bytes
        self._known = False
        """Whether the host ever answered: one that never did is not asked again and again."""

    def get(self, target: str) -> Answer:
        """Raises OSError or HTTPException where the host cannot be read, after several attempts."""
        for attempt in range(ATTEMPTS):
            time.sleep(max(0.0, self._next - time.monotonic()))
            self._next = time.monotonic() + self._gap
            try:
                self._connection.request("GET", target, headers={"Host": self.netloc, "User-Agent": AGENT})
                answer = self._connection.getresponse()
                body = answer.read(self._max_bytes + 1)
                if len(body) > self._max_bytes:
                    self._connection.close()  # the rest is not worth reading
                found = Answer(
                    answer.status, answer.reason, answer.getheaders(), body[: self._max_bytes],
                    len(body) > self._max_bytes,
                )  # fmt: skip
            except FAULTS:
                self._connection.close()
                if attempt + 1 == ATTEMPTS or not self._known:
                    raise
                time.sleep(pause(attempt, None) / 10)
                continue
            self._known = True
            if found.status not in BUSY or attempt + 1 == ATTEMPTS:
                return found
            time.sleep(pause(attempt, found.header("retry-after")))
        raise AssertionError("the last attempt returns or raises")


def capture_host(start: list[str], section: Site, path: str) -> Captured:
    """Captures one host breadth first from its start addresses into a WARC file at a local path."""
    scheme, netloc = urlsplit(start[0])[:2]
    captured = Captured(netloc)
    host = Host(scheme, netloc, section)
    rules = RobotFileParser()
    with open(path, "wb") as sink:
        writer = WARCWriter(sink, gzip=True, warc_version="1.0")
        sink_info(writer, netloc)
        rules.parse(robots(host, captured) if section.robots else [])
        queue = deque(dict.fromkeys(map(normal, start)))
        seen = set(queue)
        while queue:
            url = queue.popleft()
            if section.robots and not rules.can_fetch(AGENT, url):
                captured.counts["robots"] += 1
                continue
            if captured.counts["pages"] >= section.max_pages:
                captured.counts["over_limit"] += 1 + len(queue)
                break
            try:
                answer = host.get(target_of(url))
            except FAULTS as error:
                captured.counts[f"error.{type(error).__name__}"] += 1
                if not captured.counts["pages"]:
                    break
                continue
            captured.counts["pages"] += 1
            captured.counts[f"status.{answer.status}"] += 1
            write_response(writer, url, answer)
            for link in links(url, answer):
                if urlsplit(link).netloc == netloc and link not in seen:
                    seen.add(link)
                    queue.append(link)
    return captured


def robots(host: Host, captured: Captured) -> list[str]:
    """Lines of robots.txt. None there: everything may be read; a server that fails on it: nothing may (RFC 9309)."""
    try:
        answer = host.get("/robots.txt")
    except FAULTS as error:
        captured.counts[f"error.{type(error).__name__}"] += 1
        return ["User-agent: *", "Disallow: /"]
    if answer.status >= 500:
        captured.counts["error.robots"] += 1
        return ["User-agent: *", "Disallow: /"]
    return (
        answer.body.decode("utf-8", "replace").splitlines() if answer.status == 200 else ["User-agent: *", "Allow: /"]
    )


def normal(url: str) -> str:
    """Without fragment, with a path, host in lower case."""
    parts = urlsplit(urldefrag(url).url)
    return parts._replace(netloc=parts.netloc.lower(), path=parts.path or "/").geturl()


def target_of(url: str) -> str:
    parts = urlsplit(url)
    return parts.path + (f"?{parts.query}" if parts.query else "")


def links(url: str, answer: Answer) -> Iterator[str]:
    """http(s) addresses that a page or redirect points to, in the order in which they stand."""
    if 300 <= answer.status < 400:
        targets = [answer.header("location")]
    elif "html" in answer.header("content-type"):
        found = (next((each for each in match if each), b"") for match in LINK.findall(answer.body))
        targets = [unescape(each.decode("utf-8", "replace")).strip() for each in found]
    else:
        targets = []
    for target in targets:
        if not target:
            continue
        try:
            link = normal(urljoin(url, target))
        except ValueError:  # a malformed address, such as an unclosed IPv6 bracket, leads nowhere
            continue
        if link.startswith(("http://", "https://")) and link.isascii() and " " not in link:
            yield link


def sink_info(writer: WARCWriter, netloc: str) -> None:
    info = writer.create_warcinfo_record(f"{netloc}.warc.gz", {"software": AGENT, "format": "WARC File Format 1.0"})
    info.rec_headers.replace_header("WARC-Record-ID", record_id(netloc, b""))
    info.rec_headers.replace_header("WARC-Date", UNDATED)
    writer.write_record(info)


def write_response(writer: WARCWriter, url: str, answer: Answer) -> None:
    """A response record as the server sent it, but for transfer encoding, which the client has undone."""
    headers = [(key, value) for key, value in answer.headers if key.lower() not in ("transfer-encoding", "date")]
    record = writer.create_warc_record(
        url, "response", payload=io.BytesIO(answer.body), length=len(answer.body),
        http_headers=StatusAndHeaders(f"{answer.status} {answer.reason}", headers, protocol="HTTP/1.1"),
        warc_headers_dict={"WARC-Record-ID": record_id(url, answer.body), "WARC-Date": date_of(answer)},
    )  # fmt: skip
    if answer.truncated:
        record.rec_headers.add_header("WARC-Truncated", "length")
    writer.write_record(record)


def record_id(url: str, body: bytes) -> str:
    return f"<urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, url + hashlib.sha256(body).hexdigest())}>"


def date_of(answer: Answer) -> str:
    try:
        return parsedate_to_datetime(answer.header("last-modified")).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, TypeError):
        return UNDATED
