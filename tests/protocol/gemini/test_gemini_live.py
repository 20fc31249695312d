"""Gemini Live against its stand-in: what a session tells and survives, and whole calls on it."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from gemini_live_server import KEY, LiveServer
from google.genai import Client, types
from google.genai import _live_converters as live_converters
from google.genai._common import convert_to_dict
from realtime_call import RealtimeCall, calling
from realtime_session import TOOL, Caller, a_session
from realtime_standin import WORD_MS, Turn, spoken

from bridge.events import BargeIn, Cause, ProviderFailed, ToolCalled, TurnEnded
from bridge.providers.base import (
    Message,
    ProviderBusyError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    ToolCall,
)
from bridge.providers.gemini.live import GeminiLive
from bridge.providers.gemini.settings import GeminiSettings
from bridge.providers.realtime import (
    AgentAudio,
    CallerSaid,
    CallerSpeaks,
    RealtimeFailed,
    ReplyStarted,
    SessionEnding,
    ToolAsked,
)

LONG = "one two six red big sun sky day cat dog car bus pen cup map"
MODEL = "gemini-3.1-flash-live-preview"


def a_provider(server: LiveServer, name: str = "gemini", opening_s: float = 20) -> GeminiLive:
    realtime = {"setup_s": opening_s, "model": MODEL}
    settings = GeminiSettings(websocket_url=server.ws_url, connect_s=opening_s, realtime=realtime)
    return GeminiLive(name, settings, environ={"GEMINI_API_KEY": KEY})


@asynccontextmanager
async def a_caller(*script: Turn, chunk_s: float = 0.0, **setup: Any) -> AsyncIterator[tuple[Caller, LiveServer]]:
    async with LiveServer(script) as server:
        server.chunk_s = chunk_s
        async with a_session(a_provider(server), **setup) as caller:
            yield caller, server
        server.behave()
        await server.all_closed()


def in_camel_case(value: Any) -> Any:
    """Protocol buffers' JSON takes both; the SDK mixes them."""
    if isinstance(value, dict):
        return {re.sub(r"_(\w)", lambda m: m[1].upper(), key): in_camel_case(one) for key, one in value.items()}
    return [in_camel_case(one) for one in value] if isinstance(value, list) else value


async def test_setup_is_what_the_sdk_would_send() -> None:
    async with a_caller(history=[Message("user", "hello")], voice="Puck") as (_, server):
        config = types.LiveConnectConfig(
            response_modalities=[types.Modality.AUDIO],
            system_instruction=types.Content(parts=[types.Part(text="Be brief.")]),
            speech_config=types.SpeechConfig(
                voice_config=types.VoiceConfig(prebuilt_voice_config=types.PrebuiltVoiceConfig(voice_name="Puck"))
            ),
            tools=[
                types.Tool(
                    function_declarations=[
                        types.FunctionDeclaration(
                            name=TOOL.name, description=TOOL.description, parameters_json_schema=TOOL.parameters
                        )
                    ]
                )
            ],
            realtime_input_config=types.RealtimeInputConfig(
                automatic_activity_detection=types.AutomaticActivityDetection(silence_duration_ms=500)
            ),
            input_audio_transcription=types.AudioTranscriptionConfig(),
            output_audio_transcription=types.AudioTranscriptionConfig(),
            session_resumption=types.SessionResumptionConfig(),
            context_window_compression=types.ContextWindowCompressionConfig(sliding_window=types.SlidingWindow()),
            history_config=types.HistoryConfig(initial_history_in_client_content=True),
        )
        client = Client(api_key="k", vertexai=False)
        parameters = types.LiveConnectParameters(model=f"models/{MODEL}", config=config).model_dump(exclude_none=True)
        convert = live_converters._LiveConnectParameters_to_mldev
        theirs = convert_to_dict(convert(api_client=client._api_client, from_object=parameters))
        client.close()
        expected = {"model": f"models/{MODEL}", **in_camel_case(theirs["setup"])}
        expected["systemInstruction"].pop("role", None)
        assert server.talk.setup == json.loads(json.dumps(expected))


async def test_history_goes_before_the_conversation() -> None:
    history = [
        Message("user", "hello"),
        Message("assistant", "Good evening.", (ToolCall("c1", "look_up", {"what": "x"}),)),
        Message("tool", '{"ok": true}', tool_call_id="c1"),
        Message("assistant", "We open at", interrupted=True),
    ]
    async with a_caller(history=history) as (_, server):
        await server.until(lambda: bool(server.talk.history))
        assert [(turn["role"], turn["parts"][0]["text"]) for turn in server.talk.history] == [
            ("user", "hello"),
            ("model", "Good evening."),
            ("user", '(The tool look_up came to: {"ok": true})'),
            ("model", "We open at —"),
        ]


