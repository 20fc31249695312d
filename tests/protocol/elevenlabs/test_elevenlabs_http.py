"""ElevenLabs' voice over HTTP with timestamps, through the SDK, against a stand-in."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import standin_voice
from elevenlabs_server import ElevenLabs
from tts_hearing import ask, listen, true_words

from bridge.providers.base import (
    ProviderBusyError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
)
from bridge.providers.elevenlabs.tts import ElevenLabsTts

Make = Callable[..., ElevenLabsTts]
TEXT = "Good morning, how can I help you today?"


async def test_text_is_spoken_as_mulaw_at_8000_hz_with_each_words_time(server: ElevenLabs, make_voice: Make) -> None:
    heard = await listen(make_voice(mode="http"), TEXT)
    assert heard.pcm == standin_voice.telephone(TEXT)
    assert heard.words == true_words(TEXT)
    assert heard.chunks > 1


async def test_a_text_is_told_what_was_said_before_it_in_its_turn(server: ElevenLabs, make_voice: Make) -> None:
    voice = make_voice(mode="http", stability=0.4)
    for text, turn in (("One.", "t1"), ("Two.", "t1"), ("Three.", "t1"), ("Four.", "t2"), ("Five.", "")):
        await listen(voice, text, turn=turn)
    bodies = [exchange.json() for exchange in server.exchanges]
    assert [body.get("previous_text") for body in bodies] == [None, "One.", "One. Two.", None, None]
    assert bodies[0]["voice_settings"] == {"stability": 0.4}


async def test_warm_opens_a_connection_that_is_used_for_the_text(server: ElevenLabs, make_voice: Make) -> None:
    voice = make_voice(mode="http")
    await voice.warm()
    await listen(voice, TEXT)
    assert server.connections_made == 1


async def test_who_stops_listening_ends_the_request(server: ElevenLabs, make_voice: Make) -> None:
    server.pace = 0.5
    stream = ask(make_voice(mode="http"), TEXT)
    await anext(stream)
    await stream.aclose()
    await server.all_closed()
    assert server.exchanges[0].cut


async def test_fifty_syntheses_at_once_do_not_mix(make_voice: Make) -> None:
    voice = make_voice(mode="http", first_audio_s=20.0, between_audio_s=20.0)
    texts = [f"Caller {number} is told this, and nothing else." for number in range(50)]
    heard = await asyncio.gather(*(listen(voice, text) for text in texts))
    assert [one.pcm for one in heard] == [standin_voice.telephone(text) for text in texts]


async def test_a_text_is_sent_again_when_the_connection_dies_before_any_audio(
    server: ElevenLabs, make_voice: Make
) -> None:
    voice = make_voice(mode="http")
    await listen(voice, "Hello.")
    server.misbehave(drop=True, times=1)
    assert (await listen(voice, TEXT)).pcm == standin_voice.telephone(TEXT)


async def test_a_text_is_not_begun_again_when_the_connection_dies_in_its_middle(
    server: ElevenLabs, make_voice: Make
) -> None:
    server.misbehave(drop=True, after=2)
    with pytest.raises(ProviderError, match="in the middle"):
        await listen(make_voice(mode="http"), TEXT)


@pytest.mark.parametrize(
    ("fault", "says"), [({"stall": "answer"}, "no audio"), ({"stall": "middle", "after": 2}, "more")]
)
async def test_silence_is_a_timeout_and_the_next_text_is_spoken(
    server: ElevenLabs, make_voice: Make, fault: dict[str, Any], says: str
) -> None:
    voice = make_voice(mode="http", first_audio_s=2, between_audio_s=2)
    server.misbehave(**fault)
    with pytest.raises(ProviderTimeoutError, match=says):
        await listen(voice, TEXT)
    await server.all_closed()
    server.behave()
    assert (await listen(voice, TEXT)).pcm == standin_voice.telephone(TEXT)


async def test_garbage_in_place_of_audio_is_an_error(server: ElevenLabs, make_voice: Make) -> None:
    server.misbehave(status=200, body='garbage\n{"audio_base64": 3}\n[]\n')
    with pytest.raises(ProviderError, match="no audio came"):
        await listen(make_voice(mode="http"), TEXT)


@pytest.mark.parametrize(
    ("status", "body", "error", "says"),
    [
        (401, {"detail": {"status": "quota_exceeded", "message": "0 left"}}, ProviderUnavailableError, "no credit"),
        (402, {"detail": {"status": "paid_plan_required", "message": "pay"}}, ProviderUnavailableError, "no credit"),
        (422, {"detail": [{"loc": ["body", "x"], "msg": "missing"}]}, ProviderError, "missing"),
        (429, {"detail": {"status": "too_many_concurrent_requests", "message": "wait"}}, ProviderBusyError, "wait"),
        (500, "oops", ProviderError, "500"),
    ],
)
async def test_a_refused_request_says_why(
    server: ElevenLabs, make_voice: Make, status: int, body: Any, error: type[ProviderError], says: str
) -> None:
    server.misbehave(status=status, body=body)
    with pytest.raises(error, match=says):
        await listen(make_voice(mode="http"), TEXT)
    assert len(server.exchanges) == 1


async def test_a_wrong_key_is_told_without_the_key(make_voice: Make) -> None:
    wrong = "sk_ffffffffffffffffffffffffffffffff"
    with pytest.raises(ProviderUnavailableError, match="ELEVENLABS_API_KEY") as failed:
        await listen(make_voice(key=wrong, mode="http"), TEXT)
    assert wrong not in str(failed.value)


async def test_nobody_at_the_address_is_said(server: ElevenLabs, make_voice: Make) -> None:
    await server.down()
    with pytest.raises(ProviderError, match="can't be reached"):
        await listen(make_voice(mode="http"), TEXT)
