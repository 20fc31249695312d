"""Makes the runner importable, with the stand-ins, the bridge as a process and the caller of other folders."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import paths  # noqa: F401  it is there for what it does to the path
