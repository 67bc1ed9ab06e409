"""Near duplicates: documents of random words with planted pairs of known similarity, ours beside datatrove's MinHash
and datasketch's MinHashLSH, on the same documents, one after the other.

python benchmarks/duplicates.py --peers .venv-peers/bin/python --write

A pair shares a run of words, at another place in each of its two documents; its similarity is counted from its sets of
5-word shingles. A pair is found if one of its documents goes. Times are from JSON lines to the list of what goes: ours
in Ray, as the stage curate has it, datatrove's with its local executor, datasketch's in one process.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import string
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # as Ray's workers have it

ROOT = Path(__file__).resolve().parent.parent
for folder in ("jobs", "platform"):
    sys.path.insert(0, str(ROOT / folder))

SIMILARITIES = [number / 100 for number in range(50, 101, 5)]
BUCKETS, ROWS, SHINGLE = 14, 8, 5
VOCABULARY, LEAST_WORDS, MOST_WORDS = 8_000, 60, 200
"""So many that no shingle comes twice by chance (there are 3 × 10^18), and so few that a cache of words holds them, as
it holds most of a language's."""
PAIRED, LEAST_WEIGHT = 0.99, 0.02
FILES = 8
UP = "webtochat, its workers up"
NEAR = 0.02
"""Differences from the expected share that are larger are marked."""


class Pair(NamedTuple):
    wanted: float
    similarity: float
    """As counted; whole numbers of shingles do not give every similarity."""
    documents: tuple[int, int]


class Result(NamedTuple):
    name: str
    processes: int
    seconds: tuple[float, float]
    """Of the signatures, and of finding."""
    removed: set[int]


def chance(similarity: float) -> float:
    """Of a pair, to be found."""
    return 1 - (1 - similarity**ROWS) ** BUCKETS


def generated(count: int, seed: int) -> tuple[list[str], list[Pair]]:
    """Documents in a random order, and the pairs among them: of each similarity in proportion to the variance of its
    being found, so that the shares are all as certain."""
    rng = random.Random(seed)
    vocabulary: dict[str, None] = {}
    while len(vocabulary) < VOCABULARY:
        vocabulary["".join(rng.choices(string.ascii_lowercase, k=rng.randint(5, 10)))] = None
    words = list(vocabulary)
    places = list(range(count))
    rng.shuffle(places)
    documents, pairs = [""] * count, []
    weights = [max(LEAST_WEIGHT, chance(similarity) * (1 - chance(similarity))) for similarity in SIMILARITIES]
    for similarity, weight in zip(SIMILARITIES, weights, strict=True):
        for _ in range(int(PAIRED * count / 2 * weight / sum(weights))):
            one, other = _pair(similarity, words, rng)
            first, second = places.pop(), places.pop()
            documents[first], documents[second] = " ".join(one), " ".join(other)
            pairs.append(Pair(similarity, _similarity(one, other), (first, second)))
    for place in places:
        documents[place] = " ".join(rng.sample(words, rng.randint(LEAST_WORDS, MOST_WORDS)))
    return documents, pairs


def _pair(similarity: float, words: list[str], rng: random.Random) -> tuple[list[str], list[str]]:
    """No word stands in a document twice, so that a run of n words has n - 4 shingles, all different. Two documents of
    n shingles each that share k have similarity k / (2n - k)."""
    length = rng.randint(LEAST_WORDS, MOST_WORDS)
    common = round(2 * (length - SHINGLE + 1) * similarity / (1 + similarity)) + SHINGLE - 1
    drawn = rng.sample(words, 2 * length - common)
    run, rest = drawn[:common], [drawn[common:length], drawn[length:]]
    cuts = [rng.randint(0, length - common) for _ in rest]
    one, other = ([*own[:cut], *run, *own[cut:]] for own, cut in zip(rest, cuts, strict=True))
    return one, other


def _similarity(one: list[str], other: list[str]) -> float:
    first, second = (set(zip(*(words[start:] for start in range(SHINGLE)), strict=False)) for words in (one, other))
    return len(first & second) / len(first | second)


