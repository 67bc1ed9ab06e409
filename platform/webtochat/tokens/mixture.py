"""The corpora that a model is trained on, each with its share of the tokens."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from webtochat import storage
from webtochat.errors import UserError
from webtochat.tokens.batches import TURNS, Order, in_turns
from webtochat.tokens.shards import Split, numbered, within
from webtochat.tokens.windows import Window


@dataclass(frozen=True)
class Corpus:
    """A `tokens` artifact to train on."""

    name: str
    directory: str
    content_hash: str
    weight: float


class Mixture:
    """The training windows of several corpora (or of one), numbered through.

    The weights are shares of the tokens that bear a loss. A corpus whose windows are padded more has the more windows.
    """

    def __init__(self, corpora: tuple[Corpus, ...], sequence_length: int, vocabulary: int):
        self.corpora = corpora
        places = [storage.local_copy(each.directory, each.content_hash) for each in corpora]
        self.splits = [Split(os.path.join(place, "train"), sequence_length, vocabulary) for place in places]
        for each, split in zip(corpora, self.splits, strict=True):
            if not len(split):
                raise UserError(f"the tokens of {each.directory} do not fill a window of {sequence_length}: lower it")
        wanted = [each.weight / split.filled for each, split in zip(corpora, self.splits, strict=True)]
        self.shares = tuple(each / sum(wanted) for each in wanted)
        """Of the windows."""
        for each, turns in zip(corpora, in_turns(self.shares), strict=True):
            if not turns:
                raise UserError(f"pretrain.mixture: the share of {each.name} is below 1/{TURNS:,}: leave it out")
        self._first = numbered([len(split) for split in self.splits])

    def order(self, seed: int) -> Order:
        return Order(tuple(map(len, self.splits)), self.shares, seed)

    def epochs(self, windows: int) -> dict[str, float]:
        """How often each corpus is gone through in so many windows."""
        told = zip(self.corpora, self.splits, self.shares, strict=True)
        return {each.name: windows * share / len(split) for each, split, share in told}

    def window(self, number: int, separator: int) -> Window:
        corpus, inside = within(self._first, number)
        return self.splits[corpus].window(inside, separator)

    def sources(self, number: int) -> dict[str, Any]:
        """Where a window comes from."""
        corpus, inside = within(self._first, number)
        documents = self.splits[corpus].sources(inside)
        return {"corpus": self.corpora[corpus].directory, "window": inside, "documents": documents}
