"""Puts on the path what the conversations are made with, for pytest and for `run.py`."""

import sys
from pathlib import Path

_HERE = Path(__file__).parent
_TESTS = _HERE.parent
_FOLDERS = [_HERE, _TESTS / "interop", _TESTS / "e2e", _TESTS / "protocol", _TESTS.parent]
_FOLDERS += [_TESTS / "protocol" / vendor for vendor in ("deepgram", "openai", "elevenlabs")]
# At the end: folders there are named after vendors, as their SDKs are.
sys.path += [str(folder) for folder in _FOLDERS if str(folder) not in sys.path]
