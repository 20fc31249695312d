"""One use of any vendor in its role, and its end at every place where it waits."""

import asyncio
from collections.abc import Coroutine, Generator
from contextlib import aclosing
from datetime import datetime
from typing import Any, Generic, TypeVar

from failures_vendors import KEY, Vendor
from standin import Standin
from standin_ear import tone

from bridge.providers import registry
from bridge.providers.base import LlmRequest, Message
from bridge.providers.brief import Brief

T = TypeVar("T")

KEY_ENV = "VENDOR_KEY"
STEPS = 40
"""Of the loop, while a recogniser is at work."""
TEXT = "We open at nine."
ASKED = LlmRequest(
    brief=Brief(),
    messages=[Message("user", "When do you open tomorrow?")],
    tools=(),
    now=datetime(2026, 5, 5, 15, 0),  # noqa: DTZ001 the caller's local time, as a request has it
)


def made(vendor: Vendor, server: Standin, key: str = KEY, **settings: Any) -> Any:
    """The vendor's provider at the stand-in; `settings` are of its role."""
    entry = vendor.entry(server, KEY_ENV)
    top = {name: settings.pop(name) for name in ("connect_s",) if name in settings}
    entry = {**entry, **top, vendor.role: {**vendor.settings, **settings}}
    configured = registry.settings_class(vendor.kind)(**entry)
    return registry.make(vendor.role, vendor.kind, configured, {KEY_ENV: key})


async def use(vendor: Vendor, provider: Any) -> list[Any]:
    """A reply, a text's speech, or a recogniser's stream: the events that came."""
    heard: list[Any] = []
    if vendor.role == "stt":
        stream = await provider.open(sample_rate=8000, language="en", emit=heard.append)
        try:
            stream.speech_started()
            for _ in range(30):
                stream.push(tone(20))
            stream.speech_paused()
            for _ in range(STEPS):
                await asyncio.sleep(0)
        finally:
            await stream.aclose()
        return heard
    events = (
        provider.reply(ASKED)
        if vendor.role == "llm"
        else provider.synthesize(TEXT, voice="", sample_rate=8000, language="en", turn="t")
    )
    async with aclosing(events):
        async for event in events:
            heard.append(event)
    return heard


class CancelledAt(Generic[T]):
    """Awaits `work`, and cancels its task at the `place`-th time that it waits (from 0): as the wait begins or,
    `late`, as it ends, so that what came is lost."""

    def __init__(self, work: Coroutine[Any, Any, T], place: int, *, late: bool) -> None:
        self._work = work
        self._place = place
        self._late = late
        self.reached = False

    def __await__(self) -> Generator[Any, Any, T]:
        task = asyncio.current_task()
        assert task is not None
        waits, value, error = 0, None, None
        while True:
            try:
                waited = self._work.send(value) if error is None else self._work.throw(error)
            except StopIteration as done:
                result: T = done.value
                return result
            if waits == self._place:
                self.reached = True
                if self._late and isinstance(waited, asyncio.Future):
                    waited._asyncio_future_blocking = False
                    waited.add_done_callback(lambda _: task.cancel())
                    waited._asyncio_future_blocking = True
                else:
                    task.cancel()
            waits += 1
            value = error = None
            try:
                value = yield waited
            except BaseException as thrown:  # noqa: BLE001 it is thrown on
                error = thrown


async def cancelled(work: Coroutine[Any, Any, Any], place: int, *, late: bool) -> bool:
    """Whether `work` was cancelled there; False: it waits less often than that, and is complete."""
    at: CancelledAt[Any] = CancelledAt(work, place, late=late)

    async def run() -> None:
        await at

    task = asyncio.create_task(run())
    await asyncio.wait([task], timeout=30)
    assert task.done(), f"it goes on though it was cancelled at {place}"
    if not task.cancelled():
        task.result()
    return at.reached
