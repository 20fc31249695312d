"""The brain on its real embeddings: one engine worker for all tests of the folder."""

from collections.abc import AsyncIterator
from importlib import resources

import pytest
import pytest_asyncio
import yaml

from bridge.providers.brief import Brief
from bridge.providers.local.brain import LocalBrain
from bridge.providers.local.embed import Embedder
from bridge.providers.local.pool import EnginePool
from bridge.providers.local.settings import EngineSettings


@pytest.fixture(scope="session")
def receptionist() -> Brief:
    text = resources.files("bridge").joinpath("receptionist.yaml").read_text(encoding="utf-8")
    return Brief(**yaml.safe_load(text)["brief"])


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def embedder() -> AsyncIterator[Embedder]:
    # Other tests run beside these: the worker is no nicer than they are, and may take its time.
    settings = EngineSettings(workers=1, start_s=100, niceness=0, embed_deadline_s=60)
    pool = EnginePool(settings, ["embed"])
    await pool.start()
    try:
        yield Embedder(pool, settings)
    finally:
        await pool.aclose()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def brain(embedder: Embedder, receptionist: Brief) -> LocalBrain:
    brain = LocalBrain(embedder)
    await brain.prepare(receptionist)
    return brain
