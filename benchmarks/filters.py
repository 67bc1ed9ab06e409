"""What our rules and datatrove's filters say of the same texts, filter by filter: keep or drop, and for what reason.

python benchmarks/filters.py '../shared/data/warc/pages-*.warc.gz' --peers .venv-peers/bin/python --write

Each filter judges each text on its own, whatever the others say of it. Where the two differ, our rules judge again by
what datatrove read (its words, then its number of sentences): if they then say the same, that is the cause. It takes
some four minutes, nearly all of them datatrove's.
"""

from __future__ import annotations

import argparse
import glob
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # as Ray's workers have it

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "platform"))

FILTERS = {
    "gopher_repetition": "GopherRepetitionFilter", "gopher_quality": "GopherQualityFilter", "c4": "C4QualityFilter",
    "fineweb": "FineWebQualityFilter",
}  # fmt: skip
"""datatrove's filters by our steps."""
REASONS = {
    "dup_para_frac": "max_duplicate_paragraphs", "dup_para_char_frac": "max_duplicate_paragraph_characters",
    "dup_line_frac": "max_duplicate_lines", "dup_line_char_frac": "max_duplicate_line_characters",
    **{f"top_{n}_gram": f"max_top_{n}gram" for n in range(2, 5)},
    **{f"duplicated_{n}_n_grams": f"max_duplicate_{n}grams" for n in range(5, 11)},
    "gopher_short_doc": "min_words", "gopher_long_doc": "max_words",
    "gopher_below_avg_threshold": "min_mean_word_length", "gopher_above_avg_threshold": "max_mean_word_length",
    "gopher_too_many_hashes": "max_symbol_word_ratio", "gopher_too_many_ellipsis": "max_symbol_word_ratio",
    "gopher_too_many_bullets": "max_bullet_lines", "gopher_too_many_end_ellipsis": "max_ellipsis_lines",
    "gopher_below_alpha_threshold": "min_alpha_words", "gopher_enough_stop_words": "min_stop_words",
    "lorem_ipsum": "lorem_ipsum", "curly_bracket": "curly_bracket", "too_few_sentences": "min_sentences",
    "empty": "min_punctuated_lines", "line_punct_ratio": "min_punctuated_lines", "short_line_ratio": "max_short_lines",
    "char_dup_ratio": "max_duplicate_line_characters", "list_ratio": "max_newlines_per_word",
}  # fmt: skip
"""Our reasons by datatrove's. What C4's line rules leave empty has no punctuated lines."""
CAUSES = {
    "score": "the language model gives another score: fastText's own `predict` puts a line feed behind the text, which "
    "counts as a word of it; the score of a short text depends on it",
    "words": "words are cut otherwise, close to the threshold; with datatrove's words our rules say the same",
    "sentences": "sentences are counted otherwise; with datatrove's number our rules say the same",
    "order": "the page breaks both rules, and they are tested in another order",
    "line rules": "C4's line rules leave another text",
    "email start": "an address begins at another character: datatrove at a letter or digit, ours also at a mark",
    "email domain": "datatrove takes `module@v1.3.4` or `password@10.10.1.10` for an address; ours wants the domain to "
    "end in letters",
    "email end": "ours finds no address where a letter that is not ASCII follows without a space",
    "ip": "datatrove finds an IP address inside of a longer number with dots, which is none",
    "unexplained": "unexplained",
}
EMAIL, IP = "<email>", "<ip>"  # as peers.py has datatrove write them


class Verdict(NamedTuple):
    """Of one filter on one text: why each drops it, None to keep it. Of personal data: the text, None if unchanged."""

    mine: str | None
    theirs: str | None
    causes: list[str]
    """Of a difference, with the measured values."""


def texts_of(paths: list[str]) -> Iterator[str]:
    """Of every page that has one, by our extraction."""
    from webtochat.crawl.stream import open_stream
    from webtochat.crawl.warc import Damage, records
    from webtochat.curate.extract import ExtractionError, extract
    from webtochat.recipe_pages import Measure

    for path in paths:
        with open_stream(path) as source:
            for record in records(source, Measure().max_page_bytes):
                with suppress(ExtractionError):
                    if not isinstance(record, Damage):
                        yield extract(record.body, record.content_type).text


