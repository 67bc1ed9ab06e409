"""Main-content extraction on pages whose main content people marked: ours, Resiliparse, Trafilatura.

python benchmarks/extract.py --data ../shared/data --peers .venv-peers/bin/python --write
python benchmarks/extract.py --data ../shared/data --train        writes platform/webtochat/curate/main_content.json

Ours is measured on pages that it was not trained on: in five parts by host, the network is trained on four and asked
about the fifth. The one that is written is trained on all. F1 is that of the words (as a multiset) of a page's text
against those of its gold text, the mean over pages; a page of which nothing comes counts 0.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # as Ray's workers have it; a second thread spins for nothing
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "platform"))

PARTS, EPOCHS, PAGES_PER_STEP, HIDDEN, RATE = 5, 16, 8, 16, 4e-3
_WORD = re.compile(r"\w+")


class Gold(NamedTuple):
    url: str
    page_type: str
    html: bytes
    content_type: str | None
    words: Counter[str]
    text: str


class Example(NamedTuple):
    """A page as the network is trained on it; all tensors over its blocks."""

    features_NF: Any
    main_N: Any
    """Share of a block's words that the gold text has."""
    sizes_N: Any
    words_N: Any
    gold_words: float


def read_gold(data: Path) -> list[Gold]:
    from warcio.archiveiterator import ArchiveIterator

    marked = {}
    for path in sorted((data / "gold").glob("*.jsonl.gz")):
        with gzip.open(path, "rt") as source:
            marked.update({row["url"]: row for row in map(json.loads, source)})
    found = []
    for path in sorted((data / "warc").glob("pages-*.warc.gz")):
        with open(path, "rb") as warc:
            for record in ArchiveIterator(warc):
                headers = record.rec_headers
                row = marked.get(headers.get_header("WARC-Target-URI"))
                if row is None or row["set"] != headers.get_header("X-Source-Set"):
                    continue
                text = row["main_content"] or ""
                content_type = record.http_headers.get_header("content-type")
                body = record.content_stream().read()
                found.append(Gold(row["url"], row["page_type"], body, content_type, words_of(text), text))
    return found


def words_of(text: str) -> Counter[str]:
    return Counter(_WORD.findall(text.lower()))


def scores(text: str, gold: Counter[str]) -> tuple[float, float, float]:
    """Precision, recall and F1 of words."""
    found = words_of(text)
    right = (found & gold).total()
    precision, recall = right / max(1, found.total()), right / max(1, gold.total())
    return precision, recall, 2 * precision * recall / max(1e-9, precision + recall)


def part_of(url: str) -> int:
    return hashlib.sha256(urlsplit(url).netloc.encode()).digest()[0] % PARTS


# training ------------------------------------------------------------------------------------------------------------


def example(gold: Gold) -> Example | None:
    import torch

    from webtochat.curate.blocks import read
    from webtochat.curate.extract import decode
    from webtochat.curate.main_content import features, sizes

    page = read(decode(gold.html, gold.content_type))
    if not page.blocks:
        return None
    words = _WORD.findall(gold.text.lower())
    threes = set(zip(words, words[1:], words[2:], strict=False))
    lines = {" ".join(_WORD.findall(line.lower())) for line in gold.text.splitlines()}

    def main(text: str) -> float:
        own = _WORD.findall(text.lower())
        found = [three in threes for three in zip(own, own[1:], own[2:], strict=False)]
        return sum(found) / len(found) if found else float(" ".join(own) in lines)

    return Example(
        torch.from_numpy(features(page)), torch.tensor([main(block.text) for block in page.blocks]),
        torch.from_numpy(sizes(page)), torch.tensor([float(len(_WORD.findall(block.text))) for block in page.blocks]),
        float(len(words)),
    )  # fmt: skip


