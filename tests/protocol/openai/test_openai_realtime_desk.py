"""A realtime agent that announces callers, sets variables and plays music: a voice of its own does the talking."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from openai_realtime_server import KEY, RealtimeServer
from realtime_call import CodeTts, Desk, RealtimeCall, WordCode, calling
from realtime_standin import Turn

from bridge.agents.base import QueueNumbers, QueueView
from bridge.events import Cause, Note, ToolCalled, TurnEnded
from bridge.providers.openai.realtime import OpenAiRealtime
from bridge.providers.openai.settings import OpenAiSettings

TARGETS = {"targets": {"sales": {"to": "PJSIP/1001", "announce": True, "say": "Sales it is."}}}
PUT_THROUGH = ("transfer", {"target": "sales", "summary": "Ada wants some tea."})
TOLD = "I have a caller for you. Ada wants some tea."


@asynccontextmanager
async def a_call(
    script: list[Turn],
    *,
    tts: CodeTts | None = None,
    headers: dict[str, str] | None = None,
    queues: QueueView | None = None,
    **settings: Any,
) -> AsyncIterator[tuple[RealtimeCall, Desk, RealtimeServer]]:
    async with RealtimeServer(script) as server:
        own = OpenAiSettings(websocket_url=server.url, connect_s=1.0, realtime={"setup_s": 1.0})
        provider = OpenAiRealtime("openai", own, environ={"OPENAI_API_KEY": KEY})
        call = RealtimeCall([provider], tts=tts, **settings)
        call.leg.info = replace(call.leg.info, headers=headers or {})
        desk = Desk(call, queues=queues)
        try:
            async with call:
                yield call, desk, server
        finally:
            await desk.close()
            await provider.aclose()


def voice() -> CodeTts:
    return CodeTts(WordCode())


def heard_by(tts: CodeTts, desk: Desk) -> set[str]:
    """The words that the telephone's frames hold."""
    return {word for _, frame in desk.phones[-1].sent if (word := tts.code.word(frame)) is not None}


@calling
async def test_who_answers_is_told_by_the_agents_own_voice() -> None:
    tts = voice()
    async with a_call([Turn("sales please", tools=[PUT_THROUGH])], tts=tts, transfer=TARGETS) as (call, desk, _):
        await call.agent_silent()
        await call.speak()
        phone = await desk.rings()
        assert call.said("agent")[-1] == "Sales it is."
        await call.wait(1.0)
        assert [on for _, on in call.leg.music_turns] == [True]
        phone.pick_up()
        done = await call.ended()
        assert done.cause is Cause.TRANSFERRED
        assert heard_by(tts, desk) == set(TOLD.split())
        assert call.leg.replaced is phone
        assert call.leg.variables["OFFHOOK_SUMMARY"] == "Ada wants some tea."
        assert [on for _, on in call.leg.music_turns] == [True, False]


@calling
async def test_who_refuses_leaves_the_caller_with_the_model_which_is_told_why() -> None:
    script = [
        Turn("sales please", tools=[PUT_THROUGH]),
        Turn(says="Nobody takes it."),
        Turn("never mind", "Very well."),
    ]
    async with a_call(script, tts=voice(), transfer=TARGETS) as (call, desk, server):
        await call.agent_silent()
        await call.speak()
        phone = await desk.rings()
        phone.pick_up()
        await call.until(lambda: heard_by(call.agent.tts, desk))
        await phone.hang_up()
        await call.until(lambda: call.said("agent")[-1:] == ["Nobody takes it."])
        [result] = server.talk.results.values()
        assert "480 they hung up" in result
        await call.speak()
        await call.until(lambda: call.said("agent")[-1:] == ["Very well."])


@calling
async def test_without_a_voice_of_its_own_the_caller_is_put_through_unannounced_and_that_is_noted() -> None:
    async with a_call([Turn("sales please", tools=[PUT_THROUGH])], transfer=TARGETS) as (call, desk, _):
        await call.agent_silent()
        await call.speak()
        done = await call.ended()
        assert done.cause is Cause.TRANSFERRED
        assert call.leg.transfers == ["PJSIP/1001"] and desk.phones == []
        [note] = [note for note in call.of(Note) if note.name == "announcement-failed"]
        assert note.detail == "the agent has no voice of its own"


@calling
async def test_model_knows_what_was_passed_on_and_sets_variables() -> None:
    script = [Turn("my number", "I see.", tools=[("set_variables", {"CUSTOMER_ID": "4711"})]), Turn(says="Noted.")]
    settings = {"context": ["campaign"], "variables": {"CUSTOMER_ID": "digits"}, "greeting": "Hi {call.campaign}."}
    async with a_call(script, tts=voice(), headers={"campaign": "spring"}, **settings) as (call, _, server):
        await call.agent_silent()
        assert call.said("agent") == ["Hi spring."]
        assert '- campaign: "spring"' in server.talk.session["instructions"]
        await call.speak()
        await call.until(lambda: call.said("agent")[-1:] == ["Noted."])
        assert call.leg.variables == {"CUSTOMER_ID": "4711"}
        assert [tool.ok for tool in call.of(ToolCalled)] == [True]


class SlowQueues:
    """Takes its time."""

    async def queue(self, name: str) -> QueueNumbers | None:
        await asyncio.sleep(9.0)
        return QueueNumbers(0, 1)


@calling
async def test_music_plays_while_a_tool_works_and_has_stopped_before_the_agent_speaks() -> None:
    script = [
        Turn("how long is it", tools=[("queue_status", {"queue": "support"})]),
        Turn(says="Nobody waits there."),
    ]
    settings = {"limits": {"tool_music_ms": 3000}, "transfer": {"targets": {"support": {"to": "queue:support"}}}}
    async with a_call(script, tts=voice(), queues=SlowQueues(), **settings) as (call, _, _):
        await call.agent_silent()
        call.leg.music_s = 0.5
        await call.speak()
        await call.until(lambda: call.said("agent")[-1:] == ["Nobody waits there."])
        (began, on), (stopped, off) = call.leg.music_turns
        assert (on, off) == (True, False) and stopped - began > 4
        silent = call.sound_ms(began - call.answered_at) - call.sound_ms(stopped - call.answered_at)
        assert silent == 0, "nothing of the agent's is lost in the music"
        turn = call.of(TurnEnded)[-1]
        assert not turn.interrupted and turn.started_ms / 1000 >= stopped - call.answered_at
