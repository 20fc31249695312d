"""The pool of a voice provider's connections, and the wait for a text's speech."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from bridge.providers.base import (
    ProviderBusyError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    SpeechChunk,
)
from bridge.providers.deepgram.speak_socket import FlushBudget
from bridge.providers.tts_audio import WireFormat
from bridge.providers.tts_pool import PoolLimits, SocketPool
from bridge.providers.tts_source import Deadlines, Delivery, Leave, SocketLostError, Utterance, parts, speak


class Line:
    """A socket that does nothing."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.alive = True
        self.problem: ProviderError | None = None
        self.rested = True
        self.closed = False

    def ready(self, now: float) -> bool:
        return self.rested

    async def aclose(self) -> None:
        self.closed = True
        self.alive = False


class Exchange:
    """Opens lines, when it is let."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.let = asyncio.Event()
        self.let.set()
        self.error: ProviderError | None = None
        self.dead = False

    async def connect(self, key: str) -> Line:
        await self.let.wait()
        if self.error is not None:
            raise self.error
        self.lines.append(Line(key))
        self.lines[-1].alive = not self.dead
        return self.lines[-1]

    def pool(
        self, texts: int = 2, sockets: int = 3, idle_s: float = 60, room_s: float = 0.05
    ) -> SocketPool[str, Line]:
        return SocketPool("voice", self.connect, PoolLimits(texts, sockets, idle_s, room_s))


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_socket_is_filled_before_another_is_opened() -> None:
    exchange = Exchange()
    pool = exchange.pool()
    leases = [await pool.take("a") for _ in range(3)]
    assert [lease.socket for lease in leases] == [exchange.lines[0], exchange.lines[0], exchange.lines[1]]
    leases[0].release()
    leases[0].release()
    assert (await pool.take("a")).socket is exchange.lines[0]
    assert (await pool.take("a")).socket is exchange.lines[1]
    await pool.aclose()
    assert all(line.closed for line in exchange.lines)


async def test_who_comes_while_a_socket_is_being_opened_waits_for_the_same() -> None:
    exchange = Exchange()
    exchange.let.clear()
    pool = exchange.pool()
    taking = [asyncio.create_task(pool.take("a")) for _ in range(3)]
    await settled()
    taking[0].cancel()
    await settled()
    exchange.let.set()
    leases = [await task for task in taking[1:]]
    assert [exchange.lines.index(lease.socket) for lease in leases] == [0, 1]
    assert (await pool.take("a")).socket is exchange.lines[0]
    await pool.aclose()


async def test_another_key_needs_another_socket_and_closes_an_idle_one_when_there_are_enough() -> None:
    exchange = Exchange()
    pool = exchange.pool(sockets=2)
    first = await pool.take("a")
    await pool.take("b")
    first.release()
    assert (await pool.take("c")).socket.key == "c"
    await settled()
    assert [line.closed for line in exchange.lines] == [True, False, False]
    await pool.aclose()


async def test_when_all_are_full_a_text_waits_for_room_and_is_refused_in_the_end() -> None:
    exchange = Exchange()
    pool = exchange.pool(texts=1, sockets=1)
    lease = await pool.take("a")
    with pytest.raises(ProviderBusyError):
        await pool.take("a")
    waiting = asyncio.create_task(pool.take("a"))
    await settled()
    lease.release()
    assert (await waiting).socket is lease.socket
    await pool.aclose()


async def test_a_fresh_socket_is_wanted_though_others_have_room() -> None:
    exchange = Exchange()
    pool = exchange.pool()
    await pool.take("a")
    assert (await pool.take("a", fresh=True)).socket is exchange.lines[1]
    await pool.aclose()


async def test_dead_and_resting_sockets_are_passed_over() -> None:
    exchange = Exchange()
    pool = exchange.pool()
    (await pool.take("a")).socket.alive = False
    (await pool.take("a")).socket.rested = False
    assert (await pool.take("a")).socket is exchange.lines[2]
    await settled()
    assert [line.closed for line in exchange.lines] == [True, False, False]
    await pool.aclose()


async def test_a_retired_socket_is_closed_when_the_last_text_is_done() -> None:
    exchange = Exchange()
    pool = exchange.pool()
    one, two = await pool.take("a"), await pool.take("a")
    one.retire()
    await settled()
    assert not exchange.lines[0].closed
    assert two.another() is None
    assert (await pool.take("a")).socket is exchange.lines[1]
    two.release()
    await settled()
    assert exchange.lines[0].closed
    await pool.aclose()


async def test_what_went_wrong_with_connecting_is_told_to_all_who_waited() -> None:
    exchange = Exchange()
    exchange.error = ProviderUnavailableError("voice", "no")
    pool = exchange.pool()
    results = await asyncio.gather(pool.take("a"), pool.take("a"), return_exceptions=True)
    assert [str(result) for result in results] == ["voice: no", "voice: no"]
    assert pool.sockets == 0
    pool.warm("a")
    await settled()
    assert pool.sockets == 0
    await pool.aclose()


async def test_sockets_that_are_dead_at_once_are_not_opened_for_ever() -> None:
    exchange = Exchange()
    exchange.dead = True
    pool = exchange.pool()
    with pytest.raises(ProviderUnavailableError, match="as soon as"):
        await pool.take("a")
    assert len(exchange.lines) == 2
    await pool.aclose()


async def test_warm_opens_what_was_used_lately_else_the_default() -> None:
    exchange = Exchange()
    pool = exchange.pool()
    pool.warm("default")
    pool.warm("default")
    await settled()
    assert [line.key for line in exchange.lines] == ["default"]
    (await pool.take("b")).release()
    exchange.lines[1].alive = False
    pool.warm("default")
    await settled()
    assert [line.key for line in exchange.lines] == ["default", "b", "b"]
    await pool.aclose()


async def test_a_closed_pool_opens_nothing() -> None:
    exchange = Exchange()
    pool = exchange.pool()
    exchange.let.clear()
    taking = asyncio.create_task(pool.take("a"))
    await settled()
    await pool.aclose()
    with pytest.raises(ProviderUnavailableError):
        await taking
    with pytest.raises(ProviderUnavailableError):
        await pool.take("a")
    pool.warm("a")
    assert exchange.lines == []


def test_twenty_flushes_may_be_sent_in_any_minute() -> None:
    budget = FlushBudget()
    for second in range(20):
        assert budget.ready(float(second))
        budget.spend(float(second))
    assert not budget.ready(59.9)
    assert budget.ready(60.0)
    budget.spend(60.0)
    assert not budget.ready(60.5)
    assert budget.ready(61.0)


def test_a_long_text_is_cut_between_words() -> None:
    assert list(parts("one two three", 8)) == ["one two ", "three"]
    assert list(parts("abcdefgh", 3)) == ["abc", "def", "gh"]
    assert list(parts("one", 8)) == ["one"]


class Spoken:
    """A source whose speech is scripted."""

    def __init__(self) -> None:
        self.delivery = Delivery()
        self.left: list[Leave] = []

    async def next(self) -> SpeechChunk | None:
        return await self.delivery.fetch()

    async def leave(self, how: Leave) -> None:
        self.left.append(how)


def beginning(*sources: Spoken) -> Callable[[bool], Awaitable[Spoken]]:
    rest = iter(sources)

    async def begin(again: bool) -> Spoken:
        return next(rest)

    return begin


CHUNK = SpeechChunk(b"\0\0")
QUICK = Deadlines(0.05, 0.05)


async def test_a_text_found_on_a_dead_socket_is_sent_again_once() -> None:
    dead, good = Spoken(), Spoken()
    dead.delivery.fail(SocketLostError("gone"))
    good.delivery.put(CHUNK)
    good.delivery.finish()
    assert [chunk async for chunk in speak("voice", "Hi", QUICK, beginning(dead, good))] == [CHUNK]
    assert (dead.left, good.left) == ([Leave.FAILED], [Leave.DONE])
    worse = [Spoken(), Spoken()]
    for source in worse:
        source.delivery.fail(SocketLostError("gone"))
    with pytest.raises(ProviderError, match="gone"):
        _ = [chunk async for chunk in speak("voice", "Hi", QUICK, beginning(*worse))]


async def test_each_wait_has_its_deadline() -> None:
    silent, stuck = Spoken(), Spoken()
    with pytest.raises(ProviderTimeoutError, match="no audio"):
        _ = [chunk async for chunk in speak("voice", "Hi", QUICK, beginning(silent))]
    stuck.delivery.put(CHUNK)
    with pytest.raises(ProviderTimeoutError, match="no more audio"):
        _ = [chunk async for chunk in speak("voice", "Hi", QUICK, beginning(stuck))]
    assert (silent.left, stuck.left) == ([Leave.STALLED], [Leave.STALLED])


async def test_a_text_with_words_that_brings_no_audio_is_an_error_and_others_are_not() -> None:
    sources = [Spoken(), Spoken()]
    for source in sources:
        source.delivery.finish()
    with pytest.raises(ProviderError, match="no audio came"):
        _ = [chunk async for chunk in speak("voice", "Hi", QUICK, beginning(sources[0]))]
    assert [chunk async for chunk in speak("voice", "...", QUICK, beginning(sources[1]))] == []


async def test_what_came_before_a_failure_is_heard() -> None:
    source = Spoken()
    source.delivery.put(CHUNK)
    source.delivery.fail(ProviderBusyError("voice", "enough"))
    source.delivery.put(CHUNK)
    heard = []
    with pytest.raises(ProviderBusyError):
        async for chunk in speak("voice", "Hi", QUICK, beginning(source)):
            heard.append(chunk)
    assert heard == [CHUNK]


async def test_audio_without_end_is_cut_off() -> None:
    minute, delivery, utterance = bytes(60 * 8000), Delivery(), Utterance("Hi", WireFormat("mulaw", 8000), 8000)
    for _ in range(3):
        delivery.sound(utterance, minute)
    assert len((await delivery.fetch() or CHUNK).pcm) == 2 * len(minute)
    with pytest.raises(SocketLostError, match="more audio came than 32 s"):
        await delivery.fetch()


class Dripping(Spoken):
    """A source that sends a sample at a time, each in time."""

    async def next(self) -> SpeechChunk | None:
        await asyncio.sleep(0.03)
        return CHUNK


async def test_audio_that_drips_is_late_though_each_piece_is_not() -> None:
    source = Dripping()
    heard = []
    with pytest.raises(ProviderTimeoutError, match="no more audio"):
        async for chunk in speak("voice", "Hi", QUICK, beginning(source)):
            heard.append(chunk)
    assert 1 <= len(heard) < 10
    assert source.left == [Leave.STALLED]


async def test_a_text_that_waits_for_room_and_is_given_up_is_forgotten() -> None:
    pool = Exchange().pool(texts=1, sockets=1, room_s=60)
    lease = await pool.take("a")
    waiting = asyncio.create_task(pool.take("a"))
    while not pool._waiting:
        await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert not pool._waiting
    lease.release()
    await pool.aclose()
