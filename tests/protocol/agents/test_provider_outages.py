"""What a caller hears when nobody is left who works, and that a vendor which comes back is used again."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from failures_call import FailingCall, configuration, metrics_of, no_key
from failures_troubles import TROUBLES, Trouble
from failures_vendors import ANSWERS, KEY, SPARES, Vendor
from standin import Standin

from bridge.events import Cause
from bridge.providers.base import Role
from bridge.talkers import Talkers

COVERED_S = 4.0
"""...if nobody is left who could answer: a filler, or being asked again."""

APOLOGY_S = 11.0

WAIT_S = 60.0
"""For what comes, if late, on a machine that does much else; how late it may be is judged by the limits above."""


async def alone(begin: Trouble, vendor: Vendor, spares: dict[Role, Standin], folder: Path) -> FailingCall:
    """A call of an agent that has nobody but this vendor in its role."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(vendor.server(KEY))
        talkers = Talkers(folder)
        stack.push_async_callback(talkers.aclose)
        config = configuration(vendor, server, spares, folder, **{vendor.role: [vendor.kind]})
        await talkers.start(config, lambda line: None)
        await begin(server, vendor)
        async with FailingCall(talkers).up() as call:
            await call.turn(0)
            ended = await call.says()
            if vendor.role == "stt":
                # Where nothing is understood the caller is asked again, until it is no use any more.
                await call.answer_or_end(ended, WAIT_S)
                while not call.task.done():
                    await call.answer_or_end(await call.says(), WAIT_S)
            await call.until(call.task.done, WAIT_S, "the end of the call")
            assert call.longest_silence(ended, call.now) < APOLOGY_S
            call.covered_after = call.sound_since(ended)
        server.behave()
    return call


@pytest.mark.parametrize("vendor", [SPARES["llm"], SPARES["stt"], SPARES["tts"]], ids=lambda vendor: vendor.label)
@pytest.mark.usefixtures("keys")
async def test_with_nobody_left_the_caller_hears_the_apology(
    vendor: Vendor, spares: dict[Role, Standin], tmp_path: Path
) -> None:
    ways = ("refuses connections", "401", "stalls before the first byte", "says nothing")
    calls = await asyncio.gather(
        *(alone(TROUBLES[way], vendor, spares, tmp_path / str(number)) for number, way in enumerate(ways))
    )
    for way, call in zip(ways, calls, strict=True):
        assert "we have a technical problem" in call.said[-1], way
        assert call.task.result().cause is Cause.ENGINE_FAILED, way
        assert call.failures[-1].went_on == "", way
        if way in ("stalls before the first byte", "says nothing") and vendor.role != "stt":
            assert call.covered_after is not None and call.covered_after < COVERED_S, way
        no_key(repr(call.events))


@pytest.mark.parametrize("vendor", [SPARES["llm"], SPARES["stt"], SPARES["tts"]], ids=lambda vendor: vendor.label)
@pytest.mark.usefixtures("keys")
async def test_a_vendor_that_comes_back_is_used_again(
    vendor: Vendor, spares: dict[Role, Standin], tmp_path: Path
) -> None:
    async with vendor.server(KEY) as server:
        talkers = Talkers(tmp_path)
        await talkers.start(configuration(vendor, server, spares, tmp_path), lambda line: None)
        await server.down()
        for back in (False, True):
            async with FailingCall(talkers).up() as call:
                await call.turn(0)
                await call.says()
                assert ANSWERS[0] in await call.turn(1)
            assert bool(call.failures) is not back
            if not back:
                await server.up()
                # The breaker's cool-down.
                await call.until(lambda: 'state="half-open"} 1.0' in metrics_of(talkers), WAIT_S, "the cool-down")
        assert f'offhook_provider_breaker{{provider="{vendor.kind}",role="{vendor.role}",state="closed"}} 1.0' in (
            metrics_of(talkers)
        )
        await talkers.aclose()
