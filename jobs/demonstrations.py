"""Conversations that show how tools are used, and questions to test that.

python jobs/demonstrations.py recipes/demo.yaml
python jobs/demonstrations.py recipes/demo.yaml demonstrations.documents=2000 --rebuild
"""

from job import main
from webtochat.demonstrations.stage import demonstrations

if __name__ == "__main__":
    main(__doc__, demonstrations)
