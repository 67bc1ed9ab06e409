"""The served assistant. Importable from the repository's root (`serve run serving.app:build`) as from a job."""

import sys
from pathlib import Path

_platform = Path(__file__).resolve().parent.parent / "platform"
if _platform.is_dir() and str(_platform) not in sys.path:
    sys.path.insert(0, str(_platform))
