"""Training a tokenizer beside rustbpe and Hugging Face, and encoding beside tiktoken and Hugging Face, on the same
texts, one after the other.

python benchmarks/tokenizer.py '../shared/data/prose/*.jsonl.gz' --peers .venv-peers/bin/python --write

The peers' environment needs rustbpe, tiktoken and tokenizers. Training is timed from texts in memory to merges: ours in
processes that each count a part, as the stage's tasks do (Ray itself not counted), then in one; theirs in threads.
Encoding is timed on one core, with the tokenizer that ours learned.
"""

from __future__ import annotations

import argparse
import glob
import gzip
import hashlib
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "platform"))

MEGA = 1_000_000
TEXTS: list[str] = []
"""Here so that forked processes have them, as the peers' threads do."""


def read(pattern: str, characters: int) -> Iterator[str]:
    """Texts until there are so many characters; the last one is cut."""
    paths = sorted(glob.glob(pattern))
    for path in paths:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                text = json.loads(line)["text"][:characters]
                characters -= len(text)
                yield text
                if characters <= 0:
                    return
    if not paths:
        sys.exit(f"error: no file matches {pattern}")


def parts(number: int) -> list[slice]:
    """Slices of the texts, of about as many characters each."""
    limit, edges, seen = sum(map(len, TEXTS)) / number, [0], 0
    for place, text in enumerate(TEXTS, 1):
        seen += len(text)
        if seen >= limit * len(edges) and len(edges) < number:
            edges.append(place)
    return [slice(first, last) for first, last in zip(edges, [*edges[1:], len(TEXTS)], strict=True)]


def count(part: slice, path: str) -> None:
    from webtochat.recipe import TokenizerSection
    from webtochat.tokens import counts

    section = TokenizerSection()
    counts.write(counts.count(TEXTS[part], section.pattern, section.max_pieces), path)


def learn(workers: int, vocabulary: int, folder: str) -> tuple[Any, dict[str, float]]:
    """The tokenizer, and the seconds of its steps."""
    from webtochat.recipe import TokenizerSection
    from webtochat.tokens import counts
    from webtochat.tokens import tokenizer as bpe

    section = TokenizerSection()
    began = time.perf_counter()
    jobs = [(part, f"{folder}/{number}.parquet") for number, part in enumerate(parts(workers))]
    with multiprocessing.get_context("fork").Pool(workers) as pool:
        pool.starmap(count, jobs, chunksize=1)
    counted = time.perf_counter()
    total = counts.together((counts.read(path) for _, path in jobs), section.max_pieces)
    learned = bpe.learn(total.table, vocabulary, section.pattern)
    ended = time.perf_counter()
    return learned, {"counting": counted - began, "merges": ended - counted, "pieces": len(total.table)}


