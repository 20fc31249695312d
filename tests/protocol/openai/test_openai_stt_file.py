"""Recognition by files, through the SDK, against a stand-in that takes them as OpenAI and Groq do."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from openai_transcription_server import TranscriptionServer
from stt_talk import Talk

from bridge.providers.base import ProviderUnavailableError
from bridge.providers.openai.settings import OpenAiSettings, OpenAiSttSettings
from bridge.providers.openai.stt import OpenAiStt

KEY = "sk-proj-file0123456789"

MakeStt = Callable[..., OpenAiStt]


@pytest.fixture
async def server() -> AsyncIterator[TranscriptionServer]:
    async with TranscriptionServer(key=KEY) as server:
        yield server


@pytest.fixture
async def make_stt(server: TranscriptionServer) -> AsyncIterator[MakeStt]:
    made: list[OpenAiStt] = []

    def make(name: str = "openai", **settings: Any) -> OpenAiStt:
        stt = OpenAiSttSettings(**{"mode": "file", **settings})
        whole = OpenAiSettings(base_url=server.base_url, api_key_env="K", stt=stt)
        made.append(OpenAiStt(name, whole, environ={"K": KEY}))
        return made[-1]

    yield make
    for stt in made:
        await stt.aclose()
    await server.all_closed()


async def test_a_pause_is_answered_with_the_text_of_the_turn_so_far(
    server: TranscriptionServer, make_stt: MakeStt
) -> None:
    server.script += ["I need a table", "I need a table for four."]
    talk = await Talk.open(make_stt())
    talk.silence(1000)
    talk.say(600)
    assert (await talk.settle(1)).text == "I need a table"
    talk.say(400)
    assert (await talk.settle(2)).text == "I need a table for four."
    first, second = server.uploads
    assert first.fields == {"model": ["gpt-transcribe"], "response_format": ["json"], "language": ["en"]}
    assert (first.rate, first.channels, first.authorization) == (8000, 1, f"Bearer {KEY}")
    # 300 ms from before voice was noticed, of which 100 ms were voice; the pause is noticed after 200 ms.
    assert len(first.pcm) == (200 + 600 + 200) * 16
    assert second.pcm.startswith(first.pcm)


async def test_groq_is_sent_files_for_its_own_model(server: TranscriptionServer, make_stt: MakeStt) -> None:
    server.script.append("Hello.")
    talk = await Talk.open(make_stt("groq", mode=""), language="auto")
    talk.say()
    assert (await talk.settle(1)).text == "Hello."
    assert server.uploads[0].fields == {"model": ["whisper-large-v3-turbo"], "response_format": ["json"]}


async def test_a_partial_text_comes_when_it_is_wanted(server: TranscriptionServer, make_stt: MakeStt) -> None:
    server.script += ["Wait", "Wait a moment."]
    talk = await Talk.open(make_stt())
    talk.speak(500)
    talk.stream.want_partial()
    talk.stream.want_partial()
    await talk.until(lambda: talk.partials == ["Wait"])
    talk.audio(bytes(320))
    talk.pause()
    assert (await talk.settle(1)).text == "Wait a moment."
    assert len(server.uploads) == 2


async def test_partials_can_be_spared(server: TranscriptionServer, make_stt: MakeStt) -> None:
    server.script.append("Wait a moment.")
    talk = await Talk.open(make_stt(partials=False))
    talk.speak(500)
    talk.stream.want_partial()
    talk.pause()
    assert (await talk.settle(1)).text == "Wait a moment."
    assert len(server.uploads) == 1


async def test_a_late_text_of_the_old_turn_is_not_told(server: TranscriptionServer, make_stt: MakeStt) -> None:
    server.script += ["Old.", "New."]
    server.misbehave(stall="answer", times=1)
    talk = await Talk.open(make_stt())
    talk.say()
    await server.until(lambda: bool(server.at("/v1/audio")))
    talk.stream.commit()
    server.behave()
    talk.say()
    assert (await talk.settle(2)).text in ("Old.", "New.")
    assert [heard.pause for heard in talk.heard] == [2]


async def test_silence_is_not_sent(server: TranscriptionServer, make_stt: MakeStt) -> None:
    talk = await Talk.open(make_stt())
    talk.stream.speech_started()
    talk.silence(500)
    talk.pause()
    assert (await talk.settle(1)).text == ""
    assert server.uploads == []


async def test_what_whisper_makes_up_is_not_believed(server: TranscriptionServer, make_stt: MakeStt) -> None:
    server.script.append("Thanks for watching!")
    talk = await Talk.open(make_stt())
    talk.say()
    assert (await talk.settle(1)).text == ""


@pytest.mark.parametrize(
    ("status", "hint"),
    [
        (401, "the key was refused (401): check K"),
        (404, "check providers.openai.stt.model"),
        (429, "too many requests"),
        (500, "HTTP 500"),
    ],
)
async def test_refusals_end_the_stream_and_hide_the_key(
    status: int, hint: str, server: TranscriptionServer, make_stt: MakeStt
) -> None:
    body = {"error": {"message": f"Not so: {KEY}", "type": "x", "code": None, "param": None}}
    server.misbehave(status=status, body=body, headers={"retry-after": "30"})
    talk = await Talk.open(make_stt())
    talk.say()
    failure = await talk.failure()
    assert KEY not in failure
    assert hint in failure


async def test_a_busy_server_is_asked_once_more(server: TranscriptionServer, make_stt: MakeStt) -> None:
    server.script.append("Hello.")
    server.misbehave(status=503, headers={"retry-after": "0"}, times=1)
    talk = await Talk.open(make_stt())
    talk.say()
    assert (await talk.settle(1)).text == "Hello."


async def test_a_kept_connection_that_died_is_replaced(server: TranscriptionServer, make_stt: MakeStt) -> None:
    server.script += ["One.", "Two."]
    talk = await Talk.open(make_stt())
    talk.say()
    await talk.settle(1)
    talk.stream.commit()
    server.misbehave(drop=True, times=1)
    talk.say()
    # The stand-in read the file before it dropped the connection.
    assert (await talk.settle(2)).pause == 2


async def test_a_silent_server_fails_in_time(server: TranscriptionServer, make_stt: MakeStt) -> None:
    server.misbehave(stall="answer")
    talk = await Talk.open(make_stt(settle_s=0.2))
    talk.say()
    assert "no text within 0.2 s" in await talk.failure()


async def test_garbage_fails(server: TranscriptionServer, make_stt: MakeStt) -> None:
    server.misbehave(status=200, body="not a transcription")
    talk = await Talk.open(make_stt())
    talk.say()
    assert "no transcription" in await talk.failure()


async def test_nothing_goes_on_after_closing(server: TranscriptionServer, make_stt: MakeStt) -> None:
    server.misbehave(stall="answer")
    talk = await Talk.open(make_stt())
    talk.say()
    await server.until(lambda: bool(server.live))
    await talk.stream.aclose()
    await server.until(lambda: not server.live)
    talk.stream.speech_paused()
    assert talk.events == []


async def test_probe_tells_the_model_a_wrong_key_and_a_missing_server(
    server: TranscriptionServer, make_stt: MakeStt
) -> None:
    stt = make_stt()
    assert await stt.probe() == f"gpt-transcribe at {server.base_url}"
    await stt.warm()
    assert [exchange.connection for exchange in server.exchanges] == [0, 0]
    assert "does not tell whether it has nothing" in await make_stt(model="nothing").probe()
    server.misbehave(status=401, body={"error": {"message": f"Incorrect API key provided: {KEY}"}})
    with pytest.raises(ProviderUnavailableError, match="check K") as caught:
        await make_stt().probe()
    assert KEY not in str(caught.value)
    await make_stt().warm()
    gone = OpenAiSettings(base_url="http://127.0.0.1:9/v1", stt=OpenAiSttSettings(mode="file"))
    with pytest.raises(ProviderUnavailableError, match="can't connect"):
        await OpenAiStt("openai", gone, environ={}).probe()


def test_the_usual_key_goes_to_openai_alone() -> None:
    with pytest.raises(ProviderUnavailableError, match="OPENAI_API_KEY"):
        OpenAiStt("openai", OpenAiSettings(), environ={})
    OpenAiStt("openai", OpenAiSettings(base_url="http://127.0.0.1:9/v1"), environ={})


async def test_a_server_without_a_usual_model_wants_one() -> None:
    stt = OpenAiStt("vllm", OpenAiSettings(base_url="http://127.0.0.1:9/v1"), environ={})
    with pytest.raises(ProviderUnavailableError, match=r"providers\.vllm\.stt\.model"):
        await stt.start()
