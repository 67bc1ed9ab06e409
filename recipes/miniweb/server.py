"""The miniweb on a loopback port."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus

from miniweb.settings import Settings
from miniweb.web import hosts, pages

LARGEST_REQUEST = 65536


@dataclass(frozen=True)
class Served:
    """A running web."""

    address: str
    """127.0.0.1:PORT"""
    start: list[str]
    """The front page of every host."""
    resolve: dict[str, str]
    """host → address, as curl's --resolve."""


def answer(status: int, headers: dict[str, str], body: bytes) -> tuple[bytes, bytes]:
    """(head, body) of a response. There is no Date: equal pages are equal bytes, whenever they are asked for."""
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines.append(f"Content-Length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"), body


class Connection(asyncio.Protocol):
    """Reads requests without a body, and answers each in turn on the same connection."""

    def __init__(self, answers: dict[tuple[str, str], tuple[bytes, bytes]]) -> None:
        self.answers = answers
        self.waiting = b""
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        assert self.transport is not None
        self.waiting += data
        while b"\r\n\r\n" in self.waiting:
            head, _, self.waiting = self.waiting.partition(b"\r\n\r\n")
            self.reply(self.transport, head.decode("latin-1").split("\r\n"))
        if len(self.waiting) > LARGEST_REQUEST:
            self.transport.close()

    def reply(self, transport: asyncio.Transport, lines: list[str]) -> None:
        request = lines[0].split(" ")
        if len(request) != 3 or request[0] not in ("GET", "HEAD"):
            status = 405 if len(request) == 3 else 400
            transport.write(b"".join(answer(status, {"Connection": "close", "Allow": "GET, HEAD"}, b"")))
            # What follows may be a body: nothing more can be read from this connection.
            self.waiting = b""
            transport.close()
            return
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        host = fields.get("host", "").rsplit(":", 1)[0].lower()
        path = request[1].partition("?")[0]
        head, body = self.answers.get((host, path)) or answer(404, {"Content-Type": "text/plain"}, b"not found\n")
        transport.write(head if request[0] == "HEAD" else head + body)
        if fields.get("connection", "").lower() == "close" or request[2] == "HTTP/1.0":
            transport.close()


@contextmanager
def serve(settings: Settings) -> Iterator[Served]:
    """Serves the web of these settings on a free loopback port until the block is left."""
    answers = {(page.host, page.path): answer(page.status, page.headers, page.body) for page in pages(settings)}
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(loop.create_server(lambda: Connection(answers), "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever, name="miniweb", daemon=True)
    thread.start()
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    names = hosts(settings)
    try:
        yield Served(address, [f"http://{host}/" for host in names], dict.fromkeys(names, address))
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
