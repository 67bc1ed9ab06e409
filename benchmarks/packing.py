"""Documents end to end against documents packed whole: the same texts, model, steps and seeds, trained on windows of
each kind, and what both then pay for held-out documents.

python benchmarks/packing.py ../shared/data/prose/enwiki-sample.jsonl.gz --write

Held-out documents are scored whole, in windows that slide by half their length (evals/bits.py): how the training data
was cut does not enter into it. `by its length`: documents that fit into a window, and those that do not.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "platform"))

VOCABULARY, HELD_OUT_PERCENT = 4096, 2.0


class Trained(NamedTuple):
    bits: dict[str, float]
    """Bits per byte of all held-out documents, and by their length."""
    padding: float
    """Share of the positions."""
    cut: float
    """Share of the documents that fit into a window and do not stand in one whole."""
    seconds: float


def prepare(options: argparse.Namespace, home: Path) -> list[Any]:
    """Writes a tokenizer and, for each packing, shards of the texts; returns the held-out documents."""
    import numpy as np

    from webtochat.recipe import TokenizerSection
    from webtochat.tokens import tokenizer as bpe
    from webtochat.tokens.shards import Document, write_shard, write_windows
    from webtochat.tokens.stage import held_out
    from webtochat.tokens.tokenizer import END_OF_TEXT
    from webtochat.tokens.windows import PACKINGS

    with gzip.open(options.texts, "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in lines]
    section = TokenizerSection()
    learned = bpe.train([text[: section.max_document_characters] for text in texts], VOCABULARY, section.pattern)
    learned.save(str(home / "tokenizer"))
    documents: dict[bool, list[Document]] = {False: [], True: []}
    for number, (text, ids) in enumerate(zip(texts, learned.encode_batch(texts), strict=True)):
        document = Document(str(number), "", np.asarray(ids, np.int64), len(text.encode()))
        documents[held_out(document.id, HELD_OUT_PERCENT)].append(document)
    for packing in PACKINGS:
        for split, chosen in (("train", documents[False]), ("validation", documents[True])):
            (home / packing / split).mkdir(parents=True)
            stem = str(home / packing / split / "shard-00000")
            write_shard(stem, chosen, learned.special(END_OF_TEXT), learned.vocabulary)
            write_windows(stem, chosen, packing, options.length)
    return documents[True]


def train(options: argparse.Namespace, home: Path, packing: str, seed: int, held_out: list[Any]) -> Trained:
    from webtochat.evals import bits
    from webtochat.model.export import load
    from webtochat.recipe import Model, Pretrain
    from webtochat.tokens.mixture import Corpus, Mixture
    from webtochat.tokens.tokenizer import END_OF_TEXT, Tokenizer
    from webtochat.train.rank import PretrainJob, pretrain_rank

    tokenizer = Tokenizer.load(str(home / "tokenizer"))
    windows = options.batch_tokens // options.length
    settings = Pretrain.model_validate({
        "optimizer": options.optimizer, "lr": options.lr, "decay_fraction": 0.5, "evaluate_every": 0,
        "checkpoint_every": 0, "seed": seed, "validation_tokens": options.length + 1,
    })  # fmt: skip
    corpora = (Corpus("own", str(home / packing), "-", 1.0),)
    directory = home / f"{packing}-{seed}"
    began = time.perf_counter()
    pretrain_rank(
        PretrainJob(
            directory=str(directory), settings=settings, sequence_length=options.length, windows_per_step=windows,
            steps=options.tokens // (windows * options.length), tokenizer=(str(home / "tokenizer"), "-"),
            tokens=(str(home / packing), "-"), mixture=corpora,
            model=Model(
                depth=options.depth, width=options.width, head_size=32, max_positions=options.length, seed=seed
            ),
        ),
        lambda message: None, options.threads,
    )  # fmt: skip
    seconds = time.perf_counter() - began
    model = load(str(directory / "model")).eval()
    paid = bits.document_bits(model, held_out, tokenizer.special(END_OF_TEXT), options.length)
    told = {}
    for name, kept in (("all", (0, 1)), ("short", (1,)), ("long", (0,))):
        chosen = [number for number, each in enumerate(held_out) if (len(each.tokens) < options.length) in kept]
        told[name] = paid[chosen].sum() / sum(held_out[number].bytes for number in chosen)
    [split] = Mixture(corpora, options.length, tokenizer.vocabulary).splits
    return Trained(told, 1 - split.filled, cut(split, options.length), seconds)


def cut(split: Any, length: int) -> float:
    """Share of the documents that fit into a window and do not stand in one whole."""
    import numpy as np

    spans = np.array([span for number in range(len(split)) for span in split.spans(number)[1]])
    spans = spans[np.argsort(spans[:, 0])]
    lengths = np.array([len(document.tokens) for document in split.documents()])
    first = np.cumsum(lengths + 1) - lengths - 1
    inside = np.searchsorted(spans[:, 0], first, side="right") - 1
    whole = first + lengths < spans[inside].sum(1) + 1
    return float((~whole)[lengths < length].mean())


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("texts", nargs="?", default=str(ROOT / "../shared/data/prose/enwiki-sample.jsonl.gz"))
    arguments.add_argument("--length", type=int, default=256, help="positions in a window")
    arguments.add_argument("--tokens", type=int, default=1_000_000, help="positions trained on")
    arguments.add_argument("--batch-tokens", type=int, default=2048)
    arguments.add_argument("--depth", type=int, default=4)
    arguments.add_argument("--width", type=int, default=160)
    arguments.add_argument("--optimizer", default="muon")
    arguments.add_argument("--lr", type=float, default=3e-3)
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    arguments.add_argument("--write", action="store_true", help="into docs/benchmarks.md")
    options = arguments.parse_args()
    found: dict[str, list[Trained]] = {"stream": [], "best-fit": []}
    with tempfile.TemporaryDirectory(prefix="webtochat-benchmark-") as folder:
        held_out = prepare(options, Path(folder))
        for seed in range(1, options.seeds + 1):
            for packing, trained in found.items():
                trained.append(train(options, Path(folder), packing, seed, held_out))
                print(f"seed {seed} {packing}: {trained[-1]}", flush=True)
    told = report(options, found, held_out)
    print(told)
    if options.write:
        from record import record

        sizes = f"--length {options.length} --tokens {options.tokens} --optimizer {options.optimizer}"
        command = f"benchmarks/packing.py {Path(options.texts).name} {sizes} --seeds {options.seeds} --write"
        record(f"Packing ({sizes})", command, told)


def report(options: argparse.Namespace, found: dict[str, list[Trained]], held_out: list[Any]) -> str:
    rows = [
        f"| {packing} | {trained[0].cut:.1%} | {trained[0].padding:.2%} | "
        + " | ".join(f"{statistics.mean(each.bits[part] for each in trained):.4f}" for part in ("all", "short", "long"))
        + f" | {statistics.mean(each.seconds for each in trained):.0f} |\n"
        for packing, trained in found.items()
    ]
    gained = [
        stream.bits["all"] - fitted.bits["all"]
        for stream, fitted in zip(found["stream"], found["best-fit"], strict=True)
    ]
    return (
        f"Depth {options.depth}, width {options.width}, vocabulary {VOCABULARY:,}, windows of {options.length}, "
        f"{options.tokens:,} positions of {Path(options.texts).name} in steps of {options.batch_tokens:,} "
        f"({options.optimizer}, {options.lr:g}); means of {options.seeds} seeds, {options.threads} threads. Bits per "
        f"byte of {len(held_out):,} held-out documents. By seed, best-fit is better by "
        f"{', '.join(f'{each:+.4f}' for each in gained)}.\n\n"
        "| packing | documents cut that fit a window | padding | bits per byte | of documents that fit a window "
        "| of longer ones | seconds |\n| --- | --- | --- | --- | --- | --- | --- |\n" + "".join(rows)
    )


if __name__ == "__main__":
    main()
