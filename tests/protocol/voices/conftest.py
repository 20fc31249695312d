"""Makes the stand-ins of the vendors importable."""

import sys
from pathlib import Path

for vendor in ("elevenlabs", "cartesia", "deepgram", "telnyx"):
    folder = str(Path(__file__).parent.parent / vendor)
    if folder not in sys.path:
        sys.path.append(folder)
