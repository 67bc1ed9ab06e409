"""CPU time by step."""

from __future__ import annotations

import json
import time
from collections import defaultdict

from webtochat import storage


class Clock:
    """`lap(step)` adds the CPU time of this thread since the last lap to a step."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._last = time.thread_time()

    def lap(self, step: str) -> None:
        now = time.thread_time()
        self.seconds[step] += now - self._last
        self._last = now

    def write(self, path: str) -> None:
        storage.write_bytes(path, json.dumps(self.seconds).encode())
