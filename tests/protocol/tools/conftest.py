"""Makes the call of a conversation agent, and the stand-in of a model, importable here."""

import sys
from pathlib import Path

_TESTS = Path(__file__).parents[2]
for folder in (_TESTS / "unit" / "agents", _TESTS / "protocol" / "openai"):
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
