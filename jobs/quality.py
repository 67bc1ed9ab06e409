"""Train a classifier of good texts against kept pages, whose score measure.quality_model adds to the measurements.

python jobs/quality.py recipes/demo.yaml 'quality.good=[/data/wikipedia/*.parquet]'
"""

from job import main
from webtochat.curate.stage import quality

if __name__ == "__main__":
    main(__doc__, quality)
