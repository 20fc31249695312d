"""Cartesia's voice through the SDK's socket, against a stand-in."""

import asyncio
from collections.abc import Callable

import pytest
import standin_voice
from cartesia_server import KEY, Cartesia
from tts_hearing import ask, listen, true_words

from bridge.providers.base import (
    ProviderBusyError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
)
from bridge.providers.cartesia.tts import CartesiaTts

Make = Callable[..., CartesiaTts]
TEXT = "Good morning, how can I help you today?"
CLAUSES = ("One moment, please.", "I am looking it up.", "Here it is.")


async def test_text_is_spoken_as_mulaw_at_8000_hz_with_each_words_time(server: Cartesia, make_voice: Make) -> None:
    heard = await listen(make_voice(), TEXT, language="en-US")
    assert heard.pcm == standin_voice.telephone(TEXT)
    assert heard.words == true_words(TEXT)
    (context,) = server.contexts
    assert context.how["model_id"] == "sonic-3.5"
    assert context.how["language"] == "en"
    assert context.how["output_format"] == {"container": "raw", "encoding": "pcm_mulaw", "sample_rate": 8000}


@pytest.mark.parametrize("rate", [16000, 24000, 48000])
async def test_wideband_legs_get_linear_pcm_of_their_rate(make_voice: Make, rate: int) -> None:
    assert (await listen(make_voice(), TEXT, sample_rate=rate)).pcm == standin_voice.tone(TEXT, rate)


@pytest.mark.parametrize("times_of_text", [False, True])
async def test_texts_of_a_turn_go_on_in_one_context(server: Cartesia, make_voice: Make, times_of_text: bool) -> None:
    server.times_of_text = times_of_text
    voice = make_voice(speed=1.2)
    for text in CLAUSES:
        heard = await listen(voice, text, turn="t1")
        assert heard.pcm == standin_voice.telephone(text)
        assert heard.words == true_words(text)
    assert [context.spoken for context in server.contexts] == [list(CLAUSES)]
    assert server.contexts[0].how["generation_config"] == {"speed": 1.2}


async def test_another_turn_gets_another_context(server: Cartesia, make_voice: Make) -> None:
    voice = make_voice()
    for text, turn in zip(CLAUSES, ("t1", "t2", ""), strict=True):
        await listen(voice, text, turn=turn)
    assert [context.spoken for context in server.contexts] == [[text] for text in CLAUSES]
    assert server.connections_made == 1


async def test_a_turn_whose_context_the_server_has_forgotten_gets_a_new_one(
    server: Cartesia, make_voice: Make
) -> None:
    server.expire_s = 0.05
    voice = make_voice()
    await listen(voice, CLAUSES[0], turn="t1")
    await server.until(lambda: server.contexts[0].over)
    assert (await listen(voice, CLAUSES[1], turn="t1")).pcm == standin_voice.telephone(CLAUSES[1])
    assert len(server.contexts) == 2


async def test_a_context_that_expires_as_a_text_is_sent_costs_another_try(server: Cartesia, make_voice: Make) -> None:
    voice = make_voice()
    await listen(voice, CLAUSES[0], turn="t1")
    server.contexts[0].over = True
    assert (await listen(voice, CLAUSES[1], turn="t1")).pcm == standin_voice.telephone(CLAUSES[1])
    server.contexts[1].cancelled = True
    assert (await listen(voice, CLAUSES[2], turn="t1")).pcm == standin_voice.telephone(CLAUSES[2])
    assert len(server.contexts) == 3
    assert server.connections_made == 1


async def test_who_stops_listening_cancels_the_context(server: Cartesia, make_voice: Make) -> None:
    server.pace = 0.2
    voice = make_voice()
    stream = ask(voice, TEXT, turn="t1")
    await anext(stream)
    await stream.aclose()
    server.pace = 0
    assert (await listen(voice, "Yes?", turn="t1")).pcm == standin_voice.telephone("Yes?")
    await server.until(lambda: server.contexts[0].cancelled)
    assert server.contexts[1].spoken == ["Yes?"]


async def test_two_hundred_syntheses_at_once_do_not_mix(server: Cartesia, make_voice: Make) -> None:
    voice = make_voice(first_audio_s=20.0, between_audio_s=20.0)
    texts = [f"Caller {number} is told this, and nothing else." for number in range(200)]
    heard = await asyncio.gather(*(listen(voice, text, turn=f"turn {number}") for number, text in enumerate(texts)))
    for text, one in zip(texts, heard, strict=True):
        assert one.pcm == standin_voice.telephone(text)
        assert one.words == true_words(text)
    assert server.connections_made == 4


async def test_warm_opens_the_connection_that_is_used(server: Cartesia, make_voice: Make) -> None:
    voice = make_voice()
    await voice.warm()
    await server.until(lambda: server.open_connections == 1)
    await listen(voice, TEXT)
    assert server.connections_made == 1


async def test_an_unused_connection_is_closed(server: Cartesia, make_voice: Make) -> None:
    voice = make_voice(idle_socket_s=0.05)
    await listen(voice, TEXT)
    await server.all_closed()
    assert (await listen(voice, TEXT)).pcm == standin_voice.telephone(TEXT)


