"""The bytes of a WARC file, wherever it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

from pyarrow import NativeFile

from webtochat import storage
from webtochat.crawl.fetch import ATTEMPTS, HttpReader, pause
from webtochat.crawl.warc import Readable
from webtochat.errors import MachineError, UserError

PIECE = 8 << 20


@contextmanager
def open_stream(path: str) -> Iterator[Readable]:
    """A stream of a local file, or of an object of a store or an http(s) address (asked for politely, resumed where it
    is cut)."""
    if path.startswith(("http://", "https://")):
        with closing(HttpReader(path)) as reader:
            yield reader
    elif storage.is_remote(path):
        with closing(StoreReader(path)) as stored:
            yield stored
    else:
        with storage.open_input(path) as source:
            yield source


class StoreReader:
    """An object of a store as a stream, in large pieces, since each is a request of its own. A piece that fails (the
    store is busy, the network cut) is asked for again, beyond the few times that the store's own client tries."""

    def __init__(self, path: str, sleep: Callable[[float], None] = time.sleep):
        self.path = path
        self._sleep = sleep
        self._file: NativeFile | None = None
        self._size: int | None = None
        self._piece = memoryview(b"")
        self._position = 0
        """Of the byte after the piece."""

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes; none at the end. Raises UserError where there is no such object or no access to it,
        MachineError where the store keeps failing."""
        if not self._piece:
            self._piece = memoryview(self._fetched())
            self._position += len(self._piece)
        given, self._piece = self._piece[:size], self._piece[size:]
        return bytes(given)

    def _fetched(self) -> bytes:
        problem = ""
        for attempt in range(ATTEMPTS):
            try:
                if self._file is None:
                    self._open()
                assert self._file is not None
                return self._file.read_at(PIECE, self._position)
            except FileNotFoundError as error:
                raise UserError(f"nothing at {self.path}: it was there when the files were listed") from error
            except OSError as error:
                problem = str(error).splitlines()[0][:200]
                if "ACCESS_DENIED" in problem:
                    raise UserError(f"no access to {self.path}: set the store's credentials") from error
                self.close()
            if attempt + 1 < ATTEMPTS:
                self._sleep(pause(attempt, None))
        raise MachineError(f"{self.path}: {problem}, {ATTEMPTS} times over: run the same command again to go on")

    def _open(self) -> None:
        self._file = storage.open_input_file(self.path)
        size = self._file.size()
        if self._size not in (None, size):
            raise MachineError(f"{self.path} changed while it was read: run the same command again")
        self._size = size

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
