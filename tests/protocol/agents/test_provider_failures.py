"""What a caller hears, and what the record says, when a provider fails: every vendor, in every way.

The failing vendor leads its chain, a spare follows. Each call has two questions and their answers. All ways to fail
of one vendor are gone through at the same time, each with a server of its own."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import structlog
from failures_call import KEY_ENV, ROLES, SPARE, SPARE_ENV, FailingCall, configuration, metrics_of, no_key
from failures_vendors import ANSWERS, KEY, REST, SPARE_KEY, SPARES, VENDORS, Vendor
from standin import Standin

from bridge.events import Cause
from bridge.providers.base import Role
from bridge.talkers import Talkers

Trouble = Callable[[Standin, Vendor], Awaitable[None]]

FIRST_SOUND_S = 5.0
"""From the caller's last word to the agent's first sound, whatever fails: end of the turn, deadline, the spare."""

NEXT_SOUND_S = 3.5
"""The same once the call is with the spare."""

COVERED_S = 4.0
"""...if nobody is left who could answer: a filler, or being asked again."""

APOLOGY_S = 11.0

WAIT_S = 60.0
"""For what comes, if late, on a machine that does much else; how late it may be is judged by the limits above."""


def trouble(**fault: object) -> Trouble:
    async def begin(server: Standin, vendor: Vendor) -> None:
        server.misbehave(**fault)
        if "after" not in fault:
            # It shows on new connections; those that are kept for the next text are lost.
            server.drop_all()

    return begin


async def is_down(server: Standin, vendor: Vendor) -> None:
    await server.down()


async def talks_garbage(server: Standin, vendor: Vendor) -> None:
    server.misbehave(garbage=vendor.garbage, after=2)


BODY = f'{{"error": {{"message": "no: {KEY}"}}}}'

TROUBLES: dict[str, Trouble] = {
    "refuses connections": is_down,
    "401": trouble(status=401, body=BODY),
    "429": trouble(status=429, body=BODY),
    "500": trouble(status=500, body=BODY),
    "stalls before the first byte": trouble(stall="answer"),
    "says nothing": trouble(stall="middle", after=0),
    "stalls in the middle": trouble(stall="middle", after=3),
    "closes in the middle": trouble(close=1011, reason=f"it is {KEY}", after=3),
    "resets in the middle": trouble(drop=True, after=3),
    "talks garbage": talks_garbage,
}

MAY_DO_WITHOUT = {"talks garbage", "stalls in the middle", "closes in the middle", "resets in the middle"}
"""A vendor that sends little, or puts up with it, need not fail by these."""


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_ENV, KEY)
    monkeypatch.setenv(SPARE_ENV, SPARE_KEY)


@pytest.fixture
async def spares() -> AsyncIterator[dict[Role, Standin]]:
    async with AsyncExitStack() as stack:
        yield {role: await stack.enter_async_context(SPARES[role].server(SPARE_KEY)) for role in ROLES}


async def call_through(
    name: str, begin: Trouble, vendor: Vendor, spares: dict[Role, Standin], folder: Path, ready: asyncio.Barrier
) -> list[str]:
    """One call during one trouble, begun once all are `ready`; returns what was wrong with it."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(vendor.server(KEY))
        talkers = Talkers(folder)
        stack.push_async_callback(talkers.aclose)
        await talkers.start(configuration(vendor, server, spares, folder), lambda line: None)
        await ready.wait()
        await begin(server, vendor)
        wrong: list[str] = []
        async with FailingCall(talkers).up() as call:
            await call.turn(0)
            for number, answer in enumerate(ANSWERS):
                ended = await call.says()
                heard = await call.turn(number + 1)
                after = call.sound_since(ended)
                most = NEXT_SOUND_S if number and call.failures else FIRST_SOUND_S
                whole = answer in heard or (vendor.role == "llm" and heard.endswith(REST))
                # A recogniser that takes over at the second question begins with its script.
                whole = whole or (vendor.role == "stt" and ANSWERS[0] in heard)
                if not whole or heard.count("nine") > 1:
                    wrong.append(f"heard {heard!r} in place of {answer!r}")
                if after is None or after > most:
                    wrong.append(f"silence of {after} s before answer {number}")
                await call.quiet()
        left = [(failure.provider, failure.went_on) for failure in call.failures if failure.went_on]
        if left != [(vendor.kind, f"{SPARE}-{vendor.role}")] and (left or name not in MAY_DO_WITHOUT):
            wrong.append(f"on record: {call.failures}")
        no_key(repr(call.events))
        told = metrics_of(talkers)
        no_key(told)
        if (
            left
            and f'offhook_provider_switches_total{{provider="{vendor.kind}",role="{vendor.role}"}} 1.0' not in told
        ):
            wrong.append("the metrics don't tell of the switch")
        await talkers.aclose()
        server.behave()
        await server.all_closed()
    return [f"{name}: {what}" for what in wrong]


@pytest.mark.parametrize("vendor", VENDORS, ids=lambda vendor: vendor.label)
@pytest.mark.usefixtures("keys")
async def test_the_caller_is_answered_whatever_a_vendor_does(
    vendor: Vendor, spares: dict[Role, Standin], tmp_path: Path
) -> None:
    before = asyncio.all_tasks()
    ready = asyncio.Barrier(len(TROUBLES))
    with structlog.testing.capture_logs() as logs:
        results = await asyncio.gather(
            *(
                call_through(name, begin, vendor, spares, tmp_path / str(number), ready)
                for number, (name, begin) in enumerate(TROUBLES.items())
            )
        )
    assert [line for result in results for line in result] == []
    no_key(repr(logs))
    for spare in spares.values():
        await spare.all_closed()
    assert {task.get_name() for task in asyncio.all_tasks() - before} == set()


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
