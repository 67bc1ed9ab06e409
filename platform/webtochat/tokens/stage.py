"""The tokenizer and tokens stages over the cluster: one task per file of kept documents counts its pre-tokens, and one
learns the merges from all counts; one task per file writes that file's shard of each split."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray

from webtochat import start, storage
from webtochat.artifact import Artifact
from webtochat.curate.stage import spread
from webtochat.errors import UserError
from webtochat.recipe import TokenizerSection
from webtochat.run import Run, Stage
from webtochat.start import Start
from webtochat.tokens import counts
from webtochat.tokens import tokenizer as bpe
from webtochat.tokens.imported import adopted
from webtochat.tokens.shards import Document, write_shard, write_windows
from webtochat.tokens.tokenizer import Tokenizer

SPLITS = ("train", "validation")


def kept_texts(paths: list[str], columns: list[str], rows: int = 512) -> Iterator[dict[str, list]]:
    """Columns of the kept documents, a few hundred rows at a time."""
    for path in paths:
        with storage.open_input_file(path) as source:
            for batch in pq.ParquetFile(source).iter_batches(batch_size=rows, columns=columns):
                yield batch.to_pydict()


def capped(paths: list[str], max_characters: int, max_document_characters: int) -> Iterator[str]:
    """Texts in order, each cut and all together limited (nanochat learns its merges from 2 G characters so)."""
    left = max_characters
    if left <= 0:
        return
    for batch in kept_texts(paths, ["text"]):
        for text in batch["text"]:
            piece = text[: min(max_document_characters, left)]
            left -= len(piece)
            yield piece
            if left <= 0:
                return


def tokenizer(run: Run) -> Artifact:
    if run.recipe.tokenizer_start is not None:
        return _given(run, start.find(run.recipe.tokenizer_start, start.TOKENIZER_FILES))
    curated = run.open("curate")
    identity = run.recipe.identity("tokenizer")
    for key in ("start", "markers"):
        del identity["tokenizer"][key]
    stage = run.begin("tokenizer", identity, [curated])
    if isinstance(stage, Artifact):
        return stage
    with stage:
        section = run.recipe.tokenizer
        paths = curated.files("kept/")
        limits = _limits(stage, paths, section, curated.manifest.counts.get("kept_bytes"))
        counted = [stage.scratch("counts", f"{number:05d}.parquet") for number in range(len(paths))]
        there = {entry.path for entry in storage.files_below(stage.scratch("counts"))}
        todo = [
            {"path": path, "limit": limit, "counted": made}
            for path, limit, made in zip(paths, limits, counted, strict=True) if made not in there
        ]  # fmt: skip
        for done, _ in enumerate(spread(_count, todo, section, None), len(paths) - len(todo) + 1):
            stage.progress(done, len(paths), "files", "counted")
        started = time.monotonic()
        learning = ray.remote(num_cpus=1)(_learn).remote(counted, paths, section, stage.path())
        while not ray.wait([learning], timeout=5)[0]:
            stage.progress(time.monotonic() - started, None, "s", "learning merges")
        made = ray.get(learning)
        vocabulary, characters, size = made["vocabulary"], made["characters"], made["bytes_per_token"]
        if vocabulary < section.vocabulary:
            stage.say(f"the texts hold pairs for {vocabulary:,} tokens only, not {section.vocabulary:,}")
        if made["dropped"]:
            stage.say(f"{made['dropped']:,} pre-tokens dropped as rare: more than tokenizer.max_pieces are distinct")
        stage.metrics({"vocabulary": vocabulary, "bytes_per_token": size})
        return stage.commit(
            counts=made | {"bytes_per_token": round(size, 4)},
            summary=f"{vocabulary:,} tokens from {characters / 1e6:.1f} M characters",
            gain=f"{size:.2f} bytes per token, from 1",
        )


def _given(run: Run, found: Start) -> Artifact:
    """A tokenizer that is there already."""
    markers, add = run.recipe.tokenizer.markers, run.recipe.pretrain.add_markers
    identity = {"start": found.identity, "markers": markers, "add_markers": add}
    stage = run.begin("tokenizer", {"tokenizer": identity}, [])
    if isinstance(stage, Artifact):
        return stage
    with stage:
        given = adopted(found.local(), markers, add)
        for note in given.notes:
            stage.say(note)
        with tempfile.TemporaryDirectory() as local:
            given.tokenizer.save(local)
            storage.upload_directory(local, stage.path())
        vocabulary = given.tokenizer.vocabulary
        return stage.commit(counts={"vocabulary": vocabulary}, summary=f"{vocabulary:,} tokens, imported")


def _limits(stage: Stage, paths: list[str], section: TokenizerSection, kept_bytes: int | None) -> list[int]:
    """How many characters of each file to count: the same share of every file, so that no source that comes late is
    left out, and whoever counts them."""
    if kept_bytes is not None and kept_bytes <= section.max_characters:
        return [section.max_characters] * len(paths)
    lengths = [0] * len(paths)
    rows = [{"number": number, "path": path} for number, path in enumerate(paths)]
    for done, row in enumerate(spread(_length, rows, section, None), 1):
        lengths[row["number"]] = row["characters"]
        stage.progress(done, len(paths), "files", "measured")
    total = max(1, sum(lengths))
    return [-(-section.max_characters * length // total) for length in lengths]


def _length(row: dict, section: TokenizerSection) -> dict:
    """Characters of a file of kept documents, each capped."""
    total = 0
    with storage.open_input_file(row["path"]) as source:
        for batch in pq.ParquetFile(source).iter_batches(batch_size=4096, columns=["text"]):
            lengths = pc.min_element_wise(pc.utf8_length(batch["text"]), section.max_document_characters)
            total += pc.sum(lengths).as_py() or 0
    return {"number": row["number"], "characters": total}


def _count(row: dict, section: TokenizerSection) -> dict:
    texts = capped([row["path"]], row["limit"], section.max_document_characters)
    counts.write(counts.count(texts, section.pattern, section.max_pieces), row["counted"])
    return {"path": row["path"]}


def _learn(counted: list[str], paths: list[str], section: TokenizerSection, directory: str) -> dict:
    """Learns and writes a tokenizer; returns its counts."""
    total = counts.together(map(counts.read, counted), section.max_pieces)
    if not total.characters:
        raise UserError("curate kept no document with text: loosen its thresholds or crawl more")
    learned = bpe.learn(total.table, section.vocabulary, section.pattern)
    with tempfile.TemporaryDirectory() as local:
        learned.save(local)
        learned.save_ranks(os.path.join(local, "tokenizer.tiktoken"))
        storage.upload_directory(local, directory)
    sample = list(capped(paths, 1_000_000, section.max_document_characters))
    tokens = sum(map(len, learned.encode_batch(sample)))
    return {
        "vocabulary": learned.vocabulary, "characters": total.characters,
        "bytes_per_token": sum(len(text.encode()) for text in sample) / tokens,
        "pieces": len(total.table), "dropped": total.dropped,
    }  # fmt: skip


def tokens(run: Run) -> Artifact:
    curated, learned = run.open("curate"), run.open("tokenizer")
    stage = run.begin("tokens", run.recipe.identity("tokens"), [curated, learned])
    if isinstance(stage, Artifact):
        return stage
    with stage:
        paths = curated.files("kept/")
        section = run.recipe.tokens
        data = ray.data.from_items([
            {"number": number, "path": path, "tokenizer": learned.directory, "key": learned.content_hash,
             "output": stage.directory, "done": stage.scratch("parts"), "section": section.model_dump()}
            for number, path in enumerate(paths)
        ], override_num_blocks=len(paths))  # fmt: skip
        totals = dict.fromkeys([f"{split}_{what}" for split in SPLITS for what in WHAT], 0)
        shards = {}
        for done, row in enumerate(data.map(_shard, num_cpus=1).iter_rows(), 1):
            for key in totals:
                totals[key] += row[key]
            shards[f"{row['number']:05d}"] = {key: row[f"train_{key}"] for key in ("windows", "cropped", "padding")}
            stage.progress(done, len(paths), "files", f"{totals['train_tokens'] / 1e6:,.1f} M tokens")
        if not totals["train_tokens"] or not totals["validation_tokens"]:
            raise UserError(
                f"{totals['train_documents']} documents to train on and {totals['validation_documents']} held out: "
                "raise tokens.validation_percent or crawl more"
            )
        if not totals["train_windows"]:
            raise UserError(
                f"{totals['train_tokens']} tokens do not fill a window of {section.sequence_length}: "
                "lower tokens.sequence_length or crawl more"
            )
        stage.metrics(totals)
        positions = totals["train_windows"] * section.sequence_length
        stage.say(
            f"{totals['train_windows']:,} windows of {section.sequence_length:,} ({section.packing}): "
            f"{totals['train_padding'] / positions:.2%} of them padding, "
            f"{totals['train_cropped'] / totals['train_tokens']:.2%} of the tokens in none"
        )
        ratio = totals["train_bytes"] / totals["train_tokens"]
        return stage.commit(
            counts={**totals, "train_shards": dict(sorted(shards.items()))},
            summary=f"{totals['train_tokens'] / 1e6:.2f} M tokens, {totals['validation_documents']:,} of "
            f"{totals['train_documents'] + totals['validation_documents']:,} documents held out",
            gain=f"{ratio:.2f} bytes per token",
        )


WHAT = ("documents", "tokens", "bytes", "windows", "cropped", "padding")


def _shard(row: dict) -> dict:
    """Encodes one file of kept documents into a shard of each split, and notes it as done, with its counts, when both
    are whole: a run that goes on after a kill does not encode it again."""
    name = f"shard-{row['number']:05d}"
    done = storage.join(row["done"], f"{name}.json")
    if storage.exists(done):
        return json.loads(storage.read_bytes(done))
    tokenizer, section = Tokenizer.load(storage.local_copy(row["tokenizer"], row["key"])), row["section"]
    separator, counts = tokenizer.separator, {"number": row["number"]}
    documents: dict[str, list[Document]] = {split: [] for split in SPLITS}
    for batch in kept_texts([row["path"]], ["id", "url", "text"]):
        encoded = tokenizer.encode_batch(batch["text"])
        for identity, url, text, ids in zip(batch["id"], batch["url"], batch["text"], encoded, strict=True):
            split = "validation" if held_out(identity, section["validation_percent"]) else "train"
            document = Document(identity, host_of(url), np.asarray(ids, np.uint32), len(text.encode()))
            documents[split].append(document)
    with tempfile.TemporaryDirectory() as local:
        for split in SPLITS:
            os.mkdir(os.path.join(local, split))
            stem = os.path.join(local, split, name)
            total = write_shard(stem, documents[split], separator, tokenizer.vocabulary)
            index = write_windows(stem, documents[split], section["packing"], section["sequence_length"])
            found = {
                "documents": len(documents[split]), "tokens": total, "windows": len(index), "cropped": index.cropped,
                "padding": index.padding, "bytes": sum(document.bytes for document in documents[split]),
            }  # fmt: skip
            counts |= {f"{split}_{what}": value for what, value in found.items()}
        storage.upload_directory(local, row["output"])
    storage.write_bytes(done, json.dumps(counts).encode())
    return counts


def host_of(url: str | None) -> str:
    """The host to tell documents by source; "" where there is none."""
    try:
        return urlsplit(url or "").hostname or ""
    except ValueError:  # as of http://[torn
        return ""


def held_out(identity: str, percent: float) -> bool:
    """Whether a document belongs to validation: by the hash of its id, so that it never moves between splits."""
    number = int.from_bytes(hashlib.sha256(identity.encode()).digest()[:8], "big")
    return number < percent / 100 * 2**64
