"""Writes a section of docs/benchmarks.md: figures stand there only because a program put them there."""

from __future__ import annotations

import os
import platform
import re
import time
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"


def machine() -> str:
    """Processor, cores and memory, in words."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    gigabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return f"{model}, {os.cpu_count()} cores, {gigabytes:.0f} GB, Python {platform.python_version()}"


def record(name: str, command: str, body: str) -> None:
    """Replaces (or adds) the section `name` (a title) with `body` (Markdown)."""
    stamp = time.strftime("%Y-%m-%d", time.gmtime())
    section = f"## {name}\n\n`{command}` · {stamp} · {machine()}\n\n{body.strip()}\n"
    page = PAGE.read_text() if PAGE.exists() else "# Benchmarks\n\nEach section is written by the command it names.\n"
    pattern = re.compile(rf"^## {re.escape(name)}\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
    if pattern.search(page):
        page = pattern.sub(lambda _: section + "\n", page)
    else:
        page = page.rstrip() + "\n\n" + section
    PAGE.write_text(page.rstrip() + "\n")
