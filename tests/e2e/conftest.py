"""Makes the stand-ins, the bridge as a process and the peers of other folders importable."""

import sys
from pathlib import Path

_HERE = Path(__file__).parent
_TESTS = _HERE.parent
_FOLDERS = [_HERE, _TESTS / "interop", _TESTS.parent / "bench/peers", _TESTS / "protocol"]
_FOLDERS += [_TESTS / "protocol" / vendor for vendor in ("deepgram", "openai", "elevenlabs")]
sys.path += [str(folder) for folder in _FOLDERS if str(folder) not in sys.path]
