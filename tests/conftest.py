"""Puts the source roots on the path, as jobs/job.py does."""

import os
import sys
from pathlib import Path

from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent
for folder in ("", "jobs", "recipes", "platform"):
    if str(ROOT / folder) not in sys.path:
        sys.path.insert(0, str(ROOT / folder))

# What decides must not be a matter of luck: CI tries the same examples each time, people new ones.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")
