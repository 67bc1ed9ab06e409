"""A curation run as one HTML page that needs nothing else: the funnel, a table by step, and removed pages to look at.

What the pages hold is anybody's: it travels as JSON, the page's script only ever makes text of it, and the page's
policy lets no other script run. report.html beside this file is the page's frame, style and script.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from dataclasses import dataclass
from html import escape
from pathlib import Path
from urllib.parse import quote

CHARACTERS = 4_000
"""Of a page's text; of its title, its address and its note a quarter."""
NAMED = 12
"""Reasons that a bar of the funnel names when pointed at."""
WIDE = 1_000
"""Units across a bar; the SVG is stretched to what the window gives."""
FRAME = Path(__file__).with_suffix(".html")

# A browser would show nothing for control characters: they become their pictures. The others are no characters at all.
_SHOWN = {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n"} | {0x7F: 0x2421}
_SHOWN |= dict.fromkeys((*range(0x80, 0xA0), *range(0xD800, 0xE000), 0xFFFE, 0xFFFF), 0xFFFD)


@dataclass(frozen=True)
class Step:
    """One step of the funnel, in order."""

    name: str
    pages_in: int
    removed: dict[str, int]
    """By reason."""
    errors: int
    """Of the removed: pages that could not be read (damage, timeouts), not judged."""
    seconds: float | None
    """CPU seconds over all workers; None where not measured on its own."""

    @property
    def pages_removed(self) -> int:
        return sum(self.removed.values())

    @property
    def pages_out(self) -> int:
        return self.pages_in - self.pages_removed

    @property
    def ordered(self) -> list[tuple[str, int]]:
        """The reasons, the one with most pages first."""
        return sorted(self.removed.items(), key=lambda item: (-item[1], item[0]))


@dataclass(frozen=True)
class Sample:
    """A removed page."""

    step: str
    reason: str
    url: str | None
    title: str | None
    text: str
    """The start of it."""
    value: float | None
    """The measurement that broke the rule."""
    threshold: float | None
    note: str = ""
    """For a duplicate: what was kept in its place."""


def html(title: str, summary: str, steps: list[Step], samples: list[Sample]) -> str:
    """The page. It can be encoded as UTF-8, and the same input gives the same bytes."""
    frame = FRAME.read_text(encoding="utf-8")
    script = frame.split("<script>")[1].split("</script>")[0]
    parts = {
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "title": _escaped(title),
        "summary": _escaped(summary),
        "funnel": _funnel(steps),
        "table": _table(steps),
        "data": _data(steps, samples),
    }
    # In one pass, so that a placeholder's name in a page's text stays text.
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], frame)


def _funnel(steps: list[Step]) -> str:
    widest = max((step.pages_in for step in steps), default=0)
    first, kept = (steps[0].pages_in, steps[-1].pages_out) if steps else (0, 0)
    rows = [_row(step, widest, first) for step in steps]
    bar = f'<rect class="kept" width="{_width(kept, widest):g}" height="20"/>'
    numbers = f'<b>{_short(kept)}</b> <span class="share">{_share(kept, first)}</span>'
    rows.append(
        f'<li class="end"><span class="name">kept</span>{_svg([f"{kept:,} pages kept of {first:,}"], bar)}'
        f'<span class="gone"></span><span class="left">{numbers}</span></li>'
    )
    keys = {"kept": "kept", "removed": "removed"}
    keys |= {"unread": "could not be read"} if any(step.errors for step in steps) else {}
    legend = "".join(f'<span class="key {key}">{name}</span>' for key, name in keys.items())
    heads = '<span class="gone">removed</span><span class="left">left, % of input</span>'
    return f'<p class="legend"><span>{legend}</span>{heads}</p>\n<ol class="funnel">\n' + "\n".join(rows) + "\n</ol>"


