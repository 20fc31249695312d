"""Makes every vendor's stand-in importable here, and the conversations' leg in memory and the carrier."""

import sys
from pathlib import Path

_PROTOCOL = Path(__file__).parents[1]
_VENDORS = ("anthropic", "assemblyai", "cartesia", "deepgram", "elevenlabs", "gemini", "openai", "telnyx")
_UNIT = _PROTOCOL.parent / "unit"
# At the end: folders here are named after vendors, as their SDKs are.
for folder in (*(_PROTOCOL / vendor for vendor in _VENDORS), _PROTOCOL / "remote", _UNIT / "agents", _UNIT / "app"):
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
