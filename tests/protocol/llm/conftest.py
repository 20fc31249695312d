"""Every language model that we have a client for, each with its stand-in."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

for vendor in ("openai", "anthropic", "gemini"):
    folder = str(Path(__file__).parents[1] / vendor)
    if folder not in sys.path:
        sys.path.append(folder)

from llm_vendors import VENDORS, Bench  # noqa: E402 found by the path above


@pytest.fixture(params=VENDORS)
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    """A model of each vendor and its server; nothing may be left open behind it."""
    vendor = VENDORS[request.param]
    async with vendor.server() as server:
        bench = Bench(vendor, server)
        yield bench
        for llm in bench.made:
            await llm.aclose()
        await server.all_closed()
