"""OpenAI's voice through the SDK, against a stand-in."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import standin_voice
from openai_speech_server import KEY, MODEL, SpeechServer
from tts_hearing import ask, listen

from bridge.providers.base import (
    ProviderBusyError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
)
from bridge.providers.openai.settings import OpenAiSettings
from bridge.providers.openai.tts import OpenAiTts

Make = Callable[..., OpenAiTts]
TEXT = "Good morning, how can I help you today?"


@pytest.fixture
async def speech() -> AsyncIterator[SpeechServer]:
    async with SpeechServer() as server:
        yield server


@pytest.fixture
async def make_voice(speech: SpeechServer) -> AsyncIterator[Make]:
    """Makes a voice at the stand-in; at the end all are closed, and nothing may be open then."""
    made: list[OpenAiTts] = []

    def make(key: str = KEY, connect_s: float = 20.0, **tts: Any) -> OpenAiTts:
        settings = OpenAiSettings.model_validate(
            {
                "base_url": f"{speech.http_url}/v1",
                "api_key_env": "THE_KEY",
                "connect_s": connect_s,
                # Without deadlines of its own a test is about none.
                "tts": {"model": MODEL, "first_audio_s": 20, "between_audio_s": 20, **tts},
            }
        )
        made.append(OpenAiTts("openai", settings, environ={"THE_KEY": key}))
        return made[-1]

    yield make
    for voice in made:
        await voice.aclose()
    await speech.all_closed()


@pytest.mark.parametrize("rate", [8000, 16000, 24000, 48000])
async def test_text_is_spoken_at_the_rate_of_the_leg(speech: SpeechServer, make_voice: Make, rate: int) -> None:
    heard = await listen(make_voice(instructions="Calmly.", speed=1.1), TEXT, sample_rate=rate)
    length_ms = len(heard.pcm) / 2 * 1000 / rate
    assert length_ms == pytest.approx(standin_voice.spoken_ms(TEXT), abs=5)
    assert standin_voice.heard_pitch(heard.pcm, rate) == pytest.approx(standin_voice.pitch(TEXT), abs=2)
    assert heard.chunks > 10
    (asked,) = speech.asked
    assert asked == {
        "input": TEXT,
        "model": MODEL,
        "voice": "marin",
        "response_format": "pcm",
        "instructions": "Calmly.",
        "speed": 1.1,
    }


async def test_at_the_vendors_own_rate_nothing_is_changed(make_voice: Make) -> None:
    assert (await listen(make_voice(), TEXT, sample_rate=24000)).pcm == standin_voice.tone(TEXT, 24000)


async def test_a_long_text_is_asked_for_in_parts(speech: SpeechServer, make_voice: Make) -> None:
    text = "All work and no play makes Jack a dull boy. " * 95
    heard = await listen(make_voice(), text, sample_rate=24000)
    assert len(heard.pcm) == standin_voice.spoken_ms(text) * 48
    assert "".join(asked["input"] for asked in speech.asked) == text


async def test_warm_opens_a_connection_that_is_used_for_the_text(speech: SpeechServer, make_voice: Make) -> None:
    voice = make_voice()
    await voice.warm()
    await listen(voice, TEXT)
    await listen(voice, TEXT)
    assert speech.connections_made == 1


async def test_who_stops_listening_ends_the_request(speech: SpeechServer, make_voice: Make) -> None:
    speech.pace = 0.2
    stream = ask(make_voice(), TEXT)
    await anext(stream)
    await stream.aclose()
    await speech.all_closed()
    assert speech.exchanges[0].cut


async def test_fifty_syntheses_at_once_do_not_mix(make_voice: Make) -> None:
    voice = make_voice(first_audio_s=20.0, between_audio_s=20.0)
    texts = [f"Caller {number} is told this, and nothing else." for number in range(50)]
    heard = await asyncio.gather(*(listen(voice, text, sample_rate=24000) for text in texts))
    assert [one.pcm for one in heard] == [standin_voice.tone(text, 24000) for text in texts]


async def test_a_text_is_sent_again_when_the_connection_dies_before_any_audio(
    speech: SpeechServer, make_voice: Make
) -> None:
    voice = make_voice()
    await listen(voice, "Hello.")
    speech.misbehave(drop=True, times=1)
    assert (await listen(voice, TEXT, sample_rate=24000)).pcm == standin_voice.tone(TEXT, 24000)


async def test_a_text_is_not_begun_again_when_the_connection_dies_in_its_middle(
    speech: SpeechServer, make_voice: Make
) -> None:
    speech.misbehave(drop=True, after=4)
    with pytest.raises(ProviderError, match="in the middle"):
        await listen(make_voice(), TEXT)


@pytest.mark.parametrize(
    ("fault", "says"), [({"stall": "answer"}, "no audio"), ({"stall": "middle", "after": 4}, "no more audio")]
)
async def test_silence_is_a_timeout_and_the_next_text_is_spoken(
    speech: SpeechServer, make_voice: Make, fault: dict[str, Any], says: str
) -> None:
    voice = make_voice(first_audio_s=2, between_audio_s=2)
    speech.misbehave(**fault)
    with pytest.raises(ProviderTimeoutError, match=says):
        await listen(voice, TEXT)
    await speech.all_closed()
    speech.behave()
    assert (await listen(voice, TEXT, sample_rate=24000)).pcm == standin_voice.tone(TEXT, 24000)


async def test_an_answer_that_is_no_audio_is_an_error(speech: SpeechServer, make_voice: Make) -> None:
    speech.misbehave(status=200, body={"oops": KEY})
    with pytest.raises(ProviderError, match="in place of audio") as failed:
        await listen(make_voice(), TEXT)
    assert KEY not in str(failed.value)


@pytest.mark.parametrize(
    ("status", "error"),
    [(401, ProviderUnavailableError), (429, ProviderBusyError), (500, ProviderError)],
)
async def test_a_refused_request_says_why_once(
    speech: SpeechServer, make_voice: Make, status: int, error: type[ProviderError]
) -> None:
    speech.misbehave(status=status, body={"error": {"message": f"No, {KEY}.", "code": "no"}})
    with pytest.raises(error, match=rf"{status}.*No, \*\*\*") as failed:
        await listen(make_voice(), TEXT)
    assert KEY not in str(failed.value)
    assert len(speech.exchanges) == 1


async def test_a_wrong_key_is_told_without_the_key(make_voice: Make) -> None:
    wrong = "sk-proj-zzzzzzzzzzzzzzzzzzzzzz"
    with pytest.raises(ProviderUnavailableError, match="THE_KEY") as failed:
        await listen(make_voice(key=wrong), TEXT)
    assert wrong not in str(failed.value)


async def test_an_unknown_model_is_told(make_voice: Make) -> None:
    with pytest.raises(ProviderUnavailableError, match=r"check providers\.openai\.tts\.model"):
        await listen(make_voice(model="tts-9"), TEXT)


async def test_nobody_at_the_address_is_said(speech: SpeechServer, make_voice: Make) -> None:
    await speech.down()
    with pytest.raises(ProviderUnavailableError, match="can't connect"):
        await listen(make_voice(), TEXT)


async def test_probe_speaks_and_says_with_what(make_voice: Make) -> None:
    assert MODEL in await make_voice().probe()


async def test_openais_own_key_is_not_sent_to_another_server(speech: SpeechServer) -> None:
    settings = OpenAiSettings.model_validate({"base_url": f"{speech.http_url}/v1"})
    voice = OpenAiTts("openai", settings, environ={"OPENAI_API_KEY": KEY})
    with pytest.raises(ProviderUnavailableError):
        await listen(voice, TEXT)
    await voice.aclose()
    assert KEY not in speech.exchanges[0].headers["authorization"]
