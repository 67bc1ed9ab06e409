"""Real prose: what installed packages say about themselves, read without importing them."""

from __future__ import annotations

import ast
import os
import re
import sysconfig
import warnings
from collections.abc import Iterator
from functools import lru_cache

from miniweb.settings import Settings

LARGEST_FILE = 250_000
SKIPPED_FOLDERS = {
    "test",
    "tests",
    "testing",
    "_vendor",
    "vendor",
    "__pycache__",
    "site-packages",
    "idlelib",
    "lib2to3",
}
LEAST_PROSE = 500
"""Characters of prose for which a module gets a page."""
LARGEST_PAGE = 12_000
SHARE_OF_ONE_PACKAGE = 0.06
LEAST_QUOTED = 1500
LEAST_QUOTED_SHARE = 0.25
"""Of a module's bytes, between triple quotes."""

SECTION = re.compile(
    r"^(args?|arguments?|parameters?|params?|returns?|yields?|raises?|attributes?|examples?|notes?|see also|"
    r"references?|keyword args|usage|warns?|methods|todo|shapes?|inputs?|outputs?)\s*:*$",
    re.IGNORECASE,
)
SECTION_LINE = re.compile(
    r"^(args|arguments|parameters|params|returns|yields|raises|attributes|examples?)\s*:", re.IGNORECASE
)
MARKED = re.compile(r"^(>>>|\.\.\s|:\w|@\w|[-*+•]\s|\d+[.)]\s|#|\||\+[-=]|[-=~^`*\"]{3,}|\$|%|\\)")
PARAMETER = re.compile(r"^[\w*.]+(\s*\([^)]*\))?\s*:(\s|$)|^\w+\s+--?\s")
ROLE = re.compile(r":[\w:+-]+:`~?([^`<]*?)(\s*<[^`>]*>)?`")
LINKED = re.compile(r"`([^`<]+?)\s*<[^`>]+>`_{0,2}|\[([^\]]+)\]\([^)]+\)")
QUOTED = re.compile(r"(`{1,2}|\*{1,2})(?=\S)(.+?)(?<=\S)\1_{0,2}")
SHORTENED = re.compile(r"(?<!\S)~?\.(?=[A-Za-z])|(?<!\S)[~!](?=[A-Za-z])")
CODE = re.compile(r"[{}<>\\=|]|\w\(|\w\[|__|::$|https?:|[^\x00-\x7f]")


def roots() -> list[tuple[str, str]]:
    """(package, folder or file) of everything installed beside the running Python, and of its standard library."""
    paths = sysconfig.get_paths()
    found: dict[str, str] = {}
    for base in (paths["stdlib"], paths["purelib"]):
        for name in sorted(os.listdir(base)):
            path = os.path.join(base, name)
            stem = name.removesuffix(".py")
            if stem.isidentifier() and stem not in SKIPPED_FOLDERS and (name.endswith(".py") or os.path.isdir(path)):
                found[stem] = path
    return sorted(found.items())


def modules(path: str, package: str) -> Iterator[tuple[str, str]]:
    """(dotted name, file) of the modules under a package, in order."""
    if path.endswith(".py"):
        yield package, path
        return
    for folder, inner, files in os.walk(path):
        inner[:] = sorted(name for name in inner if name not in SKIPPED_FOLDERS and name.isidentifier())
        dotted = ".".join([package, *os.path.relpath(folder, path).replace(".", "").split(os.sep)]).rstrip(".")
        for name in sorted(files):
            if name.endswith(".py"):
                stem = name.removesuffix(".py")
                yield (dotted if stem == "__init__" else f"{dotted}.{stem}"), os.path.join(folder, name)


def docstrings(source: bytes) -> Iterator[str]:
    """The docstrings of a module, its classes and functions, in their order; nothing where it does not parse."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    stack: list[ast.AST] = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found = ast.get_docstring(node)
            if found:
                yield found
            # Docstrings stand in the bodies of definitions (and of conditions around them), not in expressions.
        stack.extend(
            child
            for child in reversed(list(ast.iter_child_nodes(node)))
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef | ast.If | ast.Try)
        )


def prose(docstring: str) -> Iterator[str]:
    """The paragraphs of a docstring that are sentences, on one line each, without markup."""
    skipping = False
    for block in re.split(r"\n\s*\n", docstring):
        lines = block.split("\n")
        first = lines[0].strip()
        if (
            SECTION.match(first)
            or SECTION_LINE.match(first)
            or (len(lines) > 1 and re.fullmatch(r"[-=~^]{3,}", lines[1].strip()))
        ):
            # What stands under a heading of parameters or examples is indented or a list.
            skipping = True
            continue
        if skipping and (lines[0].startswith(" ") or PARAMETER.match(first)):
            continue
        skipping = False
        if lines[0].startswith("    ") or any(
            MARKED.match(line.strip()) or PARAMETER.match(line.strip()) for line in lines
        ):
            continue
        text = " ".join(block.split())
        text = LINKED.sub(lambda match: match[1] or match[2], ROLE.sub(r"\1", text))
        text = QUOTED.sub(r"\2", text).replace("`", "")
        text = SHORTENED.sub("", text)
        if len(text) >= 40 and text[0].isupper() and text[-1] in ".!?" and not CODE.search(text) and " " in text:
            yield text


@lru_cache(maxsize=2)
def _pages(seed: int, limit: int) -> tuple[tuple[str, str, tuple[str, ...]], ...]:
    packages = roots()
    Settings(seed=seed).rng("packages").shuffle(packages)
    seen: set[str] = set()
    out: list[tuple[str, str, tuple[str, ...]]] = []
    total = 0
    for package, path in packages:
        taken = 0
        for module, file in modules(path, package):
            if total >= limit or taken >= limit * SHARE_OF_ONE_PACKAGE:
                break
            if os.path.getsize(file) > LARGEST_FILE:
                continue
            with open(file, "rb") as source:
                content = source.read()
            # Parsing costs most of the time: a module that is mostly code is not worth it.
            quoted = sum(map(len, content.split(b'"""')[1::2]))
            if quoted < LEAST_QUOTED or quoted < len(content) * LEAST_QUOTED_SHARE:
                continue
            paragraphs: list[str] = []
            size = 0
            for docstring in docstrings(content):
                for paragraph in prose(docstring):
                    key = "".join(filter(str.isalpha, paragraph.lower()))
                    if key not in seen and size + len(paragraph) <= LARGEST_PAGE:
                        seen.add(key)
                        paragraphs.append(paragraph)
                        size += len(paragraph)
            if size >= LEAST_PROSE:
                out.append((package, module, tuple(paragraphs)))
                taken += size
                total += size
    return tuple(out)


def docstring_pages(settings: Settings) -> list[tuple[str, str, tuple[str, ...]]]:
    """(package, module, paragraphs) of modules with prose, no paragraph twice, up to the settings' bytes."""
    return list(_pages(settings.seed, settings.docstring_bytes))
