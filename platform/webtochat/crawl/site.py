"""Captures hosts to WARC, politely: robots.txt, a rate, a page limit. One WARC file per host.

Record ids and dates follow from the content (uuid5 of address and payload; the page's Last-Modified or a fixed date),
so two captures of the same pages are equal byte for byte.
"""

from __future__ import annotations

import hashlib
import io
import re
import threading
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from html import unescape
from urllib.parse import quote, urldefrag, urljoin, urlsplit
from urllib.robotparser import RobotFileParser

from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from webtochat.crawl.fetch import AGENT
from webtochat.crawl.host import FAULTS, Answer, Host
from webtochat.recipe_pages import Site

# Bounded repetition: a page of unclosed tags must not cost the square of its length.
LINK = re.compile(
    rb"<a\s[^<>]{0,1000}?href\s*=\s*(?:\"([^\"]{0,4000})\"|'([^']{0,4000})'|([^\s>\"']{1,4000}))", re.IGNORECASE
)
BASE = re.compile(rb"<base\s[^<>]{0,1000}?href\s*=\s*[\"']?([^\"'\s>]{1,4000})", re.IGNORECASE)
REDIRECTS = (301, 302, 303, 307, 308)
UNDATED = "2000-01-01T00:00:00Z"
FAILURES_IN_A_ROW = 5
"""After which a host is left: it is down, and each page costs several attempts."""
NOTHING_ALLOWED = ["User-agent: *", "Disallow: /"]
ALL_ALLOWED = ["User-agent: *", "Allow: /"]


@dataclass
class Captured:
    """What became of one host."""

    host: str
    counts: Counter[str] = field(default_factory=Counter)
    """`pages`, `status.200`…, `robots`, `over_limit`, `truncated`, `redirects_elsewhere`, and `error.…` by reason."""
    elsewhere: str | None = None
    """The other host that the first such redirect points to."""


def capture_host(
    start: list[str], section: Site, path: str,
    tell: Callable[[], None] = lambda: None, stop: threading.Event | None = None,
) -> Captured:  # fmt: skip
    """Captures one host breadth first from its start addresses into a WARC file at a local path. `tell` is called
    after each page; once `stop` is set, Stopped is raised."""
    netloc = urlsplit(normal(start[0])).netloc
    captured = Captured(netloc)
    counts = captured.counts
    host = Host(netloc, section, stop)
    rules = RobotFileParser()
    queue = deque(dict.fromkeys(map(normal, start)))
    seen = set(queue)
    failures = 0
    with open(path, "wb") as sink:
        writer = WARCWriter(sink, gzip=True, warc_version="1.0")
        write_info(writer, netloc)
        rules.parse(robots(host, start[0], captured) if section.robots else ALL_ALLOWED)
        host.slow_down(float(rules.crawl_delay(AGENT) or 0))
        while queue:
            if counts["pages"] >= section.max_pages:
                counts["over_limit"] += len(queue)
                break
            if failures >= FAILURES_IN_A_ROW or (failures and not counts["pages"]):
                counts["error.abandoned"] += len(queue)
                break
            url = queue.popleft()
            if not rules.can_fetch(AGENT, url):
                counts["robots"] += 1
                continue
            try:
                answer = host.get(url)
            except FAULTS as error:
                counts[f"error.{type(error).__name__}"] += 1
                failures += 1
                continue
            failures = 0
            counts["pages"] += 1
            counts[f"status.{answer.status}"] += 1
            counts["truncated"] += answer.truncated is not None
            write_response(writer, url, answer)
            for link in links(url, answer):
                found = urlsplit(link).netloc
                if found == netloc and link not in seen:
                    seen.add(link)
                    queue.append(link)
                elif found != netloc and answer.status in REDIRECTS:
                    counts["redirects_elsewhere"] += 1
                    captured.elsewhere = captured.elsewhere or found
            tell()
    host.close()
    captured.counts = +counts
    return captured


