"""Ask the chat model about its training documents, and teach it to say so where it does not know.

python jobs/knowledge.py recipes/demo.yaml
python jobs/knowledge.py recipes/demo.yaml knowledge.samples=16 --rebuild
"""

from job import main
from webtochat.knowledge.stage import knowledge

if __name__ == "__main__":
    main(__doc__, knowledge)
