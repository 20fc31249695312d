"""Makes every vendor's stand-in importable here, and the conversations' leg in memory and the carrier."""

import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

_PROTOCOL = Path(__file__).parents[1]
_VENDORS = ("anthropic", "assemblyai", "cartesia", "deepgram", "elevenlabs", "gemini", "openai", "telnyx")
_UNIT = _PROTOCOL.parent / "unit"
# At the end: folders here are named after vendors, as their SDKs are.
for folder in (*(_PROTOCOL / vendor for vendor in _VENDORS), _PROTOCOL / "remote", _UNIT / "agents", _UNIT / "app"):
    if str(folder) not in sys.path:
        sys.path.append(str(folder))

from failures_call import KEY_ENV, ROLES, SPARE_ENV  # noqa: E402 found by the path above
from failures_vendors import KEY, SPARE_KEY, SPARES  # noqa: E402
from standin import Standin  # noqa: E402

from bridge.providers.base import Role  # noqa: E402


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_ENV, KEY)
    monkeypatch.setenv(SPARE_ENV, SPARE_KEY)


@pytest.fixture
async def spares() -> AsyncIterator[dict[Role, Standin]]:
    async with AsyncExitStack() as stack:
        yield {role: await stack.enter_async_context(SPARES[role].server(SPARE_KEY)) for role in ROLES}
