"""What other systems make of the same input. Runs in their own environment (requirements/peers.txt), and knows nothing
of webtochat: JSON lines in, JSON lines out, first the version.

python benchmarks/peers.py trafilatura pages.jsonl texts.jsonl
python benchmarks/peers.py datatrove folder/of/warc folder/to/write lid.176.ftz 2 figures.json
"""

from __future__ import annotations

import gzip
import json
import sys
import time
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


if __name__ == "__main__":
    {"trafilatura": trafilatura, "datatrove": datatrove}[sys.argv[1]](*sys.argv[2:])
