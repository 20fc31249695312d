"""Telnyx's voices, through the SDK, against a stand-in of its socket."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import standin_voice
from telnyx_speech_server import TelnyxSpeech
from tts_hearing import ask, listen

from bridge.providers.base import (
    ProviderBusyError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
)
from bridge.providers.telnyx.settings import TelnyxSettings
from bridge.providers.telnyx.tts import TelnyxTts

KEY = "KEY0123456789ABCDEF_secret"
TEXT = "Good morning, how can I help you today?"

Make = Callable[..., TelnyxTts]


@pytest.fixture
async def server() -> AsyncIterator[TelnyxSpeech]:
    async with TelnyxSpeech() as server:
        yield server


@pytest.fixture
async def make_voice(server: TelnyxSpeech) -> AsyncIterator[Make]:
    """Makes a voice at the stand-in; at the end all are closed, and nothing may be open then."""
    made: list[TelnyxTts] = []

    def make(connect_s: float = 20.0, **tts: Any) -> TelnyxTts:
        # Without deadlines of its own a test is about none.
        tts = {"first_audio_s": 20, "between_audio_s": 20, **tts}
        settings = TelnyxSettings.model_validate({"base_url": server.base_url, "connect_s": connect_s, "tts": tts})
        made.append(TelnyxTts("telnyx", settings, environ={"TELNYX_API_KEY": KEY}))
        return made[-1]

    yield make
    for voice in made:
        await voice.aclose()
    server.behave()
    await server.all_closed()


async def test_text_is_spoken_at_the_calls_rate(server: TelnyxSpeech, make_voice: Make) -> None:
    heard = await listen(make_voice(), TEXT)
    assert heard.pcm == standin_voice.tone(TEXT, 8000)
    socket = server.exchanges[0]
    assert socket.headers["authorization"] == f"Bearer {KEY}"
    assert {name: socket.asked(name) for name in socket.query} == {
        "voice": "Telnyx.NaturalHD.astra",
        "audio_format": "linear16",
        "sample_rate": "8000",
    }
    assert socket.texts == [{"text": " "}, {"text": TEXT, "flush": True}]


async def test_settings_go_where_telnyx_wants_them(server: TelnyxSpeech, make_voice: Make) -> None:
    voice = make_voice(audio_format="mulaw", cached=False, voice_settings={"voice_speed": 1.2})
    heard = await listen(voice, TEXT, voice="azure.en-US-Ava", language="en-US")
    assert heard.pcm == standin_voice.telephone(TEXT)
    socket = server.exchanges[0]
    asked = ("voice", "audio_format", "sample_rate", "language", "disable_cache")
    assert [socket.asked(name) for name in asked] == ["azure.en-US-Ava", "mulaw", "8000", "en-US", "true"]
    assert socket.texts[0] == {"text": " ", "voice_settings": {"voice_speed": 1.2}}


@pytest.mark.parametrize("rate", [16000, 24000, 48000])
async def test_wideband_legs_get_their_rate(make_voice: Make, rate: int) -> None:
    assert (await listen(make_voice(), TEXT, sample_rate=rate)).pcm == standin_voice.tone(TEXT, rate)


async def test_models_of_one_rate_are_resampled(server: TelnyxSpeech, make_voice: Make) -> None:
    heard = await listen(make_voice(), TEXT, voice="Telnyx.KokoroTTS.af_heart")
    assert server.exchanges[0].asked("sample_rate") == "24000"
    assert len(heard.pcm) == pytest.approx(standin_voice.spoken_ms(TEXT) * 16, abs=10 * 16)
    assert standin_voice.heard_pitch(heard.pcm, 8000) == pytest.approx(standin_voice.pitch(TEXT), abs=2)


@pytest.mark.parametrize("final_per_sentence", [False, True])
async def test_texts_of_several_sentences_are_whole_and_follow_each_other_on_one_connection(
    final_per_sentence: bool, server: TelnyxSpeech, make_voice: Make
) -> None:
    server.final_per_sentence = final_per_sentence
    voice = make_voice()
    for text in ("One. And two! And then", "Three."):
        sentences = ["One. ", "And two! ", "And then"] if text.startswith("One") else ["Three."]
        spoken = b"".join(standin_voice.tone(sentence, 8000) for sentence in sentences)
        assert (await listen(voice, text, turn="t1")).pcm == spoken
    assert server.connections_made == 1


@pytest.mark.parametrize("final_per_sentence", [False, True])
async def test_frames_that_tell_no_text_end_shortly_after_the_last_final(
    final_per_sentence: bool, server: TelnyxSpeech, make_voice: Make
) -> None:
    server.tells_text = False
    server.final_per_sentence = final_per_sentence
    voice = make_voice()
    assert (await listen(voice, "One. Two.")).pcm == standin_voice.tone("One. ", 8000) + standin_voice.tone(
        "Two.", 8000
    )
    assert (await listen(voice, "Three.")).pcm == standin_voice.tone("Three.", 8000)
    # What might still have come would have passed for the next text's.
    assert server.connections_made == 2


async def test_texts_at_the_same_time_each_have_a_connection(server: TelnyxSpeech, make_voice: Make) -> None:
    voice = make_voice()
    texts = ["First.", "And the second.", "Third one."]
    heard = await asyncio.gather(*(listen(voice, text) for text in texts))
    assert [one.pcm for one in heard] == [standin_voice.tone(text, 8000) for text in texts]
    assert server.connections_made == 3
    await listen(voice, "Fourth.")
    assert server.connections_made == 3


async def test_warm_opens_the_connection_ahead(server: TelnyxSpeech, make_voice: Make) -> None:
    voice = make_voice()
    await voice.warm()
    await server.until(lambda: bool(server.exchanges) and server.exchanges[0].texts == [{"text": " "}])
    await listen(voice, TEXT)
    assert server.connections_made == 1


async def test_closing_the_iterator_stops_the_speech_and_the_next_is_clean(
    server: TelnyxSpeech, make_voice: Make
) -> None:
    server.slow_s = 0.02
    voice = make_voice()
    speech = ask(voice, TEXT)
    await anext(speech)
    await speech.aclose()  # type: ignore[attr-defined]  # an async generator behind the contract's iterator
    await server.exchanges[0].over.wait()
    server.slow_s = 0.0
    assert (await listen(voice, "Sorry.")).pcm == standin_voice.tone("Sorry.", 8000)
    assert server.connections_made == 2


async def test_the_task_cancelled_before_any_audio_leaves_nothing_open(
    server: TelnyxSpeech, make_voice: Make
) -> None:
    server.misbehave(stall="middle")
    task = asyncio.create_task(listen(make_voice(), TEXT))
    await server.until(lambda: bool(server.spoken))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await server.all_closed()


async def test_an_idle_connection_is_closed(server: TelnyxSpeech, make_voice: Make) -> None:
    voice = make_voice(idle_socket_s=0.1)
    await listen(voice, "One.")
    await server.all_closed()
    await listen(voice, "Two.")
    assert server.connections_made == 2


async def test_a_kept_connection_that_died_is_replaced_silently(server: TelnyxSpeech, make_voice: Make) -> None:
    voice = make_voice()
    await listen(voice, "One.")
    server.misbehave(drop=True, times=1)
    assert (await listen(voice, "Two.")).pcm == standin_voice.tone("Two.", 8000)


async def test_no_more_connections_than_allowed(server: TelnyxSpeech, make_voice: Make) -> None:
    server.misbehave(stall="middle")
    voice = make_voice(sockets=1, first_audio_s=3)
    first = asyncio.create_task(listen(voice, "One."))
    await server.until(lambda: bool(server.spoken))
    with pytest.raises(ProviderBusyError, match="in use"):
        await listen(voice, "Two.")
    with pytest.raises(ProviderTimeoutError):
        await first


# -- misbehaviour -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, ProviderUnavailableError),
        (403, ProviderUnavailableError),
        (429, ProviderBusyError),
        (500, ProviderError),
    ],
)
async def test_a_refused_handshake_says_why_and_hides_the_key(
    status: int, error: type[ProviderError], server: TelnyxSpeech, make_voice: Make
) -> None:
    server.misbehave(status=status, body={"errors": [{"code": "10009", "detail": f"not {KEY}"}]})
    voice = make_voice()
    await voice.warm()
    with pytest.raises(error, match=str(status)) as caught:
        await listen(voice, TEXT)
    assert KEY not in str(caught.value)
    with pytest.raises(error):
        await voice.probe()


async def test_nobody_listening_and_back_again(server: TelnyxSpeech, make_voice: Make) -> None:
    voice = make_voice()
    await server.down()
    with pytest.raises(ProviderUnavailableError, match="can't be reached"):
        await listen(voice, TEXT)
    await server.up()
    assert (await voice.probe()).startswith("voice Telnyx.NaturalHD.astra: first audio after ")


async def test_a_handshake_that_is_not_answered(server: TelnyxSpeech, make_voice: Make) -> None:
    server.misbehave(stall="answer")
    with pytest.raises(ProviderTimeoutError, match="no connection within"):
        await listen(make_voice(connect_s=0.2), TEXT)


async def test_no_audio_in_time(server: TelnyxSpeech, make_voice: Make) -> None:
    server.misbehave(stall="middle")
    with pytest.raises(ProviderTimeoutError, match=r"no audio within 0\.2 s"):
        await listen(make_voice(first_audio_s=0.2), TEXT)


async def test_speech_that_stops(server: TelnyxSpeech, make_voice: Make) -> None:
    server.misbehave(stall="middle", after=2)
    with pytest.raises(ProviderTimeoutError, match=r"no more audio within 0\.2 s"):
        await listen(make_voice(between_audio_s=0.2), TEXT)


@pytest.mark.parametrize("fault", [{"close": 1011, "reason": f"why {KEY}"}, {"drop": True}])
async def test_a_connection_that_ends_in_the_speech(
    fault: dict[str, Any], server: TelnyxSpeech, make_voice: Make
) -> None:
    server.misbehave(after=3, **fault)
    with pytest.raises(ProviderError, match="in the middle of the speech") as caught:
        await listen(make_voice(), TEXT)
    assert KEY not in str(caught.value)


async def test_an_error_frame_is_told(server: TelnyxSpeech, make_voice: Make) -> None:
    server.misbehave(after=1, garbage=f'{{"error": "Error in audio response {KEY}"}}', times=1)
    voice = make_voice()
    with pytest.raises(ProviderError, match="Error in audio response") as caught:
        await listen(voice, TEXT)
    assert KEY not in str(caught.value)
    assert (await listen(voice, "Again.")).pcm == standin_voice.tone("Again.", 8000)


async def test_garbage_is_no_audio(server: TelnyxSpeech, make_voice: Make) -> None:
    for garbage in ("{nonsense", "[]", '{"audio": 7}', '{"audio": "x"}', b"\xff\xfe"):
        server.misbehave(after=1, garbage=garbage, times=1)
    assert (await listen(make_voice(), TEXT)).pcm == standin_voice.tone(TEXT, 8000)


async def test_a_voice_that_gives_mp3_whatever_it_is_asked_for_is_not_played(
    server: TelnyxSpeech, make_voice: Make
) -> None:
    server.mp3 = True
    with pytest.raises(ProviderUnavailableError, match=r"Telnyx\.KokoroTTS\.af gives MP3"):
        await listen(make_voice(), TEXT, voice="Telnyx.KokoroTTS.af")


def test_a_missing_key_is_named() -> None:
    with pytest.raises(ProviderUnavailableError, match="TELNYX_API_KEY"):
        TelnyxTts("telnyx", TelnyxSettings(), environ={})
