"""Reading over HTTP, politely: an honest name, waiting where the server asks for it, going on where a read was cut."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from contextlib import closing
from email.utils import parsedate_to_datetime

import requests
from urllib3.exceptions import HTTPError

from webtochat import __version__
from webtochat.errors import MachineError, UserError

AGENT = f"webtochat/{__version__}"
BUSY = (403, 429, 500, 502, 503, 504)
"""Common Crawl answers 403 and 503 to those who ask too often."""
ATTEMPTS = 8
TIMEOUT = (10, 60)


def pause(attempt: int, retry_after: str | None) -> float:
    """Seconds to wait: what the server asks for, in seconds or as a date (at most two minutes), else 1, 2, 4 … 60 with
    jitter."""
    if retry_after and retry_after.strip().isdecimal():
        return min(120.0, float(retry_after))
    if retry_after:
        try:
            return min(120.0, max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time()))
        except (ValueError, TypeError):  # neither: as if it were not said
            return pause(attempt, None)
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
            answer.close()
            if answer.status_code not in BUSY:
                raise UserError(f"{url} answers {answer.status_code}: check the address")
            problem, retry_after = f"answers {answer.status_code}", answer.headers.get("Retry-After")
        except (requests.ConnectionError, requests.Timeout) as error:
            problem = type(error).__name__
        except requests.RequestException as error:
            raise UserError(f"cannot ask for {url}: {error}") from error
        if attempt + 1 < ATTEMPTS:
            sleep(pause(attempt, retry_after))
    raise MachineError(f"{url} {problem}, {ATTEMPTS} times over: run the same command again to go on")


def get(url: str, sleep: Callable[[float], None] = time.sleep) -> bytes:
    """A small file, whole."""
    with closing(HttpReader(url, sleep=sleep)) as reader:
        return b"".join(iter(lambda: reader.read(1 << 20), b""))


def head(url: str, sleep: Callable[[float], None] = time.sleep) -> tuple[int, str]:
    """Size and etag of a file."""
    answer = request("HEAD", url, sleep=sleep)
    size = int(answer.headers.get("Content-Length", 0))
    return size, answer.headers.get("ETag", "").strip('"') or f"{size}-{answer.headers.get('Last-Modified', '')}"


class HttpReader:
    """A file over HTTP as a stream, from byte `start`. A read that is cut goes on by a range request from the byte that
    was reached, if the file is still the same."""

    def __init__(self, url: str, start: int = 0, sleep: Callable[[float], None] = time.sleep):
        self.url = url
        self.position = start
        self._sleep = sleep
        self._failures = 0
        self._etag: str | None = None
        self._length: int | None = None
        """Of the whole file, where the server tells."""
        self._begun = False
        self._answer: requests.Response | None = None

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes; none at the end. Raises MachineError where the file is cut again and again."""
        while self._length is None or self.position < self._length:
            problem, piece = "it ended early", b""
            try:
                if self._answer is None:
                    self._open()
                assert self._answer is not None
                piece = self._answer.raw.read(size)
                if not piece and self._length is None:  # no length was told: a clean end is the end
                    return b""
            except (OSError, HTTPError) as error:  # requests' own are OSErrors
                problem = str(error)
            if piece:
                self.position += len(piece)
                self._failures = 0
                return piece
            self.close()
            self._failures += 1
            if self._failures >= ATTEMPTS:
                raise MachineError(
                    f"{self.url} is cut at byte {self.position} again and again ({problem[:80]}): "
                    "run the same command again to go on"
                )
            self._sleep(pause(self._failures - 1, None))
        return b""

    def _open(self) -> None:
        headers = {"Range": f"bytes={self.position}-"} if self.position else {}
        if self.position and self._etag and not self._etag.startswith("W/"):
            headers["If-Range"] = self._etag
        answer = self._answer = request("GET", self.url, headers, stream=True, sleep=self._sleep)
        etag, length = answer.headers.get("ETag"), answer.headers.get("Content-Length")
        total = int(length) if length else None
        if answer.status_code == 206:
            told = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", "").strip())
            if told is None or int(told[1]) != self.position:
                raise MachineError(f"{self.url} answers another range than it was asked for: no use going on")
            total = int(told[2]) if told[2] != "*" else self._length
        if self._begun and (etag, total) != (self._etag, self._length):
            raise MachineError(f"{self.url} changed while it was read: run the same command again")
        self._begun, self._etag, self._length = True, etag, total
        if answer.status_code == 200:  # the server knows no ranges: read past what is known
            left = self.position
            while left and (skipped := answer.raw.read(min(left, 1 << 16))):
                left -= len(skipped)

    def close(self) -> None:
        if self._answer is not None:
            self._answer.close()
            self._answer = None
