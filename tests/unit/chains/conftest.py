"""Makes the conversations' fake time importable here."""

import sys
from pathlib import Path

_AGENTS = str(Path(__file__).parents[1] / "agents")
if _AGENTS not in sys.path:
    sys.path.append(_AGENTS)
