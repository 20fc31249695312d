"""Speech to text by AssemblyAI, against a stand-in: its turns beside ours, and everything that can go wrong."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from assemblyai.streaming.v3 import (
    AsyncRealTimeTranscriber,
    Encoding,
    RealTimeEvents,
    RealTimeParameters,
    RealTimeTranscriberOptions,
    SpeechModel,
)
from assemblyai_server import KEY, AssemblyAiServer
from standin_ear import quiet, tone
from stt_caller import Caller

from bridge.providers.assemblyai.settings import AssemblyAiSettings
from bridge.providers.assemblyai.stt import AssemblyAiStt
from bridge.providers.base import (
    Heard,
    ProviderBusyError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    SttEndpoint,
)

SCRIPT = ["I would like a table.", "For four people.", "Thank you."]
HEARD = ["i would like a table", "for four people", "thank you"]


@pytest.fixture
async def server() -> AsyncIterator[AssemblyAiServer]:
    async with AssemblyAiServer(SCRIPT) as running:
        yield running


def stt(server: AssemblyAiServer, *, key: str = KEY, connect_s: float = 20.0, **options: Any) -> AssemblyAiStt:
    # A caller in these tests speaks faster than real time.
    given = {"settle_s": 10, "catch_up": 0, **options}
    settings = AssemblyAiSettings(websocket_url=server.ws_url, connect_s=connect_s, stt=given)
    return AssemblyAiStt("assemblyai", settings, environ={"ASSEMBLYAI_API_KEY": key})


async def test_partials_have_the_words_that_are_not_final_yet_and_a_pause_settles(server: AssemblyAiServer) -> None:
    async with Caller(stt(server)) as caller:
        await caller.speaks(1000)
        await caller.until(lambda: len(caller.partials) >= 3)
        assert caller.partials[:3] == ["i", "i would", "i would like"]
        await caller.pauses()
        assert (await caller.until_settled(1)).text == HEARD[0]
    assert {"type": "ForceEndpoint"} in server.exchanges[0].texts
    assert caller.endpoints == []  # We forced the end: that is no sign of the caller's.


async def test_a_formatted_turn_settles_once_with_its_punctuation(server: AssemblyAiServer) -> None:
    async with Caller(stt(server, format_turns=True)) as caller:
        await caller.says(1000)
        await caller.until_settled(1)
        await caller.waits(300)
    assert [heard.text for heard in caller.settled] == [SCRIPT[0]]


@pytest.mark.parametrize("formatted", [False, True])
async def test_its_own_end_of_turn_is_told_once_after_the_text(server: AssemblyAiServer, formatted: bool) -> None:
    async with Caller(stt(server, format_turns=formatted)) as caller:
        await caller.speaks(1000)
        await caller.waits(600)
        await caller.until(lambda: caller.endpoints)
        await caller.waits(200)
    assert caller.endpoints == ["end"]
    end = next(event for event in caller.events if isinstance(event, SttEndpoint))
    assert end.confidence == 0.92
    told = [event for event in caller.events[: caller.events.index(end)] if isinstance(event, Heard)]
    assert told[-1].text.lower().strip(".") == HEARD[0]


async def test_a_pause_after_it_has_ended_the_turn_is_settled_at_once(server: AssemblyAiServer) -> None:
    async with Caller(stt(server)) as caller:
        await caller.speaks(1000)
        await caller.waits(420)
        await caller.until(lambda: caller.endpoints)
        caller.stream.speech_paused()
        assert caller.settled[-1].text == HEARD[0]


async def test_two_of_its_turns_make_one_of_ours_until_it_is_committed(server: AssemblyAiServer) -> None:
    async with Caller(stt(server)) as caller:
        await caller.says(1000)
        await caller.until_settled(1)
        await caller.waits(700)
        await caller.says(600)
        assert (await caller.until_settled(2)).text == f"{HEARD[0]} {HEARD[1]}"
        await caller.waits(700)
        caller.stream.commit()
        await caller.says(600)
        assert (await caller.until_settled(3)).text == HEARD[2]


@pytest.mark.parametrize("formatted", [False, True])
async def test_late_words_of_a_turn_that_is_over_never_get_into_the_next(
    server: AssemblyAiServer, formatted: bool
) -> None:
    async with Caller(stt(server, settle_s=30, format_turns=formatted)) as caller:
        await caller.speaks(1000)
        await caller.until(lambda: bool(caller.partials))
        server.misbehave(stall="middle")
        await caller.pauses()
        caller.stream.commit()
        before = len(caller.heard)
        await caller.waits(700)
        server.behave()
        await caller.says(600)
        assert (await caller.until_settled(2)).text.lower().strip(".") == HEARD[1]
        assert not any("table" in heard.text for heard in caller.heard[before:])


async def test_a_stream_is_asked_for_as_the_settings_say(server: AssemblyAiServer) -> None:
    options = {
        "keyterms": ["Offhook", "Marta"],
        "end_of_turn_confidence": 0.5,
        "min_turn_silence_ms": 300,
        "max_turn_silence_ms": 1500,
        "vad_threshold": 0.4,
        "parameters": {"filter_profanity": True},
    }
    async with Caller(stt(server, **options)):
        pass
    (asked,) = server.exchanges
    assert asked.headers["authorization"] == KEY
    assert {name: value for name, (value,) in asked.query.items()} == {
        "speech_model": "universal-streaming-english",
        "encoding": "pcm_mulaw",
        "sample_rate": "8000",
        "format_turns": "False",
        "session_heartbeat": "True",
        "keyterms_prompt": '["Offhook", "Marta"]',
        "end_of_turn_confidence_threshold": "0.5",
        "min_turn_silence": "300",
        "max_turn_silence": "1500",
        "vad_threshold": "0.4",
        "filter_profanity": "True",
    }


@pytest.mark.parametrize(
    ("rate", "encoding", "asked_rate"),
    [
        (8000, "pcm_mulaw", 8000),
        (16000, "pcm_s16le", 16000),
        (24000, "pcm_s16le", 24000),
        (48000, "pcm_s16le", 16000),
    ],
)
async def test_every_rate_is_heard(server: AssemblyAiServer, rate: int, encoding: str, asked_rate: int) -> None:
    async with Caller(stt(server), sample_rate=rate) as caller:
        await caller.says(600)
        assert (await caller.until_settled(1)).text == HEARD[0]
    (asked,) = server.exchanges
    assert (asked.asked("encoding"), asked.asked("sample_rate")) == (encoding, str(asked_rate))


@pytest.mark.parametrize(
    ("configured", "language", "expected"),
    [
        ("universal-streaming-english", "en-US", ("universal-streaming-english", "", "")),
        ("universal-streaming-english", "de", ("universal-streaming-multilingual", "", "")),
        ("universal-streaming-english", "auto", ("universal-streaming-multilingual", "True", "")),
        ("universal-3-5-pro", "pt-BR", ("universal-3-5-pro", "", '["pt"]')),
    ],
)
async def test_another_language_takes_a_model_that_knows_it(
    server: AssemblyAiServer, configured: str, language: str, expected: tuple[str, str, str]
) -> None:
    async with Caller(stt(server, model=configured), language=language):
        pass
    (asked,) = server.exchanges
    names = ("speech_model", "language_detection", "language_codes")
    assert tuple(asked.asked(name) for name in names) == expected


async def test_language_is_detected_when_it_is_left_open(server: AssemblyAiServer) -> None:
    server.language = "it"
    async with Caller(stt(server), language="auto") as caller:
        await caller.says(600)
        assert (await caller.until_settled(1)).language == "it"


async def test_frames_are_never_shorter_than_it_takes(server: AssemblyAiServer) -> None:
    async with Caller(stt(server)) as caller:
        for pause in range(1, 4):
            await caller.speaks(420)
            await caller.waits(100 + pause * 20)
            caller.stream.speech_paused()
            await caller.until_settled(pause)
            await caller.waits(700)
        assert not caller.failures
    assert min(len(frame) for frame in server.exchanges[0].binary) >= 400  # 50 ms


async def test_noise_without_words_settles_as_nothing_once_it_is_seen_to_live(server: AssemblyAiServer) -> None:
    server.script = []
    async with Caller(stt(server, settle_s=0.5)) as caller:
        await caller.says(200)
        assert (await caller.until_settled(1)).text == ""
        assert not caller.failures


async def test_audio_that_was_missed_is_sent_no_faster_than_it_takes(server: AssemblyAiServer) -> None:
    loop = asyncio.get_running_loop()
    async with Caller(stt(server, catch_up=8)) as caller:
        before = loop.time()
        await caller.speaks(1600)
        await caller.pauses()
        assert (await caller.until_settled(1)).text == HEARD[0]
        assert loop.time() - before >= 0.15


async def test_a_line_without_audio_is_kept_open(server: AssemblyAiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.providers.assemblyai.stt.KEEP_ALIVE_S", 0.05)
    async with Caller(stt(server)) as caller:
        await server.until(lambda: {"type": "KeepAlive"} in server.exchanges[0].texts)
        assert not caller.failures


# -- what can go wrong ----------------------------------------------------------------------------------------------


async def test_a_wrong_key_is_refused_with_the_reason_and_without_the_key(server: AssemblyAiServer) -> None:
    with pytest.raises(ProviderUnavailableError, match=r"key is refused.*1008 Unauthorized") as refused:
        await stt(server, key="not-the-right-key-0001").probe()
    assert "not-the-right-key" not in str(refused.value)
    await server.all_closed()


@pytest.mark.parametrize(
    ("code", "error"),
    [(3009, ProviderBusyError), (1013, ProviderBusyError), (3005, ProviderUnavailableError), (1000, ProviderError)],
)
async def test_a_session_that_is_closed_before_it_begins_says_why(
    server: AssemblyAiServer, code: int, error: type[ProviderError]
) -> None:
    server.closes = code, f"because {KEY}"
    with pytest.raises(error) as refused:
        await stt(server).probe()
    assert KEY not in str(refused.value)
    await server.all_closed()


@pytest.mark.parametrize(("status", "error"), [(401, ProviderUnavailableError), (429, ProviderBusyError)])
async def test_a_refused_handshake_says_why(
    server: AssemblyAiServer, status: int, error: type[ProviderError]
) -> None:
    server.misbehave(status=status, body={"error": f"because {KEY}"})
    with pytest.raises(error, match=f"{status}.*because") as refused:
        await stt(server).probe()
    assert KEY not in str(refused.value)


@pytest.mark.parametrize("where", ["handshake", "session"])
async def test_an_opening_that_stalls_is_given_up_and_leaves_nothing_open(
    server: AssemblyAiServer, where: str
) -> None:
    if where == "handshake":
        server.misbehave(stall="answer")
    server.begins = False
    with pytest.raises(ProviderTimeoutError):
        await stt(server, connect_s=0.1).probe()
    await server.all_closed()


async def test_a_server_that_is_down_can_not_be_reached_and_comes_back(server: AssemblyAiServer) -> None:
    await server.down()
    with pytest.raises(ProviderUnavailableError, match="can't be reached"):
        await stt(server).probe()
    await server.up()
    assert await stt(server).probe() == "universal-streaming-english takes a stream"
    await server.all_closed()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"close": 3005, "reason": f"Server error {KEY}"}, r"3005 Server error \*\*\*"),
        ({"close": 3008, "reason": "Session expired"}, "3008 Session expired"),
        ({"close": 1000}, "closed the connection"),
        ({"drop": True}, "lost"),
        ({"garbage": '{"type": "Error", "error_code": 3005, "error": "oh"}'}, "3005 oh"),
        ({"garbage": '{"error": "oh"}'}, "oh"),
    ],
)
async def test_a_stream_that_ends_mid_utterance_fails(
    server: AssemblyAiServer, fault: dict[str, Any], message: str
) -> None:
    async with Caller(stt(server)) as caller:
        await caller.speaks(600)
        server.misbehave(**fault)
        await caller.until(lambda: caller.failures)
        await caller.says(400)
        (failure,) = caller.failures
    assert failure.fatal
    assert re.search(message, failure.error)
    await server.all_closed()


async def test_a_server_that_goes_silent_is_noticed_at_the_next_pause(server: AssemblyAiServer) -> None:
    async with Caller(stt(server, settle_s=0.2)) as caller:
        server.misbehave(stall="middle")
        await caller.says(600)
        await caller.until(lambda: caller.failures)
    assert caller.failures[0].fatal
    await server.all_closed()


async def test_a_server_that_reads_nothing_more_is_noticed_and_memory_does_not_grow(server: AssemblyAiServer) -> None:
    async with Caller(stt(server, settle_s=60), sample_rate=24000) as caller:
        server.misbehave(deaf=True)
        async with asyncio.timeout(30):
            while not caller.failures:
                await caller.waits(20_000)
        assert "takes no audio" in caller.failures[0].error
    server.behave()  # Deaf, it would not hear of the connection's end.
    await server.all_closed()


@pytest.mark.parametrize(
    "garbage",
    ["{not json", "[]", "{}", '{"type": "Turn"}', '{"type": ["Turn"]}', '{"type": "Warning", "warning": "w"}', b"\0"],
)
async def test_garbage_is_passed_over(server: AssemblyAiServer, garbage: str | bytes) -> None:
    async with Caller(stt(server)) as caller:
        server.misbehave(garbage=garbage)
        await caller.says(600)
        assert (await caller.until_settled(1)).text == HEARD[0]
        assert not caller.failures


async def test_closing_says_goodbye_and_leaves_nothing_open(server: AssemblyAiServer) -> None:
    async with Caller(stt(server)) as caller:
        await caller.says(600)
        await caller.until_settled(1)
    assert server.exchanges[0].texts[-1] == {"type": "Terminate"}
    await server.all_closed()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "no-such-model"}, "speech_model"),
        ({"parameters": {"no_such": 1}}, "no_such unknown"),
        ({"parameters": {"max_speakers": "many"}}, "max_speakers"),
    ],
)
async def test_settings_that_the_sdk_does_not_know_are_refused_at_the_start(
    server: AssemblyAiServer, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ProviderUnavailableError, match=message):
        await stt(server, **options).start()


# -- the stand-in is true to the SDK --------------------------------------------------------------------------------


async def test_the_sdks_own_transcriber_understands_every_message(server: AssemblyAiServer) -> None:
    transcriber = AsyncRealTimeTranscriber(RealTimeTranscriberOptions(api_key=KEY, api_host=server.ws_url))
    got: list[Any] = []
    for kind in RealTimeEvents:
        transcriber.on(kind, lambda _, event: got.append(event))
    await transcriber.connect(
        RealTimeParameters(
            sample_rate=8000,
            encoding=Encoding.pcm_s16le,
            speech_model=SpeechModel.universal_streaming_english,
            format_turns=True,
            session_heartbeat=True,
        )
    )
    for part in (tone(800), quiet(700), tone(400), quiet(200)):
        for at in range(0, len(part), 1600):
            await transcriber.stream(part[at : at + 1600])
    await transcriber.force_endpoint()
    await transcriber.keep_alive()
    await transcriber.disconnect(terminate=True)
    kinds = [type(event).__name__ for event in got]
    assert {"BeginEvent", "SpeechStartedEvent", "TurnEvent", "HeartbeatEvent", "TerminationEvent"} == set(kinds)
    ends = [(event.turn_order, event.turn_is_formatted) for event in got if getattr(event, "end_of_turn", False)]
    assert ends == [(0, False), (0, True), (1, False), (1, True)]
    assert json.loads(server.exchanges[0].received[-1]) == {"type": "Terminate"}
    await server.all_closed()
