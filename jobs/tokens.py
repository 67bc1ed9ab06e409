"""Encode the kept documents into token shards, or show where their tokens come from.

python jobs/tokens.py recipes/demo.yaml tokens.packing=stream
python jobs/tokens.py recipes/demo.yaml --token 123456
python jobs/tokens.py recipes/demo.yaml --window 17 --split validation
"""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Iterator
from typing import Any

import pyarrow.parquet as pq
from rich.console import Console
from rich.text import Text

from job import guarded, main, parser, placed
from tokenizer import visible
from webtochat import artifact, storage
from webtochat import recipe as recipes
from webtochat.artifact import Artifact
from webtochat.errors import UserError
from webtochat.tokens.shards import Split
from webtochat.tokens.tokenizer import Tokenizer

AROUND = 40
"""Tokens shown on each side."""


def show(options: Namespace) -> None:
    recipe = placed(recipes.load(options.recipe, options.overrides), options.overrides)
    home = storage.join(recipe.workspace, recipe.name)
    made = artifact.open_artifact(storage.join(home, "tokens"), "tokens")
    made.check(None)
    tokenizer = Tokenizer.load(artifact.open_artifact(storage.join(home, "tokenizer"), "tokenizer").local())
    directory, length = os.path.join(made.local(), options.split), recipe.tokens.sequence_length
    split = Split(directory, length, tokenizer.vocabulary)
    curated = artifact.find(storage.join(home, "curate"))
    if curated is not None and curated.content_hash != made.manifest.inputs.get("curate"):
        curated = None
    console = Console(highlight=False, markup=False, soft_wrap=True)
    for line in lines(options, made, split, tokenizer, curated):
        console.print(line)


def lines(
    options: Namespace, made: Artifact, split: Split, tokenizer: Tokenizer, curated: Artifact | None
) -> Iterator[str | Text]:
    documents = split.counts()
    asked = (
        ("document", options.document, sum(documents), split.document),
        ("window", options.window, len(split), split.spans), ("token", options.token, split.tokens, split.token),
    )  # fmt: skip
    [(what, number, count, spans_of)] = [each for each in asked if each[1] is not None]
    if not 0 <= number < count:
        raise UserError(f"--{what} {number}: {made.path(options.split)} has {what}s 0 to {count - 1:,}")
    shard, spans = spans_of(number)
    name = os.path.basename(split.stems[shard])
    made.check(f"{options.split}/{name}.")
    yield f"corpus    {made.path(options.split)}"
    yield f"          {sum(documents):,} documents, {split.tokens:,} tokens, {len(split):,} windows"
    yield f"shard     {name}"
    if what == "window":
        filled = sum(length for _, length in spans)
        yield f"window    {filled:,} of {split.sequence_length:,} positions, in {len(spans)} spans"
    for (first, length), rows in zip(spans, split.documents_in(shard, spans), strict=True):
        for row in rows:
            yield f"\ndocument  {sum(documents[:shard]) + row['number']:,}  {visible(row['id'].encode())}"
            yield f"from      {visible(source(row, curated, name).encode())}"
            yield f"tokens    {row['length']:,} from {row['first']:,} on, {row['bytes']:,} bytes of text"
            yield excerpt(split, tokenizer, shard, row, first, length)


def source(row: dict[str, Any], curated: Artifact | None, name: str) -> str:
    """A document's address, where what it was curated from still stands, else its host."""
    if curated is None:
        return row["host"] or "?"
    with storage.open_input_file(curated.files("kept/")[int(name.rpartition("-")[2])]) as kept:
        found = pq.read_table(kept, columns=["url"], filters=[("id", "==", row["id"])])
    return found["url"][0].as_py() or "?"


def excerpt(split: Split, tokenizer: Tokenizer, shard: int, row: dict[str, Any], first: int, length: int) -> Text:
    """What of a document is in a span, and what stands before and after it."""
    begin, end = row["first"], row["first"] + row["length"]
    here, there = max(begin, first), max(begin, min(end, first + length))

    def text(first: int, last: int) -> str:
        return visible(tokenizer.bytes_of(split.tokens_of(shard, first, last - first).tolist()))

    inside = text(here, there)
    if there - here > 4 * AROUND:
        inside = f"{text(here, here + 2 * AROUND)} … {text(there - 2 * AROUND, there)}"
    before, after = text(max(begin, here - AROUND), here), text(there, min(end, there + AROUND))
    return Text.assemble("text      ", (before, "dim"), ("⟦", "bold"), inside, ("⟧", "bold"), (after, "dim"))


if __name__ == "__main__":
    arguments = parser(__doc__)
    arguments.add_argument("--rebuild", action="store_true", help="delete what the stage made and make it anew")
    shown = arguments.add_mutually_exclusive_group()
    shown.add_argument("--document", metavar="N", type=int, help="a document: where it comes from, how it reads")
    shown.add_argument("--window", metavar="N", type=int, help="a window: the documents in it")
    shown.add_argument("--token", metavar="N", type=int, help="a token: its document, and what is around it")
    arguments.add_argument("--split", choices=("train", "validation"), default="train", help="of which N is (train)")
    options = arguments.parse_intermixed_args()
    if (options.document, options.window, options.token) != (None, None, None):
        guarded(lambda: show(options))
    from webtochat.tokens.stage import tokens

    main(__doc__, tokens)
