"""Teach the chat model which of two answers is liked better, from pairs of them.

python jobs/dpo.py recipes/demo.yaml 'dpo={data: [{path: reward}], lr: 5e-5}'
python jobs/dpo.py recipes/demo.yaml 'dpo={data: [{path: "votes/*.jsonl"}]}' --rebuild
"""

from job import main
from webtochat.rl.direct import dpo

if __name__ == "__main__":
    main(__doc__, dpo)
