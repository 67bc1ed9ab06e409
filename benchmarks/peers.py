"""What other systems make of the same input. Runs in their own environment (requirements/peers.txt), and knows nothing
of webtochat: JSON lines in, JSON lines out, first the version.

python benchmarks/peers.py trafilatura pages.jsonl texts.jsonl
python benchmarks/peers.py datatrove folder/of/warc folder/to/write lid.176.ftz 2 figures.json
python benchmarks/peers.py datatrove-duplicates folder/of/jsonl folder/to/write 2 figures.json
python benchmarks/peers.py filters texts.jsonl lid.176.ftz judged.jsonl
python benchmarks/peers.py tokenizers texts.jsonl folder/of/tokenizer 32768 10000000 3 figures.json
"""

from __future__ import annotations

import gzip
import json
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path


def trafilatura(source: str, made: str) -> None:
    """As datatrove calls it: precision before recall, no comments."""
    from trafilatura import extract

    with open(source) as pages, open(made, "w") as texts:
        print(json.dumps(version("trafilatura")), file=texts)
        for number, line in enumerate(pages):
            markup = json.loads(line)
            if number == 0:
                extract(markup)  # its modules are loaded at the first call
            began = time.process_time()
            text = extract(markup, include_comments=False) or ""
            print(json.dumps({"text": text, "ms": (time.process_time() - began) * 1000}), file=texts)


