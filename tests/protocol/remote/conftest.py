"""A call on a leg in memory, and a bot on a real socket."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "unit/agents"))

from remote_bot import Bot
from remote_call import BotCall


@pytest.fixture(params=["twilio", "telnyx"])
async def bot(request: pytest.FixtureRequest) -> AsyncIterator[Bot]:
    async with Bot(request.param).running() as bot:
        yield bot


@pytest.fixture
async def call(bot: Bot) -> AsyncIterator[Callable[..., BotCall]]:
    """Calls that the bot gets; at their end nothing of them is left."""
    calls: list[BotCall] = []

    def begin(**settings: object) -> BotCall:
        calls.append(BotCall(bot, **settings))
        return calls[-1]

    before = asyncio.all_tasks()
    yield begin
    for one in calls:
        await one.end()
        assert one.leg.sinks == one.leg.handlers == []
        assert all(detector.closed for detector in one.detectors)
        assert one.agent.calls.get(one.id) is None
    await bot.all_closed()
    left = {task for task in asyncio.all_tasks() - before if not task.done() and "bot of" in task.get_name()}
    assert left == set()