def datatrove(texts: list[str], python: str) -> tuple[str, list[dict[str, Any]]]:
    """Its version, and what it says of each text; in the peers' own environment (requirements/peers.txt)."""
    from webtochat.curate.language import model_path

    with tempfile.TemporaryDirectory(prefix="webtochat-benchmark-") as folder:
        source, made = Path(folder) / "texts.jsonl", Path(folder) / "judged.jsonl"
        source.write_text("".join(json.dumps(text) + "\n" for text in texts))
        command = [os.path.abspath(python), str(ROOT / "benchmarks" / "peers.py"), "filters"]
        subprocess.run([*command, str(source), model_path(), str(made)], check=True, stderr=subprocess.DEVNULL)
        with open(made) as lines:
            version, *rows = map(json.loads, lines)
    return version, rows


def language(text: str, row: dict[str, Any]) -> Verdict:
    import fasttext

    from webtochat.curate.language import identify, model_path
    from webtochat.recipe_pages import Measure

    [(name, score), *_] = identify(text)
    mine = None if score >= Measure().languages.get(name, 2) else "removed"
    if mine == row["language"]:
        return Verdict(mine, mine, [])
    [(ended, _)] = fasttext.load_model(model_path()).f.predict(text.replace("\n", " ") + "\n", 1, 0.0, "strict")
    cause = "score" if abs(ended - row["score"]) < 1e-4 else "unexplained"
    told = f"{score:.3f}, datatrove {row['score']:.3f}, least {Measure().languages['en']}"
    return Verdict(mine, row["language"], [f"{cause} | {told}"])


def quality(text: str, row: dict[str, Any], counts: Counter[str], cut: Counter[str]) -> dict[str, Verdict]:
    """By step. `counts`: how much of what the rules read is the same; `cut`: the words that are cut otherwise."""
    from webtochat.curate import quality, words
    from webtochat.curate.decide import first_broken, rules
    from webtochat.recipe_pages import Curate, Measure

    def measured() -> tuple[dict[str, float], str]:
        return quality.measured(text, Measure().lines, Measure().stop_words["en"])

    values, rewritten = measured()
    mine = words.words_of(text)
    counts["pages"] += 1
    counts["words"] += len(row["words"])
    counts["pages, sentences"] += values["sentences"] == row["sentences"]
    counts["sentences, ours"] += int(values["sentences"])
    counts["sentences"] += row["sentences"]
    counts["pages, line rules"] += rewritten == row["rewritten"]
    if "".join(mine) == "".join(row["words"]):
        cut.update(f"`{ours}`, datatrove `{theirs}`" for ours, theirs in cuts(mine, row["words"]))
        counts["pages, words"] += mine == row["words"]
    verdicts = {}
    for step, name in FILTERS.items():
        ordered = [rule for rule in rules(Curate()) if rule.step == step]
        reason = why(values, ordered)
        theirs = row[name] and REASONS[row[name]]
        causes = []
        if reason != theirs:
            with patch.object(quality, "words_of", lambda _: row["words"]):
                by_words = measured()[0]
            by_words["newlines_per_word"] = row["rewritten"].count("\n") / max(1, row["rewritten_words"])
            by_words["sentences"] = values["sentences"]
            by_both = {**by_words, "sentences": float(row["sentences"])}
            broken = first_broken(values, ordered) or first_broken(by_both, ordered)
            if step in ("c4", "fineweb") and rewritten != row["rewritten"]:
                cause = "line rules"
            elif why(by_words, ordered) == theirs:
                cause = "words"
            elif why(by_both, ordered) == theirs:
                cause = "sentences"
            elif theirs in [rule.reason for rule in ordered if rule.removes(by_both[rule.measurement])]:
                cause = "order"
            else:
                cause = "unexplained"
            told = ""
            if broken is not None:
                measurement = next(rule.measurement for rule in ordered if rule.reason == broken.reason)
                told = f"{measurement} {values[measurement]:.4f}, by datatrove's {by_both[measurement]:.4f}, "
                told += f"threshold {broken.threshold:g}"
            causes = [f"{cause} | {told}"]
        verdicts[step] = Verdict(reason, theirs, causes)
    return verdicts


def why(values: dict[str, float], ordered: list[Any]) -> str | None:
    from webtochat.curate.decide import first_broken

    broken = first_broken(values, ordered)
    return broken.reason if broken else None


def cuts(mine: list[str], theirs: list[str]) -> Iterator[tuple[str, str]]:
    """Where the same characters are cut into other words: ours and theirs, a space at each cut."""
    left, right = iter(mine), iter(theirs)
    for word in left:
        ours, other = [word], [next(right)]
        while gap := sum(map(len, ours)) - sum(map(len, other)):
            if gap < 0:
                ours.append(next(left))
            else:
                other.append(next(right))
        if ours != other:
            yield " ".join(ours), " ".join(other)


