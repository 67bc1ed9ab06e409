"""What may be spent in a minute."""

from __future__ import annotations

import time
from collections.abc import Callable


class Budget:
    """A bucket that fills evenly: `per_minute` of it in a minute, and never more. It may be overdrawn, by what is known
    only once it is spent."""

    def __init__(self, per_minute: float, clock: Callable[[], float] = time.monotonic):
        self._most = self._level = per_minute
        self._clock = clock
        self._looked = clock()

    def wait(self, amount: float = 1) -> float:
        """Seconds until so much is there; 0: it is."""
        now = self._clock()
        self._level = min(self._most, self._level + self._most / 60 * (now - self._looked))
        self._looked = now
        return max(0.0, (min(amount, self._most) - self._level) / (self._most / 60))

    def spend(self, amount: float) -> None:
        self._level -= amount