def robots(host: Host, start: str, captured: Captured) -> list[str]:
    """Lines of robots.txt. None there: everything may be read; a server that fails on it: nothing may (RFC 9309, which
    also has redirects followed)."""
    url = normal(urljoin(start, "/robots.txt"))
    try:
        answer = host.get(url)
        for _ in range(5):
            target = next(links(url, answer), None) if answer.status in REDIRECTS else None
            if target is None or urlsplit(target).netloc != host.netloc:
                break
            url = target
            answer = host.get(url)
    except FAULTS as error:
        captured.counts[f"error.{type(error).__name__}"] += 1
        return NOTHING_ALLOWED
    if answer.status >= 500 or answer.status == 429:
        captured.counts["error.robots"] += 1
        return NOTHING_ALLOWED
    # With a byte order mark in its first line, the parser would not see whom the rules are for.
    return answer.text().decode("utf-8-sig", "replace").splitlines() if answer.status == 200 else ALL_ALLOWED


def normal(url: str) -> str:
    """Without fragment and the scheme's own port, with a path, host in lower case, what is not ASCII percent-encoded.
    Raises ValueError where it is malformed."""
    parts = urlsplit(urldefrag(url).url)
    netloc = parts.netloc.lower().removesuffix({"http": ":80", "https": ":443"}.get(parts.scheme, ":"))
    safe = "%/:=&?~+!$,;'@()*[]|"
    return parts._replace(
        netloc=netloc, path=quote(parts.path, safe=safe) or "/", query=quote(parts.query, safe=safe)
    ).geturl()


def links(url: str, answer: Answer) -> Iterator[str]:
    """http(s) addresses that a page or redirect points to, in the order in which they stand."""
    base = None
    if 300 <= answer.status < 400:
        # http.client reads headers as Latin-1; what browsers take there is UTF-8.
        targets = [answer.header("location").encode("latin-1", "replace").decode("utf-8", "replace").strip()]
    elif "html" in answer.header("content-type").lower():
        body = answer.text()
        base = BASE.search(body, 0, 1 << 16) if answer.status < 300 else None
        found = (next((each for each in match if each), b"") for match in LINK.findall(body))
        targets = [unescape(each.decode("utf-8", "replace")).strip() for each in found]
    else:
        return
    if base:
        with suppress(ValueError):  # as if it were not there
            url = urljoin(url, unescape(base[1].decode("utf-8", "replace")))
    for target in targets:
        if not target:
            continue
        try:
            link = normal(urljoin(url, target))
        except ValueError:  # a malformed address, such as an unclosed IPv6 bracket, leads nowhere
            continue
        if link.startswith(("http://", "https://")) and link.isascii():
            yield link


def write_info(writer: WARCWriter, netloc: str) -> None:
    info = writer.create_warcinfo_record(f"{netloc}.warc.gz", {"software": AGENT, "format": "WARC File Format 1.0"})
    info.rec_headers.replace_header("WARC-Record-ID", record_id(netloc, b""))
    info.rec_headers.replace_header("WARC-Date", UNDATED)
    writer.write_record(info)


def write_response(writer: WARCWriter, url: str, answer: Answer) -> None:
    """A response record as the server sent it, but for transfer encoding, which the client has undone, and the time of
    the answer."""
    headers = [(key, value) for key, value in answer.headers if key.lower() not in ("transfer-encoding", "date")]
    reason = answer.reason.encode("ascii", "replace").decode()  # warcio writes no other
    record = writer.create_warc_record(
        url, "response", payload=io.BytesIO(answer.body), length=len(answer.body),
        http_headers=StatusAndHeaders(f"{answer.status} {reason}", headers, protocol="HTTP/1.1"),
        warc_headers_dict={"WARC-Record-ID": record_id(url, answer.body), "WARC-Date": date_of(answer)},
    )  # fmt: skip
    if answer.truncated:
        record.rec_headers.add_header("WARC-Truncated", answer.truncated)
    writer.write_record(record)


def record_id(url: str, body: bytes) -> str:
    return f"<urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, url + hashlib.sha256(body).hexdigest())}>"


def date_of(answer: Answer) -> str:
    try:
        return parsedate_to_datetime(answer.header("last-modified")).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, TypeError):
        return UNDATED