def personal_data(text: str, row: dict[str, Any]) -> Verdict:
    from webtochat.curate.pii import replaced
    from webtochat.recipe_pages import PII

    mine, _ = replaced(text, PII(email=EMAIL, ipv4=IP, ipv6=None, card=None, phone=None))
    causes = []
    for ours, theirs in zip(mine.splitlines(), row["pii"].splitlines(), strict=True):
        last = [domain.rstrip(".-").rsplit(".")[-1] for domain in re.findall(r"@([A-Za-z0-9.-]+)", ours)]
        if theirs.count(IP) > ours.count(IP):
            causes.append("ip | ")
        elif theirs.count(EMAIL) > ours.count(EMAIL):
            causes.append("email end | " if any(map(str.isalpha, last)) else "email domain | ")
        elif ours != theirs:
            causes.append("email start | " if EMAIL in ours and EMAIL in theirs else "unexplained | ")
    return Verdict(mine if mine != text else None, row["pii"] if row["pii"] != text else None, causes)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("warc", help="a glob of WARC files")
    arguments.add_argument("--peers", required=True, help="a Python that has requirements/peers.txt")
    arguments.add_argument("--write", action="store_true", help="put the figures into docs/benchmarks.md")
    options = arguments.parse_args()
    texts = list(texts_of(sorted(glob.glob(options.warc))))
    version, rows = datatrove(texts, options.peers)
    verdicts: dict[str, list[Verdict]] = {step: [] for step in ("language", *FILTERS, "personal data")}
    counts: Counter[str] = Counter()
    cut: Counter[str] = Counter()
    for text, row in zip(texts, rows, strict=True):
        verdicts["personal data"].append(personal_data(text, row))
        found = language(text, row)
        verdicts["language"].append(found)
        if found.mine is None and found.theirs is None:
            for step, verdict in quality(text, row, counts, cut).items():
                verdicts[step].append(verdict)
    told = report(version, verdicts, counts, cut)
    print(told)
    if options.write:
        from record import record

        record("Filters, beside datatrove's", "benchmarks/filters.py 'pages-*.warc.gz' --peers … --write", told)


def report(version: str, verdicts: dict[str, list[Verdict]], counts: Counter[str], cut: Counter[str]) -> str:
    table, differences = "", []
    for step, each in verdicts.items():
        dropped = Counter((verdict.mine is not None, verdict.theirs is not None) for verdict in each)
        both = dropped[True, True]
        same = sum(verdict.mine == verdict.theirs is not None for verdict in each)
        agree = (both + dropped[False, False]) / max(1, len(each))
        table += (
            f"| {step} | {len(each):,} | {dropped[False, False]:,} | {both:,} | {dropped[True, False]:,} | "
            f"{dropped[False, True]:,} | {agree:.2%} | {f'{same / both:.1%}' if both else ''} |\n"
        )
        causes = [cause.split(" | ") for verdict in each for cause in verdict.causes]
        for cause, number in Counter(cause for cause, _ in causes).most_common():
            values = "; ".join([value for other, value in causes if other == cause and value][:5])
            differences.append(f"- {step}, {number}: {CAUSES[cause]}{f' ({values})' if values else ''}.\n")
    pages = max(1, counts["pages"])
    most = "; ".join(f"{words} ({number})" for words, number in cut.most_common(8))
    return (
        f"{len(verdicts['language']):,} pages have a text by our extraction; {pages:,} of them are English by both and "
        f"judged by the thresholds of FineWeb. Beside datatrove {version}, with the same language model. Each filter "
        "judges every page on its own, FineWeb's what C4's line rules leave of it. Of personal data, e-mail and IPv4 "
        "addresses: to drop is to replace something, and the reason is the text that this leaves.\n\n"
        "| filter | pages | both keep | both drop | only ours drops | only datatrove's drops | the same | of both "
        f"dropped, for the same reason |\n|{' --- |' * 8}\n{table}\nThe differences, by cause (of personal data, "
        f"lines):\n\n{''.join(differences) or '- none'}\n"
        f"What the rules read. C4's line rules leave the same text of {counts['pages, line rules'] / pages:.1%} of the "
        f"pages. Words are cut otherwise at {cut.total():,} places in {counts['words']:,} words, and nowhere in "
        f"{counts['pages, words'] / pages:.1%} of the pages. Most often: {most}. The number of "
        "sentences is the same in "
        f"{counts['pages, sentences'] / pages:.1%} of the pages; in all, {counts['sentences, ours']:,} and datatrove's "
        f"{counts['sentences']:,}.\n"
    )


if __name__ == "__main__":
    main()
