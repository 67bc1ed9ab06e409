"""What each step gained: bits per byte on held-out documents, and right answers before and after sft.

python jobs/evaluate.py recipes/demo.yaml
python jobs/evaluate.py recipes/demo.yaml evaluate.max_questions_per_kind=100 --rebuild
"""

from job import main
from webtochat.evals.stage import evaluate

if __name__ == "__main__":
    main(__doc__, evaluate)
