"""A bot for a carrier's media stream on a call of ours: it hears, is heard, is interrupted, hangs up, dies."""

import asyncio
import audioop
import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from agents_loopback import LoopbackLeg
from remote_bot import Bot
from remote_call import SECRET, BotCall

from bridge.events import BargeIn, Cause, Note, ProviderFailed, TurnEnded

Begin = Callable[..., BotCall]


def tone(length_ms: int, value: int = 1000) -> bytes:
    """A constant that mu-law leaves as it is."""
    exact = np.frombuffer(audioop.ulaw2lin(audioop.lin2ulaw(np.int16(value).tobytes(), 2), 2), np.int16)[0]
    return np.full(8 * length_ms, exact, np.int16).tobytes()


CODE = int(np.frombuffer(tone(1), np.int16)[0])


async def test_bot_is_told_of_the_call_as_its_carrier_would(bot: Bot, call: Begin) -> None:
    leg = LoopbackLeg()
    leg.info = replace(leg.info, headers={"campaign": "spring", "customer": "no", "secret": "s3cret"})
    one = call(leg=leg, parameters={"customer": "42"}, context=["CAMPAIGN", "customer", "gone"], account="AC-mine")
    start = (await bot.event("start"))["start"]
    assert bot.told[0]["event"] == "connected"
    assert bot.told[1]["event"] == "start"
    if bot.protocol == "twilio":
        assert start["callSid"] == f"CA{one.id}"
        assert start["mediaFormat"] == {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}
        told = {"from": "alice", "to": "agent", "campaign": "spring", "customer": "42"}
        assert start["customParameters"] == told
        assert start["accountSid"] == "AC-mine"
        digest = hmac.new(SECRET.encode(), bot.url.encode(), hashlib.sha1).digest()
        assert bot.headers[0]["x-twilio-signature"] == base64.b64encode(digest).decode()
    else:
        assert start["call_control_id"] == f"v3:{one.id}"
        assert start["media_format"] == {"encoding": "PCMU", "sample_rate": 8000, "channels": 1}
        assert (start["from"], start["to"], start["user_id"]) == ("alice", "agent", "AC-mine")
        assert json.loads(base64.b64decode(start["client_state"])) == {"campaign": "spring", "customer": "42"}
        assert bot.headers[0]["x-telnyx-streaming-auth-token"] == SECRET
        assert bot.told[0]["connected"] == {"x-telnyx-streaming-auth-token": SECRET}


async def test_bot_hears_every_frame_in_order(bot: Bot, call: Begin) -> None:
    one = call()
    await bot.event("start")
    said = b"".join(tone(20, 200 * step) for step in range(1, 40))
    one.leg.hear(said)
    await bot.event("media", 60)
    assert said in bot.pcm()
    numbers = [int(message["media"]["chunk"]) for message in bot.events("media")]
    assert numbers == list(range(1, len(numbers) + 1))
    stamps = [int(message["media"]["timestamp"]) for message in bot.events("media")]
    assert stamps == sorted(stamps)
    assert stamps[-1] - stamps[0] == pytest.approx(20 * (len(stamps) - 1), abs=200)


async def test_caller_hears_the_bot_to_the_last_sample_and_marks_tell_when(bot: Bot, call: Begin) -> None:
    one = call()
    await bot.event("start")
    await bot.speak(tone(300))
    await bot.mark("middle")
    await bot.speak(tone(200))
    await bot.mark("end")
    assert (await bot.event("mark"))["mark"] == {"name": "middle"}
    assert one.heard(CODE) >= 14
    assert (await bot.event("mark", 2))["mark"] == {"name": "end"}
    assert one.heard(CODE) == 25
    await bot.mark("at once")
    assert (await bot.event("mark", 3))["mark"] == {"name": "at once"}


async def test_clear_drops_what_was_not_played_and_returns_its_marks(bot: Bot, call: Begin) -> None:
    one = call()
    await bot.event("start")
    await bot.speak(tone(5000))
    await bot.mark("never played")
    while one.heard(CODE) < 10:
        await asyncio.sleep(0.02)
    await bot.clear()
    await bot.event("mark")
    heard = one.heard(CODE)
    assert heard < 200
    await bot.speak(tone(100, 3000))
    await bot.mark("after")
    await bot.event("mark", 2)
    assert one.heard(CODE) <= heard + 1
    (turn,) = (event for event in one.events if isinstance(event, TurnEnded))
    assert turn.interrupted
    assert abs(turn.heard_ms - 20 * heard) <= 40
    assert [event.confirmed for event in one.events if isinstance(event, BargeIn)] == [True]


