"""Whoever gives up on a vendor, at whatever moment, leaves nothing behind: no task, no connection, no place taken."""

import asyncio
from typing import Any

import pytest
from failures_vendors import KEY, VENDORS, Vendor
from vendors_use import cancelled, made, use

MOST_WAITS = 400
FEW = {"tts": {"sockets": 1}}
"""One connection: were a place on it not given back, the next text would not be spoken."""


def settings(vendor: Vendor) -> dict[str, Any]:
    return FEW["tts"] if vendor.role == "tts" and vendor.kind != "openai" else {}


@pytest.mark.parametrize("late", [False, True], ids=["early", "late"])
@pytest.mark.parametrize("vendor", VENDORS, ids=lambda vendor: vendor.label)
async def test_a_use_that_is_cancelled_anywhere_leaves_nothing(vendor: Vendor, late: bool) -> None:
    before = asyncio.all_tasks()
    async with vendor.server(KEY) as server:
        provider = made(vendor, server, **settings(vendor))
        for place in range(MOST_WAITS):
            if not await cancelled(use(vendor, provider), place, late=late):
                break
            if vendor.role == "stt":
                await server.until(lambda: not any(exchange.is_socket for exchange in server.live))
            elif not place % 5:
                async with asyncio.timeout(30):
                    await use(vendor, provider)
        else:
            raise AssertionError("it never ends")
        assert place
        assert server.open_connections <= 2
        await use(vendor, provider)
        await provider.aclose()
        await server.all_closed()
    assert {task.get_coro() for task in asyncio.all_tasks() - before} == set()


@pytest.mark.parametrize("vendor", VENDORS, ids=lambda vendor: vendor.label)
async def test_a_provider_whose_closing_is_cancelled_can_be_closed_again(vendor: Vendor) -> None:
    before = asyncio.all_tasks()
    async with vendor.server(KEY) as server:
        for place in range(MOST_WAITS):
            provider = made(vendor, server, **settings(vendor))
            await use(vendor, provider)
            reached = await cancelled(provider.aclose(), place, late=False)
            await provider.aclose()
            await server.all_closed()
            if not reached:
                break
    assert {task.get_coro() for task in asyncio.all_tasks() - before} == set()


@pytest.mark.parametrize("vendor", VENDORS, ids=lambda vendor: vendor.label)
async def test_a_provider_that_is_closed_while_it_opens_a_connection_leaves_none(vendor: Vendor) -> None:
    before = asyncio.all_tasks()
    async with vendor.server(KEY) as server:
        for steps in range(60):
            provider = made(vendor, server, **settings(vendor))
            warming = asyncio.create_task(provider.warm())
            for _ in range(steps):
                await asyncio.sleep(0)
            warming.cancel()
            await asyncio.wait([warming])
            await provider.aclose()
        await server.all_closed()
    assert {task.get_coro() for task in asyncio.all_tasks() - before} == set()
