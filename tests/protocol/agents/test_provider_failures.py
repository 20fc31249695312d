"""What a caller hears, and what the record says, when a provider fails: every vendor, in every way.

The failing vendor leads its chain, a spare follows. Each call has two questions and their answers. All ways to fail
of one vendor are gone through at the same time, each with a server of its own."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import structlog
from failures_call import SPARE, FailingCall, configuration, metrics_of, no_key
from failures_troubles import MAY_DO_WITHOUT, TROUBLES, Trouble
from failures_vendors import ANSWERS, KEY, REST, VENDORS, Vendor
from standin import Standin

from bridge.providers.base import Role
from bridge.talkers import Talkers

FIRST_SOUND_S = 6.0
"""From the caller's last word to the agent's first sound, whatever fails: end of the turn, deadline, the spare."""

NEXT_SOUND_S = 3.5
"""The same once the call is with the spare."""


async def call_through(
    name: str, begin: Trouble, vendor: Vendor, spares: dict[Role, Standin], folder: Path, ready: asyncio.Barrier
) -> list[str]:
    """One call during one trouble, begun once all are `ready`; returns what was wrong with it."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(vendor.server(KEY))
        talkers = Talkers(folder)
        stack.push_async_callback(talkers.aclose)
        await talkers.start(
            configuration(vendor, server, spares, folder, turns={"stt_wait_ms": 6000}), lambda line: None
        )
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
