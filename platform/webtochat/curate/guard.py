"""Extraction with a limit on time and memory. The HTML parser is C++: nothing in its own process can stop it, and some
pages take it minutes (see extract.py). Pages that could (1 in 80 of real ones) are read by a child process that the
kernel ends at a limit of CPU time, which does not depend on how busy the machine is.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import struct
import subprocess
import sys
from types import TracebackType
from typing import IO

import numpy as np

from webtochat.curate.extract import Extraction, ExtractionError, extract

PLAIN_BYTES, PLAIN_TAGS, PLAIN_TAG_BYTES = 1_000_000, 10_000, 100_000
"""A page below all three takes at most about a second, whatever stands in it."""
MEMORY = 4 << 30
_LENGTHS = struct.Struct("<II")


class GuardedExtraction:
    """`extract` within `seconds` of CPU time a page. Raises ExtractionError `timeout` or `crashed` where a page does
    not come through. The child starts with the first page that needs it and ends with the context."""

    def __init__(self, seconds: int):
        self.seconds = seconds
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> GuardedExtraction:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()

    def __call__(self, html: bytes, content_type: str | None = None) -> Extraction:
        if is_plain(html):
            return extract(html, content_type)
        if self._child is None:
            self._child = self._start()
        child = self._child
        assert child.stdin is not None and child.stdout is not None
        header = (content_type or "").encode("utf-8", "replace")
        try:
            child.stdin.write(_LENGTHS.pack(len(header), len(html)) + header + html)
            child.stdin.flush()
            answer = _read(child.stdout)
        except (BrokenPipeError, EOFError) as error:
            status = child.wait()
            self._end()
            raise ExtractionError("timeout" if status == -signal.SIGXCPU else "crashed") from error
        if "reason" in answer:
            raise ExtractionError(answer["reason"])
        return Extraction(answer["title"], answer["text"])

    def _start(self) -> subprocess.Popen[bytes]:
        package = __name__.split(".")[0]
        above = os.path.dirname(os.path.dirname(os.path.abspath(sys.modules[package].__file__ or "")))
        return subprocess.Popen(
            [sys.executable, "-m", __name__, str(self.seconds)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": above},
        )  # fmt: skip

    def _end(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None


def is_plain(html: bytes) -> bool:
    """Whether a page is too small for the parser to take long over it."""
    if len(html) > PLAIN_BYTES:
        return False
    tags = np.flatnonzero(np.frombuffer(html, np.uint8) == ord("<"))
    return len(tags) <= PLAIN_TAGS and int(np.diff(tags, append=len(html)).max(initial=0)) <= PLAIN_TAG_BYTES


def _read(source: IO[bytes]) -> dict[str, str]:
    header = source.read(4)
    if len(header) < 4:
        raise EOFError
    size = struct.unpack("<I", header)[0]
    body = source.read(size)
    if len(body) < size:
        raise EOFError
    return json.loads(body)


def child(seconds: int) -> None:
    """Reads pages from stdin and writes extractions to stdout until stdin ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever else prints must not stand between answers
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while len(lengths := sys.stdin.buffer.read(_LENGTHS.size)) == _LENGTHS.size:
        header_size, size = _LENGTHS.unpack(lengths)
        header, html = sys.stdin.buffer.read(header_size), sys.stdin.buffer.read(size)
        used = resource.getrusage(resource.RUSAGE_SELF)
        limit = int(used.ru_utime + used.ru_stime) + seconds + 1
        resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.getrlimit(resource.RLIMIT_CPU)[1]))
        try:
            found = extract(html, header.decode())
            answer = {"title": found.title, "text": found.text}
        except ExtractionError as error:
            answer = {"reason": str(error)}
        except MemoryError:
            answer = {"reason": "crashed"}
        packed = json.dumps(answer).encode()
        answers.write(struct.pack("<I", len(packed)) + packed)
        answers.flush()


if __name__ == "__main__":
    child(int(sys.argv[1]))