@pytest.mark.parametrize("fault", [{"drop": True}, {"close": 1011}])
async def test_a_text_is_sent_again_when_the_connection_dies_before_any_audio(
    server: Cartesia, make_voice: Make, fault: dict[str, object]
) -> None:
    voice = make_voice()
    await listen(voice, "Hello.", turn="t1")
    server.misbehave(times=1, **fault)
    assert (await listen(voice, TEXT, turn="t1")).pcm == standin_voice.telephone(TEXT)
    assert server.connections_made == 2


async def test_a_text_is_not_begun_again_when_the_connection_dies_in_its_middle(
    server: Cartesia, make_voice: Make
) -> None:
    server.misbehave(close=1011, reason="server error", after=4)
    heard = []
    with pytest.raises(ProviderError, match="1011 server error in the middle"):
        async for chunk in ask(make_voice(), TEXT):
            heard.append(chunk.pcm)
    assert standin_voice.telephone(TEXT).startswith(b"".join(heard))
    assert heard


@pytest.mark.parametrize(("after", "says"), [(0, "no audio within"), (4, "no more audio within")])
async def test_silence_is_a_timeout_and_the_connection_is_not_used_again(
    server: Cartesia, make_voice: Make, after: int, says: str
) -> None:
    server.misbehave(stall="middle", after=after)
    with pytest.raises(ProviderTimeoutError, match=says):
        await listen(make_voice(first_audio_s=2, between_audio_s=0.5), TEXT)
    await server.all_closed()


async def test_a_server_that_reads_nothing_is_a_timeout(server: Cartesia, make_voice: Make) -> None:
    voice = make_voice(first_audio_s=2)
    await listen(voice, "Hello.")
    server.misbehave(deaf=True)
    with pytest.raises(ProviderTimeoutError):
        await listen(voice, TEXT)
    server.behave()


async def test_an_answer_that_never_comes_to_the_handshake_is_a_timeout(server: Cartesia, make_voice: Make) -> None:
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
        '{"type": "chunk", "context_id": "c1"}',
        '{"type": "chunk", "context_id": "c1", "data": 7}',
        '{"type": "timestamps", "context_id": "c1", "word_timestamps": {"words": 3}}',
        '{"type": "timestamps", "context_id": ["c1"]}',
        '{"type": {"chunk": 1}, "context_id": "c1"}',
        '{"type": "error", "context_id": "c99", "status_code": 500}',
    ],
)
async def test_garbage_between_the_audio_is_ignored(server: Cartesia, make_voice: Make, garbage: str | bytes) -> None:
    server.misbehave(garbage=garbage, after=2)
    assert (await listen(make_voice(), TEXT)).pcm == standin_voice.telephone(TEXT)


async def test_nobody_at_the_address_is_said(server: Cartesia, make_voice: Make) -> None:
    voice = make_voice()
    await server.down()
    with pytest.raises(ProviderUnavailableError, match="can't be reached"):
        await listen(voice, TEXT)
    await server.up()
    assert (await listen(voice, TEXT)).pcm == standin_voice.telephone(TEXT)


@pytest.mark.parametrize(
    ("status", "error", "says"),
    [
        (401, ProviderUnavailableError, "CARTESIA_API_KEY"),
        (402, ProviderUnavailableError, "credit"),
        (429, ProviderBusyError, "429"),
        (500, ProviderError, "500"),
    ],
)
async def test_a_refused_handshake_says_why(
    server: Cartesia, make_voice: Make, status: int, error: type[ProviderError], says: str
) -> None:
    server.misbehave(status=status, body="no")
    with pytest.raises(error, match=says):
        await listen(make_voice(), TEXT)


async def test_a_wrong_key_is_told_without_the_key(make_voice: Make) -> None:
    wrong = "sk_car_zzzzzzzzzzzzzzzzzzzzzz"
    with pytest.raises(ProviderUnavailableError, match="CARTESIA_API_KEY") as failed:
        await listen(make_voice(key=wrong), TEXT)
    assert wrong not in str(failed.value)


async def test_an_unknown_voice_is_told(make_voice: Make) -> None:
    with pytest.raises(ProviderUnavailableError, match="Voice not found"):
        await listen(make_voice(), TEXT, voice="nobody")


async def test_a_limit_on_texts_is_told(server: Cartesia, make_voice: Make) -> None:
    server.most_texts = 0
    with pytest.raises(ProviderBusyError, match="Too many concurrent requests"):
        await listen(make_voice(), TEXT)


async def test_an_error_in_the_middle_is_told_without_the_key(server: Cartesia, make_voice: Make) -> None:
    server.misbehave(
        garbage=f'{{"type": "error", "context_id": "c1", "status_code": 500, "message": "with {KEY}"}}', after=4
    )
    with pytest.raises(ProviderError, match=r"\(500\) with \*\*\*") as failed:
        await listen(make_voice(), TEXT)
    assert KEY not in str(failed.value)


async def test_probe_speaks_and_says_with_what(make_voice: Make) -> None:
    assert "sonic-3.5" in await make_voice().probe()


async def test_closing_the_voice_ends_texts_under_way(server: Cartesia, make_voice: Make) -> None:
    server.pace = 1.0
    voice = make_voice()
    listening = asyncio.create_task(listen(voice, TEXT))
    await server.until(lambda: bool(server.contexts))
    await voice.aclose()
    with pytest.raises(ProviderError):
        await listening
