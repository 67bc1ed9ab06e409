"""Learn a byte-level BPE from the kept documents, or show what the learned one makes of a text.

python jobs/tokenizer.py recipes/demo.yaml tokenizer.vocabulary=8192
python jobs/tokenizer.py recipes/demo.yaml --show "Es war einmal in 1812"
"""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.text import Text

from job import guarded, main, parser, placed
from webtochat import artifact, storage
from webtochat import recipe as recipes
from webtochat.errors import UserError
from webtochat.tokens.tokenizer import Tokenizer

BACKGROUNDS = ("black on bright_cyan", "black on bright_yellow", "black on bright_green", "black on bright_magenta")


def visible(content: bytes) -> str:
    """Characters where they can be seen, else escapes: \\n for a line feed, \\xc3 for half a character."""
    text = content.decode(errors="backslashreplace")
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def coloured(parts: list[bytes], plain: bool) -> Text:
    """Side by side in alternating colours; without colours, a bar between them."""
    if plain:
        return Text("|".join(map(visible, parts)))
    styled = [(visible(part), BACKGROUNDS[number % len(BACKGROUNDS)]) for number, part in enumerate(parts)]
    return Text.assemble(*styled)


def lines(tokenizer: Tokenizer, text: str, plain: bool) -> Iterator[str | Text]:
    content, pieces, ids = text.encode(), tokenizer.pieces(text), tokenizer.encode(text)
    yield f"{len(text):,} characters, {len(content):,} bytes"
    for character in text:
        each = character.encode()
        bits = " ".join(f"{byte:08b}" for byte in each)
        yield f"  {visible(each):<10}  U+{ord(character):04X}  {each.hex(' '):<11}  {bits}"
    yield f"\n{len(pieces):,} pieces"
    yield Text("  ") + coloured([piece.encode() for piece in pieces], plain)
    applied = [(piece, tokenizer.merging(piece)) for piece in pieces]
    yield f"\n{sum(len(merges) for _, merges in applied):,} merges, by rank: the lowest goes first"
    for piece, merges in applied:
        yield f"  {visible(piece.encode())}"
        for rank, left, right in merges:
            parts = [visible(tokenizer.bytes_of(each)) for each in ([left], [right], [left, right])]
            yield f"    {rank:>7,}  {parts[0]} + {parts[1]} = {parts[2]}"
    yield f"\n{len(ids):,} tokens, {len(content) / max(1, len(ids)):.2f} bytes each"
    yield Text("  ") + coloured([tokenizer.bytes_of([number]) for number in ids], plain)
    for number in ids:
        yield f"  {number:>7}  {visible(tokenizer.bytes_of([number]))}"


def show(recipe_path: str, overrides: list[str], text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError("the text to show is not UTF-8") from error
    recipe = placed(recipes.load(recipe_path, overrides), overrides)
    directory = storage.join(recipe.workspace, recipe.name, "tokenizer")
    tokenizer = Tokenizer.load(artifact.open_artifact(directory, "tokenizer").local())
    console = Console(highlight=False, markup=False, soft_wrap=True)
    for line in lines(tokenizer, text, plain=not console.is_terminal):
        console.print(line)


if __name__ == "__main__":
    arguments = parser(__doc__)
    arguments.add_argument("--rebuild", action="store_true", help="delete what the stage made and make it anew")
    arguments.add_argument("--show", metavar="TEXT", help="its bits, bytes, merges in order, and tokens in colour")
    options = arguments.parse_intermixed_args()
    if options.show is not None:
        guarded(lambda: show(options.recipe, options.overrides, options.show))
    from webtochat.tokens.stage import tokenizer

    main(__doc__, tokenizer)
