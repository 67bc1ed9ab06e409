"""What other systems make of the same input. Runs in their own environment (requirements/peers.txt), and knows nothing
of webtochat: JSON lines in, JSON lines out, first the version.

python benchmarks/peers.py trafilatura pages.jsonl texts.jsonl
"""

from __future__ import annotations

import json
import sys
import time
from importlib.metadata import version


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


if __name__ == "__main__":
    {"trafilatura": trafilatura}[sys.argv[1]](*sys.argv[2:])
