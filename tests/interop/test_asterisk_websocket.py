"""Audio by chan_websocket of a real Asterisk 22: in both directions of connecting, in each codec and dialect."""

import asyncio
import audioop
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from ari_proxy import AriProxy
from asterisk_line import AsteriskLine, asterisk_line, up
from asterisk_shop import AsteriskShop
from contract import LegContract, Listener, say, tone
from sip_line import Line

from bridge.asterisk.settings import AsteriskSettings, WebsocketListenerSettings
from bridge.events import Cause, DtmfReceived, FarFlushed, LegEnded, MediaSetUp
from bridge.legs.asterisk.leg import AsteriskLeg
from bridge.legs.asterisk.websocket import WebsocketTransport
from bridge.legs.asterisk.websocket_listener import WebsocketListener
from bridge.legs.base import Leg, LegError, LegState
from bridge.legs.sip import SipLeg
from bridge.rtp.format import DEFAULT_LIMITS

PASSED_ON = """
[caller](+type=endpoint)
moh_passthrough=yes
"""
"""Hold is the phone's own business: Asterisk tells it, and plays no music of its own."""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AsteriskShop]:
    started = AsteriskShop(tmp_path_factory.mktemp("shop"), pjsip=PASSED_ON)
    yield started
    started.stop()


@asynccontextmanager
async def by_websocket(
    shop: AsteriskShop, *, listens: bool = True, url: str = "", **websocket: Any
) -> AsyncIterator[tuple[AsteriskLine, WebsocketTransport]]:
    """Calls whose audio comes by WebSocket. `websocket` are settings of it; `url`: of a proxy in front."""
    listener = WebsocketListener(WebsocketListenerSettings(listen="127.0.0.1", port=shop.websocket_port))
    made: list[WebsocketTransport] = []

    def make(sip: Line, settings: AsteriskSettings) -> Any:
        made.append(WebsocketTransport(sip.clock, settings, DEFAULT_LIMITS, listener))
        return {"websocket": made[0]}

    if listens:
        listener.start()
    try:
        settings = {"media": "websocket", "websocket": websocket, "url": url or shop.ari_url}
        async with asterisk_line(shop, more=make, **settings) as line:
            yield line, made[0]
    finally:
        await listener.aclose()


async def answered(line: AsteriskLine) -> tuple[AsteriskLeg, SipLeg]:
    near, far = await line.call()
    await near.answer()
    await up(near, far)
    return near, far


class TestWhereWeConnect(LegContract):
    @pytest.fixture(autouse=True)
    def _at(self, shop: AsteriskShop) -> None:
        self.shop = shop

    @asynccontextmanager
    async def offered(self) -> AsyncIterator[tuple[Leg, Leg]]:
        async with by_websocket(self.shop, connects="us") as (line, _):
            yield await line.call()


class TestWhereAsteriskConnects(LegContract):
    @pytest.fixture(autouse=True)
    def _at(self, shop: AsteriskShop) -> None:
        self.shop = shop

    @asynccontextmanager
    async def offered(self) -> AsyncIterator[tuple[Leg, Leg]]:
        async with by_websocket(self.shop, connects="asterisk") as (line, _):
            yield await line.call()


@pytest.mark.parametrize(
    ("connects", "codec", "control"),
    [
        ("us", "ulaw", "plain-text"),
        ("us", "alaw", "json"),
        ("asterisk", "slin", "plain-text"),
    ],
)
async def test_each_codec_and_dialect_carries_audio_both_ways(
    shop: AsteriskShop, connects: str, codec: str, control: str
) -> None:
    async with by_websocket(shop, connects=connects, codec=codec, control=control) as (line, transport):
        near, far = await answered(line)
        assert near.sample_rate == transport.sample_rate == 8000
        at_near, at_far = Listener(near), Listener(far)
        say(near, tone(near, 600.0, 3000))
        say(far, tone(far, 440.0, 3000))
        await at_near.hears_tone(440.0)
        await at_far.hears_tone(600.0)
        # Asterisk answers marks in this dialect: that is how the queue's length is known.
        media = near.playout
        await line.until(lambda: media.far_frames in (1, 2) and transport.counters.faults == 0, "measurement")


async def test_setting_up_is_told_with_its_transport(shop: AsteriskShop) -> None:
    async with by_websocket(shop) as (line, _):
        near, far = await line.call()
        at_near = Listener(near)
        await near.answer()
        told = await at_near.event(MediaSetUp)
        assert isinstance(told, MediaSetUp)
        assert (told.transport, told.codec) == ("websocket", "slin16")
        await up(near, far)


FRAMES = 90
BLOCK = 80
"""Bytes in 5 ms, the length of a fade."""


def numbered() -> bytes:
    """Each frame at a level of its own, which G.711 passes through unchanged."""
    return b"".join(audioop.ulaw2lin(bytes((128 + n,)) * 160, 2) for n in range(1, FRAMES + 1))


def numbers(frames: list[bytes]) -> list[int]:
    """Of which frames 5 ms were heard as they were said, four times each if nothing is missing."""
    heard = b"".join(frames)
    blocks = [set(audioop.lin2ulaw(heard[at : at + BLOCK], 2)) for at in range(0, len(heard), BLOCK)]
    codes = [block.pop() for block in blocks if len(block) == 1]
    return [code - 128 for code in codes if 128 < code <= 128 + FRAMES]


