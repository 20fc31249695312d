"""The ways in which a provider is made to fail."""

from collections.abc import Awaitable, Callable

from failures_vendors import KEY, Vendor
from standin import Standin

Trouble = Callable[[Standin, Vendor], Awaitable[None]]


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
