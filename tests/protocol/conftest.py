"""Makes the stand-ins' common base importable from the folder of each vendor."""

import sys
from pathlib import Path

_HERE = str(Path(__file__).parent)
if _HERE not in sys.path:
    # At the end: folders here are named after vendors, as their SDKs are.
    sys.path.append(_HERE)