@pytest.mark.parametrize("connects", ["us", "asterisk"])
async def test_a_false_alarm_makes_no_hole_and_a_cut_is_heard_at_once(shop: AsteriskShop, connects: str) -> None:
    async with by_websocket(shop, connects=connects, codec="ulaw") as (line, transport):
        near, far = await answered(line)
        at_near, at_far = Listener(near), Listener(far)
        playout = near.playout
        generation = playout.begin()
        playout.write(generation, numbered())
        playout.end(generation)
        for stop in (20, 40, 60):
            await at_far.until(lambda stop=stop: max(numbers(at_far.frames), default=0) >= stop)
            flushes = transport.counters.flushes
            playout.pause()
            await line.until(lambda flushes=flushes: transport.counters.flushes > flushes, "answer to a flush")
            # What was on its way is heard; then nothing is.
            paused = len(at_far.frames)
            await at_far.until(lambda paused=paused: len(at_far.frames) >= paused + 10)
            assert not any(map(any, at_far.frames[-5:]))
            # Off by what is on its way between the two, and by what a busy machine is late with.
            assert abs(len(numbers(at_far.frames)) * 5 - playout.heard_ms) <= 100
            playout.resume()
        await line.until(lambda: playout.heard_ms == FRAMES * 20, "end of the utterance")
        await at_far.until(lambda: not any(map(any, at_far.frames[-5:])))
        told = [event for event in at_near.events if isinstance(event, FarFlushed)]
        assert len(told) == 3
        got = numbers(at_far.frames)
        assert got == sorted(got)
        # No more is missing than the fades: 5 ms at each stop, and 5 where it goes on.
        assert FRAMES * 4 - 3 * 3 <= len(got) <= FRAMES * 4


TOO_MANY = 950
"""Frames: Asterisk says that it is full at 900, that it is not below 800."""


async def test_an_asterisk_that_is_full_is_waited_for_and_cut_short(shop: AsteriskShop) -> None:
    proxy = AriProxy(shop.http_port)
    try:
        async with by_websocket(shop, url=f"http://127.0.0.1:{proxy.port}") as (line, transport):
            near, far = await answered(line)
            at_far = Listener(far)
            say(near, tone(near, 600.0, 60_000))
            await at_far.hears_tone(600.0)
            proxy.fill(TOO_MANY, 2 * near.sample_rate * 20 // 1000)
            counters, playout = transport.counters, near.playout
            await line.until(lambda: (counters.full, counters.stalls) == (1, 1), "full queue")
            stopped_ms = playout.sent_ms
            # Asterisk has 18 s of silence to play, and 2 s of them before it takes more.
            await at_far.until(lambda: not any(map(any, at_far.frames[-50:])))
            assert playout.sent_ms == stopped_ms
            await line.until(lambda: playout.sent_ms > stopped_ms, "audio for a queue that is full no more")
            playout.drop()
            say(near, tone(near, 900.0, 60_000))
            await at_far.hears_tone(900.0)
            assert counters.flushed_ms > 15_000
            assert counters.full == 1
    finally:
        proxy.stop()


async def test_a_socket_that_breaks_ends_the_leg_and_not_the_caller(shop: AsteriskShop) -> None:
    async with by_websocket(shop) as (line, _):
        near, far = await answered(line)
        at_near = Listener(near)
        media = next(name for name in shop.channels() if name.startswith("WebSocket/"))
        shop.cli(f"channel request hangup {media}")
        ended = await at_near.event(LegEnded)
        assert isinstance(ended, LegEnded)
        # The caller goes on in the dialplan.
        assert far.state is LegState.UP


async def test_where_nobody_listens_the_call_can_go_on_without_us(shop: AsteriskShop) -> None:
    async with by_websocket(shop, listens=False, connects="asterisk") as (line, _):
        near, _far = await line.call()
        with pytest.raises(LegError, match=r"websocket_client\.conf"):
            await near.answer()
        await near.hangup(Cause.REFUSED_MEDIA, "no audio")


async def test_a_digit_is_told_once(shop: AsteriskShop) -> None:
    async with by_websocket(shop) as (line, _):
        near, far = await answered(line)
        at_near = Listener(near)
        far.send_dtmf("12")
        await at_near.until(lambda: [e for e in at_near.events if isinstance(e, DtmfReceived) and e.digit == "2"])
        assert [e.digit for e in at_near.events if isinstance(e, DtmfReceived)] == ["1", "2"]


async def test_many_calls_at_once_are_set_up_and_gone(shop: AsteriskShop) -> None:
    async with by_websocket(shop, connects="asterisk") as (line, transport):
        calls = [await line.call() for _ in range(8)]
        await asyncio.gather(*(near.answer() for near, _ in calls))
        listeners = [Listener(near) for near, _ in calls]
        for _, far in calls:
            say(far, tone(far, 440.0, 3000))
        await asyncio.gather(*(listener.hears_tone(440.0) for listener in listeners))
        assert transport.counters.calls == 8
