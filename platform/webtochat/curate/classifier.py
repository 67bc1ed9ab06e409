"""Quality of a text by a fastText classifier (Joulin et al. 2017) that was trained to tell good texts from kept pages,
as DCLM's (Li et al. 2024, section 4.4).
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from webtochat import storage
from webtochat.crawl import documents
from webtochat.errors import UserError
from webtochat.recipe_pages import Quality

GOOD, OTHER = "__label__good", "__label__other"
CHARACTERS = 20_000
"""Of a text that it is trained on."""


def score(text: str, path: str) -> float:
    """Probability that a text is good."""
    found = _model(path).f.predict(_line(text) + "\n", 2, 0.0, "strict")
    return min(1.0, sum(float(share) for share, label in found if label == GOOD))


@lru_cache(maxsize=2)
def _model(path: str) -> Any:
    import fasttext

    if not storage.exists(path):
        raise UserError(f"no quality model at {path}: train one by jobs/quality.py, or take measure.quality_model out")
    if storage.is_remote(path):
        folder, name = path.rsplit("/", 1)
        path = os.path.join(storage.local_copy(folder, storage.sha256(path)), name)
    model = fasttext.load_model(path)
    if GOOD not in model.f.getLabels("strict")[0]:
        raise UserError(f"{path} has no label {GOOD.removeprefix('__label__')}: it is no quality model")
    return model


@dataclass(frozen=True)
class Texts:
    train: list[str]
    held_out: list[str]


def drawn(files: list[str], settings: Quality) -> Texts:
    """Texts of JSONL or Parquet files, each once: those with the lowest hashes, so that any order of the files gives
    the same. Holds twice `max_documents` in memory at most, and of each the first `CHARACTERS`."""
    least: dict[str, str] = {}
    limit = 2 * settings.max_documents
    for path in files:
        for batch in documents.rows(path, path):
            for text in filter(None, batch["text"].to_pylist()):
                digest = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8, key=b"%d" % settings.seed)
                least[digest.hexdigest()] = text[:CHARACTERS]
                if len(least) >= limit:
                    least = _lowest(least, settings.max_documents)
    least = _lowest(least, settings.max_documents)
    held = [int(digest[-4:], 16) % 10_000 < 100 * settings.held_out_percent for digest in least]
    return Texts(
        [text for text, out in zip(least.values(), held, strict=True) if not out],
        [text for text, out in zip(least.values(), held, strict=True) if out],
    )


def _lowest(texts: dict[str, str], most: int) -> dict[str, str]:
    return {digest: texts[digest] for digest in sorted(texts)[:most]}


def train(good: Iterable[str], other: Iterable[str], settings: Quality, path: str) -> None:
    """Writes a model. On one thread, so that the same texts give the same bytes; see `Quality.memory_is_fresh`."""
    import fasttext

    with tempfile.TemporaryDirectory(prefix="webtochat-quality-") as folder:
        lines = os.path.join(folder, "lines.txt")
        with open(lines, "w", encoding="utf-8", errors="replace") as out:
            for label, texts in ((GOOD, good), (OTHER, other)):
                out.writelines(f"{label} {_line(text)}\n" for text in texts)
        try:
            model = fasttext.train_supervised(
                lines, dim=settings.dimensions, wordNgrams=settings.ngrams, bucket=settings.buckets, lr=settings.lr,
                epoch=settings.epochs, minCount=2, thread=1, seed=settings.seed, verbose=0,
            )  # fmt: skip
        except RuntimeError as error:
            raise UserError(f"the quality model diverges ({error}): lower quality.lr, or name more texts") from error
        model.save_model(path)


def _line(text: str) -> str:
    """Words as the classifier has them: in lower case, in one line."""
    return " ".join(text.lower().split())


def ranking(good: list[float], other: list[float]) -> float:
    """The share of pairs in which the good text has the higher score (area under the ROC curve); ties count half."""
    ordered = np.sort(other)
    below, upto = np.searchsorted(ordered, good, "left"), np.searchsorted(ordered, good, "right")
    return float((below + upto).sum() / 2 / max(1, len(good) * len(other)))
