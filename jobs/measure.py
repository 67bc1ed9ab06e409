"""Read the crawl: text, language and every measurement of each page.

python jobs/measure.py recipes/demo.yaml
"""

from job import main
from webtochat.curate.stage import measure

if __name__ == "__main__":
    main(__doc__, measure)
