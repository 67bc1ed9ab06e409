"""Reading over HTTP, politely: an honest name, waiting where the server asks for it, going on where a read was cut."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import requests

from webtochat import __version__
from webtochat.errors import MachineError, UserError

AGENT = f"webtochat/{__version__}"
BUSY = (403, 429, 500, 502, 503, 504)
"""Common Crawl answers 403 and 503 to those who ask too often."""
ATTEMPTS = 8
TIMEOUT = (10, 60)


def pause(attempt: int, retry_after: str | None) -> float:
    """Seconds to wait: what the server asks for (at most two minutes), else 1, 2, 4 … 60 with jitter."""
    if retry_after and retry_after.isdigit():
        return min(120.0, float(retry_after))
    return min(60.0, 2.0**attempt) * random.uniform(0.5, 1.5)


def request(
    method: str, url: str, headers: dict[str, str] | None = None, stream: bool = False,
    sleep: Callable[[float], None] = time.sleep,
) -> requests.Response:  # fmt: skip
    """A response of status 200 or 206. Raises UserError where the address is wrong, MachineError where the server or
    the network keeps failing."""
    problem = ""
    for attempt in range(ATTEMPTS):
        retry_after = None
        try:
            answer = requests.request(
                method, url, headers={"User-Agent": AGENT, "Accept-Encoding": "identity", **(headers or {})},
                stream=stream, timeout=TIMEOUT,
            )  # fmt: skip
            if answer.status_code in (200, 206):
                return answer
            if answer.status_code not in BUSY:
                raise UserError(f"{url} answers {answer.status_code}: check the address")
            problem, retry_after = f"answers {answer.status_code}", answer.headers.get("Retry-After")
            answer.close()
        except (requests.ConnectionError, requests.Timeout) as error:
            problem = type(error).__name__
        except requests.RequestException as error:
            raise UserError(f"cannot ask for {url}: {error}") from error
        if attempt + 1 < ATTEMPTS:
            sleep(pause(attempt, retry_after))
    raise MachineError(f"{url} {problem}, {ATTEMPTS} times over: run the same command again to go on")


def get(url: str) -> bytes:
    """A small file, whole."""
    reader = HttpReader(url)
    parts = []
    while piece := reader.read(1 << 20):
        parts.append(piece)
    return b"".join(parts)


def head(url: str) -> tuple[int, str]:
    """Size and etag of a file."""
    answer = request("HEAD", url)
    size = int(answer.headers.get("Content-Length", 0))
    return size, answer.headers.get("ETag", "").strip('"') or f"{size}-{answer.headers.get('Last-Modified', '')}"


class HttpReader:
    """A file over HTTP as a stream. A read that is cut goes on by a range request from the byte that was reached, if
    the file is still the same."""

    def __init__(self, url: str, sleep: Callable[[float], None] = time.sleep):
        self.url = url
        self.position = 0
        self._sleep = sleep
        self._failures = 0
        self._etag: str | None = None
        self._length: int | None = None
        self._answer: requests.Response | None = None

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; none at the end. Raises MachineError where the file is cut again and again."""
        while self._length is None or self.position < self._length:
            try:
                if self._answer is None:
                    self._open()
                assert self._answer is not None
                piece = self._answer.raw.read(size)
            except (OSError, requests.RequestException, _transport_error()) as error:
                piece, problem = b"", str(error)
            else:
                problem = "ended early"
            if piece:
                self.position += len(piece)
                self._failures = 0
                return piece
            if self._length is None:  # no length was told: the end is the end
                return b""
            self.close()
            self._failures += 1
            if self._failures >= ATTEMPTS:
                raise MachineError(f"{self.url} is cut at byte {self.position} again and again ({problem[:80]})")
            self._sleep(pause(self._failures - 1, None))
        return b""

    def _open(self) -> None:
        headers = {"Range": f"bytes={self.position}-"} if self.position else {}
        answer = request("GET", self.url, headers, stream=True, sleep=self._sleep)
        etag = answer.headers.get("ETag")
        if self.position:
            if etag != self._etag:
                raise MachineError(f"{self.url} changed while it was read: run the same command again")
            if answer.status_code != 206:  # the server knows no ranges: read past what is known
                left = self.position
                while left and (skipped := answer.raw.read(min(left, 1 << 16))):
                    left -= len(skipped)
        else:
            self._etag = etag
            length = answer.headers.get("Content-Length")
            self._length = int(length) if length else None
        self._answer = answer

    def close(self) -> None:
        if self._answer is not None:
            self._answer.close()
            self._answer = None


def _transport_error() -> type[Exception]:
    from urllib3.exceptions import HTTPError

    return HTTPError
