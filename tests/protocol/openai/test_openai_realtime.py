"""OpenAI Realtime through the official SDK, against the stand-in: what a session tells, remembers and survives."""

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from openai_realtime_server import KEY, RealtimeServer
from realtime_session import Caller, a_caller_on
from realtime_standin import WORD_MS, Turn, spoken

from bridge.providers.base import (
    Message,
    ProviderBusyError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    ToolCall,
)
from bridge.providers.openai.realtime import OpenAiRealtime
from bridge.providers.openai.settings import OpenAiSettings
from bridge.providers.realtime import (
    AgentAudio,
    AgentText,
    CallerSaid,
    CallerSpeaks,
    RealtimeEvent,
    RealtimeFailed,
    RealtimeSetup,
    ReplyEnded,
    ReplyStarted,
    SessionEnding,
    ToolAsked,
)

SILENCE = bytes(320)


@pytest.fixture
async def server() -> AsyncIterator[RealtimeServer]:
    async with RealtimeServer() as server:
        yield server
        await server.all_closed()


@pytest.fixture
async def provider(server: RealtimeServer) -> AsyncIterator[OpenAiRealtime]:
    provider = a_provider(server)
    yield provider
    await provider.aclose()


def a_provider(server: RealtimeServer, opening_s: float = 20) -> OpenAiRealtime:
    settings = OpenAiSettings(websocket_url=server.url, connect_s=opening_s, realtime={"setup_s": opening_s})
    return OpenAiRealtime("openai", settings, environ={"OPENAI_API_KEY": KEY})


Open = Callable[..., Any]


@pytest.fixture
async def call(provider: OpenAiRealtime) -> AsyncIterator[Open]:
    opened: list[Caller] = []

    async def open_(**setup: Any) -> Caller:
        opened.append(await a_caller_on(provider, **setup))
        return opened[-1]

    yield open_
    for caller in opened:
        await caller.session.aclose()


async def test_session_is_set_up_for_mu_law_both_ways_with_tools_and_history(
    server: RealtimeServer, call: Open
) -> None:
    history = [
        Message("user", "hello"),
        Message("assistant", "", (ToolCall("c1", "look_up", {"what": "x"}), ToolCall("c2", "look_up", {}))),
        Message("tool", '{"ok": true}', tool_call_id="c1"),
        Message("assistant", "We open at", interrupted=True),
    ]
    await call(history=history, voice="cedar", language="de-DE", interrupts=False)
    await server.until(lambda: len(server.talk.items) == 4)
    session = server.talk.session
    assert session["audio"]["input"]["format"] == session["audio"]["output"]["format"] == {"type": "audio/pcmu"}
    assert session["audio"]["output"]["voice"] == "cedar"
    assert session["audio"]["input"]["transcription"]["language"] == "de"
    assert session["audio"]["input"]["turn_detection"]["interrupt_response"] is False
    assert session["tools"][0]["name"] == "look_up"
    items = server.talk.items
    assert [item["type"] for item in items] == ["message", "function_call", "function_call_output", "message"]
    assert items[3]["content"] == [{"type": "output_text", "text": "We open at —"}]


async def test_caller_is_heard_and_answered(server: RealtimeServer, call: Open) -> None:
    server.script = [Turn("when are you open", "We open at noon.")]
    caller = await call()
    caller.speak()
    [end] = await caller.ended()
    assert end.completed and not end.error
    assert caller.said(end.item) == "We open at noon."
    assert caller.audio_ms(end.item) == 4 * WORD_MS
    speaks = caller.of(CallerSpeaks)
    assert [event.ended for event in speaks] == [False, True]
    await caller.until(lambda: caller.of(CallerSaid))
    assert caller.of(CallerSaid) == [CallerSaid("when are you open", speaks[0].item)]
    kinds = [type(event) for event in caller.events]
    assert kinds.index(ReplyStarted) < kinds.index(AgentText) and kinds.index(ReplyStarted) < kinds.index(AgentAudio)


async def test_wide_band_leg_goes_over_24_khz(server: RealtimeServer, call: Open) -> None:
    server.script = [Turn("hi", "We open at noon.")]
    caller = await call(sample_rate=16000)
    caller.speak(frame=spoken("a", 16000)[:640])
    [end] = await caller.ended()
    assert server.talk.session["audio"]["output"]["format"] == {"type": "audio/pcm", "rate": 24000}
    assert caller.audio_ms(end.item, 16000) == pytest.approx(4 * WORD_MS, abs=0.2)


