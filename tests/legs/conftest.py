"""Makes the free ports of the interoperability tests importable."""

import sys
from pathlib import Path

_FOLDER = str(Path(__file__).parents[1] / "interop")
if _FOLDER not in sys.path:
    sys.path.append(_FOLDER)
