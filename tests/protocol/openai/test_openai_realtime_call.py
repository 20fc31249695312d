"""Whole calls of an agent on OpenAI Realtime: a caller on a leg, the official SDK, the stand-in."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from openai_realtime_server import KEY, RealtimeServer
from realtime_call import CodeTts, RealtimeCall, WordCode, calling
from realtime_standin import WORD_MS, Turn

from bridge.agents.realtime_settings import RealtimeSettings
from bridge.events import BargeIn, Cause, Note, ProviderFailed, ToolCalled, TurnEnded
from bridge.providers.base import ProviderUnavailableError
from bridge.providers.openai.realtime import OpenAiRealtime
from bridge.providers.openai.settings import OpenAiSettings

LONG = "one two six red big sun sky day cat dog car bus pen cup map"
"""Words of one length: where no provider tells their times, they count by their characters."""


@asynccontextmanager
async def a_call(*scripts: list[Turn], **settings: Any) -> AsyncIterator[tuple[RealtimeCall, list[RealtimeServer]]]:
    """A call on as many providers as there are scripts; at the end everything is closed."""
    servers = [RealtimeServer(script) for script in scripts]
    providers: list[OpenAiRealtime] = []
    try:
        for number, server in enumerate(servers):
            await server.__aenter__()
            own = OpenAiSettings(websocket_url=server.url, connect_s=1.0, realtime={"setup_s": 1.0})
            providers.append(OpenAiRealtime(f"openai-{number}", own, environ={"OPENAI_API_KEY": KEY}))
        async with RealtimeCall(providers, **settings) as call:
            yield call, servers
        call.assert_nothing_left()
        for server in servers:
            server.behave()
            await server.all_closed()
    finally:
        for provider in providers:
            await provider.aclose()
        for server in servers:
            await server.__aexit__(None)


@calling
async def test_greeting_question_and_answer_are_on_record_in_order() -> None:
    async with a_call([Turn("when are you open", "We open at noon.", think_s=0.1)]) as (call, [server]):
        await call.agent_silent()
        ended = await call.speak()
        await call.agent_silent()
        answer = await call.turn(3)
        assert [turn.text for turn in call.of(TurnEnded)] == [
            "Good evening.",
            "when are you open",
            "We open at noon.",
        ]
        assert [turn.index for turn in call.of(TurnEnded)] == [0, 1, 2]
        assert [turn.speaker for turn in call.of(TurnEnded)] == ["agent", "caller", "agent"]
        greeting, question = call.of(TurnEnded)[:2]
        assert greeting.started_ms < 100 and greeting.heard_ms == 2 * WORD_MS
        assert abs(question.ended_ms - ended * 1000) <= 40 and abs(question.heard_ms - 600) <= 40
        assert answer.heard_text == "We open at noon." and answer.heard_ms == 4 * WORD_MS
        delays = answer.delays
        assert delays.reply_ms is not None and abs(delays.reply_ms - 600) <= 60, "500 ms of silence, 100 of thought"
        assert delays.endpoint_ms is not None and abs(delays.endpoint_ms - 500) <= 40
        assert delays.llm_ms is not None and abs(delays.llm_ms - 100) <= 20
        assert server.talk.errors == []


@calling
async def test_caller_who_interrupts_is_answered_and_the_model_remembers_what_was_heard() -> None:
    async with a_call([Turn("go on", LONG), Turn("wait stop", "Yes?")]) as (call, [server]):
        await call.agent_silent()
        await call.speak()
        await call.agent_speaks(1000)
        began = call.now
        await call.speak(1500)
        await call.agent_silent()
        await call.turn(5)
        cut = call.of(TurnEnded)[2]
        assert cut.interrupted and cut.text == LONG
        assert 1000 < cut.heard_ms < 1200, "silent within 150 ms of the voice's onset"
        assert cut.heard_text == "one two six red"
        assert 0 < call.sound_ms(began) - 240 < 150, "of the first reply; then one word of the second"
        [barge_in] = call.of(BargeIn)
        assert barge_in.confirmed and barge_in.pause_ms <= 500
        [(_, truncated)] = server.talk.truncated.items()
        assert truncated == int(cut.heard_ms)
        assert [turn.text for turn in call.of(TurnEnded)][3:] == ["wait stop", "Yes?"]


@calling
async def test_cough_only_pauses_the_agent() -> None:
    async with a_call([Turn("go on", LONG), Turn("", "Pardon?")]) as (call, [_]):
        await call.agent_silent()
        await call.speak()
        await call.agent_speaks(1000)
        await call.speak(120)
        await call.agent_silent()
        await call.turn(3)
        [barge_in] = call.of(BargeIn)
        assert not barge_in.confirmed
        reply = call.of(TurnEnded)[2]
        assert reply.heard_text == LONG and not reply.interrupted
        await call.wait(2)
        assert call.said("agent") == ["Good evening.", LONG]


@calling
async def test_one_word_that_means_stop_stops_once_its_text_is_there() -> None:
    async with a_call([Turn("go on", LONG), Turn("stop", "I stop.")]) as (call, [_]):
        await call.agent_silent()
        await call.speak()
        await call.agent_speaks(500)
        await call.speak(240)
        await call.agent_silent()
        await call.turn(5)
        assert [event.confirmed for event in call.of(BargeIn)] == [False, True]
        assert call.said("agent")[-1] == "I stop."
        assert call.of(TurnEnded)[2].interrupted


@calling
async def test_their_ear_can_be_left_to_decide() -> None:
    async with a_call([Turn("go on", LONG), Turn("x", "Yes?")], barge_in_by="theirs") as (call, [server]):
        await call.agent_silent()
        await call.speak()
        await call.agent_speaks(1000)
        await call.speak(200)
        await call.agent_silent()
        await call.turn(5)
        assert server.talk.session["audio"]["input"]["turn_detection"]["interrupt_response"] is True
        assert [event.confirmed for event in call.of(BargeIn)] == [True]
        assert call.of(TurnEnded)[2].interrupted


@calling
async def test_protected_greeting_is_not_stopped() -> None:
    async with a_call([Turn("what does it cost", "Yes?")], greeting=LONG, greeting_interruptible=False) as (
        call,
        [_],
    ):
        await call.agent_speaks(500)
        await call.speak(1000)
        await call.agent_silent()
        await call.turn(3)
        assert call.said("agent")[0] == LONG
        await call.until(lambda: len(call.said("agent")) == 2)
        assert call.said("agent")[1] == "Yes?", "what was said over it is answered after it"


@calling
async def test_tool_is_carried_out_and_its_result_spoken() -> None:
    brief = {
        "forms": [
            {
                "id": "take_note",
                "description": "Take a note",
                "ask": ["note"],
                "slots": [{"id": "text", "type": "text", "ask": "What?"}],
                "confirm": "{text}?",
                "done": "Done.",
            }
        ]
    }
    script = [Turn("a note", "Let me note that.", tools=[("take_note", {"text": "milk"})]), Turn(says="It is noted.")]
    async with a_call(script, brief=brief) as (call, [server]):
        await call.agent_silent()
        await call.speak()
        await call.until(lambda: len(call.said("agent")) == 3)
        assert call.said("agent")[1:] == ["Let me note that.", "It is noted."]
        [called] = call.of(ToolCalled)
        assert called.ok and called.arguments == {"text": "milk"}
        assert list(server.talk.results.values()) == ['{"ok": true}']


@calling
async def test_model_hangs_up_once_its_goodbye_was_played() -> None:
    async with a_call([Turn("bye", "Goodbye and good night.", tools=[("hang_up", {})])]) as (call, [server]):
        await call.agent_silent()
        await call.speak()
        done = await call.ended()
        assert done.cause is Cause.AGENT_HUNG_UP
        last = call.of(TurnEnded)[-1]
        assert last.heard_text == "Goodbye and good night." and not last.interrupted
        assert abs(call.now * 1000 - last.ended_ms - 300) <= 60, "the far side plays it out first"
        assert len(server.talk.results) == 1


@calling
async def test_model_that_hangs_up_without_a_word_says_goodbye_first() -> None:
    async with a_call([Turn("bye", tools=[("hang_up", {})])], brief={"goodbye": "Thank you, bye."}) as (call, [_]):
        await call.agent_silent()
        await call.speak()
        done = await call.ended()
        assert done.cause is Cause.AGENT_HUNG_UP
        assert call.said("agent")[-1] == "Thank you, bye."


@calling
async def test_transfer_is_announced_and_ends_the_agents_part() -> None:
    brief = {"handover": {"target": "sip:office@127.0.0.1", "say": "I put you through."}}
    script = [Turn("a person", tools=[("transfer", {"target": "sip:office@127.0.0.1"})])]
    async with a_call(script, brief=brief) as (call, [_]):
        await call.agent_silent()
        await call.speak()
        done = await call.ended()
        assert done.cause is Cause.TRANSFERRED
        assert call.leg.transfers == ["sip:office@127.0.0.1"]
        assert call.said("agent")[-1] == "I put you through."


@calling
async def test_keys_are_told_to_the_model_and_on_record() -> None:
    async with a_call([Turn(says="Extension twelve.")]) as (call, [server]):
        await call.agent_silent()
        for digit in "12#":
            call.leg.press(digit)
            await call.wait(0.2)
        await call.agent_silent()
        await call.turn(3)
        assert [turn.text for turn in call.of(TurnEnded)][1:] == ["12", "Extension twelve."]
        assert "1 2" in server.talk.items[-1]["content"][0]["text"]


@calling
async def test_digits_are_collected_while_the_models_own_answers_are_not_heard() -> None:
    script = [
        Turn("my number", "What is it?", tools=[("collect_digits", {"min_digits": 3, "max_digits": 3})]),
        Turn("one two three", "Go on."),
        Turn(says="I have it."),
    ]
    async with a_call(script) as (call, [server]):
        await call.agent_silent()
        await call.speak()
        await call.agent_silent()
        await call.wait(0.3)
        await call.speak(300)
        await call.until(lambda: call.said("agent")[-1:] == ["I have it."])
        assert call.said("agent") == ["Good evening.", "What is it?", "I have it."]
        [result] = server.talk.results.values()
        assert "123" in result.replace(" ", "")


@calling
async def test_protected_phrase_is_heard_to_its_end() -> None:
    notice = "this call is recorded for quality"
    script = [Turn("hi", f"{notice} and now tell me what you want from us today please"), Turn("stop it", "Yes?")]
    async with a_call(script, barge_in={"protected_phrases": [notice]}) as (call, [_]):
        await call.agent_silent()
        await call.speak()
        await call.agent_speaks(300)
        await call.speak(2500)
        await call.agent_silent()
        await call.turn(5)
        cut = call.of(TurnEnded)[2]
        assert cut.interrupted and cut.heard_text.startswith(notice)
        assert not cut.heard_text.endswith("please")


@calling
async def test_silent_caller_is_asked_twice_and_then_let_go() -> None:
    async with a_call([]) as (call, [_]):
        done = await call.ended()
        assert done.cause is Cause.SILENCE
        phrases = call.settings.phrases
        assert call.said("agent") == [
            "Good evening.",
            phrases.still_there,
            phrases.still_there,
            phrases.silence_goodbye,
        ]


@calling
async def test_call_that_is_too_long_ends_with_a_notice() -> None:
    async with a_call([], limits={"max_call_s": 6}) as (call, [_]):
        done = await call.ended()
        assert done.cause is Cause.MAX_LENGTH
        assert call.said("agent")[-1] == call.settings.phrases.max_length_goodbye


@calling
async def test_hold_pauses_the_agent_and_its_music_is_not_heard() -> None:
    async with a_call([Turn("go on", LONG)]) as (call, [server]):
        await call.agent_silent()
        await call.speak()
        await call.agent_speaks(1000)
        call.leg.far_hold(True)
        await call.wait(0.1)
        held_at, heard = call.now, server.talk.heard_frames
        await call.speak(5000)
        await call.wait(20)
        assert call.sound_ms(held_at) == 0 and server.talk.heard_frames == heard
        call.leg.far_hold(False)
        await call.agent_silent()
        await call.turn(3)
        assert call.of(TurnEnded)[2].heard_text == LONG and call.of(BargeIn) == []


# -- providers that fail --------------------------------------------------------------------------------------


@calling
async def test_next_provider_takes_the_call_that_the_first_refuses() -> None:
    async with a_call([], [Turn("hi", "Hello to you.")]) as (call, [first, second]):
        first.misbehave(status=429)
        await call.agent_silent()
        await call.speak()
        await call.agent_silent()
        await call.turn(3)
        [failed] = call.of(ProviderFailed)
        assert (failed.role, failed.provider, failed.went_on) == ("realtime", "openai-0", "openai-1")
        assert "429" in failed.error
        assert call.said("agent") == ["Good evening.", "Hello to you."]
        assert second.connections_made == 1 and call.healths[0].failures == 1


@calling
async def test_provider_that_dies_in_mid_sentence_is_replaced_by_the_next_which_goes_on() -> None:
    async with a_call([Turn("go on", LONG)], [Turn(says="And so on.")]) as (call, [first, second]):
        first.delta_s = 0.15
        await call.agent_silent()
        await call.speak()
        await call.agent_speaks(1000)
        first.drop_all()
        await call.until(lambda: len(call.said("agent")) == 3)
        assert call.said("agent")[2] == "And so on."
        broken = call.of(TurnEnded)[2]
        assert 1000 < broken.heard_ms < 1600
        [failed] = call.of(ProviderFailed)
        assert failed.went_on == "openai-1"
        texts = [item["content"][0]["text"] for item in second.talk.items]
        assert texts[:3] == ["Good evening.", "go on", broken.text] and "broke off" in texts[-1]
        assert broken.text == broken.heard_text and LONG.startswith(broken.text), (
            "its text was far ahead of its audio"
        )
        assert len(broken.text.split()) == pytest.approx(broken.heard_ms / WORD_MS, abs=1.5)


@calling
async def test_question_that_was_on_its_way_is_heard_by_the_next_provider() -> None:
    async with a_call([Turn("x", silent=True)], [Turn("when are you open", "At noon.")]) as (call, [first, second]):
        await call.agent_silent()
        call.leg.hear(b"".join([b"\x00\x10" * 8 * 900]))
        await call.wait(0.5)
        first.drop_all()
        await call.until(lambda: len(call.said("agent")) == 2)
        assert call.said("caller") == ["when are you open"] and call.said("agent")[1] == "At noon."
        assert second.talk.loud_frames == 45


@calling
async def test_provider_that_goes_silent_is_left() -> None:
    limits = {"first_ms": 1000}
    script, other = [Turn("hi", silent=True)], [Turn(says="Here I am.")]
    async with a_call(script, other, realtime_limits=limits) as (call, [first, _]):
        await call.agent_silent()
        first.misbehave(stall="middle")
        ended = await call.speak()
        await call.agent_speaks()
        assert call.now - ended < 7
        [failed] = call.of(ProviderFailed)
        assert failed.went_on == "openai-1"


@calling
async def test_single_provider_is_asked_again_with_what_was_said() -> None:
    async with a_call([Turn("hi", "Hello."), Turn("more", "More.")]) as (call, [server]):
        await call.agent_silent()
        await call.speak()
        await call.agent_silent()
        await call.turn(3)
        server.close_all(1011)
        await call.wait(1)
        await call.speak()
        await call.agent_silent()
        await call.turn(5)
        assert len(server.talks) == 2
        assert [item["content"][0]["text"] for item in server.talk.items] == ["Good evening.", "hi", "Hello."]
        assert call.said("agent")[-1] == "More."


@calling
async def test_without_any_provider_the_caller_hears_a_tone_and_the_call_ends() -> None:
    async with a_call([], []) as (call, servers):
        for server in servers:
            server.misbehave(status=500)
        done = await call.ended()
        assert done.cause is Cause.ENGINE_FAILED and "500" in done.detail
        assert call.sound_ms() > 1000
        assert [note.name for note in call.of(Note)] == ["tone"]
        assert [failed.went_on for failed in call.of(ProviderFailed)] == ["openai-1", ""]
        assert KEY not in done.detail


@calling
async def test_broken_garbage_is_left_for_the_next() -> None:
    async with a_call([Turn("hi", LONG)], [Turn(says="Once more.")]) as (call, [first, _]):
        first.delta_s = 0.15
        await call.agent_silent()
        await call.speak()
        await call.agent_speaks(400)
        first.misbehave(garbage="{", times=1)
        await call.until(lambda: call.said("agent")[-1:] == ["Once more."])
        assert len(call.of(ProviderFailed)) == 1


@calling
async def test_session_whose_time_runs_out_is_renewed_between_turns() -> None:
    server = RealtimeServer([Turn("hi", "Hello.")])
    async with server:
        own = OpenAiSettings(websocket_url=server.url, realtime={"session_minutes": 0.05})
        provider = OpenAiRealtime("openai", own, environ={"OPENAI_API_KEY": KEY})
        async with RealtimeCall([provider]) as call:
            await call.agent_silent()
            await call.wait(2.8)
            await call.speak()
            await call.agent_silent()
            await call.turn(3)
            assert len(server.talks) == 2 and call.of(ProviderFailed) == []
            assert call.said("agent") == ["Good evening.", "Hello."]
        call.assert_nothing_left()
        await provider.aclose()
        await server.all_closed()


@calling
async def test_caller_who_hangs_up_in_mid_word_leaves_nothing() -> None:
    async with a_call([Turn("go on", LONG)]) as (call, [_]):
        await call.agent_silent()
        await call.speak()
        await call.agent_speaks(1000)
        call.leg.hear(b"\x00\x10" * 8000)
        await call.wait(0.1)
        await call.leg.hangup(Cause.CALLER_HUNG_UP)
        done = await call.ended()
        assert done.cause is Cause.CALLER_HUNG_UP
        assert call.of(TurnEnded)[2].interrupted


# -- with a voice of its own ----------------------------------------------------------------------------------


def a_voice(call_settings: dict[str, Any] | None = None) -> CodeTts:
    voice = CodeTts(WordCode())
    voice.prepared |= set(RealtimeSettings(greeting="Good evening.", **(call_settings or {})).rote_phrases())
    return voice


@calling
async def test_prepared_voice_greets_before_the_model_is_there_which_knows_of_it() -> None:
    voice = a_voice()
    async with a_call([Turn("hi", "Hello.")], tts=voice) as (call, [server]):
        server.misbehave(stall="middle", times=1)
        await call.agent_speaks()
        assert call.now <= 0.06
        server.behave()
        await call.agent_silent()
        await call.speak()
        await call.agent_silent()
        await call.turn(3)
        assert call.said("agent") == ["Good evening.", "Hello."] and voice.asked == ["Good evening."]
        assert server.talk.items[0]["content"] == [{"type": "output_text", "text": "Good evening."}]
        assert voice.open == 0


@calling
async def test_prepared_voice_apologises_where_no_model_is_left_and_hands_over() -> None:
    brief = {"handover": {"target": "sip:office@127.0.0.1"}}
    async with a_call([], tts=a_voice({"brief": brief}), brief=brief) as (call, [server]):
        server.misbehave(status=401)
        done = await call.ended()
        assert done.cause is Cause.TRANSFERRED and call.leg.transfers == ["sip:office@127.0.0.1"]
        assert call.said("agent")[-1] == call.settings.phrases.apology_handover
        assert call.of(Note) == []


@calling
async def test_prepared_voice_says_what_is_fixed() -> None:
    async with a_call([], tts=a_voice()) as (call, [server]):
        done = await call.ended()
        phrases = call.settings.phrases
        assert done.cause is Cause.SILENCE
        assert call.said("agent") == ["Good evening.", *[phrases.still_there] * 2, phrases.silence_goodbye]
        assert server.talk.creates == []


@calling
async def test_model_speaks_for_a_voice_that_fails() -> None:
    voice = a_voice()
    voice.failing = lambda text: ProviderUnavailableError("code-tts", "no voice")
    async with a_call([], tts=voice) as (call, _):
        await call.agent_silent()
        await call.turn(1)
        assert call.said("agent") == ["Good evening."]
        assert [(failed.role, failed.provider) for failed in call.of(ProviderFailed)] == [("tts", "code-tts")]
