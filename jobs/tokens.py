"""Encode the kept documents into token shards: python jobs/tokens.py recipes/demo.yaml"""

from job import main
from webtochat.tokens.stage import tokens

if __name__ == "__main__":
    main(__doc__, tokens)
