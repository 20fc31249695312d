"""What an SDK loads, it loads when its provider starts: the first call would hold up all others for it."""

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PROGRAM = f"""
import asyncio, runpy, sys
sys.path += [{str(HERE)!r}, {str(HERE.parent)!r}]
runpy.run_path({str(HERE / "conftest.py")!r})
from failures_vendors import KEY, VENDORS
from vendors_use import made, use

async def main(label):
    vendor = next(vendor for vendor in VENDORS if vendor.label == label)
    async with vendor.server(KEY) as server:
        provider = made(vendor, server)
        await provider.start()
        before = set(sys.modules)
        await provider.warm()
        await use(vendor, provider)
        print(*sorted(name for name in set(sys.modules) - before if name.split(".")[0] == sys.argv[2]))
        await provider.aclose()

asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.parametrize(
    ("label", "sdk"), [("telnyx-tts", "telnyx"), ("cartesia-tts", "cartesia"), ("gemini-llm", "google")]
)
def test_the_first_use_imports_nothing_of_the_sdk(label: str, sdk: str) -> None:
    command = [sys.executable, "-c", PROGRAM, label, sdk]
    ran = subprocess.run(command, capture_output=True, check=False, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == []
