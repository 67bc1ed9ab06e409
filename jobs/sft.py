"""Teach the base model to answer, by conversations: loss on the assistant's tokens only.

python jobs/sft.py recipes/demo.yaml
python jobs/sft.py recipes/demo.yaml name=mine 'sft.data=[{path: "chats/*.jsonl"}]'
"""

from job import main
from webtochat.train.stage import sft

if __name__ == "__main__":
    main(__doc__, sft)