async def test_turns_of_both_are_on_record_with_the_reply_delay(bot: Bot, call: Begin) -> None:
    one = call()
    await bot.event("start")
    one.leg.hear(tone(400))
    await bot.event("media", 45)
    await bot.speak(tone(300))
    await bot.mark("spoken")
    await bot.event("mark")
    await bot.close()
    await one.done()
    turns = [event for event in one.events if isinstance(event, TurnEnded)]
    assert [(turn.speaker, turn.index) for turn in turns] == [("caller", 0), ("agent", 1)]
    assert turns[0].heard_ms == pytest.approx(400, abs=40)
    assert turns[1].heard_ms == 300
    assert turns[1].delays.reply_ms is not None
    assert turns[1].delays.reply_ms > 300


async def test_keys_reach_the_bot(bot: Bot, call: Begin) -> None:
    one = call()
    await bot.event("start")
    one.leg.press("5")
    assert (await bot.event("dtmf"))["dtmf"]["digit"] == "5"


async def test_bot_hangs_up_by_closing_after_its_last_words(bot: Bot, call: Begin) -> None:
    one = call()
    await bot.event("start")
    await bot.speak(tone(400))
    await bot.close()
    assert (await one.done()).cause is Cause.AGENT_HUNG_UP
    assert one.heard(CODE) == 20


async def test_bot_is_told_when_the_caller_hangs_up(bot: Bot, call: Begin) -> None:
    one = call()
    await bot.event("start")
    await one.end()
    stop = (await bot.event("stop"))["stop"]
    assert bot.call_sid in stop.values()


async def test_call_is_not_longer_than_allowed(bot: Bot, call: Begin) -> None:
    one = call(max_call_s=5)
    one.leg.hear(tone(20))
    assert (await one.done()).cause is Cause.MAX_LENGTH
    await bot.event("stop")


@pytest.mark.parametrize("how", ["dies", "error"])
async def test_bot_that_breaks_leaves_no_silence(bot: Bot, call: Begin, how: str) -> None:
    one = call()
    await bot.event("start")
    assert bot.socket is not None
    if how == "dies":
        bot.socket.transport.abort()
    else:
        await bot.close(1011)
    done = await one.done()
    assert done.cause is Cause.ENGINE_FAILED
    assert sum(audioop.rms(frame, 2) > 500 for _, frame in one.leg.sent) > 50  # the reorder tone
    (failed,) = (event for event in one.events if isinstance(event, ProviderFailed))
    assert failed.provider == "bot"
    assert SECRET not in repr(one.events)


async def test_broken_bots_caller_is_handed_over(bot: Bot, call: Begin) -> None:
    one = call(handover="sip:desk@127.0.0.1")
    await bot.event("start")
    await bot.close(1011)
    assert (await one.done()).cause is Cause.TRANSFERRED
    assert one.leg.transfers == ["sip:desk@127.0.0.1"]


async def test_next_bot_takes_the_call_of_one_that_is_down(bot: Bot, call: Begin) -> None:
    one = call(url=["ws://127.0.0.1:9/ws", bot.url])
    await bot.event("start")
    (note,) = (event for event in one.events if isinstance(event, Note))
    assert note.name == "bot-unreachable"
    await bot.close()
    assert (await one.done()).cause is Cause.AGENT_HUNG_UP


async def test_bot_that_does_not_answer_is_given_up_in_time(bot: Bot, call: Begin) -> None:
    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(mute, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        one = call(url=f"ws://127.0.0.1:{port}/", connect_ms=200)
        assert (await one.done()).cause is Cause.ENGINE_FAILED


@pytest.mark.parametrize(
    "text",
    [
        "not json",
        "[]",
        "{}",
        '{"event": "media"}',
        '{"event": "media", "media": {"payload": "%%%"}}',
        '{"event": "media", "media": {"payload": 5}}',
        '{"event": "mark", "mark": {}}',
        '{"event": "dance"}',
        "[" * 50_000,
    ],
)
async def test_garbage_is_survived(bot: Bot, call: Begin, text: str) -> None:
    one = call()
    await bot.event("start")
    assert bot.socket is not None
    await bot.socket.send(text)
    await bot.socket.send(b"\0\1\2")
    if bot.protocol == "telnyx":
        assert (await bot.event("error"))["payload"]["code"] == 100003
    await bot.speak(tone(100))
    await bot.mark("still there")
    await bot.event("mark")
    assert one.heard(CODE) == 5


async def test_bot_that_says_nothing_else_is_given_up(bot: Bot, call: Begin) -> None:
    one = call()
    await bot.event("start")
    assert bot.socket is not None
    for _ in range(30):
        await bot.socket.send("garbage")
    assert (await one.done()).cause is Cause.ENGINE_FAILED


async def test_bot_that_does_not_read_costs_no_memory(bot: Bot, call: Begin) -> None:
    one = call()
    await bot.event("start")
    assert bot.socket is not None
    bot.socket.transport.pause_reading()
    remote = one.agent.calls.get(one.id)
    assert remote is not None
    for _ in range(60_000):
        for sink in one.leg.sinks:
            sink(tone(20), 0.0)
    assert len(remote._outbox) <= 102
    await one.end()
    assert any(isinstance(event, Note) and event.name == "bot-slow" for event in one.events)
    bot.socket.transport.resume_reading()
