"""Deepgram's voices through the SDK's messages, against a stand-in."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import standin_voice
from deepgram_speak import KEY, DeepgramVoices
from tts_hearing import ask, listen

from bridge.providers.base import (
    ProviderBusyError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
)
from bridge.providers.deepgram.settings import DeepgramSettings
from bridge.providers.deepgram.tts import DeepgramTts

Make = Callable[..., DeepgramTts]
TEXT = "Good morning, how can I help you today?"


@pytest.fixture
async def voices() -> AsyncIterator[DeepgramVoices]:
    async with DeepgramVoices() as server:
        yield server


@pytest.fixture
async def make_voice(voices: DeepgramVoices) -> AsyncIterator[Make]:
    """Makes a voice at the stand-in; at the end all are closed, and nothing may be open then."""
    made: list[DeepgramTts] = []

    def make(key: str = KEY, connect_s: float = 20.0, **tts: Any) -> DeepgramTts:
        # Without deadlines of its own a test is about none.
        tts = {"first_audio_s": 20, "between_audio_s": 20, **tts}
        settings = DeepgramSettings.model_validate({"base_url": voices.http_url, "connect_s": connect_s, "tts": tts})
        made.append(DeepgramTts("deepgram", settings, environ={"DEEPGRAM_API_KEY": key}))
        return made[-1]

    yield make
    for voice in made:
        await voice.aclose()
    await voices.all_closed()


async def test_text_is_spoken_as_mulaw_at_8000_hz(voices: DeepgramVoices, make_voice: Make) -> None:
    heard = await listen(make_voice(), TEXT)
    assert heard.pcm == standin_voice.telephone(TEXT)
    assert heard.words == []
    (socket,) = voices.exchanges
    assert (socket.asked("model"), socket.asked("encoding")) == ("aura-2-thalia-en", "mulaw")


@pytest.mark.parametrize("rate", [16000, 24000, 48000])
async def test_wideband_legs_get_linear_pcm_of_their_rate(make_voice: Make, rate: int) -> None:
    assert (await listen(make_voice(), TEXT, sample_rate=rate)).pcm == standin_voice.tone(TEXT, rate)


async def test_texts_follow_each_other_on_one_connection(voices: DeepgramVoices, make_voice: Make) -> None:
    voice = make_voice()
    for text in ("One.", "And two.", "Three."):
        assert (await listen(voice, text, turn="t1")).pcm == standin_voice.telephone(text)
    assert voices.connections_made == 1


async def test_twenty_flushes_a_minute_are_sent_on_one_connection(voices: DeepgramVoices, make_voice: Make) -> None:
    voice = make_voice()
    for number in range(45):
        text = f"Text {number}."
        assert (await listen(voice, text)).pcm == standin_voice.telephone(text)
    assert voices.connections_made == 3
    assert voices.speak.warnings == 0


async def test_a_flush_that_the_server_refuses_fails_the_text(voices: DeepgramVoices, make_voice: Make) -> None:
    voices.speak.most_flushes = 1
    voice = make_voice()
    await listen(voice, TEXT)
    with pytest.raises(ProviderBusyError, match="Too many flushes"):
        await listen(voice, TEXT)
    assert (await listen(voice, TEXT)).pcm == standin_voice.telephone(TEXT)


async def test_a_long_text_is_sent_in_parts(voices: DeepgramVoices, make_voice: Make) -> None:
    text = "All work and no play makes Jack a dull boy. " * 60 + "The end."
    assert (await listen(make_voice(), text)).pcm == standin_voice.telephone(text)
    assert voices.speak.spoken == [text]


async def test_two_hundred_syntheses_do_not_mix(voices: DeepgramVoices, make_voice: Make) -> None:
    voice = make_voice(first_audio_s=20.0, between_audio_s=20.0)
    texts = [f"Caller {number} is told this, and nothing else." for number in range(200)]
    heard = await asyncio.gather(*(listen(voice, text) for text in texts))
    assert [one.pcm for one in heard] == [standin_voice.telephone(text) for text in texts]
    assert voices.connections_made <= 40


async def test_who_stops_listening_clears_the_connection_for_the_next_text(
    voices: DeepgramVoices, make_voice: Make
) -> None:
    voices.speak.pace = 0.05
    voice = make_voice(sockets=1)
    for number in range(1, 6):
        stream = ask(voice, TEXT)
        await anext(stream)
        await stream.aclose()
        assert (await listen(voice, "Yes?")).pcm == standin_voice.telephone("Yes?")
        assert voices.speak.cleared == number
    assert voices.connections_made == 1


async def test_a_connection_that_does_not_clear_is_given_up(voices: DeepgramVoices, make_voice: Make) -> None:
    voice = make_voice()
    stream = ask(voice, TEXT)
    voices.misbehave(stall="middle", after=3)
    await anext(stream)
    await stream.aclose()
    await voices.all_closed()
    voices.behave()
    assert (await listen(voice, TEXT)).pcm == standin_voice.telephone(TEXT)


async def test_a_text_waits_for_a_connection_and_is_refused_in_the_end(
    voices: DeepgramVoices, make_voice: Make
) -> None:
    voices.misbehave(stall="middle", after=2)
    voice = make_voice(sockets=1, first_audio_s=3)
    stream = ask(voice, TEXT)
    await anext(stream)
    with pytest.raises(ProviderBusyError, match="in use"):
        await listen(voice, TEXT)
    await stream.aclose()


async def test_warm_opens_the_connection_that_is_used(voices: DeepgramVoices, make_voice: Make) -> None:
    voice = make_voice()
    await voice.warm()
    await voices.until(lambda: voices.open_connections == 1)
    await listen(voice, TEXT)
    assert voices.connections_made == 1


async def test_an_unused_connection_is_closed(voices: DeepgramVoices, make_voice: Make) -> None:
    voice = make_voice(idle_socket_s=0.05)
    await listen(voice, TEXT)
    await voices.all_closed()
    assert (await listen(voice, TEXT)).pcm == standin_voice.telephone(TEXT)


@pytest.mark.parametrize("fault", [{"drop": True}, {"close": 1011, "reason": "NET-0001"}])
async def test_a_text_is_sent_again_when_the_connection_dies_before_any_audio(
    voices: DeepgramVoices, make_voice: Make, fault: dict[str, Any]
) -> None:
    voice = make_voice()
    await listen(voice, "Hello.")
    voices.misbehave(times=1, **fault)
    assert (await listen(voice, TEXT)).pcm == standin_voice.telephone(TEXT)
    assert voices.connections_made == 2


async def test_a_text_is_not_begun_again_when_the_connection_dies_in_its_middle(
    voices: DeepgramVoices, make_voice: Make
) -> None:
    voices.misbehave(close=1011, reason="NET-0000", after=3)
    with pytest.raises(ProviderError, match="1011 NET-0000 in the middle"):
        await listen(make_voice(), TEXT)


@pytest.mark.parametrize(("after", "says"), [(1, "no audio within"), (3, "no more audio within")])
async def test_silence_is_a_timeout_and_the_connection_is_not_used_again(
    voices: DeepgramVoices, make_voice: Make, after: int, says: str
) -> None:
    voices.misbehave(stall="middle", after=after)
    with pytest.raises(ProviderTimeoutError, match=says):
        await listen(make_voice(first_audio_s=2, between_audio_s=0.5), TEXT)
    await voices.all_closed()


async def test_an_answer_that_never_comes_to_the_handshake_is_a_timeout(
    voices: DeepgramVoices, make_voice: Make
) -> None:
    voices.misbehave(stall="answer")
    with pytest.raises(ProviderTimeoutError, match="no connection"):
        await listen(make_voice(connect_s=0.2), TEXT)
    voices.behave()


@pytest.mark.parametrize("garbage", ["\x00{]", "[1]", "7", '{"type": "Flushed?"}', '{"type": ["Flushed"]}'])
async def test_garbage_between_the_audio_is_ignored(voices: DeepgramVoices, make_voice: Make, garbage: str) -> None:
    voices.misbehave(garbage=garbage, after=2)
    assert (await listen(make_voice(), TEXT)).pcm == standin_voice.telephone(TEXT)


@pytest.mark.parametrize(
    ("status", "error"), [(401, ProviderUnavailableError), (429, ProviderBusyError), (500, ProviderError)]
)
async def test_a_refused_handshake_says_why(
    voices: DeepgramVoices, make_voice: Make, status: int, error: type[ProviderError]
) -> None:
    voices.misbehave(status=status, body="no")
    with pytest.raises(error, match=str(status)):
        await listen(make_voice(), TEXT)


async def test_a_wrong_key_is_told_without_the_key(make_voice: Make) -> None:
    wrong = "0123456789abcdef0123456789abcdef01234567"
    with pytest.raises(ProviderUnavailableError, match="key is refused") as failed:
        await listen(make_voice(key=wrong), TEXT)
    assert wrong not in str(failed.value)


async def test_an_unknown_voice_is_told(make_voice: Make) -> None:
    with pytest.raises(ProviderError, match="No such model"):
        await listen(make_voice(), TEXT, voice="nobody")


async def test_nobody_at_the_address_is_said(voices: DeepgramVoices, make_voice: Make) -> None:
    await voices.down()
    with pytest.raises(ProviderUnavailableError, match="can't be reached"):
        await listen(make_voice(), TEXT)


async def test_probe_speaks_and_says_with_what(make_voice: Make) -> None:
    assert "aura-2-thalia-en" in await make_voice().probe()
