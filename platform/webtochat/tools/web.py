"""Reading one page of the live web for a model, which may have been told by another page what to ask for. So nothing
but the public internet is in reach: names are looked up once, every address is checked, the connection goes to the
address that was checked, and all that again for each redirect. No cookies, no credentials, no proxies.
"""

from __future__ import annotations

import ipaddress
import math
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv4Address, IPv6Address
from typing import Any
from urllib.parse import urljoin

import httpcore

from webtochat import __version__
from webtochat.crawl.decoding import decoded
from webtochat.curate.extract import ExtractionError, decode
from webtochat.curate.guard import GuardedExtraction
from webtochat.recipe_tools import Fetch
from webtochat.tools.addresses import Refused, Target, is_public, parsed

HTML = ("text/html", "application/xhtml+xml")
REDIRECTS = (301, 302, 303, 307, 308)


class FetchError(Exception):
    """Why there is no page, in a few words for the model."""


@dataclass
class Page:
    title: str
    text: str
    url: str
    """After redirects."""
    status: int
    content_type: str


def looked_up(host: str) -> list[str]:
    return list(dict.fromkeys(str(found[4][0]) for found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)))


@cache
def _certificates() -> ssl.SSLContext:
    return ssl.create_default_context()


@dataclass(frozen=True)
class Network:
    """How hosts are found and which addresses are allowed. Another one than the public internet can be given to `fetch`
    in Python alone (tests do, to reach their own servers): no recipe and no variable leads here."""

    look_up: Callable[[str], list[str]] = looked_up
    allowed: Callable[[IPv4Address | IPv6Address], bool] = is_public
    certificates: Callable[[], ssl.SSLContext] = _certificates


PUBLIC = Network()


def fetch(url: str, section: Fetch | None = None, network: Network = PUBLIC) -> Page:
    """A page's title and text. Raises FetchError: whatever is not public, not text, too large or too slow."""
    section = section or Fetch()
    clock = Clock(section.seconds)
    for _ in range(section.max_redirects + 1):
        try:
            target = parsed(url, section.ports)
            answer = _asked(target, section, network, clock)
        except Refused as error:
            raise FetchError(str(error)) from error
        except (httpcore.TimeoutException, TimeoutError) as error:
            raise FetchError(f"{target.host} took longer than {section.seconds:g} s") from error
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.UnsupportedProtocol, OSError) as error:
            raise FetchError(f"{target.host} cannot be read: {type(error).__name__}: {error}"[:200]) from error
        if isinstance(answer, Page):
            return answer
        url = urljoin(target.url, answer)
    raise FetchError(f"more than {section.max_redirects} redirects")


class Clock:
    """The time that is left for a whole fetch."""

    def __init__(self, seconds: float):
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Raises TimeoutError where none is."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


def _asked(target: Target, section: Fetch, network: Network, clock: Clock) -> Page | str:
    """The page, or where the server sends us instead."""
    headers = {
        "Host": target.authority, "User-Agent": f"webtochat/{__version__}", "Accept-Encoding": "gzip",
        "Accept": ", ".join(section.content_types), "Connection": "close",
    }  # fmt: skip
    address = httpcore.URL(
        scheme=target.scheme.encode(), host=target.host.encode(), port=target.port, target=target.path.encode()
    )
    connection = httpcore.ConnectionPool(
        ssl_context=network.certificates() if target.scheme == "https" else None,
        network_backend=_Checked(network, clock), http2=False, retries=0,
    )  # fmt: skip
    with connection, connection.stream("GET", address, headers=list(headers.items())) as answer:
        fields = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in answer.headers}
        if answer.status in REDIRECTS and "location" in fields:
            return fields["location"]
        if not 200 <= answer.status < 300:
            raise FetchError(f"{target.host} answers {answer.status}")
        content_type = fields.get("content-type", "")
        kind = content_type.split(";")[0].strip().lower()
        if kind not in section.content_types:
            raise FetchError(f"it is {kind or 'of no type'}, and only {', '.join(section.content_types)} are read")
        body = _bounded(answer.iter_stream(), section.max_bytes)
    body, problem = decoded(body, {"content-encoding": fields.get("content-encoding", "")}, section.max_bytes)
    if problem:
        raise FetchError(f"its content is {problem.replace('_', ' ')}")
    try:
        if kind not in HTML:
            return Page("", decode(body, content_type), target.url, answer.status, kind)
        with GuardedExtraction(math.ceil(clock.left())) as extract:
            found = extract(body, content_type)
    except ExtractionError as error:
        raise FetchError(f"its text cannot be read: {error}") from error
    return Page(found.title, found.text, target.url, answer.status, kind)


def _bounded(pieces: Iterable[bytes], most: int) -> bytes:
    body = bytearray()
    for piece in pieces:
        body += piece
        if len(body) > most:
            raise FetchError(f"it is larger than {most:,} bytes")
    return bytes(body)


class _Checked(httpcore.NetworkBackend):
    """Connections to addresses that were checked, all within one clock."""

    def __init__(self, network: Network, clock: Clock):
        self._network = network
        self._clock = clock

    def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, local_address: str | None = None,
        socket_options: Any = None,
    ) -> httpcore.NetworkStream:  # fmt: skip
        for address in (found := self._addresses(host)):
            if not self._network.allowed(ipaddress.ip_address(address)):
                raise Refused(f"{host} is not on the public internet")
        problem: Exception = httpcore.ConnectError("no address")
        for address in found:
            try:
                return _Timed(httpcore.SyncBackend().connect_tcp(address, port, self._clock.left()), self._clock)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                problem = error
        raise problem

    def _addresses(self, host: str) -> list[str]:
        """Looked up in a thread of its own: the system's resolver knows no limit of time."""
        with suppress(ValueError):
            return [str(ipaddress.ip_address(host))]
        found: list[str] = []
        errors: list[OSError] = []

        def work() -> None:
            try:
                found.extend(self._network.look_up(host))
            except (OSError, UnicodeError) as error:
                errors.append(OSError(str(error)))

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join(self._clock.left())
        if errors or (not found and not thread.is_alive()):
            raise Refused(f"there is no host {host}")
        self._clock.left()
        return list(found)


class _Timed(httpcore.NetworkStream):
    """A stream whose every wait ends with the clock, however often it is asked."""

    def __init__(self, stream: httpcore.NetworkStream, clock: Clock):
        self._stream = stream
        self._clock = clock

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._clock.left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._clock.left())

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Timed(self._stream.start_tls(ssl_context, server_hostname, self._clock.left()), self._clock)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
