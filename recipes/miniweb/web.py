"""The miniweb as pages with addresses: what a server sends for each host and path."""

from __future__ import annotations

import re
import struct
import unicodedata
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from miniweb import html
from miniweb.settings import Settings
from miniweb.sites import BLOCKED, CLUBS, HOSTS, ODD, STORIES, SUMS, UTF8, Draft, Site, build
from miniweb.stories import story

__all__ = ["BLOCKED", "GOOD_SOURCES", "Page", "hosts", "pages"]

GOOD_SOURCES = ("facts", "stories", "visitors", "arithmetic", "contact")
"""Generated pages that are meant to survive curation, every one of them."""

ENTRIES_OF_A_LIST = 60
HIDDEN_HOSTS, HIDDEN_PAGES = [STORIES[0], SUMS[0], CLUBS], 5
REDIRECTING_HOSTS, MOVED_PAGES = [STORIES[1], ODD], 4


@dataclass(frozen=True)
class Page:
    """What one address answers."""

    host: str
    path: str
    status: int
    headers: dict[str, str]
    body: bytes
    source: str
    """What kind of page it is: facts, stories, visitors, arithmetic, docstrings, languages, mirror, near-duplicates,
    contact, spam, broken, charset, blocked, index, error, redirect, file, hidden (behind robots.txt) or robots."""


def hosts(settings: Settings) -> list[str]:
    """All host names, the blocked ones too; every one of them has pages."""
    return list(HOSTS)


def slug(title: str) -> str:
    """A title as part of an address."""
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")[:50]


def picture() -> bytes:
    """A PNG of one pixel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    pixel = zlib.compress(b"\x00\x20\x60\xa0")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixel) + chunk(b"IEND", b"")


FILES: dict[str, tuple[str, bytes]] = {
    "/files/notes.txt": ("text/plain; charset=utf-8", b"Bring the ladder.\nPaint the gate.\nFeed the hens.\n"),
    "/files/prices.csv": ("text/csv", b"thing,price\nladder,12\nlantern,7\nkettle,9\n"),
    "/files/feed.json": ("application/json", b'{"posts": [{"id": 1, "title": "The gate is painted"}]}\n'),
    "/files/gate.png": ("image/png", picture()),
    "/files/empty.html": (UTF8, b""),
}


def render(site: Site, number: int, draft: Draft, addresses: list[tuple[str, str]], settings: Settings) -> bytes:
    """The bytes of a page, in the charset that they really have."""
    if draft.markup is not None:
        return draft.markup.encode(draft.charset)
    related = [addresses[(number + step) % len(addresses)] for step in (1, 2, 5)]
    main = html.text(draft.title, draft.paragraphs)
    whole = html.frame(site.host, draft.title, main, settings.rng("frame", site.host, number), related)
    if draft.language != "en":
        whole = whole.replace('<html lang="en">', f'<html lang="{draft.language}">', 1)
    if draft.charset != "utf-8" and draft.content_type != UTF8:
        whole = whole.replace('<meta charset="utf-8">', "", 1)
    return whole.encode(draft.charset, "xmlcharrefreplace")


def lists(site: Site, entries: list[tuple[str, str]], settings: Settings) -> Iterator[Page]:
    """The front page and its continuations, which link every page of a host."""
    count = max(1, -(-len(entries) // ENTRIES_OF_A_LIST))
    for part in range(count):
        older = f"/list-{part + 2}.html" if part + 1 < count else None
        title = site.host if part == 0 else f"{site.host}, part {part + 1}"
        listed = entries[part * ENTRIES_OF_A_LIST : (part + 1) * ENTRIES_OF_A_LIST]
        body = html.frame(site.host, title, html.listing(title, listed, older), settings.rng("list", site.host, part))
        path = "/" if part == 0 else f"/list-{part + 1}.html"
        yield Page(site.host, path, 200, {"Content-Type": UTF8}, body.encode(), "index")


def extras(site: Site, addresses: list[tuple[str, str]], settings: Settings) -> Iterator[tuple[str, Page]]:
    """(label, page) of what else a host answers: hidden and moved pages, missing ones, files."""
    host = site.host
    if host in HIDDEN_HOSTS:
        for number in range(HIDDEN_PAGES):
            rng = settings.rng("hidden", host, number)
            title, paragraphs = story(rng)
            body = html.frame(host, title, html.text(title, paragraphs), rng).encode()
            path = f"/private/{number}.html"
            yield title, Page(host, path, 200, {"Content-Type": UTF8}, body, "hidden")
    if host in REDIRECTING_HOSTS:
        for number in range(min(MOVED_PAGES, len(addresses))):
            target, title = addresses[number]
            headers = {"Content-Type": UTF8, "Location": target}
            body = f"<p>Moved to {html.link(target, title)}</p>".encode()
            yield f"{title} (old address)", Page(host, f"/moved/{number}.html", 301, headers, body, "redirect")
            gone = html.frame(host, "Not found", "<h1>Not found</h1>", settings.rng("gone", number)).encode()
            yield (
                f"A page that is gone ({number})",
                Page(host, f"/gone/{number}.html", 404, {"Content-Type": UTF8}, gone, "error"),
            )
    if host == ODD:
        for path, (content_type, content) in FILES.items():
            yield path, Page(host, path, 200, {"Content-Type": content_type}, content, "file")


def pages_of(site: Site, settings: Settings) -> Iterator[Page]:
    """Everything one host answers with."""
    addresses: list[tuple[str, str]] = []
    for number, draft in enumerate(site.drafts):
        name = draft.name if draft.source == "docstrings" else f"{number}-{draft.name or slug(draft.title)}"
        addresses.append((f"/{draft.source[:1]}/{name}.html", draft.title))
    others = list(extras(site, addresses, settings))
    yield from lists(site, addresses + [(page.path, label) for label, page in others], settings)
    for number, (draft, (path, _)) in enumerate(zip(site.drafts, addresses, strict=True)):
        body = render(site, number, draft, addresses, settings)
        yield Page(site.host, path, 200, {"Content-Type": draft.content_type}, body, draft.source)
    for _, page in others:
        yield page
    rules = "User-agent: *\n" + ("Disallow: /private/\n" if site.host in HIDDEN_HOSTS else "Allow: /\n")
    yield Page(site.host, "/robots.txt", 200, {"Content-Type": "text/plain"}, rules.encode(), "robots")


@lru_cache(maxsize=2)
def _pages(key: str) -> tuple[Page, ...]:
    settings = Settings.model_validate_json(key)
    return tuple(page for site in build(settings) for page in pages_of(site, settings))


def pages(settings: Settings) -> Iterator[Page]:
    """Every address of the web with its answer, host by host; equal for equal settings."""
    yield from _pages(settings.model_dump_json())
