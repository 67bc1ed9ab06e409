"""How often the language model names the right language, by language: of sentences, and of pages that people labelled.

python benchmarks/languages.py --data ../shared/data --write
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # as Ray's workers have it

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "platform"))

SAME = {"nb": "no"}
"""The model has one label for Norwegian beside Nynorsk."""
COLUMNS = 5


class Answer(NamedTuple):
    language: str
    first: bool
    """Whether the likeliest is right,"""
    among: bool
    """one of the three likeliest."""


def answered(texts: Iterable[tuple[str, str]]) -> Iterator[Answer]:
    """Of (language, text)."""
    from webtochat.curate.language import identify

    for language, text in texts:
        found = [name for name, _ in identify(text)]
        right = SAME.get(language, language)
        yield Answer(language, found[0] == right, right in found)


def rows_of(path: Path) -> Iterator[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8") as source:
        yield from map(json.loads, source)


def pages(data: Path) -> Iterator[tuple[str, str]]:
    """Language and text, by our extraction, of the pages that are labelled."""
    from webtochat.crawl.stream import open_stream
    from webtochat.crawl.warc import Damage, records
    from webtochat.curate.extract import ExtractionError, extract
    from webtochat.recipe_pages import Measure

    labels = {row["url"]: row["lang"] for row in rows_of(data / "langid" / "daniel-page-languages.jsonl.gz")}
    for path in sorted((data / "warc").glob("pages-*.warc.gz")):
        with open_stream(str(path)) as source:
            for record in records(source, Measure().max_page_bytes):
                if not isinstance(record, Damage) and record.url in labels:
                    with suppress(ExtractionError):
                        yield labels[record.url], extract(record.body, record.content_type).text


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    arguments.add_argument("--write", action="store_true", help="put the figures into docs/benchmarks.md")
    options = arguments.parse_args()
    sentences = rows_of(options.data / "langid" / "lingua-sentences.jsonl.gz")
    told = report("sentences", list(answered((row["lang"], row["text"]) for row in sentences)))
    told += "\n" + report("pages, their text by our extraction", list(answered(pages(options.data))))
    print(told)
    if options.write:
        from record import record

        record("Languages", "benchmarks/languages.py --write", told)


def report(name: str, answers: list[Answer]) -> str:
    import fasttext

    from webtochat.curate.language import model_path

    labels = {label.removeprefix("__label__") for label in fasttext.load_model(model_path()).get_labels()}
    by_language: dict[str, list[Answer]] = defaultdict(list)
    for answer in answers:
        by_language[answer.language].append(answer)
    known = {language for language in by_language if SAME.get(language, language) in labels}
    cells = [
        f"{language} {shares(each) if language in known else '–'}" for language, each in sorted(by_language.items())
    ]
    cells += [""] * (-len(cells) % COLUMNS)
    height = len(cells) // COLUMNS
    lines = [" | ".join(cells[row::height]) for row in range(height)]
    of_known = [answer for answer in answers if answer.language in known]
    mean = mean_of_shares([by_language[language] for language in known])
    told = f"{len(answers):,} {name}: {shares(answers)} % are right (in brackets: are among the three likeliest)"
    if len(known) < len(by_language):
        told += (
            f", {shares(of_known)} % of those whose language the model knows, {len(known)} of {len(by_language)} "
            "(–: it does not)"
        )
    told += f". The mean of the languages that it knows is {mean} %."
    if "nb" in known:
        told += " Its label for nb is no."
    header = "|" + " |" * COLUMNS + "\n|" + " --- |" * COLUMNS
    return f"{told}\n\n{header}\n" + "".join(f"| {line} |\n" for line in lines)


def shares(answers: list[Answer]) -> str:
    return mean_of_shares([answers])


def mean_of_shares(groups: list[list[Answer]]) -> str:
    """In per cent: right, and in brackets right among the three likeliest."""
    first = sum(sum(answer.first for answer in each) / len(each) for each in groups) / len(groups)
    among = sum(sum(answer.among for answer in each) / len(each) for each in groups) / len(groups)
    return f"{100 * first:.1f} ({100 * among:.1f})"


if __name__ == "__main__":
    main()
