"""Learn from pairs of answers which of two people want: a model that scores answers. With --score, score a file's.

python jobs/reward.py recipes/demo.yaml
python jobs/reward.py recipes/demo.yaml name=mine reward.answers=null 'reward.data=[{path: "pairs/*.jsonl"}]'
python jobs/reward.py recipes/demo.yaml --score answers.jsonl --out scored.jsonl
"""

from __future__ import annotations

import sys
from typing import NoReturn

from job import guarded, main, parser, started
from webtochat.reward.stage import reward, score


def scoring() -> NoReturn:
    arguments = parser(__doc__)
    arguments.add_argument("--score", metavar="FILE", required=True, help="rows of a prompt and an answer")
    arguments.add_argument("--out", metavar="FILE", help="JSONL; by default beside it, as *.scored.jsonl")
    options = arguments.parse_intermixed_args()

    def work() -> None:
        with started(options.recipe, options.overrides) as run:
            score(run, options.score, options.out)

    guarded(work)


if __name__ == "__main__":
    if any(each.partition("=")[0] == "--score" for each in sys.argv):
        scoring()
    main(__doc__, reward)
