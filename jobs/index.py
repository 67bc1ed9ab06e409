"""A search index of the kept documents, for the model's tools: python jobs/index.py recipes/demo.yaml"""

from job import main
from webtochat.tools.stage import index

if __name__ == "__main__":
    main(__doc__, index)