async def test_words_are_said_as_given_and_marked(server: RealtimeServer, call: Open) -> None:
    caller = await call()
    caller.session.say("Good evening, Lanterna.", "greeting")
    [end] = await caller.ended()
    assert caller.of(ReplyStarted) == [ReplyStarted(end.item, "greeting")]
    assert caller.said(end.item) == "Good evening, Lanterna."


async def test_said_words_wait_until_the_reply_under_way_is_over(server: RealtimeServer, call: Open) -> None:
    server.script = [Turn("hi", "This is a reply of some length.")]
    server.delta_s = 0.02
    caller = await call()
    caller.speak()
    await caller.until(lambda: caller.of(AgentAudio))
    caller.session.say("Goodbye then.", "bye")
    ends = await caller.ended(2)
    assert [caller.said(end.item) for end in ends] == ["This is a reply of some length.", "Goodbye then."]
    assert server.talk.errors == []


async def test_words_that_the_server_could_not_take_are_asked_for_again(server: RealtimeServer, call: Open) -> None:
    server.script = [Turn("hi", "Hello to you.")]
    server.delta_s = 0.05
    caller = await call()
    # Both are under way at the same time: the server hears the end of the caller's turn first.
    caller.speak()
    caller.session.say("One moment.", "filler")
    ends = await caller.ended(2)
    assert server.talk.errors == ["conversation_already_has_active_response"]
    assert [caller.said(end.item) for end in ends] == ["Hello to you.", "One moment."]
    assert [event.mark for event in caller.of(ReplyStarted)] == ["", "filler"]


async def test_interrupted_reply_is_cancelled_and_cut_at_what_was_heard(server: RealtimeServer, call: Open) -> None:
    server.script = [Turn("hi", "one two three four five six seven eight nine ten")]
    server.delta_s = 0.05
    caller = await call()
    caller.speak()
    await caller.until(lambda: len(caller.of(AgentAudio)) == 3)
    item = caller.of(ReplyStarted)[0].item
    caller.session.interrupt(item, 371.9)
    await server.until(lambda: bool(server.talk.truncated))
    assert server.talk.truncated == {item: 371}
    assert len(server.talk.cancelled) == 1
    told = len(caller.of(AgentAudio))
    await asyncio.sleep(0.1)
    assert len(caller.of(AgentAudio)) == told and caller.of(ReplyEnded) == []


async def test_cut_never_lies_beyond_the_audio_that_came(server: RealtimeServer, call: Open) -> None:
    server.script = [Turn("hi", "one two three")]
    caller = await call()
    caller.speak()
    [end] = await caller.ended()
    caller.session.interrupt(end.item, 99_999)
    await server.until(lambda: bool(server.talk.truncated))
    assert server.talk.truncated == {end.item: 3 * WORD_MS}
    assert server.talk.cancelled == [], "the response was over"
    assert server.talk.errors == []


async def test_reply_that_the_server_cut_off_itself_ends_incomplete(server: RealtimeServer, call: Open) -> None:
    server.script = [Turn("hi", "one two three four five six seven eight nine ten"), Turn("stop", "Yes?")]
    server.delta_s = 0.05
    caller = await call()
    caller.speak()
    await caller.until(lambda: caller.of(AgentAudio))
    caller.speak()
    ends = await caller.ended(2)
    assert (ends[0].completed, ends[0].error) == (False, "")
    assert ends[1].completed and caller.said(ends[1].item) == "Yes?"


async def test_tool_is_asked_for_and_its_result_answered(server: RealtimeServer, call: Open) -> None:
    server.script = [
        Turn("look it up", "Let me see.", tools=[("look_up", {"what": "a"}), ("look_up", {"what": "b"})]),
        Turn(says="There are two."),
    ]
    caller = await call()
    caller.speak()
    await caller.until(lambda: len(caller.of(ToolAsked)) == 2)
    first, second = (event.call for event in caller.of(ToolAsked))
    assert (first.name, first.arguments, second.arguments) == ("look_up", {"what": "a"}, {"what": "b"})
    caller.session.tool_result(first, '{"ok": true}')
    await server.until(lambda: len(server.talk.results) == 1)
    assert server.talk.creates == [], "the model waits for both"
    caller.session.tool_result(second, '{"ok": false}')
    ends = await caller.ended(2)
    assert caller.said(ends[1].item) == "There are two."
    assert server.talk.results == {first.id: '{"ok": true}', second.id: '{"ok": false}'}


