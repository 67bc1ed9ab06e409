"""Learn a byte-level BPE from the kept documents.

python jobs/tokenizer.py recipes/demo.yaml tokenizer.vocabulary=8192
"""

from job import main
from webtochat.tokens.stage import tokenizer

if __name__ == "__main__":
    main(__doc__, tokenizer)
