"""Decide which pages stay. Reads measurements, no WARC: another threshold costs seconds.

python jobs/curate.py recipes/demo.yaml curate.gopher.min_words=80 --rebuild
"""

from job import main
from webtochat.curate.stage import curate

if __name__ == "__main__":
    main(__doc__, curate)
