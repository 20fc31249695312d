"""Makes every vendor's stand-in importable here, and the conversations' leg in memory."""

import sys
from pathlib import Path

_PROTOCOL = Path(__file__).parents[1]
_VENDORS = ("anthropic", "assemblyai", "cartesia", "deepgram", "elevenlabs", "gemini", "openai", "telnyx")
# At the end: folders here are named after vendors, as their SDKs are.
for folder in (*(_PROTOCOL / vendor for vendor in _VENDORS), _PROTOCOL.parent / "unit" / "agents"):
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
