"""Leaving out what an utterance has not said yet, while it goes on."""

import asyncio

from agents_call import conversing
from agents_engines import CodeTts
from agents_loopback import LoopbackLeg, WordCode
from hypothesis import given
from hypothesis import strategies as st

from bridge.agents.speech import Speech, VoiceOptions
from bridge.audio.frames import frame_bytes
from bridge.audio.playout import Playout, UtteranceFinished

FRAME = b"\x01\x10" * (frame_bytes(8000) // 2)


def test_skipped_audio_is_never_sent_and_the_utterance_goes_on() -> None:
    playout, events = Playout(8000), []
    playout.subscribe(events.append)
    generation = playout.begin()
    playout.write(generation, FRAME * 10)
    for n in range(3):
        playout.take(n * 0.02)
    sent_ms = playout.sent_ms
    playout.skip()
    assert playout.queued_ms == 0 and playout.speaking and playout.generation == generation
    assert sent_ms <= playout.sent_ms <= sent_ms + 5
    assert any(playout.take(0.06)) and not any(playout.take(0.08))
    assert playout.write(generation, FRAME)
    playout.end(generation)
    assert any(playout.take(0.10))
    playout.take(0.12)
    assert isinstance(events[-1], UtteranceFinished)


def test_skip_of_a_complete_utterance_ends_it() -> None:
    playout = Playout(8000)
    generation = playout.begin()
    playout.write(generation, FRAME * 10)
    playout.end(generation)
    playout.skip()
    assert not playout.speaking and not playout.write(generation, FRAME)


@given(st.lists(st.sampled_from(["write", "take", "skip", "pause", "resume"]), max_size=60))
def test_what_is_sent_never_exceeds_what_was_written(steps: list[str]) -> None:
    playout, written, now = Playout(8000), 0.0, 0.0
    generation = playout.begin()
    for step in steps:
        match step:
            case "write":
                assert playout.write(generation, FRAME)
                written += 20
            case "take":
                now += 0.02
                playout.take(now)
            case "skip":
                playout.skip()
                assert playout.queued_ms == 0
                written = playout.sent_ms
            case "pause":
                playout.pause()
            case _:
                playout.resume()
        assert playout.sent_ms + playout.queued_ms == written


@conversing
async def test_words_after_a_skip_are_timed_from_where_it_stopped() -> None:
    leg, code = LoopbackLeg(), WordCode()
    loop = asyncio.get_running_loop()
    clock = asyncio.create_task(leg.run_clock())
    tts = CodeTts(code)
    tts.aligned = True
    speech = Speech(leg.playout, tts, VoiceOptions("", "en", 5.0, 300.0), clock=loop.time, failed=lambda _: None)
    running = asyncio.create_task(speech.run())
    speech.release()
    speech.feed("one two three four five. six seven eight. nine ten. ")
    await asyncio.sleep(0.2 + 2.5 * 0.24)
    speech.skip()
    assert speech.said() == "one two"
    speech.next_part()
    speech.say("after all")
    await asyncio.sleep(0.2)
    await speech.drained()
    speech.finish()
    await running
    assert speech.said() == "one two after all"
    assert speech.said(0) == "one two" and speech.said(1) == "after all"
    assert speech.heard(leg.playout.sent_ms, 1) == "after all"
    assert speech.heard(leg.playout.sent_ms - 2 * 240, 0) == "one two"
    assert "six" not in tts.asked
    clock.cancel()