def _row(step: Step, widest: int, first: int) -> str:
    kept, gone, errors = (_width(pages, widest) for pages in (step.pages_out, step.pages_removed, step.errors))
    gone = max(gone, 2.0) if step.pages_removed else 0.0  # one page of a billion is still to be seen
    errors = min(max(errors, 2.0), gone) if step.errors else 0.0
    start = min(kept, WIDE - gone)
    bars = f'<rect class="kept" width="{start:g}" height="20"/>'
    bars += f'<rect class="flow" y="20" width="{start:g}" height="12"/>'
    if step.pages_removed:
        bars += f'<rect class="removed" x="{start:g}" width="{gone:g}" height="20"/>'
    if step.errors:
        bars += f'<rect class="unread" x="{start + gone - errors:g}" width="{errors:g}" height="20"/>'
    told = [f"{step.name}: {step.pages_removed:,} of {step.pages_in:,} pages removed, {step.pages_out:,} left"]
    told += [f"{reason}: {pages:,}" for reason, pages in step.ordered[:NAMED]]
    told += [f"and {len(step.removed) - NAMED:,} more reasons"] * (len(step.removed) > NAMED)
    told += [f"could not be read: {step.errors:,}"] * bool(step.errors)
    lost = f"−{_short(step.pages_removed)} " if step.pages_removed else ""
    return (
        f'<li><a class="name" href="{_link("step", step.name)}">{_escaped(step.name)}</a>{_svg(told, bars)}'
        f'<span class="gone">{lost}<span class="share">{_share(step.pages_removed, first)}</span></span>'
        f'<span class="left">{_short(step.pages_out)} <span class="share">{_share(step.pages_out, first)}</span></span>'
        "</li>"
    )


def _svg(told: list[str], shapes: str) -> str:
    title = _escaped("\n".join(told))
    return (
        f'<svg viewBox="0 0 {WIDE} 32" preserveAspectRatio="none" role="img"><title>{title}</title>'
        f'<rect class="track" width="{WIDE}" height="20"/>{shapes}</svg>'
    )


def _table(steps: list[Step]) -> str:
    heads = ("step", "in", "out", "removed", "% of input", "errors", "CPU s", "ms/page")
    first = steps[0].pages_in if steps else 0
    most = max((pages for step in steps for pages in step.removed.values()), default=0)
    columns = "".join(f'<th scope="col">{head}</th>' for head in heads)
    rows = [f"<thead><tr>{columns}</tr></thead>"]
    for step in steps:
        cells = (f"{step.pages_in:,}", f"{step.pages_out:,}", f"{step.pages_removed:,}")
        share, errors = _share(step.pages_removed, first), f"{step.errors:,}"
        rows.append("\n<tbody>" + _cells(_linked("step", step.name, step.name), *cells, share, errors, *_times(step)))
        for reason, pages in step.ordered:
            bar, link = f"--bar:{_width(pages, most) / WIDE:.1%}", _linked("reason", f"{step.name}.{reason}", reason)
            rows.append(
                f'\n<tr class="reason"><th scope="row" colspan="3" style="{bar}">{link}</th>'
                f'<td>{pages:,}</td><td>{_share(pages, first)}</td><td colspan="3"></td></tr>'
            )
        rows.append("</tbody>")
    known = [step.seconds for step in steps if step.seconds is not None]
    lost, unread = sum(step.pages_removed for step in steps), sum(step.errors for step in steps)
    whole = Step("all", first, {"all": lost}, unread, math.fsum(known) if known else None)
    cells = (f"{first:,}", f"{steps[-1].pages_out if steps else 0:,}", f"{lost:,}")
    rows.append("\n<tfoot>" + _cells("all", *cells, _share(lost, first), f"{unread:,}", *_times(whole)) + "</tfoot>")
    return "<table>" + "".join(rows) + "</table>"


