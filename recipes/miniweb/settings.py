"""What a miniweb is made from."""

from __future__ import annotations

import random

from pydantic import BaseModel, ConfigDict, Field


class Settings(BaseModel):
    """Everything that changes the pages; equal settings and equal installed packages give equal bytes."""

    model_config = ConfigDict(extra="forbid")

    seed: int = 1
    docstring_bytes: int = Field(2_700_000, ge=0)
    """Most bytes of prose taken from the docstrings of installed packages."""
    scale: float = Field(1.0, gt=0)
    """Multiplies the number of generated pages, and with it how often each fact is stated."""
    facts: bool = True
    """False: stories stand where the pages that state facts would (a control)."""

    def rng(self, *thing: object) -> random.Random:
        """A generator of its own for each named thing, so that adding one thing does not move the others."""
        return random.Random(":".join(str(part) for part in (self.seed, *thing)))

    def count(self, at_full_scale: int) -> int:
        """A number of pages at this scale, at least 1."""
        return max(1, round(at_full_scale * self.scale))
