"""Deepgram's Voice Agent against its stand-in: what a session tells and survives, and whole calls on it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from deepgram_agent_server import KEY, AgentServer
from realtime_call import RealtimeCall, calling
from realtime_session import Caller, a_session
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
from bridge.providers.deepgram.settings import DeepgramSettings
from bridge.providers.deepgram.voice_agent import DeepgramVoiceAgent
from bridge.providers.realtime import (
    AgentAudio,
    CallerSaid,
    CallerSpeaks,
    RealtimeFailed,
    ReplyStarted,
    ToolAsked,
)

LONG = "one two six red big sun sky day cat dog car bus pen cup map"


def a_provider(server: AgentServer, name: str = "deepgram", opening_s: float = 20) -> DeepgramVoiceAgent:
    settings = DeepgramSettings(websocket_url=server.ws_url, connect_s=opening_s, realtime={"setup_s": opening_s})
    return DeepgramVoiceAgent(name, settings, environ={"DEEPGRAM_API_KEY": KEY})


@asynccontextmanager
async def a_caller(*script: Turn, chunk_s: float = 0.0, **setup: Any) -> AsyncIterator[tuple[Caller, AgentServer]]:
    async with AgentServer(script) as server:
        server.chunk_s = chunk_s
        async with a_session(a_provider(server), **setup) as caller:
            yield caller, server
        server.behave()
        await server.all_closed()


async def test_session_is_set_up_with_mu_law_tools_and_history() -> None:
    history = [
        Message("user", "hello"),
        Message("assistant", "", (ToolCall("c1", "look_up", {"what": "x"}),)),
        Message("tool", '{"ok": true}', tool_call_id="c1"),
        Message("assistant", "We open at", interrupted=True),
    ]
    async with a_caller(history=history, voice="aura-2-zeus-en", language="de") as (_, server):
        settings = server.talk.settings
        assert settings["audio"]["input"] == {"encoding": "mulaw", "sample_rate": 8000}
        assert settings["audio"]["output"] == {"encoding": "mulaw", "sample_rate": 8000, "container": "none"}
        agent = settings["agent"]
        assert agent["listen"]["provider"]["model"] == "flux-general-multi"
        assert agent["listen"]["provider"]["language_hints"] == ["de"]
        assert agent["speak"]["provider"] == {"type": "deepgram", "model": "aura-2-zeus-en"}
        assert agent["think"]["functions"][0]["name"] == "look_up"
        said = agent["context"]["messages"]
        assert said[0] == {"type": "History", "role": "user", "content": "hello"}
        assert said[1]["function_calls"][0]["response"] == '{"ok": true}'
        assert said[2]["content"] == "We open at —"


@pytest.mark.parametrize("rate", [8000, 16000])
async def test_caller_is_heard_and_answered(rate: int) -> None:
    async with a_caller(Turn("when are you open", "We open at noon."), sample_rate=rate) as (caller, _):
        caller.speak(frame=spoken("a", rate)[: rate // 50 * 2])
        [end] = await caller.ended()
        assert end.completed and caller.said(end.item).split() == ["We", "open", "at", "noon."]
        assert caller.audio_ms(end.item, rate) == 4 * WORD_MS
        assert [event.ended for event in caller.of(CallerSpeaks)] == [False, True]
        assert caller.of(CallerSaid) == [CallerSaid("when are you open")]


async def test_words_are_said_as_given_and_marked() -> None:
    async with a_caller() as (caller, server):
        caller.session.say("Good evening.", "greeting")
        [end] = await caller.ended()
        assert caller.of(ReplyStarted) == [ReplyStarted(end.item, "greeting")]
        assert server.talk.injected == ["Good evening."]


async def test_reply_is_cut_off_by_its_own_ear() -> None:
    async with a_caller(Turn("hi", LONG), Turn("stop", "Yes?"), chunk_s=0.05) as (caller, _):
        caller.speak()
        await caller.until(lambda: caller.of(AgentAudio))
        caller.speak()
        ends = await caller.ended(2)
        assert [(end.completed, end.error) for end in ends] == [(False, ""), (True, "")]
        assert caller.said(ends[1].item).strip() == "Yes?"


async def test_tools_are_asked_for_and_results_sent() -> None:
    script = (Turn("look", "Let me see.", tools=[("look_up", {"what": "a"}), ("look_up", "{")]), Turn(says="Found."))
    async with a_caller(*script) as (caller, server):
        caller.speak()
        await caller.until(lambda: caller.of(ToolAsked))
        [asked] = caller.of(ToolAsked)
        caller.session.tool_result(asked.call, '{"ok": true}')
        ends = await caller.ended(2)
        assert caller.said(ends[1].item).strip() == "Found."
        assert sorted(content[:10] for content in server.talk.results.values()) == ['{"ok": fal', '{"ok": tru']


@calling
async def test_silence_of_ours_is_no_reason_to_hang_up() -> None:
    async with a_caller() as (_, server):
        await asyncio.sleep(16)
        assert server.talk.keep_alives == 3


async def test_turn_can_be_ended_from_here() -> None:
    async with a_caller(Turn("hello", "Hello to you.")) as (caller, _):
        caller.speak(then_silent_ms=0)
        await caller.until(lambda: caller.of(CallerSpeaks))
        caller.session.respond()
        [end] = await caller.ended()
        assert caller.said(end.item).strip() == "Hello to you."


@pytest.mark.parametrize(
    ("status", "kind"), [(401, ProviderUnavailableError), (429, ProviderBusyError), (500, ProviderUnavailableError)]
)
async def test_refused_handshake(status: int, kind: type[ProviderError]) -> None:
    async with AgentServer() as server:
        server.misbehave(status=status, body=f"no: {KEY}")
        with pytest.raises(kind) as raised:
            async with a_session(a_provider(server)):
                pass
        assert str(status) in str(raised.value) and KEY not in str(raised.value)
        await server.all_closed()


async def test_refused_settings_say_why() -> None:
    async with AgentServer() as server:
        server.settings_error = {"description": f"no such voice {KEY}", "code": "INVALID_SETTINGS"}
        with pytest.raises(ProviderError, match=r"no such voice.*INVALID_SETTINGS") as raised:
            async with a_session(a_provider(server)):
                pass
        assert KEY not in str(raised.value)
        await server.all_closed()


@pytest.mark.parametrize("stall", ["answer", "middle"])
async def test_server_that_stalls_while_opening(stall: str) -> None:
    async with AgentServer() as server:
        server.misbehave(stall=stall, after=1 if stall == "middle" else 0)
        with pytest.raises(ProviderTimeoutError):
            async with a_session(a_provider(server, opening_s=0.5)):
                pass
        server.behave()
        await server.all_closed()


@pytest.mark.parametrize("fault", [{"drop": True}, {"close": 1000}, {"close": 1011}, {"garbage": "not json"}])
async def test_session_that_breaks_in_the_middle_fails_once(fault: dict[str, Any]) -> None:
    async with a_caller(Turn("hi", LONG), chunk_s=0.02) as (caller, server):
        caller.speak()
        await caller.until(lambda: caller.of(AgentAudio))
        server.misbehave(**fault, times=1)
        await caller.until(lambda: caller.of(RealtimeFailed))
        await asyncio.sleep(0.05)
        assert [failed.fatal for failed in caller.of(RealtimeFailed)] == [True]


async def test_error_of_the_model_is_fatal_and_says_why() -> None:
    async with a_caller(Turn("hi", fails={"description": f"failed {KEY}", "code": "THINK_ERROR"})) as (caller, _):
        caller.speak()
        await caller.until(lambda: caller.of(RealtimeFailed))
        [failed] = caller.of(RealtimeFailed)
        assert failed.fatal and "THINK_ERROR" in str(failed.error) and KEY not in str(failed.error)


# -- whole calls ----------------------------------------------------------------------------------------------


@asynccontextmanager
async def a_call(*scripts: list[Turn], **settings: Any) -> AsyncIterator[tuple[RealtimeCall, list[AgentServer]]]:
    servers = [AgentServer(script) for script in scripts]
    providers = []
    for number, server in enumerate(servers):
        await server.__aenter__()
        providers.append(a_provider(server, f"deepgram-{number}"))
    async with RealtimeCall(providers, **settings) as call:
        yield call, servers
    call.assert_nothing_left()
    for provider, server in zip(providers, servers, strict=True):
        await provider.aclose()
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
        assert [turn.text for turn in call.of(TurnEnded)] == [
            "Good evening.",
            "when are you open",
            "We open at noon.",
        ]
        assert answer.delays.reply_ms is not None and abs(answer.delays.reply_ms - 600) <= 60


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
async def test_cough_after_the_reply_was_sent_only_pauses_it() -> None:
    async with a_call([Turn("go on", LONG), Turn()]) as (call, _):
        await call.agent_silent()
        await call.speak()
        await call.agent_speaks(1000)
        await call.speak(120)
        await call.turn(3)
        assert call.said("agent")[-1] == LONG
        assert [event.confirmed for event in call.of(BargeIn)] == [False]


@calling
async def test_tool_and_goodbye() -> None:
    script = [Turn("bye", "Goodbye and thanks.", tools=[("hang_up", {})])]
    async with a_call(script) as (call, _):
        await call.agent_silent()
        await call.speak()
        done = await call.ended()
        assert done.cause is Cause.AGENT_HUNG_UP
        assert call.said("agent")[-1] == "Goodbye and thanks."
        assert [called.name for called in call.of(ToolCalled)] == ["hang_up"]


@calling
async def test_keys_are_told() -> None:
    async with a_call([Turn(says="Extension one.")]) as (call, [server]):
        await call.agent_silent()
        call.leg.press("1")
        await call.agent_silent()
        await call.turn(3)
        assert server.talk.told == ["(The caller pressed these keys: 1)"]


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
        assert failed.went_on == "deepgram-1"
        said = second.talk.settings["agent"]["context"]["messages"]
        assert [entry["content"] for entry in said][:2] == ["Good evening.", "go on"]
