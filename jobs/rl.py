"""Teach the chat model by reward: it answers many times, and the better answers are made likelier.

python jobs/rl.py recipes/demo.yaml
python jobs/rl.py recipes/demo.yaml rl.algorithm=dr_grpo rl.steps=100 --rebuild
"""

from job import main
from webtochat.rl.stage import rl

if __name__ == "__main__":
    main(__doc__, rl)
