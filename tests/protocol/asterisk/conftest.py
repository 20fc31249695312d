"""What tests at a stand-in Asterisk share."""

from collections.abc import AsyncIterator

import pytest
from ari_client import Client
from ari_server import AriServer


@pytest.fixture
async def ari() -> AsyncIterator[AriServer]:
    async with AriServer() as server:
        yield server


@pytest.fixture
async def client(ari: AriServer) -> AsyncIterator[Client]:
    """Connected."""
    client = Client(ari.url)
    await client.up()
    yield client
    await client.ari.aclose()


@pytest.fixture
def ari_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """Is in the environment, where the bridge's configuration says."""
    monkeypatch.setenv("ARI_PASSWORD", "s3cret-of-ari")