def write(documents: list[str], folder: Path) -> None:
    """JSON lines, in files of as many documents."""
    size = -(-len(documents) // FILES)
    for number, start in enumerate(range(0, len(documents), size)):
        with (folder / f"{number:02d}.jsonl").open("w") as file:
            for place, text in enumerate(documents[start : start + size], start):
                file.write(json.dumps({"id": str(place), "text": text}) + "\n")


def ours(folder: Path, work: Path, workers: int, documents: int) -> tuple[list[Result], float]:
    """Found in one task and by shuffle, which find the same; and the seconds that Ray takes to start. The documents are
    signed twice: the first time Ray's workers start, the second time they are up."""
    import ray

    import job
    from webtochat.curate.stage import spread
    from webtochat.duplicates import stage
    from webtochat.recipe import Recipe
    from webtochat.recipe_pages import NearDuplicates

    began = time.perf_counter()
    job.join(Recipe(name="duplicates"))
    started = time.perf_counter() - began
    settings = NearDuplicates(buckets=BUCKETS, rows=ROWS, shingle_words=SHINGLE)
    files = sorted(folder.glob("*.jsonl"))
    rows = [{"source": str(path), "signed": str(work / f"{path.stem}.parquet")} for path in files]
    signed = []
    for _ in range(2):
        began = time.perf_counter()
        for _ in spread(_sign, rows, settings, workers):
            pass
        signed.append(time.perf_counter() - began)
    signatures = [(row["signed"], number) for number, row in enumerate(rows)]
    size = -(-documents // FILES)
    results = []
    for name, signing, exact, alone_rows in (
        ("webtochat", signed[0], True, stage.ALONE_ROWS), (UP, signed[1], True, stage.ALONE_ROWS),
        (f"{UP}, by shuffle", signed[1], True, 0), ("near duplicates only", signed[1], False, stage.ALONE_ROWS),
    ):  # fmt: skip
        found = work / name
        began = time.perf_counter()
        stage.find(signatures, [0], str(found), exact, True, alone_rows)
        removed = {part * size + row for part, row in _found(found)}
        results.append(Result(name, workers, (signing, time.perf_counter() - began), removed))
    ray.shutdown()
    if len({frozenset(result.removed) for result in results}) > 1:
        raise RuntimeError(f"not the same was found: {[(each.name, len(each.removed)) for each in results]}")
    return results[:3], started


def _sign(row: dict[str, Any], settings: Any) -> dict[str, Any]:
    """The signatures of a file's documents, as curate's first pass writes them."""
    import hashlib

    from webtochat.duplicates import minhash, signatures

    signed = []
    with open(row["source"]) as lines:
        for number, line in enumerate(lines):
            text = json.loads(line)["text"]
            encoded = text.encode()
            signed.append({
                "row": number, "text_hash": hashlib.sha256(encoded).digest()[:16], "bytes": len(encoded),
                "buckets": minhash.buckets(text, settings),
            })  # fmt: skip
    signatures.write(row["signed"], signed)
    return {"signed": len(signed)}


def _found(directory: Path) -> Iterator[tuple[int, int]]:
    import pyarrow.parquet as pq

    for path in directory.glob("*.parquet"):
        for row in pq.read_table(path, columns=["part", "row"]).to_pylist():
            yield row["part"], row["row"]


def peer(name: str, folder: Path, work: Path, python: str, workers: int, documents: int) -> Result:
    made = work / f"{name}.json"
    command = [os.path.abspath(python), str(ROOT / "benchmarks" / "peers.py"), f"{name}-duplicates", str(folder)]
    command += [str(work / name), str(workers), str(made)]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL, cwd=work)  # it leaves logs where it runs
    told = json.loads(made.read_text())
    removed = set(range(documents)).difference(map(int, told["kept"]))
    return Result(f"{name} {told['version']}", told["processes"], (told["signatures"], told["finding"]), removed)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--peers", required=True, help="a Python that has requirements/peers.txt")
    arguments.add_argument("--documents", type=int, default=100_000)
    arguments.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--write", action="store_true", help="put the figures into docs/benchmarks.md")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="webtochat-") as temporary:
        os.environ["RAY_TMPDIR"] = temporary
        work, folder = Path(temporary), Path(temporary) / "documents"
        folder.mkdir()
        load = os.getloadavg()[0]
        documents, pairs = generated(options.documents, options.seed)
        write(documents, folder)
        count = len(documents)
        results, started = ours(folder, work, options.workers, count)
        for name in ("datatrove", "datasketch"):
            results.append(peer(name, folder, work, options.peers, options.workers, count))
    told = report(count, pairs, results, started, load)
    print(told)
    if options.write:
        from record import record

        record("Near duplicates", "benchmarks/duplicates.py --peers … --write", told)


def report(documents: int, pairs: list[Pair], results: list[Result], started: float, load: float) -> str:
    shown = [result for result in results if not result.name.startswith(UP)]
    rows: list[list[str]] = []
    largest = [0.0] * len(shown)
    for wanted in SIMILARITIES:
        group = [pair for pair in pairs if pair.wanted == wanted]
        chances = [chance(pair.similarity) for pair in group]
        expected = sum(chances) / len(group)
        error = sum(each * (1 - each) for each in chances) ** 0.5 / len(group)
        shares = [len(_pairs_found(result, group)) / len(group) for result in shown]
        largest = [max(before, abs(share - expected)) for before, share in zip(largest, shares, strict=True)]
        cells = [f"**{share:.3f}**" if abs(share - expected) > NEAR else f"{share:.3f}" for share in shares]
        rows.append([f"{wanted:.2f}", f"{len(group):,}", f"{expected:.3f}", f"{error:.3f}", *cells])
    rows.append(["largest difference", "", "", "", *(f"{value:.3f}" for value in largest)])
    false = [len(result.removed) - len(_pairs_found(result, pairs)) for result in shown]
    rows.append(["documents falsely removed", "", "", "", *map(str, false)])
    theirs = next(sum(result.seconds) for result in results if result.name.startswith("datatrove"))
    timed = []
    for number, result in enumerate(results):
        parts, seconds = [f"{each:.1f}" for each in result.seconds], sum(result.seconds)
        timed.append([result.name, str(result.processes), *parts, *_speed(seconds, theirs, documents)])
        if number == 0:
            speed = _speed(seconds + started, theirs, documents)
            timed.append(["webtochat, Ray's start included", str(result.processes), *parts, *speed])
    return (
        f"{documents:,} documents of {LEAST_WORDS} to {MOST_WORDS} random words, {len(pairs):,} pairs among them; "
        f"{BUCKETS} buckets of {ROWS} hashes, shingles of {SHINGLE} words. Expected: the mean of 1 − (1 − s⁸)¹⁴ over "
        "the pairs' counted s; ±: the standard error of a share. Bold: more than "
        f"{NEAR} from what is expected. The load of the machine at the start {load:.1f}, at the end "
        f"{os.getloadavg()[0]:.1f}.\n\n"
        + _table(["s", "pairs", "expected", "±", *(result.name for result in shown)], rows)
        + "\nBy shuffle and in one task the same documents were found, and the same again with the texts' own hashes "
        "left out. datasketch splits at spaces, the others also normalise.\n\n"
        + _table(["", "processes", "signatures, s", "finding, s", "whole, s", "documents/s", "times datatrove"], timed)
    )


def _pairs_found(result: Result, pairs: list[Pair]) -> list[Pair]:
    return [pair for pair in pairs if not result.removed.isdisjoint(pair.documents)]


def _speed(seconds: float, theirs: float, documents: int) -> list[str]:
    return [f"{seconds:.1f}", f"{documents / seconds:,.0f}", f"{theirs / seconds:.1f}"]


def _table(names: list[str], rows: list[list[str]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in [names, ["---"] * len(names), *rows])


if __name__ == "__main__":
    main()
