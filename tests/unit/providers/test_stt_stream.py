"""The stream around a recogniser's connection, with a connection of lists and a dialect of three words."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

import pytest

from bridge.providers.base import Heard, ProviderError, SttEvent, SttFailed
from bridge.providers.stt_stream import StreamingSttStream
from bridge.providers.stt_turn import Act, Item, Said, Settled, Sign


class Wire:
    """A connection whose far end is a test."""

    def __init__(self) -> None:
        self.sent: list[Item] = []
        self.incoming: asyncio.Queue[Any] = asyncio.Queue()
        self.closed = False

    async def send(self, item: Item) -> None:
        if item == "refused":
            raise ProviderError("vendor", "would not take it")
        self.sent.append(item)

    async def messages(self) -> AsyncIterator[Any]:
        while (message := await self.incoming.get()) is not None:
            yield message

    async def aclose(self) -> None:
        self.closed = True


class Dialect:
    """Messages are signs, or exceptions of a bug in a dialect."""

    def __init__(self) -> None:
        self.at_s: list[float] = []

    def started(self, at_s: float) -> Sequence[Act]:
        return ()

    def paused(self, pause: int, at_s: float) -> Sequence[Act]:
        self.at_s.append(at_s)
        return ("finalise",)

    def committed(self, at_s: float, speaking: bool) -> Sequence[Act]:
        return ("refused",) if speaking else ()

    def idle(self) -> Sequence[Act]:
        return ("alive",)

    def overdue(self, pause: int) -> Sequence[Act]:
        return ()

    def take(self, message: Any) -> Iterable[Sign]:
        if isinstance(message, Exception):
            raise message
        return [message]


class Ear:
    def __init__(self, **options: Any) -> None:
        self.wire = Wire()
        self.dialect = Dialect()
        self.events: list[SttEvent] = []
        given = {"encode": bytes, "chunk_ms": 60, "settle_s": 5.0, **options}
        self.stream = StreamingSttStream(self.wire, self.dialect, self.events.append, sample_rate=8000, **given)

    async def turns(self) -> None:
        """Let the loop do what is due."""
        for _ in range(10):
            await asyncio.sleep(0)


async def test_audio_goes_in_chunks_and_what_is_left_goes_ahead_of_a_command() -> None:
    ear = Ear()
    for _ in range(5):
        ear.stream.push(b"\1" * 320)
    ear.stream.speech_paused()
    await ear.turns()
    assert [item if isinstance(item, str) else len(item) for item in ear.wire.sent] == [960, 640, "finalise"]
    assert ear.dialect.at_s == [0.1]
    await ear.stream.aclose()


async def test_a_chunk_that_is_too_short_to_send_follows_the_command() -> None:
    ear = Ear(least_chunk_ms=60)
    ear.stream.push(b"\1" * 320)
    ear.stream.speech_paused()
    ear.stream.push(b"\1" * 640)
    await ear.turns()
    assert [item if isinstance(item, str) else len(item) for item in ear.wire.sent] == ["finalise", 960]
    await ear.stream.aclose()


async def test_a_resampler_that_has_nothing_to_say_yet_sends_no_empty_frame() -> None:
    ear = Ear(encode=lambda pcm: b"")
    for _ in range(3):
        ear.stream.push(b"\1" * 320)
    await ear.turns()
    assert ear.wire.sent == []
    await ear.stream.aclose()


async def test_a_text_is_settled_and_nothing_is_told_after_the_end() -> None:
    ear = Ear()
    ear.wire.incoming.put_nowait(Said(1, "yes"))
    await ear.turns()
    ear.stream.speech_paused()
    ear.wire.incoming.put_nowait(Settled(1))
    await ear.turns()
    assert [(event.text, event.settled) for event in ear.events if isinstance(event, Heard)] == [
        ("yes", False),
        ("yes", True),
    ]
    await ear.stream.aclose()
    assert ear.wire.closed
    assert len(ear.events) == 2


@pytest.mark.parametrize(
    ("message", "error"),
    [(None, "closed the connection"), (ProviderError("vendor", "gone"), "gone"), (KeyError("x"), "KeyError")],
)
async def test_whatever_ends_the_stream_is_told_once(message: object, error: str) -> None:
    ear = Ear()
    ear.wire.incoming.put_nowait(message)
    await ear.turns()
    ear.stream.push(b"\1" * 960)
    ear.stream.speech_paused()
    await ear.turns()
    (failure,) = ear.events
    assert isinstance(failure, SttFailed)
    assert failure.fatal
    assert error in failure.error
    await ear.stream.aclose()


async def test_a_connection_that_refuses_a_command_ends_the_stream() -> None:
    ear = Ear()
    ear.stream.speech_started()
    ear.stream.commit()
    await ear.turns()
    assert ear.events == [SttFailed("vendor: would not take it", fatal=True)]
    await ear.stream.aclose()


async def test_closing_that_is_cancelled_closes_the_connection_all_the_same() -> None:
    ear = Ear()
    await ear.turns()
    closing = asyncio.create_task(ear.stream.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert ear.wire.closed
