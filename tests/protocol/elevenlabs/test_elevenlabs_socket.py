"""ElevenLabs' voice over the multi-context socket, against a stand-in."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import standin_voice
from elevenlabs_server import KEY, ElevenLabs
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
    heard = await listen(make_voice(), TEXT)
    assert heard.pcm == standin_voice.telephone(TEXT)
    assert heard.words == true_words(TEXT)
    (socket,) = server.exchanges
    assert socket.asked("output_format") == "ulaw_8000"
    assert socket.asked("model_id") == "eleven_flash_v2_5"
    assert socket.asked("language_code") == "en"


async def test_times_that_count_from_the_start_of_the_text_are_understood(
    server: ElevenLabs, make_voice: Make
) -> None:
    server.absolute_times = True
    assert (await listen(make_voice(), TEXT)).words == true_words(TEXT)


@pytest.mark.parametrize("rate", [16000, 24000])
async def test_wideband_legs_get_linear_pcm_of_their_rate(make_voice: Make, rate: int) -> None:
    assert (await listen(make_voice(), TEXT, sample_rate=rate)).pcm == standin_voice.tone(TEXT, rate)


async def test_48000_hz_is_resampled(make_voice: Make) -> None:
    heard = await listen(make_voice(), TEXT, sample_rate=48000)
    assert len(heard.pcm) / 96 == pytest.approx(standin_voice.spoken_ms(TEXT), abs=5)
    assert standin_voice.heard_pitch(heard.pcm, 48000) == pytest.approx(standin_voice.pitch(TEXT), abs=2)


async def test_texts_follow_each_other_on_one_connection(server: ElevenLabs, make_voice: Make) -> None:
    voice = make_voice()
    for text in ("One.", "And two.", "Three."):
        assert (await listen(voice, text, turn="t1")).pcm == standin_voice.telephone(text)
    assert server.connections_made == 1
    assert [context.spoken for context in server.contexts] == [["One."], ["And two."], ["Three."]]


async def test_warm_opens_the_connection_of_the_voice_used_last(server: ElevenLabs, make_voice: Make) -> None:
    voice = make_voice()
    await voice.warm()
    await server.until(lambda: server.open_connections == 1)
    await listen(voice, TEXT, language="")
    assert server.connections_made == 1


async def test_a_socket_holds_five_texts_and_more_sockets_are_opened(server: ElevenLabs, make_voice: Make) -> None:
    server.pace = 0.05
    voice = make_voice()
    texts = [f"This is caller number {number}." for number in range(12)]
    heard = await asyncio.gather(*(listen(voice, text) for text in texts))
    assert [one.pcm for one in heard] == [standin_voice.telephone(text) for text in texts]
    assert server.connections_made == 3
    assert server.most_open == 5


async def test_two_hundred_syntheses_at_once_do_not_mix(server: ElevenLabs, make_voice: Make) -> None:
    voice = make_voice(first_audio_s=20.0, between_audio_s=20.0)
    texts = [f"Caller {number} is told this, and nothing else." for number in range(200)]
    heard = await asyncio.gather(*(listen(voice, text) for text in texts))
    for text, one in zip(texts, heard, strict=True):
        assert one.pcm == standin_voice.telephone(text)
        assert one.words == true_words(text)
    assert server.connections_made <= 40


async def test_who_stops_listening_gets_nothing_more_and_gives_the_place_back(
    server: ElevenLabs, make_voice: Make
) -> None:
    server.pace = 0.05
    voice = make_voice(sockets=1)
    for _ in range(7):
        stream = ask(voice, TEXT)
        await anext(stream)
        await stream.aclose()
    assert (await listen(voice, "Yes?")).pcm == standin_voice.telephone("Yes?")
    assert server.connections_made == 1
    assert all(context.closed for context in server.contexts)


async def test_a_text_waits_for_room_and_is_refused_in_the_end(server: ElevenLabs, make_voice: Make) -> None:
    server.misbehave(stall="middle", after=0)
    voice = make_voice(sockets=1, first_audio_s=3)
    waiting = [asyncio.create_task(listen(voice, f"Number {number}.")) for number in range(5)]
    await server.until(lambda: len(server.contexts) == 5)
    with pytest.raises(ProviderBusyError, match="in use"):
        await listen(voice, TEXT)
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(result) for result in results} == {ProviderTimeoutError}


async def test_an_unused_connection_is_closed(server: ElevenLabs, make_voice: Make) -> None:
    voice = make_voice(idle_socket_s=0.05)
    await listen(voice, TEXT)
    await server.all_closed()
    assert (await listen(voice, TEXT)).pcm == standin_voice.telephone(TEXT)
    assert server.connections_made == 2


async def test_a_connection_that_the_server_has_closed_for_idleness_is_replaced(
    server: ElevenLabs, make_voice: Make
) -> None:
    server.idle_s = 0.05
    voice = make_voice()
    await listen(voice, TEXT)
    await server.all_closed()
    assert (await listen(voice, TEXT)).pcm == standin_voice.telephone(TEXT)


async def test_a_text_is_sent_again_when_the_connection_dies_before_any_audio(
    server: ElevenLabs, make_voice: Make
) -> None:
    voice = make_voice()
    await listen(voice, "Hello.")
    server.misbehave(drop=True, times=1)
    assert (await listen(voice, TEXT)).pcm == standin_voice.telephone(TEXT)
    assert server.connections_made == 2


async def test_a_text_is_not_begun_again_when_the_connection_dies_in_its_middle(
    server: ElevenLabs, make_voice: Make
) -> None:
    server.misbehave(close=1011, reason="server error", after=2)
    heard = []
    with pytest.raises(ProviderError, match="1011 server error in the middle"):
        async for chunk in ask(make_voice(), TEXT):
            heard.append(chunk.pcm)
    assert b"".join(heard) == standin_voice.telephone(TEXT)[: 2 * 6 * standin_voice.CHAR_MS * 16]


async def test_silence_before_the_first_audio_is_a_timeout(server: ElevenLabs, make_voice: Make) -> None:
    server.misbehave(stall="middle", after=0)
    with pytest.raises(ProviderTimeoutError, match=r"no audio within 0\.5 s"):
        await listen(make_voice(first_audio_s=0.5), TEXT)
    await server.all_closed()


async def test_silence_in_the_middle_is_a_timeout(server: ElevenLabs, make_voice: Make) -> None:
    server.misbehave(stall="middle", after=2)
    with pytest.raises(ProviderTimeoutError, match=r"no more audio within 0\.2 s"):
        await listen(make_voice(between_audio_s=0.2), TEXT)
    await server.all_closed()


async def test_a_server_that_reads_nothing_is_a_timeout(server: ElevenLabs, make_voice: Make) -> None:
    voice = make_voice(first_audio_s=2)
    await listen(voice, "Hello.")
    server.misbehave(deaf=True)
    with pytest.raises(ProviderTimeoutError):
        await listen(voice, TEXT)
    server.behave()


async def test_an_answer_that_never_comes_to_the_handshake_is_a_timeout(server: ElevenLabs, make_voice: Make) -> None:
    server.misbehave(stall="answer")
    with pytest.raises(ProviderTimeoutError, match="no connection"):
        await listen(make_voice(connect_s=0.2), TEXT)
    server.behave()


@pytest.mark.parametrize(
    "garbage",
    [
        "\x00{]",
        b"\x00\x01",
        "[1]",
        '{"audio": 7, "contextId": "1"}',
        '{"audio": "%%%", "contextId": "1"}',
        '{"audio": "", "contextId": ["1"], "isFinal": {}}',
        '{"audio": "AAAA", "contextId": "99"}',
        '{"audio": "%", "contextId": "1", "alignment": {"chars": 3, "charStartTimesMs": [null]}}',
    ],
)
async def test_garbage_between_the_audio_is_ignored(
    server: ElevenLabs, make_voice: Make, garbage: str | bytes
) -> None:
    server.misbehave(garbage=garbage, after=1)
    assert (await listen(make_voice(), TEXT)).pcm == standin_voice.telephone(TEXT)


async def test_nobody_at_the_address_is_said(server: ElevenLabs, make_voice: Make) -> None:
    voice = make_voice()
    await server.down()
    with pytest.raises(ProviderUnavailableError, match="can't be reached"):
        await listen(voice, TEXT)
    await server.up()
    assert (await listen(voice, TEXT)).pcm == standin_voice.telephone(TEXT)


@pytest.mark.parametrize(
    ("status", "body", "error", "says"),
    [
        (401, {"detail": {"status": "invalid_api_key"}}, ProviderUnavailableError, "key"),
        (429, "slow down", ProviderBusyError, "429"),
        (500, "oops", ProviderError, "500"),
    ],
)
async def test_a_refused_handshake_says_why(
    server: ElevenLabs, make_voice: Make, status: int, body: Any, error: type[ProviderError], says: str
) -> None:
    server.misbehave(status=status, body=body)
    with pytest.raises(error, match=says):
        await listen(make_voice(), TEXT)


async def test_a_wrong_key_is_told_without_the_key(make_voice: Make) -> None:
    wrong = "sk_ffffffffffffffffffffffffffffffff"
    with pytest.raises(ProviderUnavailableError, match="ELEVENLABS_API_KEY") as failed:
        await listen(make_voice(key=wrong), TEXT)
    assert wrong not in str(failed.value)


async def test_an_unknown_voice_is_told(make_voice: Make) -> None:
    with pytest.raises(ProviderUnavailableError, match="no such voice"):
        await listen(make_voice(), TEXT, voice="nobody")


@pytest.mark.parametrize(
    ("word", "error", "says"),
    [
        ("quota_exceeded", ProviderUnavailableError, "no credit left"),
        ("too_many_concurrent_requests", ProviderBusyError, "no more at present"),
        ("something_new", ProviderError, "something_new: So it is"),
    ],
)
async def test_errors_on_the_socket_are_told_apart(
    server: ElevenLabs, make_voice: Make, word: str, error: type[ProviderError], says: str
) -> None:
    said = f'{{"message": "So it is with {KEY}.", "error": "{word}", "code": 1008}}'
    server.misbehave(garbage=said, after=1)
    with pytest.raises(error, match=says) as failed:
        await listen(make_voice(), TEXT)
    assert KEY not in str(failed.value)


async def test_probe_speaks_and_says_with_what(make_voice: Make) -> None:
    assert "eleven_flash_v2_5" in await make_voice().probe()


async def test_closing_the_voice_ends_texts_under_way(server: ElevenLabs, make_voice: Make) -> None:
    server.pace = 1.0
    voice = make_voice()
    listening = asyncio.create_task(listen(voice, TEXT))
    await server.until(lambda: bool(server.contexts))
    await voice.aclose()
    with pytest.raises(ProviderError):
        await listening
    with pytest.raises(ProviderUnavailableError):
        await listen(voice, TEXT)