@pytest.mark.parametrize("rate", [8000, 16000])
@pytest.mark.parametrize("late", [False, True])
async def test_caller_is_heard_and_answered(rate: int, late: bool) -> None:
    async with a_caller(Turn("when are you open", "We open at noon."), sample_rate=rate) as (caller, server):
        server.late_transcripts = late
        caller.speak(frame=spoken("a", rate)[: rate // 50 * 2])
        [end] = await caller.ended()
        assert end.completed and caller.said(end.item) == "We open at noon."
        assert caller.audio_ms(end.item, rate) == pytest.approx(4 * WORD_MS, abs=0.2)
        await caller.until(lambda: caller.of(CallerSaid))
        assert [event.ended for event in caller.of(CallerSpeaks)] == [False, True]
        assert caller.of(CallerSaid) == [CallerSaid("when are you open")]


async def test_words_are_said_as_given_and_marked() -> None:
    async with a_caller() as (caller, _):
        caller.session.say("Good evening.", "greeting")
        [end] = await caller.ended()
        assert caller.of(ReplyStarted) == [ReplyStarted(end.item, "greeting")]
        assert caller.said(end.item) == "Good evening."
        assert caller.of(CallerSpeaks) == []


async def test_reply_is_cut_off_by_its_own_ear() -> None:
    async with a_caller(Turn("hi", LONG), Turn("stop", "Yes?"), chunk_s=0.05) as (caller, _):
        caller.speak()
        await caller.until(lambda: caller.of(AgentAudio))
        caller.speak()
        ends = await caller.ended(2)
        assert [(end.completed, end.error) for end in ends] == [(False, ""), (True, "")]
        assert caller.said(ends[1].item) == "Yes?"


async def test_tool_is_asked_for_and_its_result_sent() -> None:
    script = (Turn("look", "Let me see.", tools=[("look_up", {"what": "a"})]), Turn(says="Found."))
    async with a_caller(*script) as (caller, server):
        caller.speak()
        await caller.until(lambda: caller.of(ToolAsked))
        [asked] = caller.of(ToolAsked)
        assert asked.call.arguments == {"what": "a"}
        caller.session.tool_result(asked.call, '{"ok": true, "result": 7}')
        await caller.until(lambda: len(caller.of(ReplyStarted)) == 2 or caller.of(RealtimeFailed))
        assert server.talk.results == {asked.call.id: {"ok": True, "result": 7}}


async def test_turn_can_be_ended_from_here() -> None:
    async with a_caller(Turn("hello", "Hello to you.")) as (caller, _):
        caller.speak(then_silent_ms=0)
        await asyncio.sleep(0.05)
        caller.session.respond()
        [end] = await caller.ended()
        assert caller.said(end.item) in ("Hello to you.",)


async def test_session_whose_server_leaves_is_resumed_where_it_was() -> None:
    async with LiveServer() as server:
        provider = a_provider(server)
        async with a_session(provider, call_id="call-1") as caller:
            await server.leave(30)
            await caller.until(lambda: caller.of(SessionEnding))
            assert caller.of(SessionEnding) == [SessionEnding(30.0)]
            async with a_session(provider, call_id="call-1", history=[Message("user", "hello")]):
                assert server.talk.setup["sessionResumption"] == {"handle": "handle-1"}
                assert "historyConfig" not in server.talk.setup
        await server.all_closed()


@pytest.mark.parametrize(
    ("status", "kind"), [(401, ProviderUnavailableError), (429, ProviderBusyError), (500, ProviderUnavailableError)]
)
async def test_refused_handshake(status: int, kind: type[ProviderError]) -> None:
    async with LiveServer() as server:
        server.misbehave(status=status, body=f"no: {KEY}")
        with pytest.raises(kind) as raised:
            async with a_session(a_provider(server)):
                pass
        assert str(status) in str(raised.value) and KEY not in str(raised.value)
        await server.all_closed()


async def test_refused_setup_says_why() -> None:
    async with LiveServer() as server:
        server.refuse_setup = (1007, f"API key not valid: {KEY}")
        with pytest.raises(ProviderUnavailableError, match="API key not valid") as raised:
            async with a_session(a_provider(server)):
                pass
        assert KEY not in str(raised.value)
        await server.all_closed()


@pytest.mark.parametrize("stall", ["answer", "middle"])
async def test_server_that_stalls_while_opening(stall: str) -> None:
    async with LiveServer() as server:
        server.misbehave(stall=stall)
        with pytest.raises(ProviderTimeoutError):
            async with a_session(a_provider(server, opening_s=0.5)):
                pass
        server.behave()
        await server.all_closed()


@pytest.mark.parametrize(
    "fault",
    [
        {"drop": True},
        {"close": 1000},
        {"close": 1011},
        {"garbage": "not json"},
        {"garbage": "[1]"},
        {"garbage": '{"serverContent": {"modelTurn": {"parts": [{"inlineData": {"mimeType": "x", "data": "?"}}]}}}'},
    ],
)
async def test_session_that_breaks_in_the_middle_fails_once(fault: dict[str, Any]) -> None:
    async with a_caller(Turn("hi", LONG), chunk_s=0.02) as (caller, server):
        caller.speak()
        await caller.until(lambda: caller.of(AgentAudio))
        server.misbehave(**fault, times=1)
        await caller.until(lambda: caller.of(RealtimeFailed))
        await asyncio.sleep(0.05)
        assert [failed.fatal for failed in caller.of(RealtimeFailed)] == [True]


# -- whole calls ----------------------------------------------------------------------------------------------


@asynccontextmanager
async def a_call(*scripts: list[Turn], **settings: Any) -> AsyncIterator[tuple[RealtimeCall, list[LiveServer]]]:
    servers = [LiveServer(script) for script in scripts]
    providers = []
    for number, server in enumerate(servers):
        await server.__aenter__()
        providers.append(a_provider(server, f"gemini-{number}"))
    async with RealtimeCall(providers, **settings) as call:
        yield call, servers
    call.assert_nothing_left()
    for server in servers:
        server.behave()
        await server.all_closed()
        await server.__aexit__(None, None)


@calling
async def test_call_is_on_record_turn_by_turn() -> None:
    async with a_call([Turn("when are you open", "We open at noon.", think_s=0.1)]) as (call, _):
        await call.agent_silent()
        await call.speak()
        await call.agent_silent()
        answer = await call.turn(3)
        texts = [turn.text for turn in call.of(TurnEnded)]
        assert texts == ["Good evening.", "when are you open", "We open at noon."]
        assert answer.delays.reply_ms is not None and abs(answer.delays.reply_ms - 600) <= 80


@calling
async def test_caller_interrupts_and_what_was_heard_is_on_record() -> None:
    async with a_call([Turn("go on", LONG), Turn("wait", "Yes?")]) as (call, _):
        await call.agent_silent()
        await call.speak()
        await call.agent_speaks(1000)
        await call.speak(1200)
        await call.agent_silent()
        await call.turn(5)
        cut = call.of(TurnEnded)[2]
        assert cut.interrupted and 1000 < cut.heard_ms < 1200 and cut.heard_text == "one two six red"
        assert [event.confirmed for event in call.of(BargeIn)] == [True]
        assert call.said("agent")[-1] == "Yes?"


@calling
async def test_reply_that_is_still_coming_is_cut_off_by_its_ear() -> None:
    async with a_call([Turn("go on", LONG), Turn("wait", "Yes?")]) as (call, [server]):
        server.chunk_s = 0.15
        await call.agent_silent()
        await call.speak()
        await call.agent_speaks(1000)
        await call.speak(300)
        await call.turn(5)
        assert call.of(TurnEnded)[2].interrupted
        assert [event.confirmed for event in call.of(BargeIn)] == [True]


@calling
async def test_tool_and_goodbye() -> None:
    async with a_call([Turn("bye", "Goodbye and thanks.", tools=[("hang_up", {})])]) as (call, _):
        await call.agent_silent()
        await call.speak()
        done = await call.ended()
        assert done.cause is Cause.AGENT_HUNG_UP
        assert call.said("agent")[-1] == "Goodbye and thanks."
        assert [called.name for called in call.of(ToolCalled)] == ["hang_up"]


@calling
async def test_server_that_leaves_is_followed_between_turns() -> None:
    async with a_call([Turn("hi", "Hello.")]) as (call, [server]):
        await call.agent_silent()
        await server.leave(50)
        await call.wait(1)
        assert server.talk.setup["sessionResumption"] == {"handle": "handle-1"}
        await call.speak()
        await call.agent_silent()
        await call.turn(3)
        assert call.said("agent") == ["Good evening.", "Hello."] and call.of(ProviderFailed) == []


@calling
async def test_next_one_goes_on_when_one_dies_in_mid_sentence() -> None:
    async with a_call([Turn("go on", LONG)], [Turn(says="And so on.")]) as (call, [first, second]):
        first.chunk_s = 0.15
        await call.agent_silent()
        await call.speak()
        await call.agent_speaks(1000)
        first.drop_all()
        await call.until(lambda: call.said("agent")[-1:] == ["And so on."])
        [failed] = call.of(ProviderFailed)
        assert failed.went_on == "gemini-1"
        greeting, asked, begun = (turn["parts"][0]["text"] for turn in second.talk.history)
        assert (greeting, asked) == ("Good evening.", "go on") and LONG.startswith(begun)
