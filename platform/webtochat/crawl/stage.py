"""The crawl stage: from any source to a listing of files. Captures run in threads here, next to the network; what is
listed elsewhere is streamed by the next stage's workers."""

from __future__ import annotations

import itertools
import json
import re
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from urllib.parse import urlsplit

from webtochat import storage
from webtochat.artifact import Artifact
from webtochat.crawl import common_crawl, documents, fetch
from webtochat.crawl.listing import LISTING, WarcFile, named, write_listing
from webtochat.crawl.site import Captured, capture_host, normal
from webtochat.crawl.stream import open_stream
from webtochat.errors import UserError
from webtochat.recipe_pages import Crawl, Site
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
                while piece := source.read(1 << 20):
                    sink.write(piece)
        stage.progress(number, len(files), "files copied")
        copied.append(WarcFile(file.name, relative, file.size, storage.sha256(stage.path(relative))))
    return copied


def _starts(site: Site) -> dict[str, list[str]]:
    """Start addresses by host. Raises UserError where one cannot be captured."""
    if not site.start:
        raise UserError("crawl.source is site: name where to begin, crawl.site.start=[https://…]")
    hosts: dict[str, list[str]] = {}
    for address in site.start:
        try:
            parts = urlsplit(normal(address))
            parts.hostname and parts.hostname.encode("idna")
            if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0 or "@" in parts.netloc:
                raise ValueError(address)
        except ValueError as error:
            raise UserError(f"crawl.site.start: {address} is not an http(s) address") from error
        hosts.setdefault(parts.netloc, []).append(address)
    for name, mapped in site.resolve.items():
        if not re.fullmatch(r".+:\d{1,5}", mapped):
            raise UserError(f"crawl.site.resolve: {name}: {mapped} is not address:port, such as 127.0.0.1:8080")
    return hosts


def _capture(stage: Stage, site: Site, counts: Counter[str]) -> list[WarcFile]:
    hosts = _starts(site)
    failed: Counter[str] = Counter()
    stop = threading.Event()
    live = itertools.count(1)  # its next() is one step of the interpreter, so that threads may share it
    pages = 0

    def tell() -> None:
        nonlocal pages
        pages = max(pages, next(live))

    with ThreadPoolExecutor(HOSTS_AT_ONCE) as pool:
        left = {pool.submit(_capture_to, stage, starts, site, tell, stop) for starts in hosts.values()}
        try:
            while left:
                done, left = wait(left, timeout=0.5, return_when=FIRST_COMPLETED)
                for future in done:
                    captured = future.result()
                    counts.update(captured.counts)
                    _say_failure(stage, captured, failed)
                stage.progress(len(hosts) - len(left), len(hosts), "hosts", f"{max(pages, counts['pages']):,} pages")
        except BaseException:  # or the pool would capture all that is queued before it lets go
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if sum(failed.values()) == len(hosts):
        reasons = ", ".join(key.removeprefix("error.") for key in failed)
        raise UserError(f"no host could be captured ({reasons}): check crawl.site.start and the network")
    counts["hosts_failed"] = sum(failed.values())
    found = [(entry.path.rsplit("/", 1)[-1], entry) for entry in stage.files("warc/")]
    return [WarcFile(name, f"warc/{name}", entry.size, storage.sha256(entry.path)) for name, entry in found]


def _say_failure(stage: Stage, captured: Captured, failed: Counter[str]) -> None:
    if not captured.counts["pages"]:
        reason = next((key for key in captured.counts if key.startswith("error.")), "robots")
        failed[reason] += 1
        stage.say(f"{captured.host}: nothing captured ({reason.removeprefix('error.')})")
    elif captured.elsewhere and not captured.counts["status.200"]:
        stage.say(f"{captured.host} only redirects to {captured.elsewhere}: name that in crawl.site.start")


def _capture_to(
    stage: Stage, start: list[str], site: Site, tell: Callable[[], None], stop: threading.Event
) -> Captured:
    """Captures one host, unless a killed run left it whole; its counts stand beside it. One of which nothing could be
    had is asked again by the next run."""
    host = urlsplit(normal(start[0])).netloc
    name = re.sub(r"[^\w.-]", "_", host)
    told, target = stage.scratch("hosts", f"{name}.json"), stage.path("warc", f"{name}.warc.gz")
    if storage.exists(told):
        kept = json.loads(storage.read_bytes(told))
        return Captured(host, Counter(kept["counts"]), kept["elsewhere"])
    with storage.writing(target) as local:
        captured = capture_host(start, site, local, tell, stop)
    if not captured.counts["pages"]:
        storage.delete(target)
        return captured
    kept = {"counts": captured.counts, "elsewhere": captured.elsewhere}
    storage.write_bytes(told, json.dumps(kept).encode())
    return captured
