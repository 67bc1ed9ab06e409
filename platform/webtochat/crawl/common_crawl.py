"""A crawl of Common Crawl: which of its WARC files to read."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Callable

from webtochat import storage
from webtochat.crawl import fetch
from webtochat.crawl.listing import WarcFile
from webtochat.errors import UserError
from webtochat.recipe_pages import Crawl


def listing(section: Crawl, tell: Callable[[int, int | None], None]) -> list[WarcFile]:
    """The first files of a crawl, up to a number of files or of bytes (one at least). `tell(files so far, of how
    many)`. Raises UserError where the crawl is unknown or no limit is set."""
    if not section.crawl_id or not re.fullmatch(r"CC-[A-Z]+-\d{4}(-\d{2})?(-[\w-]+)?", section.crawl_id):
        raise UserError(f"crawl.crawl_id {section.crawl_id!r} is not one of Common Crawl's, such as CC-MAIN-2026-43")
    base = section.base_url.rstrip("/")
    index = f"{base}/crawl-data/{section.crawl_id}/warc.paths.gz"
    try:
        packed = storage.read_bytes(index) if base.startswith("s3://") else fetch.get(index)
        paths = gzip.decompress(packed).decode().split()
    except (UserError, FileNotFoundError) as error:
        raise UserError(f"no crawl {section.crawl_id} at {base}: see its list of crawls for the ids") from error
    except (gzip.BadGzipFile, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise UserError(f"{index} is no list of paths: check crawl.base_url") from error
    except OSError as error:
        if "ACCESS_DENIED" not in str(error) and "credentials" not in str(error).lower():
            raise
        raise UserError(f"no access to {index}: set AWS credentials, or read by crawl.base_url=https://…") from error
    if section.max_files is None and section.max_bytes is None:
        raise UserError(
            f"{section.crawl_id} has {len(paths):,} WARC files of about 1 GB each: "
            "set crawl.max_files or crawl.max_bytes"
        )
    files: list[WarcFile] = []
    total = 0
    for path in paths[: section.max_files]:
        file = _file(f"{base}/{path}")
        if section.max_bytes is not None and files and total + file.size > section.max_bytes:
            break
        files.append(file)
        total += file.size
        tell(len(files), section.max_files)
    return files


def _file(address: str) -> WarcFile:
    name = address.rsplit("/", 1)[-1]
    if address.startswith("s3://"):
        found = storage.glob(address)
        if not found:
            raise UserError(f"nothing at {address}")
        return WarcFile(name, address, found[0].size, found[0].etag)
    size, etag = fetch.head(address)
    return WarcFile(name, address, size, etag)
