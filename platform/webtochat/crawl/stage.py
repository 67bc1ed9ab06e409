"""The crawl stage: from any source to a listing of files. Captures run in threads here, next to the network; what is
listed elsewhere is streamed by the next stage's workers."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from urllib.parse import urlsplit

from webtochat import storage
from webtochat.artifact import Artifact
from webtochat.crawl import common_crawl, documents, fetch
from webtochat.crawl.listing import LISTING, WarcFile, named, write_listing
from webtochat.crawl.site import Captured, capture_host
from webtochat.crawl.stream import open_stream
from webtochat.errors import UserError
from webtochat.recipe import Crawl, Site
from webtochat.run import Run, Stage

HOSTS_AT_ONCE = 4


def crawl(run: Run, site: Site | None = None) -> Artifact:
    """`site`: the recipe's site with its start addresses and address map filled in, where it is served here; where the
    pages are served is not what they are, so the identity stays the recipe's."""
    section = run.recipe.crawl
    outside = _outside(run, section) if section.source in ("warc", "documents") else []
    identity = _identity(section) | {"files": [[file.name, file.size, file.etag] for file in outside]}
    stage = run.begin("crawl", identity, [])
    if isinstance(stage, Artifact):
        return stage
    with stage:
        counts: Counter[str] = Counter()
        if section.source == "site":
            files = _capture(stage, site or section.site, counts)
        else:
            files = outside or common_crawl.listing(
                section, lambda done, total: stage.progress(done, total, "files listed")
            )
            if section.copy_files:
                files = _copied(stage, files)
        write_listing(stage.path(LISTING), files)
        size = sum(file.size for file in files)
        kind = "files of documents" if section.source == "documents" else "WARC files"
        pages = f", {counts['pages']:,} pages" if counts["pages"] else ""
        stage.metrics({"files": len(files), "bytes": size, **counts})
        return stage.commit(
            counts={"files": len(files), "bytes": size, **dict(sorted(counts.items()))},
            summary=f"{len(files)} {kind}, {size / 1e6:,.1f} MB{pages}",
        )


def _identity(section: Crawl) -> dict[str, object]:
    """The keys that the source reads; of outside files, their content stands in for their paths."""
    used = {
        "site": {"site"}, "common-crawl": {"crawl_id", "max_files", "max_bytes"}, "warc": set(), "documents": set(),
    }[section.source]  # fmt: skip
    return {"source": section.source, **section.model_dump(mode="json", include=used)}


def _outside(run: Run, section: Crawl) -> list[WarcFile]:
    if not section.paths:
        raise UserError(f"crawl.source is {section.source}: name the files, crawl.paths='/data/*.warc.gz'")
    entries: list[storage.Entry] = []
    for pattern in section.paths:
        if pattern.startswith(("http://", "https://")):
            found = [storage.Entry(pattern, *fetch.head(pattern))]
        else:
            found = documents.expand(pattern) if section.source == "documents" else storage.glob(pattern)
        if not found:
            raise UserError(f"no file matches crawl.paths {pattern}")
        entries += found
    return named(sorted(entries, key=lambda entry: entry.path))


def _copied(stage: Stage, files: list[WarcFile]) -> list[WarcFile]:
    copied = []
    for number, file in enumerate(files, 1):
        relative = f"warc/{file.name}"
        if not storage.exists(stage.path(relative)):
            with (
                open_stream(file.path) as source,
                storage.writing(stage.path(relative)) as local,
                open(local, "wb") as sink,
            ):
                shutil.copyfileobj(source, sink, 1 << 20)  # type: ignore[misc]
        stage.progress(number, len(files), "files copied")
        copied.append(WarcFile(file.name, relative, file.size, storage.sha256(stage.path(relative))))
    return copied


def _capture(stage: Stage, site: Site, counts: Counter[str]) -> list[WarcFile]:
    if not site.start:
        raise UserError("crawl.source is site: name where to begin, crawl.site.start=[https://…]")
    hosts: dict[str, list[str]] = {}
    for address in site.start:
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise UserError(f"crawl.site.start: {address} is not an http(s) address")
        hosts.setdefault(parts.netloc.lower(), []).append(address)
    failed: Counter[str] = Counter()
    with ThreadPoolExecutor(HOSTS_AT_ONCE) as pool:
        running = [pool.submit(_capture_to, stage, starts, site) for starts in hosts.values()]
        for number, future in enumerate(as_completed(running), 1):
            captured = future.result()
            counts.update(captured.counts)
            if not captured.counts["pages"]:
                reason = next((key for key in captured.counts if key.startswith("error.")), "robots")
                failed[reason] += 1
                stage.say(f"{captured.host}: nothing captured ({reason.removeprefix('error.')})")
            stage.progress(number, len(hosts), "hosts", f"{counts['pages']:,} pages")
    if sum(failed.values()) == len(hosts):
        raise UserError(f"no host could be captured ({', '.join(failed)}): check crawl.site.start and the network")
    counts["hosts_failed"] = sum(failed.values())
    entries = stage.files("warc/")
    return [
        WarcFile(entry.path.rsplit("/", 1)[-1], f"warc/{entry.path.rsplit('/', 1)[-1]}", entry.size,
                 storage.sha256(entry.path))
        for entry in entries
    ]  # fmt: skip


def _capture_to(stage: Stage, start: list[str], site: Site) -> Captured:
    """Captures one host, unless a killed run left it whole; its counts stand beside it."""
    host = urlsplit(start[0]).netloc.lower()
    name = host.replace(":", "_")
    told = stage.scratch("hosts", f"{name}.json")
    if storage.exists(told):
        return Captured(host, Counter(json.loads(storage.read_bytes(told))))
    with storage.writing(stage.path("warc", f"{name}.warc.gz")) as local:
        captured = capture_host(start, site, local)
    if not captured.counts["pages"]:
        storage.delete(stage.path("warc", f"{name}.warc.gz"))
    storage.write_bytes(told, json.dumps(captured.counts).encode())
    return captured
