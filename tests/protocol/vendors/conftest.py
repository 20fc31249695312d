"""Makes the stand-ins of all vendors importable, and the table of them."""

import sys
from pathlib import Path

_PROTOCOL = Path(__file__).parents[1]
for _folder in (_PROTOCOL / "agents", *sorted(_PROTOCOL.iterdir())):
    if _folder.is_dir() and str(_folder) not in sys.path:
        # At the end: folders here are named after vendors, as their SDKs are.
        sys.path.append(str(_folder))
