"""What a person is shown of a curation: its funnel, and for each reason some of the pages that went."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from webtochat.curate.report import CHARACTERS, Step

SHOWN = 20
"""Pages shown for a reason."""
BEFORE = ("url", "read", "http", "extract", "language")
AFTER = (
    "gopher_repetition", "gopher_quality", "c4", "fineweb", "quality", "own", "contamination", "duplicates",
)  # fmt: skip
UNREAD = ("read", "extract")

Row = dict[str, Any]
Drawn = dict[str, list[tuple[str, Row]]]
"""By reason, pages with the number that each drew, the lowest first."""


def draw(drawn: Drawn, row: Row) -> None:
    """Keeps the `SHOWN` pages of each reason that draw the lowest numbers by their ids: the same ones, whatever the
    order and however the pages were spread."""
    number = hashlib.blake2b(str(row["id"]).encode("utf-8", "replace"), digest_size=8).hexdigest()
    held = drawn.setdefault(f"{row['step']}.{row['reason']}", [])
    if len(held) < SHOWN or number < held[-1][0]:
        held.append((number, row | {"text": (row["text"] or "")[:CHARACTERS]}))
        held.sort(key=lambda item: item[0])
        del held[SHOWN:]


def together(several: Iterable[Drawn]) -> list[Row]:
    merged: Drawn = {}
    for drawn in several:
        for reason, held in drawn.items():
            both = sorted([*merged.get(reason, []), *held], key=lambda item: item[0])
            merged[reason] = both[:SHOWN]
    return [row for reason in sorted(merged) for _, row in merged[reason]]


def funnel(pages: int, removed: Mapping[str, int], own: list[str], seconds: Mapping[str, float]) -> list[Step]:
    """The steps in the order in which they judge; those that neither ran nor removed a page are left out."""
    by_step: dict[str, dict[str, int]] = {}
    for key, count in removed.items():
        step, _, reason = key.partition(".")
        by_step.setdefault(step, {})[reason] = count
    made = []
    for name in dict.fromkeys((*BEFORE, *own, *AFTER, *sorted(by_step))):
        reasons = by_step.get(name, {})
        if not reasons and name not in seconds:
            continue
        errors = sum(count for reason, count in reasons.items() if _is_error(name, reason))
        made.append(Step(name, pages, reasons, errors, seconds.get(name)))
        pages = made[-1].pages_out
    return made


def _is_error(step: str, reason: str) -> bool:
    """Whether the page could not be read, rather than having been judged."""
    return (step in UNREAD and reason != "empty") or reason.startswith("error_")
