"""Learn from pairs of answers which of two people want: a model that scores answers.

python jobs/reward.py recipes/demo.yaml
python jobs/reward.py recipes/demo.yaml name=mine reward.answers=null 'reward.data=[{path: "pairs/*.jsonl"}]'
"""

from job import main
from webtochat.reward.stage import reward

if __name__ == "__main__":
    main(__doc__, reward)
