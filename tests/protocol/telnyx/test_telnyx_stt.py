"""Telnyx's transcription socket, through the SDK, against a stand-in of it."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from stt_talk import Talk
from telnyx_speech_server import TelnyxSpeech

from bridge.providers.base import (
    ProviderBusyError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    SttEndpoint,
)
from bridge.providers.telnyx.settings import TelnyxSettings
from bridge.providers.telnyx.stt import TelnyxStt

KEY = "KEY0123456789ABCDEF_secret"

Make = Callable[..., TelnyxStt]


@pytest.fixture
async def server() -> AsyncIterator[TelnyxSpeech]:
    async with TelnyxSpeech() as server:
        yield server


@pytest.fixture
async def make_stt(server: TelnyxSpeech) -> AsyncIterator[Make]:
    made: list[TelnyxStt] = []

    def make(connect_s: float = 20.0, **stt: Any) -> TelnyxStt:
        settings = TelnyxSettings.model_validate({"base_url": server.base_url, "connect_s": connect_s, "stt": stt})
        made.append(TelnyxStt("telnyx", settings, environ={"TELNYX_API_KEY": KEY}))
        return made[-1]

    yield make
    for stt in made:
        await stt.aclose()


@pytest.fixture
async def talk(server: TelnyxSpeech, make_stt: Make) -> AsyncIterator[Talk]:
    """A caller whose ear is open; at the end nothing is left open."""
    talk = await Talk.open(make_stt())
    yield talk
    await talk.stream.aclose()
    await server.all_closed()


def commands(server: TelnyxSpeech) -> list[str]:
    return [message["type"] for message in server.exchanges[0].texts]


async def test_text_comes_while_the_caller_speaks_and_is_settled_at_his_pause(
    server: TelnyxSpeech, talk: Talk
) -> None:
    server.script.append("I need a table for four.")
    talk.silence(500)
    talk.say(900)
    settled = await talk.settle(1)
    assert (settled.text, settled.pause) == ("I need a table for four.", 1)
    assert talk.partials[:2] == ["I", "I need"]
    socket = server.exchanges[0]
    assert socket.headers["authorization"] == f"Bearer {KEY}"
    asked = ("transcription_engine", "model", "input_format", "sample_rate", "language", "interim_results")
    assert [socket.asked(name) for name in asked] == ["Deepgram", "nova-3", "linear16", "8000", "en-US", "true"]
    assert socket.asked("endpointing") == "300"
    assert commands(server) == ["Finalize"]
    assert sum(map(len, socket.binary)) == (500 + 900 + 200) * 16
    await talk.stream.aclose()
    assert commands(server) == ["Finalize", "CloseStream"]


async def test_settings_go_into_the_url(server: TelnyxSpeech, make_stt: Make) -> None:
    stt = make_stt(
        model="nova-2", input_format="mulaw", keyterms=("Caprese", "Da Mario"), endpointing_ms=0,
        parameters={"redact": "pci"},
    )  # fmt: skip
    talk = await Talk.open(stt, language="auto")
    socket = server.exchanges[0]
    assert socket.query["keyterm"] == ["Caprese", "Da Mario"]
    asked = ("model", "input_format", "language", "endpointing", "redact")
    assert [socket.asked(name) for name in asked] == ["nova-2", "mulaw", "multi", "false", "pci"]
    server.script.append("Hello.")
    talk.say()
    assert (await talk.settle(1)).text == "Hello."
    assert sum(map(len, socket.binary)) == (600 + 200) * 8
    await talk.stream.aclose()


@pytest.mark.parametrize(("rate", "wire"), [(16000, "16000"), (24000, "16000"), (48000, "16000")])
async def test_wideband_audio_goes_at_16_khz(rate: int, wire: str, server: TelnyxSpeech, make_stt: Make) -> None:
    server.script.append("Hello.")
    talk = await Talk.open(make_stt(), sample_rate=rate)
    talk.say()
    assert (await talk.settle(1)).text == "Hello."
    assert server.exchanges[0].asked("sample_rate") == wire
    await talk.stream.aclose()


async def test_a_turn_of_several_pauses_grows_and_the_next_starts_anew(server: TelnyxSpeech, talk: Talk) -> None:
    server.script += ["I need a table", "for four", "Goodbye."]
    talk.say()
    assert (await talk.settle(1)).text == "I need a table"
    talk.silence(100)
    await talk.until(lambda: bool(talk.endpoints))
    talk.say()
    assert (await talk.settle(2)).text == "I need a table for four"
    talk.stream.commit()
    talk.silence(100)
    await talk.until(lambda: len(talk.endpoints) == 2)
    talk.say()
    assert (await talk.settle(3)).text == "Goodbye."


async def test_an_end_that_the_engine_found_first_is_a_sign_and_settles_at_once(
    server: TelnyxSpeech, make_stt: Make
) -> None:
    server.script.append("Hello there.")
    server.answers_finalize = False
    talk = await Talk.open(make_stt(settle_s=30))
    talk.speak(600)
    talk.silence(400)
    await talk.until(lambda: bool(talk.endpoints))
    talk.stream.speech_paused()
    assert (await talk.settle(1)).text == "Hello there."
    assert talk.endpoints == [SttEndpoint("end")]
    await talk.stream.aclose()


async def test_an_answer_to_finalize_is_no_sign_of_the_turns_end(server: TelnyxSpeech, talk: Talk) -> None:
    server.script.append("Hello there.")
    talk.say()
    await talk.settle(1)
    assert talk.endpoints == []


async def test_a_finalize_that_was_ignored_is_sent_again(server: TelnyxSpeech, make_stt: Make) -> None:
    server.script.append("Hello there.")
    server.swallow_finalize = 1
    talk = await Talk.open(make_stt(settle_s=2, endpointing_ms=0))
    talk.say()
    assert (await talk.settle(1)).text == "Hello there."
    assert commands(server) == ["Finalize", "Finalize"]
    await talk.stream.aclose()


async def test_noise_in_a_pause_before_the_turns_end_does_not_swallow_the_next_words(
    server: TelnyxSpeech, make_stt: Make
) -> None:
    server.script.append("Hello there.")
    server.answers_finalize = False
    talk = await Talk.open(make_stt())
    talk.silence(500)
    talk.stream.speech_started()
    talk.pause()
    talk.stream.commit()
    talk.silence(700)
    talk.speak(600)
    await talk.until(lambda: talk.partials[-1:] == ["Hello"])
    talk.pause()
    assert (await talk.settle(2)).text == "Hello there."
    await talk.stream.aclose()


@pytest.mark.parametrize("engine", ["Telnyx", "Azure"])
async def test_engines_that_can_not_be_asked_settle_when_they_find_the_pause(
    engine: str, server: TelnyxSpeech, make_stt: Make
) -> None:
    server.script += ["Hello there.", "Goodbye."]
    talk = await Talk.open(make_stt(engine=engine, settle_s=5), language="auto")
    socket = server.exchanges[0]
    assert (socket.asked("model"), socket.asked("endpointing")) == ("", "")
    assert socket.asked("language") == ("auto_detect" if engine == "Telnyx" else "")
    talk.say()
    talk.silence(100)
    assert (await talk.settle(1)).text == "Hello there."
    talk.stream.commit()
    # Noise: the engine hears no words, and says nothing at all.
    talk.stream.speech_started()
    talk.pause()
    assert (await talk.settle(2)).text == ""
    assert commands(server) == []
    await talk.stream.aclose()


# -- misbehaviour -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "error"), [(401, ProviderUnavailableError), (429, ProviderBusyError), (500, ProviderError)]
)
async def test_a_refused_handshake_says_why_and_hides_the_key(
    status: int, error: type[ProviderError], server: TelnyxSpeech, make_stt: Make
) -> None:
    server.misbehave(status=status, body={"errors": [{"code": "10009", "detail": f"not {KEY}"}]})
    with pytest.raises(error, match=str(status)) as caught:
        await Talk.open(make_stt())
    assert KEY not in str(caught.value)
    with pytest.raises(error):
        await make_stt().probe()
    await server.all_closed()


async def test_probe_opens_a_stream_and_closes_it(server: TelnyxSpeech, make_stt: Make) -> None:
    assert await make_stt().probe() == "Deepgram nova-3 takes a stream"
    await server.all_closed()
    await server.down()
    with pytest.raises(ProviderUnavailableError, match="can't be reached"):
        await make_stt().probe()


async def test_a_wrong_parameter_is_named(server: TelnyxSpeech, make_stt: Make) -> None:
    talk = await Talk.open(make_stt(engine="Azure", input_format="mulaw"))
    assert await talk.failure() == (
        "telnyx: 40002: Unsupported format: Format 'mulaw' is not supported by 'Azure': input_format"
    )
    await talk.stream.aclose()
    await server.all_closed()


async def test_a_server_that_does_not_answer_the_handshake(server: TelnyxSpeech, make_stt: Make) -> None:
    server.misbehave(stall="answer")
    with pytest.raises(ProviderTimeoutError, match=r"no connection within 0\.2 s"):
        await Talk.open(make_stt(connect_s=0.2))
    await server.all_closed()


@pytest.mark.parametrize("code", [1000, 1011])
async def test_a_stream_closed_in_the_middle_of_an_utterance(code: int, server: TelnyxSpeech, talk: Talk) -> None:
    talk.speak(400)
    server.close_all(code, f"why {KEY}")
    failure = await talk.failure()
    assert f"closed the connection: {code}" in failure
    assert KEY not in failure


async def test_a_lost_connection(server: TelnyxSpeech, talk: Talk) -> None:
    talk.speak(400)
    server.drop_all()
    assert "the connection was lost" in await talk.failure()


async def test_garbage_is_no_text(server: TelnyxSpeech, talk: Talk) -> None:
    server.script.append("Hello there.")
    for garbage in ("{nonsense", "[]", '{"transcript": 7, "is_final": 1}', b"\xff\xfe"):
        server.misbehave(garbage=garbage, times=1)
    talk.say()
    assert (await talk.settle(1)).text == "Hello there."


async def test_an_error_frame_ends_the_stream(server: TelnyxSpeech, talk: Talk) -> None:
    server.misbehave(garbage=f'{{"type": "error", "error": "engine gone, {KEY}"}}')
    failure = await talk.failure()
    assert "engine gone" in failure
    assert KEY not in failure


async def test_a_server_gone_silent_fails_in_time(server: TelnyxSpeech, make_stt: Make) -> None:
    talk = await Talk.open(make_stt(settle_s=0.3))
    server.misbehave(stall="middle")
    talk.say()
    assert "silent" in await talk.failure()
    await talk.stream.aclose()
    await server.all_closed()


async def test_a_server_that_takes_no_audio_is_left_in_time(server: TelnyxSpeech, make_stt: Make) -> None:
    talk = await Talk.open(make_stt())
    server.misbehave(deaf=True)
    for _ in range(40):
        talk.audio(bytes(16000))
    assert "takes no audio" in await talk.failure()
    await talk.stream.aclose()
    server.behave()
    await server.all_closed()


def test_a_missing_key_is_named() -> None:
    with pytest.raises(ProviderUnavailableError, match="TELNYX_API_KEY"):
        TelnyxStt("telnyx", TelnyxSettings(), environ={})
