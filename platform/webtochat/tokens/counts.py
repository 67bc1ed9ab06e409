"""How often each pre-token stands in texts. Merges are learned from these counts alone, so that the texts are read once
and a corpus of any size comes down to its distinct pre-tokens.

A pre-token, here a piece, is what the recipe's pattern cuts a text into; what it leaves out between two of its matches
is a piece too. Hugging Face's Split(Regex(pattern), "isolated") cuts the same, except at characters that Unicode added
lately: `regex` knows some 17,000 letters (Unicode 16 and 17, nearly all of them CJK) that its Oniguruma and tiktoken do
not. That moves counts a little there, and never how a text is encoded.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import regex

from webtochat import storage
from webtochat.errors import UserError

SCHEMA = pa.schema([("piece", pa.large_string()), ("count", pa.int64())])
BATCH = 500_000
"""Distinct pieces that a Python counter holds (some 100 bytes each) before they become a table (some 20 each)."""


@dataclass(frozen=True)
class Counts:
    """`table`: piece, count; sorted by piece."""

    table: pa.Table
    characters: int
    dropped: int
    """Occurrences of pieces that were too rare to be kept."""


def covering(pattern: str) -> str:
    """The pattern, which also matches, as one piece, what it would leave out. Hugging Face keeps that; tiktoken would
    lose it."""
    return f"(?:{pattern})|(?:(?!(?:{pattern}))(?s:.))+"


def splitter(pattern: str) -> Callable[[str], list[str]]:
    """A function that cuts a text into its pieces."""
    try:
        compiled = regex.compile(covering(pattern))
    except regex.error as error:
        raise UserError(f"tokenizer.pattern is no regular expression: {error}") from error
    if compiled.fullmatch(""):
        raise UserError("tokenizer.pattern matches the empty text: it must take at least one character")
    if compiled.groups:  # else findall would return what the groups match
        return lambda text: [match[0] for match in compiled.finditer(text)]
    return compiled.findall


def count(texts: Iterable[str], pattern: str, max_pieces: int = sys.maxsize) -> Counts:
    """Counts in bounded memory: beyond `max_pieces` distinct ones, the rarest are dropped, as in `together`.

    Most of the time goes to Python's handling of each piece. Counting words first, by the spaces between them, and
    cutting each distinct one once took 0.93 of it: not worth a second way.
    """
    split, counter = splitter(pattern), Counter[str]()
    parts, characters = Counts(SCHEMA.empty_table(), 0, 0), 0
    for text in texts:
        counter.update(split(text))
        characters += len(text)
        if len(counter) >= BATCH:
            parts = together([parts, _counted(counter)], max_pieces)
            counter.clear()
    parts = together([parts, _counted(counter)], max_pieces)
    return Counts(parts.table, characters, parts.dropped)


def _counted(counter: Counter[str]) -> Counts:
    columns = [pa.array(counter.keys(), pa.large_string()), pa.array(counter.values(), pa.int64())]
    return Counts(pa.table(columns, schema=SCHEMA), 0, 0)


def together(parts: Iterable[Counts], max_pieces: int) -> Counts:
    """The sum, one part after the other. Whenever it holds more than `max_pieces` distinct pieces, the rarest go (of
    equals, the last by code point)."""
    table, characters, dropped = SCHEMA.empty_table(), 0, 0
    for part in parts:
        joined = pa.concat_tables([table, part.table])
        table = joined.group_by("piece").aggregate([("count", "sum")]).rename_columns(SCHEMA.names).select(SCHEMA.names)
        characters, dropped = characters + part.characters, dropped + part.dropped
        if len(table) > max_pieces:
            table = table.sort_by([("count", "descending"), ("piece", "ascending")])
            dropped += pc.sum(table["count"][max_pieces:]).as_py()
            table = table[:max_pieces]
    return Counts(table.sort_by("piece").combine_chunks(), characters, dropped)


def write(counts: Counts, path: str) -> None:
    about = {"characters": str(counts.characters), "dropped": str(counts.dropped)}
    with storage.writing(path) as local:
        pq.write_table(counts.table.replace_schema_metadata(about), local)


def read(path: str) -> Counts:
    with storage.open_input_file(path) as source:
        table = pq.read_table(source)
    about = table.schema.metadata
    return Counts(table.replace_schema_metadata(None).cast(SCHEMA), int(about[b"characters"]), int(about[b"dropped"]))