def encoding(tokenizer: Any, characters: int, rounds: int) -> tuple[float, int, str]:
    """Seconds (the best round) and bytes of the first texts, and a hash of their ids."""
    texts, left = [], characters
    for text in TEXTS:
        texts.append(text[:left])
        left -= len(texts[-1])
        if left <= 0:
            break
    spent = []
    for _ in range(rounds):
        digest, began = hashlib.sha256(), time.perf_counter()
        for text in texts:
            digest.update(array("I", tokenizer.encode(text)).tobytes())
        spent.append(time.perf_counter() - began)
    return min(spent), sum(len(text.encode()) for text in texts), digest.hexdigest()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("texts", nargs="?", default=str(ROOT / "../shared/data/prose/*.jsonl.gz"))
    arguments.add_argument("--megabytes", type=float, default=60, help="millions of characters to learn from")
    arguments.add_argument("--encode", type=float, default=10, help="millions of characters to encode")
    arguments.add_argument("--vocabulary", type=int, default=32_768)
    arguments.add_argument("--workers", type=int, default=os.cpu_count())
    arguments.add_argument("--rounds", type=int, default=3, help="of which the best counts (Hugging Face learns once)")
    arguments.add_argument("--peers", default=sys.executable, help="a Python that has rustbpe, tiktoken and tokenizers")
    arguments.add_argument("--write", action="store_true", help="into docs/benchmarks.md")
    options = arguments.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="webtochat-benchmark-") as folder:
        source, made = Path(folder) / "texts.jsonl", Path(folder) / "figures.json"
        TEXTS.extend(read(options.texts, int(options.megabytes * MEGA)))
        source.write_text("".join(json.dumps(text) + "\n" for text in TEXTS))
        runs = [learn(options.workers, options.vocabulary, folder) for _ in range(options.rounds)]
        learned, mine = min(runs, key=lambda run: run[1]["counting"] + run[1]["merges"])
        learned.save(folder)
        learned.save_ranks(f"{folder}/tokenizer.tiktoken")
        seconds, size, digest = encoding(learned, int(options.encode * MEGA), options.rounds)
        command = [os.path.abspath(options.peers), str(ROOT / "benchmarks" / "peers.py"), "tokenizers", str(source)]
        command += [folder, str(options.vocabulary), str(int(options.encode * MEGA)), str(options.rounds), str(made)]
        limits = {"RAYON_NUM_THREADS": str(options.workers)}
        subprocess.run(command, check=True, env=os.environ | limits)
        theirs = json.loads(made.read_text())
        mine |= {"encoding": seconds, "bytes": size, "same": set(theirs["digests"].values()) == {digest}}
        told = report(learned, mine, theirs, options, load)
    print(told)
    if options.write:
        from record import record

        record("Tokenizer", "benchmarks/tokenizer.py --peers … --write", told)


def report(learned: Any, mine: dict[str, Any], theirs: dict[str, Any], options: argparse.Namespace, load: float) -> str:
    merges = json.loads(learned.backend.to_str())["model"]["merges"]
    tokens = {learned.bytes_of([number]).hex() for number in range(learned.vocabulary - len(learned.special_ids))}
    names = {name: f"{name} {number}" for name, number in theirs["versions"].items()}
    whole = mine["counting"] + mine["merges"]
    trained = [
        [name, f"{seconds:.1f}", f"{seconds / whole:.2f}"]
        for name, seconds in (
            ("webtochat", whole), (names["rustbpe"], theirs["rustbpe"]), (names["tokenizers"], theirs["tokenizers"]),
        )
    ]  # fmt: skip
    encoded = [
        [name, f"{mine['bytes'] / seconds / MEGA:.1f}", f"{seconds / mine['encoding']:.2f}"]
        for name, seconds in (
            ("webtochat", mine["encoding"]), (names["tiktoken"], theirs["tiktoken_encoding"]),
            (names["tokenizers"], theirs["tokenizers_encoding"]),
        )
    ]  # fmt: skip
    same = "the same" if merges == theirs["merges"] else "NOT the same"
    return (
        f"{options.vocabulary:,} tokens from {sum(map(len, TEXTS)) / MEGA:.1f} M characters in {len(TEXTS):,} texts, "
        f"{mine['pieces']:,} distinct pre-tokens; {options.workers} processes or threads. Ours counts for "
        f"{mine['counting']:.1f} s and learns merges for {mine['merges']:.1f} s. The merges are {same} as Hugging "
        f"Face's, in the same order; rustbpe has {len(tokens & set(theirs['rustbpe_tokens'])) / len(tokens):.1%} of "
        f"the tokens. The load of the machine at the start {load:.1f}, at the end {os.getloadavg()[0]:.1f}.\n\n"
        + table(["training", "s", "times ours"], trained)
        + f"\n{mine['bytes'] / MEGA:.1f} MB encoded on one core, text by text, to "
        + ("the same ids by all three" if mine["same"] else "ids that are NOT the same")
        + ":\n\n"
        + table(["encoding", "MB/s", "times our seconds"], encoded)
    )


def table(names: list[str], rows: list[list[str]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in [names, ["---"] * len(names), *rows])


if __name__ == "__main__":
    main()