async def test_result_can_be_left_unanswered(server: RealtimeServer, call: Open) -> None:
    server.script = [Turn("bye", "Goodbye.", tools=[("hang_up", {})])]
    caller = await call()
    caller.speak()
    await caller.until(lambda: caller.of(ToolAsked))
    caller.session.tool_result(caller.of(ToolAsked)[0].call, '{"ok": true}', go_on=False)
    await server.until(lambda: len(server.talk.results) == 1)
    await asyncio.sleep(0.05)
    assert server.talk.creates == []


async def test_arguments_that_are_no_json_go_back_to_the_model(server: RealtimeServer, call: Open) -> None:
    server.script = [Turn("x", tools=[("look_up", '{"what": ')]), Turn(says="Sorry.")]
    caller = await call()
    caller.speak()
    [end] = await caller.ended()
    assert caller.said(end.item) == "Sorry." and caller.of(ToolAsked) == []
    assert "not a JSON object" in next(iter(server.talk.results.values()))


async def test_keys_are_told_as_the_callers_words(server: RealtimeServer, call: Open) -> None:
    server.script = [Turn(says="You pressed one.")]
    caller = await call()
    caller.session.tell("The caller pressed 1.")
    await caller.ended()
    assert server.talk.items[0]["content"] == [{"type": "input_text", "text": "The caller pressed 1."}]


async def test_turn_that_its_ear_finds_no_end_of_is_answered_when_asked(server: RealtimeServer, call: Open) -> None:
    server.script = [Turn("hello", "Hello to you.")]
    caller = await call()
    caller.speak(then_silent_ms=0)
    await caller.until(lambda: caller.of(CallerSpeaks))
    caller.session.respond()
    [end] = await caller.ended()
    assert caller.said(end.item) == "Hello to you."
    assert caller.of(CallerSaid) == [CallerSaid("hello", caller.of(CallerSpeaks)[0].item)]


async def test_model_that_says_nothing_is_told(server: RealtimeServer, call: Open) -> None:
    server.script = [Turn("hm")]
    caller = await call()
    caller.speak()
    assert await caller.ended() == [ReplyEnded("", True)]


async def test_reply_that_is_too_long_ends_with_why(server: RealtimeServer, call: Open) -> None:
    server.script = [Turn("hi", "so it is", incomplete="max_output_tokens")]
    caller = await call()
    caller.speak()
    [end] = await caller.ended()
    assert end.completed, "its audio was all told"


async def test_session_tells_when_its_time_runs_out(server: RealtimeServer) -> None:
    settings = OpenAiSettings(websocket_url=server.url, realtime={"session_minutes": 0.001})
    provider = OpenAiRealtime("openai", settings, environ={"OPENAI_API_KEY": KEY})
    events: list[RealtimeEvent] = []
    session = await provider.open(RealtimeSetup("", [], 8000), events.append)
    async with asyncio.timeout(30):
        while not events:
            await asyncio.sleep(0.01)
    assert isinstance(events[0], SessionEnding)
    await session.aclose()
    await provider.aclose()


# -- what goes wrong ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind"), [(401, ProviderUnavailableError), (429, ProviderBusyError), (500, ProviderError)]
)
async def test_refused_handshake(server: RealtimeServer, call: Open, status: int, kind: type[ProviderError]) -> None:
    server.misbehave(status=status, body={"error": {"message": f"Incorrect API key provided: {KEY}"}})
    with pytest.raises(kind) as raised:
        await call()
    assert str(status) in str(raised.value)
    assert KEY not in str(raised.value) and "sk-" not in str(raised.value)


async def test_nobody_listens(server: RealtimeServer, call: Open) -> None:
    await server.down()
    with pytest.raises(ProviderUnavailableError, match="can't be reached"):
        await call()
    await server.up()


