"""Rollouts as one HTML page that needs nothing else: to see what was rewarded, and whether it deserved it.

What an answer holds is anybody's: it travels as JSON, the page's script only ever makes text of it, and the page's
policy lets no other script run. report.html beside this file is the page's frame, style and script.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

from webtochat.rl import rollouts
from webtochat.rl.rollouts import Row

FRAME = Path(__file__).with_suffix(".html")
CHARACTERS = 4_000
"""Of a conversation."""
COLUMNS = ("step", "group", "sample", "prompt", "answer", "truth", "reward", "parts", "advantage", "failed", "finished",
           "calls", "conversation")  # fmt: skip


def drawn(paths: Sequence[str], most: int) -> list[Row]:
    """Whole groups, evenly over the steps' files: the first of each of as many steps as `most` answers allow."""
    found: list[Row] = []
    if not paths or not most:
        return found
    first = next(iter(rollouts.by_group(rollouts.read(paths[0], COLUMNS)).values()), [])
    steps = min(len(paths), max(1, most // max(1, len(first))))
    for number in range(steps):
        place = number * (len(paths) - 1) // max(1, steps - 1)
        groups = list(rollouts.by_group(rollouts.read(paths[place], COLUMNS)).values())
        for group in groups[: max(1, most // (steps * max(1, len(first))))]:
            found += group
    return found


def html(name: str, rows: Sequence[Row]) -> str:
    """The page. The same rows give the same bytes."""
    frame = FRAME.read_text(encoding="utf-8")
    script = frame.split("<script>")[1].split("</script>")[0]
    told = [
        {key: row[key] for key in COLUMNS} | {
            "truth": _truth(row["truth"]), "conversation": row["conversation"][:CHARACTERS],
            "parts": dict(row["parts"] or []),
        }
        for row in rows
    ]  # fmt: skip
    text = json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace").decode()
    parts = {
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "title": escape(f"Rollouts of {name}"),
        "data": re.sub("[<>&\u2028\u2029]", lambda found: f"\\u{ord(found[0]):04x}", text),
    }
    # In one pass, so that a placeholder's name in an answer stays text.
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], frame)


def _truth(told: str) -> str:
    held = json.loads(told)
    return " or ".join(held["answers"]) or "\n".join(held["tests"])
