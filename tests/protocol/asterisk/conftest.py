"""What the tests of bridges at a stand-in Asterisk share."""

from collections.abc import AsyncIterator

import pytest
from ari_server import AriServer


@pytest.fixture
async def ari() -> AsyncIterator[AriServer]:
    async with AriServer() as server:
        yield server


@pytest.fixture
def ari_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """Is in the environment, where the bridge's configuration says."""
    monkeypatch.setenv("ARI_PASSWORD", "s3cret-of-ari")