@pytest.mark.parametrize("stall", ["answer", "middle"])
async def test_server_that_stalls_while_opening(server: RealtimeServer, stall: str) -> None:
    server.misbehave(stall=stall, after=1 if stall == "middle" else 0)
    provider = a_provider(server, opening_s=0.5)
    with pytest.raises(ProviderTimeoutError):
        await provider.open(RealtimeSetup("", [], 8000), lambda event: None)
    server.behave()
    await provider.aclose()


async def test_refused_setup_says_why(server: RealtimeServer, call: Open) -> None:
    server.session_error = {"type": "invalid_request_error", "code": "invalid_value", "message": f"no voice {KEY}"}
    with pytest.raises(ProviderError, match="no voice") as raised:
        await call()
    assert KEY not in str(raised.value)


async def test_session_expires(server: RealtimeServer, call: Open) -> None:
    caller = await call()
    server.close_all(1001, "session_expired: maximum duration of 60 minutes")
    await caller.until(lambda: caller.of(RealtimeFailed))
    [failed] = caller.of(RealtimeFailed)
    assert failed.fatal and "closed" in str(failed.error)


@pytest.mark.parametrize("fault", [{"drop": True}, {"close": 1011}, {"garbage": "not json"}, {"garbage": "[1]"}])
async def test_session_that_breaks_in_the_middle_fails_once(
    server: RealtimeServer, call: Open, fault: dict[str, Any]
) -> None:
    server.script = [Turn("hi", "one two three four five six seven eight nine ten")]
    server.delta_s = 0.02
    caller = await call()
    caller.speak()
    await caller.until(lambda: caller.of(AgentAudio))
    server.misbehave(**fault, times=1)
    await caller.until(lambda: caller.of(RealtimeFailed))
    await asyncio.sleep(0.05)
    assert [failed.fatal for failed in caller.of(RealtimeFailed)] == [True]


async def test_failed_response_is_fatal_and_says_why(server: RealtimeServer, call: Open) -> None:
    server.script = [Turn("hi", fails={"type": "server_error", "code": "insufficient_quota"})]
    caller = await call()
    caller.speak()
    await caller.until(lambda: caller.of(RealtimeFailed))
    [failed] = caller.of(RealtimeFailed)
    assert failed.fatal and isinstance(failed.error, ProviderBusyError)


async def test_server_that_reads_nothing_costs_no_memory(server: RealtimeServer, call: Open) -> None:
    caller = await call()
    server.misbehave(deaf=True)
    # More than the socket's own buffers hold.
    big = base64.b64encode(bytes(1 << 20)).decode()
    for _ in range(12):
        caller.session.tell(big)
    await asyncio.sleep(0.05)
    for _ in range(1200):
        caller.session.push(SILENCE)
    await caller.until(lambda: caller.of(RealtimeFailed))
    assert isinstance(caller.of(RealtimeFailed)[0].error, ProviderTimeoutError)
    server.behave()


async def test_warmed_connection_is_used_and_a_dead_one_replaced(
    server: RealtimeServer, provider: OpenAiRealtime, call: Open
) -> None:
    await provider.warm()
    await call()
    assert server.connections_made == 1
    await provider.warm()
    server.drop_all()
    await call()
    assert server.connections_made == 3


async def test_call_that_is_answered_at_once_takes_the_connection_that_is_being_opened(
    server: RealtimeServer, provider: OpenAiRealtime, call: Open
) -> None:
    warming = asyncio.create_task(provider.warm())
    await asyncio.sleep(0)
    await call()
    await warming
    assert server.connections_made == 1


async def test_call_that_ends_while_it_rings_leaves_no_connection(
    server: RealtimeServer, provider: OpenAiRealtime
) -> None:
    warming = asyncio.create_task(provider.warm())
    await asyncio.sleep(0)
    warming.cancel()
    await asyncio.gather(warming, return_exceptions=True)
    await server.all_closed()


async def test_probe_tells_the_model_and_leaves_nothing(server: RealtimeServer, provider: OpenAiRealtime) -> None:
    assert "gpt-realtime" in await provider.probe()
    await server.all_closed()


def test_key_is_wanted() -> None:
    with pytest.raises(ProviderUnavailableError, match="OPENAI_API_KEY"):
        OpenAiRealtime("openai", OpenAiSettings(), environ={})
