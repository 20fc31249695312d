"""Speech to text by Deepgram's Nova, against a stand-in: texts, pauses, turns, and everything that can go wrong."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from deepgram import AsyncDeepgramClient
from deepgram.environment import DeepgramClientEnvironment
from deepgram.listen.v1.types import ListenV1Metadata, ListenV1Results, ListenV1SpeechStarted, ListenV1UtteranceEnd
from deepgram_server import KEY, DeepgramServer
from standin_ear import quiet, tone
from stt_caller import Caller

from bridge.agents.ear import Ear
from bridge.providers.base import (
    Heard,
    ProviderBusyError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    SttEndpoint,
    SttEvent,
    SttFailed,
)
from bridge.providers.deepgram.settings import DeepgramSettings
from bridge.providers.deepgram.stt import DeepgramStt

SCRIPT = ["I would like a table.", "For four people.", "Thank you."]


@pytest.fixture
async def server() -> AsyncIterator[DeepgramServer]:
    async with DeepgramServer(SCRIPT) as running:
        yield running


def stt(server: DeepgramServer, *, key: str = KEY, connect_s: float = 20.0, **options: Any) -> DeepgramStt:
    settings = DeepgramSettings(base_url=server.http_url, connect_s=connect_s, stt={"settle_s": 10, **options})
    return DeepgramStt("deepgram", settings, environ={"DEEPGRAM_API_KEY": key})


async def test_partials_grow_while_the_caller_speaks_and_a_pause_settles_the_text(server: DeepgramServer) -> None:
    async with Caller(stt(server)) as caller:
        await caller.speaks(1000)
        await caller.until(lambda: len(caller.partials) >= 3)
        assert caller.partials[:3] == ["I", "I would", "I would like"]
        await caller.pauses()
        heard = await caller.until_settled(1)
    assert heard.text == "I would like a table."
    assert not caller.failures


async def test_a_stream_is_asked_for_as_the_settings_say(server: DeepgramServer) -> None:
    options = {
        "keyterms": ["Offhook", "Marta Vogel"],
        "smart_format": True,
        "parameters": {"redact": ["pci", "ssn"], "profanity_filter": True},
    }
    async with Caller(stt(server, **options), language="en-US"):
        pass
    (asked,) = server.exchanges
    assert asked.headers["authorization"] == f"Token {KEY}"
    assert {name: values for name, values in asked.query.items()} == {
        "model": ["nova-3"],
        "language": ["en-US"],
        "encoding": ["mulaw"],
        "sample_rate": ["8000"],
        "interim_results": ["true"],
        "punctuate": ["true"],
        "smart_format": ["true"],
        "endpointing": ["300"],
        "utterance_end_ms": ["1000"],
        "keyterm": ["Offhook", "Marta Vogel"],
        "redact": ["pci", "ssn"],
        "profanity_filter": ["true"],
    }


@pytest.mark.parametrize(
    ("rate", "encoding", "asked_rate"),
    [(8000, "mulaw", 8000), (16000, "linear16", 16000), (24000, "linear16", 24000), (48000, "linear16", 16000)],
)
async def test_every_rate_is_heard(server: DeepgramServer, rate: int, encoding: str, asked_rate: int) -> None:
    async with Caller(stt(server), sample_rate=rate) as caller:
        await caller.says(600)
        assert (await caller.until_settled(1)).text == SCRIPT[0]
    (asked,) = server.exchanges
    assert (asked.asked("encoding"), asked.asked("sample_rate")) == (encoding, str(asked_rate))


async def test_audio_goes_in_chunks_and_never_as_an_empty_frame(server: DeepgramServer) -> None:
    async with Caller(stt(server)) as caller:
        await caller.says(600)
        await caller.until_settled(1)
    sizes = [len(frame) for frame in server.exchanges[0].binary]
    assert 0 not in sizes
    assert sizes[0] == 640  # 80 ms


async def test_a_turn_goes_on_over_a_pause_until_it_is_committed(server: DeepgramServer) -> None:
    async with Caller(stt(server)) as caller:
        await caller.says(1000)
        await caller.until_settled(1)
        await caller.waits(700)
        await caller.says(600)
        assert (await caller.until_settled(2)).text == "I would like a table. For four people."
        await caller.waits(700)
        caller.stream.commit()
        await caller.says(600)
        assert (await caller.until_settled(3)).text == "Thank you."


async def test_late_words_of_a_turn_that_is_over_never_get_into_the_next(server: DeepgramServer) -> None:
    async with Caller(stt(server, settle_s=30)) as caller:
        await caller.speaks(1000)
        await caller.until(lambda: bool(caller.partials))
        server.misbehave(stall="middle")
        await caller.pauses()
        await caller.waits(700)
        caller.stream.commit()
        await caller.waits(400)
        before = len(caller.events)
        server.behave()
        await caller.says(600)
        assert (await caller.until_settled(2)).text == "For four people."
        assert all("table" not in event.text for event in caller.events[before:] if hasattr(event, "text"))


async def test_a_result_over_the_end_of_a_turn_gives_the_next_one_only_its_own_words(server: DeepgramServer) -> None:
    server.script = ["one two three four five six seven eight"]
    async with Caller(stt(server)) as caller:
        await caller.speaks(1200)
        await caller.until(lambda: "four" in caller.partials[-1] if caller.partials else False, 2)
        caller.stream.commit()
        await caller.speaks(1000)
        await caller.pauses()
        heard = await caller.until_settled(1)
    assert "one" not in heard.text.split()
    assert heard.text.endswith("seven eight")


async def test_finalize_without_an_answer_is_settled_by_the_next_final_result(server: DeepgramServer) -> None:
    server.answers_finalize = False
    async with Caller(stt(server)) as caller:
        await caller.says(600)
        assert (await caller.until_settled(1)).text == SCRIPT[0]


async def test_its_own_endpoint_is_told_after_the_text(server: DeepgramServer) -> None:
    async with Caller(stt(server, endpointing_ms=300)) as caller:
        await caller.speaks(800)
        await caller.waits(500)
        await caller.until(lambda: "end" in caller.endpoints)
        end = caller.events.index(SttEndpoint("end"))
        told = [event for event in caller.events[:end] if isinstance(event, Heard)]
    assert told[-1].text == SCRIPT[0]


async def test_an_utterance_end_is_an_endpoint_too_but_not_that_of_an_old_turn(server: DeepgramServer) -> None:
    async with Caller(stt(server, endpointing_ms=0)) as caller:
        await caller.says(600)
        await caller.until(lambda: caller.endpoints == ["end"])
        await caller.waits(200)
        caller.stream.commit()
        await caller.says(600)
        caller.stream.commit()
        await caller.waits(2000)
        # An answer to this pause comes after everything that the audio before it brings.
        caller.stream.speech_paused()
        await caller.until_settled(3)
        assert caller.endpoints == ["end"]


async def test_language_is_detected_when_it_is_left_open(server: DeepgramServer) -> None:
    server.language = "es"
    async with Caller(stt(server), language="auto") as caller:
        await caller.says(600)
        assert (await caller.until_settled(1)).language == "es"
    assert server.exchanges[0].asked("language") == "multi"


@pytest.mark.parametrize(
    ("language", "asked"), [("en", "en"), ("en-GB", "en-GB"), ("de-DE", "de"), ("de-CH", "de-CH"), ("auto", "multi")]
)
async def test_a_region_is_asked_for_where_there_is_one(server: DeepgramServer, language: str, asked: str) -> None:
    async with Caller(stt(server), language=language):
        pass
    assert server.exchanges[0].asked("language") == asked


async def test_noise_without_words_settles_as_nothing(server: DeepgramServer) -> None:
    server.script = []
    async with Caller(stt(server)) as caller:
        await caller.says(200)
        assert (await caller.until_settled(1)).text == ""
        assert not caller.failures


async def test_a_line_without_audio_is_kept_open(server: DeepgramServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.providers.deepgram.stt.KEEP_ALIVE_S", 0.05)
    async with Caller(stt(server)) as caller:
        await caller.waits(100)
        await server.until(lambda: {"type": "KeepAlive"} in server.exchanges[0].texts)
        assert not caller.failures


# -- what can go wrong ----------------------------------------------------------------------------------------------


async def test_a_wrong_key_is_refused_with_the_reason_and_without_the_key(server: DeepgramServer) -> None:
    with pytest.raises(ProviderUnavailableError, match=r"key is refused \(401\).*Invalid credentials") as refused:
        await stt(server, key="not-the-right-key-0001").probe()
    assert "not-the-right-key" not in str(refused.value)
    await server.all_closed()


@pytest.mark.parametrize(
    ("status", "error"),
    [(400, ProviderUnavailableError), (429, ProviderBusyError), (500, ProviderUnavailableError)],
)
async def test_a_refused_handshake_says_why(server: DeepgramServer, status: int, error: type[ProviderError]) -> None:
    server.misbehave(status=status, body={"err_code": "X", "err_msg": f"because {KEY}", "request_id": "r"})
    with pytest.raises(error, match=f"{status}.*because") as refused:
        await stt(server).probe()
    assert KEY not in str(refused.value)
    await server.all_closed()


async def test_a_server_that_is_down_can_not_be_reached_and_comes_back(server: DeepgramServer) -> None:
    await server.down()
    with pytest.raises(ProviderUnavailableError, match="can't be reached"):
        await stt(server).probe()
    await server.up()
    assert await stt(server).probe() == "nova-3 takes a stream"


async def test_a_handshake_that_stalls_is_given_up_and_leaves_nothing_open(server: DeepgramServer) -> None:
    server.misbehave(stall="answer")
    with pytest.raises(ProviderTimeoutError, match=r"within 0\.1 s"):
        await stt(server, connect_s=0.1).probe()
    await server.all_closed()


async def test_an_opening_that_is_cancelled_leaves_nothing_open(server: DeepgramServer) -> None:
    server.misbehave(stall="answer")
    opening = asyncio.create_task(stt(server).probe())
    await server.until(lambda: server.open_connections == 1)
    opening.cancel()
    await asyncio.gather(opening, return_exceptions=True)
    await server.all_closed()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"close": 1011, "reason": f"NET-0000 for {KEY}"}, r"1011 NET-0000 for \*\*\*"),
        ({"close": 1008, "reason": "DATA-0000"}, "1008 DATA-0000"),
        ({"close": 1000}, "closed the connection"),
        ({"drop": True}, "lost"),
    ],
)
async def test_a_stream_that_ends_mid_utterance_fails(
    server: DeepgramServer, fault: dict[str, Any], message: str
) -> None:
    async with Caller(stt(server)) as caller:
        await caller.speaks(600)
        server.misbehave(**fault)
        await caller.until(lambda: bool(caller.failures))
        (failure,) = caller.failures
        assert failure.fatal
        await caller.says(400)
        assert len(caller.failures) == 1
    assert re.search(message, failure.error)
    await server.all_closed()


async def test_a_server_that_goes_silent_is_noticed_at_the_next_pause(server: DeepgramServer) -> None:
    async with Caller(stt(server, settle_s=0.2)) as caller:
        server.misbehave(stall="middle")
        await caller.says(600)
        await caller.until(lambda: bool(caller.failures))
    assert caller.failures[0].fatal
    assert "no answer within 0.2 s" in caller.failures[0].error
    await server.all_closed()


async def test_a_server_that_reads_nothing_more_is_noticed_and_memory_does_not_grow(server: DeepgramServer) -> None:
    async with Caller(stt(server, settle_s=60), sample_rate=24000) as caller:
        await caller.waits(100)
        server.misbehave(deaf=True)
        async with asyncio.timeout(30):
            while not caller.failures:
                await caller.waits(20_000)
        assert "takes no audio" in caller.failures[0].error
    server.behave()  # Deaf, it would not hear of the connection's end.
    await server.all_closed()


@pytest.mark.parametrize(
    "garbage",
    [
        "{not json",
        "[]",
        '"text"',
        "{}",
        '{"type": "Results"}',
        '{"type": "Results", "start": "x", "duration": null, "channel": {"alternatives": [{"transcript": 5}]}}',
        '{"type": "Results", "start": 0, "duration": 1, "channel": {"alternatives": [{}]}}',
        '{"type": "UtteranceEnd", "last_word_end": "soon"}',
        '{"type": "New", "x": 1}',
        b"\0\1\2",
    ],
)
async def test_garbage_is_passed_over(server: DeepgramServer, garbage: str | bytes) -> None:
    async with Caller(stt(server)) as caller:
        server.misbehave(garbage=garbage)
        await caller.says(600)
        assert (await caller.until_settled(1)).text == SCRIPT[0]
        assert not caller.failures


async def test_an_error_message_is_told_and_the_stream_goes_on(server: DeepgramServer) -> None:
    async with Caller(stt(server)) as caller:
        server.misbehave(garbage='{"type": "Error", "variant": "SchemaError", "description": "what?"}')
        await caller.says(600)
        assert (await caller.until_settled(1)).text == SCRIPT[0]
    assert [(failure.error, failure.fatal) for failure in caller.failures] == [("SchemaError: what?", False)]


async def test_a_stream_is_opened_anew_after_the_server_came_back(server: DeepgramServer) -> None:
    ears = stt(server)
    async with Caller(ears) as caller:
        await server.down()
        await caller.until(lambda: bool(caller.failures))
    await server.up()
    async with Caller(ears) as caller:
        await caller.says(600)
        assert (await caller.until_settled(1)).text == SCRIPT[0]
    await server.all_closed()


async def test_a_call_loses_nothing_of_a_turn_whose_stream_broke(server: DeepgramServer) -> None:
    events: list[SttEvent] = []
    failures: list[ProviderError] = []
    ear = Ear(stt(server), sample_rate=8000, language="en", emit=events.append, failed=failures.append, open_s=2)
    await ear.open()
    frames = tone(800) + quiet(200)
    for at in range(0, len(frames), 320):
        ear.push(frames[at : at + 320], 0.0)
        if at == 640:
            ear.speech_started()
        if at == 9600:
            server.drop_all()
            await server.until(lambda: any(isinstance(event, SttFailed) for event in events))
            await ear.reopen()
    ear.speech_paused()
    await server.until(lambda: any(isinstance(event, Heard) and event.settled for event in events))
    assert next(event.text for event in events if isinstance(event, Heard) and event.settled) == SCRIPT[0]
    assert not failures
    await ear.aclose()
    await server.all_closed()


async def test_closing_says_goodbye_and_leaves_nothing_open(server: DeepgramServer) -> None:
    async with Caller(stt(server)) as caller:
        await caller.says(600)
        await caller.until_settled(1)
    assert server.exchanges[0].texts[-1] == {"type": "CloseStream"}
    await server.all_closed()
    told = len(caller.events)
    caller.stream.push(bytes(320))
    caller.stream.speech_paused()
    assert len(caller.events) == told


async def test_closing_a_stream_whose_server_is_deaf_takes_no_long(server: DeepgramServer) -> None:
    async with Caller(stt(server), sample_rate=24000) as caller:
        server.misbehave(deaf=True)
        await caller.waits(15_000)
        async with asyncio.timeout(30):
            await caller.stream.aclose()
    server.behave()
    await server.all_closed()


def test_without_a_key_it_says_where_one_is_looked_for() -> None:
    with pytest.raises(ProviderUnavailableError, match="DEEPGRAM_API_KEY"):
        DeepgramStt("deepgram", DeepgramSettings(), environ={})


# -- the stand-in is true to the SDK --------------------------------------------------------------------------------


def sdk(server: DeepgramServer) -> AsyncDeepgramClient:
    return AsyncDeepgramClient(
        api_key=KEY,
        environment=DeepgramClientEnvironment(
            base=server.http_url, production=server.ws_url, agent=server.ws_url, agent_rest=server.http_url
        ),
    )


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_the_sdks_own_client_understands_every_message(server: DeepgramServer) -> None:
    got = []
    async with sdk(server).listen.v1.connect(
        model="nova-3",
        language="multi",
        encoding="linear16",
        sample_rate=8000,
        interim_results=True,
        endpointing=300,
        utterance_end_ms=1000,
        vad_events=True,
    ) as socket:
        await socket.send_media(tone(800) + quiet(1600))
        await socket.send_keep_alive()
        await socket.send_finalize()
        await socket.send_close_stream()
        async for message in socket:
            got.append(message)
    kinds = {type(message) for message in got}
    assert kinds == {ListenV1SpeechStarted, ListenV1Results, ListenV1UtteranceEnd, ListenV1Metadata}
    for message in got:
        # As strictly as the types allow; the SDK itself checks nothing.
        type(message).model_validate_json(message.model_dump_json(exclude_unset=True))
        assert not message.model_extra