def _cells(name: str, *cells: str) -> str:
    return f'<tr><th scope="row">{name}</th>' + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _times(step: Step) -> tuple[str, str]:
    if step.seconds is None:
        return '<span title="not measured on its own">–</span>', "–"
    a_page = _significant(1_000 * step.seconds / step.pages_in) if step.pages_in else "–"
    return (f"{step.seconds:,.0f}" if step.seconds >= 100 else _significant(step.seconds)), a_page


def _data(steps: list[Step], samples: list[Sample]) -> str:
    """What the script browses: the reasons in the table's order, and the samples in theirs."""
    reasons = {(step.name, reason): pages for step in steps for reason, pages in step.ordered}
    shown: dict[tuple[str, str], list[Sample]] = {reason: [] for reason in reasons}
    for sample in samples:
        shown.setdefault((sample.step, sample.reason), []).append(sample)
    data = [
        {
            "step": _clean(step),
            "reason": _clean(reason),
            "total": reasons.get((step, reason), len(some)),
            "samples": [_sample(sample) for sample in some],
        }
        for (step, reason), some in shown.items()
    ]
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return re.sub("[<>&\u2028\u2029]", lambda found: f"\\u{ord(found[0]):04x}", text)


def _sample(sample: Sample) -> dict[str, str]:
    return {
        "url": _clean(sample.url, CHARACTERS // 4),
        "title": _clean(sample.title, CHARACTERS // 4),
        "text": _clean(sample.text, CHARACTERS),
        "note": _clean(sample.note, CHARACTERS // 4),
        "broken": _broken(sample.value, sample.threshold),
    }


def _broken(value: float | None, threshold: float | None) -> str:
    if value is None:
        return ""
    if threshold is None:
        return f"value {_number(value, 6)}"
    sign = ">" if value > threshold else "<" if value < threshold else "="
    digits = 3 if _number(value, 3) != _number(threshold, 3) else 9
    return f"value {_number(value, digits)} {sign} threshold {_number(threshold, digits)}"


def _number(value: float, digits: int) -> str:
    if math.isfinite(value) and value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.{digits - 1}f}".rstrip("0") if 1 <= abs(value) < 1e15 else f"{value:.{digits}g}"


def _significant(value: float) -> str:
    """At least two digits that say something."""
    return f"{value:,.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 or not value else f"{value:.2g}"


def _short(pages: int) -> str:
    """Up to a million as they are; beyond, three digits."""
    if pages < 1_000_000:
        return f"{pages:,}"
    size, unit = (1e9, "B") if pages >= 999.5e6 else (1e6, "M")
    scaled = pages / size
    return f"{scaled:,.{2 if scaled < 9.995 else 1 if scaled < 99.95 else 0}f}{unit}"


def _share(pages: int, of: int) -> str:
    """In percent; what is not none and not all never reads as such."""
    if not of:
        return "–"
    percent = 100 * pages / of
    if 0 < percent < 0.1:
        return "&lt;0.1%"
    if 99.9 < percent < 100:
        return "&gt;99.9%"
    return f"{percent:.0f}%" if percent in (0, 100) else f"{percent:.1f}%"


def _width(pages: int, widest: int) -> float:
    return round(WIDE * max(pages, 0) / widest, 2) if widest else 0.0


def _linked(kind: str, key: str, name: str) -> str:
    return f'<a href="{_link(kind, key)}">{_name(name)}</a>'


def _link(kind: str, key: str) -> str:
    return f"#{kind}={quote(_clean(key), safe='')}"


def _name(name: str) -> str:
    """A narrow window may break it after its underscores."""
    return _escaped(name).replace("_", "_<wbr>")


def _escaped(text: str) -> str:
    return escape(_clean(text))


def _clean(text: str | None, characters: int | None = None) -> str:
    """Characters that every encoding and every browser takes; a page that was never read has no text at all."""
    cut = text or ""
    if characters is not None and len(cut) > characters:
        cut = cut[: characters - 1] + "…"
    return cut.replace("\r\n", "\n").translate(_SHOWN)