def datatrove(warc: str, folder: str, language_model: str, workers: str, made: str) -> None:
    """FineWeb's recipe (datatrove's examples/fineweb.py), with its local executor; the language model from a file, as
    its own is downloaded. Writes the seconds of filtering and of deduplication, and the documents that stay."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup import (
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )
    from datatrove.pipeline.dedup.minhash import MinhashConfig
    from datatrove.pipeline.extractors import Trafilatura
    from datatrove.pipeline.filters import (
        C4QualityFilter,
        FineWebQualityFilter,
        GopherQualityFilter,
        GopherRepetitionFilter,
        LanguageFilter,
        URLFilter,
    )
    from datatrove.pipeline.formatters import PIIFormatter
    from datatrove.pipeline.readers import JsonlReader, WarcReader
    from datatrove.pipeline.writers.jsonl import JsonlWriter
    from datatrove.utils.hashing import HashConfig

    files, jobs = len(list(Path(warc).glob("*.warc.gz"))), int(workers)
    language = LanguageFilter()
    language.model.MODEL_URL = language_model
    began = time.perf_counter()

    def run(pipeline: list, tasks: int) -> None:
        LocalPipelineExecutor(pipeline=pipeline, tasks=tasks, workers=min(jobs, tasks), logging_dir=None).run()

    run([
        WarcReader(warc, glob_pattern="*.warc.gz", default_metadata={"dump": "local"}), URLFilter(),
        Trafilatura(favour_precision=True, timeout=1), language, GopherRepetitionFilter(), GopherQualityFilter(),
        C4QualityFilter(filter_no_terminal_punct=False), FineWebQualityFilter(), JsonlWriter(f"{folder}/filtered"),
    ], files)  # fmt: skip
    filtered = time.perf_counter()
    hashed = HashConfig(hash_fc="sha1", precision=64)
    config = MinhashConfig(hash_config=hashed, num_buckets=14, hashes_per_bucket=8, n_grams=5)
    reader = JsonlReader(f"{folder}/filtered")
    run([reader, MinhashDedupSignature(output_folder=f"{folder}/signatures", config=config)], files)
    run([MinhashDedupBuckets(f"{folder}/signatures", f"{folder}/buckets", config=config)], config.num_buckets)
    run([MinhashDedupCluster(f"{folder}/buckets", f"{folder}/remove", config=config)], 1)
    run([reader, MinhashDedupFilter(f"{folder}/remove"), PIIFormatter(), JsonlWriter(f"{folder}/kept")], files)
    ended = time.perf_counter()
    kept = sum(gzip.decompress(path.read_bytes()).count(b"\n") for path in Path(f"{folder}/kept").glob("*.jsonl.gz"))
    figures = {"filter": filtered - began, "deduplicate": ended - filtered, "kept": kept}
    Path(made).write_text(json.dumps(figures | {"version": version("datatrove")}))


def filters(source: str, language_model: str, made: str) -> None:
    """What each of FineWeb's filters says of each text on its own, whatever the others say: None to keep it, else the
    reason; FineWeb's of the text that C4's line rules rewrote. Those after the language only of English texts, with
    what they read: the words, the rewritten text and its words and sentences. And the text without personal data."""
    from datatrove.data import Document
    from datatrove.pipeline.filters import (
        C4QualityFilter,
        FineWebQualityFilter,
        GopherQualityFilter,
        GopherRepetitionFilter,
        LanguageFilter,
    )
    from datatrove.pipeline.filters.base_filter import BaseFilter, get_filter_result
    from datatrove.pipeline.formatters import PIIFormatter
    from datatrove.utils.text import split_into_sentences, split_into_words

    language, pii = LanguageFilter("en"), PIIFormatter(email_replacement="<email>", ip_replacement="<ip>")
    language.model.MODEL_URL = language_model
    repetition, quality, fineweb = GopherRepetitionFilter(), GopherQualityFilter(), FineWebQualityFilter()
    c4 = C4QualityFilter(filter_no_terminal_punct=False)
    line_rules = C4QualityFilter(
        filter_no_terminal_punct=False, min_num_sentences=-1, filter_lorem_ipsum=False, filter_curly_bracket=False
    )

    def removed(by: BaseFilter, document: Document) -> str | None:
        kept, reason = get_filter_result(by.filter(document))
        return None if kept else reason or "removed"

    with open(source) as texts, open(made, "w") as judged:
        print(json.dumps(version("datatrove")), file=judged)
        for text in map(json.loads, texts):
            document = Document(text, "")
            row = {"pii": pii.format(text), "language": removed(language, document)}
            row["score"] = document.metadata["language_score"]
            if row["language"] is None:
                row |= {by.__class__.__name__: removed(by, document) for by in (repetition, quality)}
                row |= {"words": split_into_words(text), "C4QualityFilter": removed(c4, Document(text, ""))}
                line_rules.filter(document)
                rewritten = document.text
                row |= {"FineWebQualityFilter": removed(fineweb, document), "rewritten": rewritten}
                row["rewritten_words"] = len(split_into_words(rewritten))
                row["sentences"] = sum(len(split_into_sentences(line)) for line in rewritten.splitlines() if line)
            print(json.dumps(row), file=judged)


def datatrove_duplicates(folder: str, work: str, workers: str, made: str) -> None:
    """MinHash as in FineWeb's recipe, on JSON lines. Writes the seconds of signing and of finding what goes, and the
    ids that stay."""
    began = time.perf_counter()
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup import (
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )
    from datatrove.pipeline.dedup.minhash import MinhashConfig
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers.jsonl import JsonlWriter
    from datatrove.utils.hashing import HashConfig

    files, jobs = len(list(Path(folder).glob("*.jsonl"))), int(workers)

    def run(pipeline: list, tasks: int) -> float:
        LocalPipelineExecutor(pipeline=pipeline, tasks=tasks, workers=min(jobs, tasks), logging_dir=None).run()
        return time.perf_counter()

    hashed = HashConfig(hash_fc="sha1", precision=64)
    config = MinhashConfig(hash_config=hashed, num_buckets=14, hashes_per_bucket=8, n_grams=5)
    reader = JsonlReader(folder)
    signed = run([reader, MinhashDedupSignature(output_folder=f"{work}/signatures", config=config)], files)
    run([MinhashDedupBuckets(f"{work}/signatures", f"{work}/buckets", config=config)], config.num_buckets)
    found = run([MinhashDedupCluster(f"{work}/buckets", f"{work}/remove", config=config)], 1)
    run([reader, MinhashDedupFilter(f"{work}/remove"), JsonlWriter(f"{work}/kept")], files)
    kept = [
        json.loads(line)["id"]
        for path in Path(f"{work}/kept").glob("*.jsonl.gz")
        for line in gzip.decompress(path.read_bytes()).splitlines()
    ]
    figures = {"signatures": signed - began, "finding": found - signed, "processes": jobs, "kept": kept}
    Path(made).write_text(json.dumps(figures | {"version": version("datatrove")}))


def datasketch_duplicates(folder: str, _work: str, _workers: str, made: str) -> None:
    """The same in one process, as the library has no other way; a document goes if one before it is found."""
    began = time.perf_counter()
    from datasketch import MinHash, MinHashLSH

    def shingles(text: str) -> list[bytes]:
        words = text.split()
        return [" ".join(words[start : start + 5]).encode() for start in range(max(1, len(words) - 4))]

    lines = (json.loads(line) for path in sorted(Path(folder).glob("*.jsonl")) for line in path.open())
    ids, texts = zip(*((row["id"], row["text"]) for row in lines), strict=True)
    signatures = MinHash.bulk(map(shingles, texts), num_perm=14 * 8)
    signed = time.perf_counter()
    index = MinHashLSH(num_perm=14 * 8, params=(14, 8))
    kept = []
    for number, signature in zip(ids, signatures, strict=True):
        if not index.query(signature):
            kept.append(number)
        index.insert(number, signature)
    figures = {"signatures": signed - began, "finding": time.perf_counter() - signed, "processes": 1, "kept": kept}
    Path(made).write_text(json.dumps(figures | {"version": version("datasketch")}))


def tokenizers(source: str, folder: str, vocabulary: str, encoded: str, rounds: str, made: str) -> None:
    """Learns as many tokens from the texts, by rustbpe and by Hugging Face, each with all cores; then encodes the first
    texts, of `encoded` characters in all, with the tokenizer in the folder by tiktoken and Hugging Face, each on one
    core. Writes seconds (the best of some rounds), what was learned, and a hash of the ids."""
    import base64
    import hashlib
    from array import array

    import rustbpe
    import tiktoken
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    with open(source) as lines:
        texts = [json.loads(line) for line in lines]
    settings = json.loads(Path(folder, "tokenizer.json").read_text())
    pattern = settings["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"]
    size, figures = int(vocabulary) - len(settings["added_tokens"]), {}

    def best(work: Callable[[], None]) -> float:
        spent = []
        for _ in range(int(rounds)):
            began = time.perf_counter()
            work()
            spent.append(time.perf_counter() - began)
        return min(spent)

    learned = rustbpe.Tokenizer()
    figures["rustbpe"] = best(lambda: learned.train_from_iterator(iter(texts), size, pattern=pattern))
    figures["rustbpe_tokens"] = [bytes(token).hex() for token, _ in learned.get_mergeable_ranks()]

    theirs = Tokenizer(models.BPE())
    theirs.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(pattern), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    began = time.perf_counter()  # once: it takes long
    theirs.train_from_iterator(texts, trainer)
    figures["tokenizers"] = time.perf_counter() - began
    figures["merges"] = json.loads(theirs.to_str())["model"]["merges"]

    some, left = [], int(encoded)
    for text in texts:
        some.append(text[:left])
        left -= len(some[-1])
        if left <= 0:
            break
    ranks = dict(line.split() for line in Path(folder, "tokenizer.tiktoken").read_bytes().splitlines())
    ids = {base64.b64decode(token): int(number) for token, number in ranks.items()}
    fast = tiktoken.Encoding("x", pat_str=pattern, mergeable_ranks=ids, special_tokens={})
    slow = Tokenizer.from_file(str(Path(folder, "tokenizer.json")))
    digests = {}

    def encoding(name: str, encode: Callable[[str], list[int]]) -> None:
        digest = hashlib.sha256()
        for text in some:
            digest.update(array("I", encode(text)).tobytes())
        digests[name] = digest.hexdigest()

    for name, encode in (("tiktoken", fast.encode_ordinary), ("tokenizers", lambda text: slow.encode(text).ids)):
        figures[f"{name}_encoding"] = best(lambda name=name, encode=encode: encoding(name, encode))
    figures |= {"digests": digests, "versions": {name: version(name) for name in ("rustbpe", "tokenizers", "tiktoken")}}
    Path(made).write_text(json.dumps(figures))


if __name__ == "__main__":
    known = {
        "trafilatura": trafilatura, "datatrove": datatrove, "filters": filters,
        "datatrove-duplicates": datatrove_duplicates, "datasketch-duplicates": datasketch_duplicates,
        "tokenizers": tokenizers,
    }  # fmt: skip
    known[sys.argv[1]](*sys.argv[2:])