def train(examples: list[Example], seed: int = 1) -> dict[str, np.ndarray]:
    """Weights as main_content.json holds them. The loss of a page is 1 - F1 of its words, with probabilities for
    choices, and the cross-entropy of its blocks."""
    import torch
    import torch.nn.functional as F

    torch.manual_seed(seed)
    every = torch.cat([each.features_NF for each in examples])
    width = every.shape[1]
    fixed = {"mean": every.mean(0), "deviation": every.std(0) + 0.1}
    shapes = {
        "in": (width, HIDDEN), "near": (5, HIDDEN, HIDDEN), "far": (5, HIDDEN, HIDDEN), "page": (2 * HIDDEN, HIDDEN),
        "out": (HIDDEN,),
    }  # fmt: skip
    learned = {}
    for name, shape in shapes.items():
        reach = (np.prod(shape) / (HIDDEN if len(shape) > 1 else 1)) ** -0.5
        learned[name] = ((torch.rand(shape) * 2 - 1) * reach).requires_grad_()
        learned[f"{name}_bias"] = torch.zeros(HIDDEN if name != "out" else ()).requires_grad_()

    def logits(features_NF: Any, sizes_N: Any) -> Any:
        hidden = F.relu((features_NF - fixed["mean"]) / fixed["deviation"] @ learned["in"] + learned["in_bias"])
        for name, apart in (("near", 1), ("far", 4)):
            kernel = learned[name].permute(2, 1, 0)
            around = F.conv1d(hidden.T[None], kernel, learned[f"{name}_bias"], padding=2 * apart, dilation=apart)
            hidden = F.relu(around[0].T) + hidden
        page = torch.cat([sizes_N / sizes_N.sum() @ hidden, hidden.max(0).values])
        hidden = F.relu(hidden + page @ learned["page"] + learned["page_bias"])
        return hidden @ learned["out"] + learned["out_bias"]

    optimizer = torch.optim.AdamW(learned.values(), lr=RATE, weight_decay=0.05)
    steps = EPOCHS * (len(examples) // PAGES_PER_STEP)
    step = 0
    for _ in range(EPOCHS):
        order = torch.randperm(len(examples)).tolist()
        for start in range(0, len(order) - PAGES_PER_STEP + 1, PAGES_PER_STEP):
            optimizer.param_groups[0]["lr"] = RATE * min(1, (step + 1) / 50) * (1 - step / steps)
            loss = torch.zeros(())
            for number in order[start : start + PAGES_PER_STEP]:
                features_NF, main_N, sizes_N, words_N, gold_words = examples[number]
                logit_N = logits(F.dropout(features_NF, 0.1), sizes_N)
                chosen_N = torch.sigmoid(logit_N) * words_N
                right = (chosen_N * main_N).sum()
                possible = max(gold_words, float((main_N * words_N).sum()))
                entropy_N = F.binary_cross_entropy_with_logits(logit_N, main_N, reduction="none")
                entropy = (entropy_N * (words_N + 2)).sum() / (words_N + 2).sum()
                loss = loss + 1 - 2 * right / (chosen_N.sum() + possible + 1e-6) + 0.5 * entropy
            optimizer.zero_grad()
            (loss / PAGES_PER_STEP).backward()
            torch.nn.utils.clip_grad_norm_(learned.values(), 1.0)
            optimizer.step()
            step += 1
    # As written: three digits, so that what is measured is what is shipped.
    weights = {**fixed, **learned}
    return {name: rounded(values.detach().numpy()) for name, values in weights.items()}


def rounded(values: np.ndarray) -> np.ndarray:
    return np.array([float(f"{value:.3g}") for value in values.ravel()], np.float32).reshape(values.shape)


def write_weights(weights: dict[str, np.ndarray]) -> int:
    from webtochat.curate.main_content import WEIGHTS

    def plain(values: Any) -> Any:
        return [plain(each) for each in values] if isinstance(values, list) else float(f"{values:.3g}")

    lines = [
        f'"{name}": {json.dumps(plain(values.tolist()), separators=(",", ":"))}' for name, values in weights.items()
    ]
    WEIGHTS.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    return WEIGHTS.stat().st_size


# measuring -----------------------------------------------------------------------------------------------------------


def ours_unseen(pages: list[Gold]) -> list[str]:
    """Each page's text by a network that was not trained on its host's pages."""
    from webtochat.curate.blocks import read
    from webtochat.curate.extract import decode, written
    from webtochat.curate.main_content import chosen

    examples = [(part_of(page.url), example(page)) for page in pages]
    weights = []
    for part in range(PARTS):
        weights.append(train([each for number, each in examples if number != part and each is not None]))
        print(f"trained without part {part + 1} of {PARTS}", file=sys.stderr, flush=True)
    texts = []
    for gold in pages:
        page = read(decode(gold.html, gold.content_type))
        texts.append(written(chosen(page, weights[part_of(gold.url)])) if page.blocks else "")
    return texts


def timed_ours(pages: list[Gold]) -> list[float]:
    """Milliseconds of CPU of each page, from bytes to text."""
    from webtochat.curate.extract import ExtractionError, extract

    found = []
    for gold in [pages[0], *pages]:
        began = time.process_time()
        with suppress(ExtractionError):
            extract(gold.html, gold.content_type)
        found.append((time.process_time() - began) * 1000)
    return found[1:]


def resiliparse(pages: list[Gold]) -> tuple[list[str], list[float]]:
    from resiliparse.extract.html2text import extract_plain_text

    from webtochat.curate.extract import decode

    texts, took = [], []
    for gold in [pages[0], *pages]:
        began = time.process_time()
        markup = decode(gold.html, gold.content_type)
        texts.append(extract_plain_text(markup, main_content=True, alt_texts=False) if markup.strip() else "")
        took.append((time.process_time() - began) * 1000)
    return texts[1:], took[1:]


def trafilatura(pages: list[Gold], python: str) -> tuple[str, list[str], list[float]]:
    """In the peers' own environment (requirements/peers.txt)."""
    from webtochat.curate.extract import decode

    with tempfile.TemporaryDirectory() as folder:
        source, made = Path(folder) / "pages.jsonl", Path(folder) / "texts.jsonl"
        source.write_text("".join(json.dumps(decode(page.html, page.content_type)) + "\n" for page in pages))
        command = [python, str(Path(__file__).with_name("peers.py")), "trafilatura", str(source), str(made)]
        subprocess.run(command, check=True)
        version, *rows = map(json.loads, made.read_text().splitlines())
    return version, [row["text"] for row in rows], [row["ms"] for row in rows]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    arguments.add_argument("--peers", help="a Python that has requirements/peers.txt, to compare with Trafilatura")
    arguments.add_argument("--train", action="store_true", help="train on all pages and write main_content.json")
    arguments.add_argument("--write", action="store_true", help="put the figures into docs/benchmarks.md")
    options = arguments.parse_args()
    import torch

    torch.set_num_threads(1)
    pages = read_gold(options.data)
    if options.train:
        size = write_weights(train([each for each in map(example, pages) if each is not None]))
        print(f"main_content.json: {size:,} bytes, from {len(pages)} pages")
        return
    told = compare(pages, options.peers)
    print(told)
    if options.write:
        from record import record

        record("Extraction", "benchmarks/extract.py --peers … --write", told)


def compare(pages: list[Gold], peers: str | None) -> str:
    from importlib.metadata import version

    from webtochat.curate.blocks import read
    from webtochat.curate.extract import decode, written

    systems: dict[str, tuple[list[str], list[float] | None]] = {
        "everything readable": ([written(read(decode(page.html, page.content_type)).blocks) for page in pages], None),
        f"Resiliparse {version('resiliparse')}, main content": resiliparse(pages),
    }
    if peers:
        release, *found = trafilatura(pages, peers)
        systems[f"Trafilatura {release}"] = (found[0], found[1])
    systems["webtochat, pages of hosts it was not trained on"] = (ours_unseen(pages), timed_ours(pages))
    types = sorted({page.page_type for page in pages}, key=lambda kind: -sum(page.page_type == kind for page in pages))
    numbers = {kind: sum(page.page_type == kind for page in pages) for kind in types}
    rows = ["| | P | R | F1 | ms a page | " + " | ".join(f"{kind} ({numbers[kind]})" for kind in types) + " |"]
    rows.append("| --- | --- | --- | --- | --- |" + " --- |" * len(types))
    for name, (texts, took) in systems.items():
        each = np.array([scores(text, page.words) for text, page in zip(texts, pages, strict=True)])
        by_type = [each[[page.page_type == kind for page in pages], 2].mean() for kind in types]
        cells = [f"{value:.3f}" for value in each.mean(axis=0)] + [f"{np.mean(took):.1f}" if took else ""]
        rows.append(f"| {name} | " + " | ".join(cells + [f"{value:.3f}" for value in by_type]) + " |")
    size = sum(len(page.html) for page in pages) / len(pages) / 1000
    return (
        f"{len(pages)} pages, {size:.0f} KB each on average. F1 of words, mean over pages, and by type of page; CPU "
        "time from bytes to text, on one core.\n\n" + "\n".join(rows) + "\n"
    )


if __name__ == "__main__":
    main()
