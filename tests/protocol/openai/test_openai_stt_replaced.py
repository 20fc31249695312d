"""A stream that opens in the middle of what a caller says hears all of it, whatever it takes for speech."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from openai_transcription_server import TranscriptionServer
from standin_ear import quiet, tone

from bridge.agents.ear import Ear
from bridge.audio.frames import frame_bytes
from bridge.providers.base import Heard, ProviderError, SttEvent, SttFailed
from bridge.providers.openai.settings import OpenAiSettings, OpenAiSttSettings
from bridge.providers.openai.stt import OpenAiStt

MakeStt = Callable[..., OpenAiStt]


@pytest.fixture
async def server() -> AsyncIterator[TranscriptionServer]:
    async with TranscriptionServer() as server:
        yield server


@pytest.fixture
async def make_stt(server: TranscriptionServer) -> AsyncIterator[MakeStt]:
    made: list[OpenAiStt] = []

    def make(**settings: Any) -> OpenAiStt:
        whole = OpenAiSettings(base_url=server.base_url, stt=OpenAiSttSettings(**settings))
        made.append(OpenAiStt("openai", whole, environ={}))
        return made[-1]

    yield make
    for stt in made:
        await stt.aclose()
    await server.all_closed()


@pytest.mark.parametrize("mode", ["realtime", "file"])
@pytest.mark.parametrize("paused", [False, True])
async def test_the_ear_that_is_opened_anew_hears_the_whole_turn(
    mode: str, paused: bool, server: TranscriptionServer, make_stt: MakeStt
) -> None:
    events: list[SttEvent] = []
    failures: list[ProviderError] = []
    ear = Ear(
        make_stt(mode=mode),
        sample_rate=8000,
        language="en",
        emit=events.append,
        failed=failures.append,
        open_s=3.0,
    )
    server.script[:] = ["I need a table for four."]

    def push(pcm: bytes) -> None:
        for at in range(0, len(pcm), frame_bytes(8000)):
            ear.push(pcm[at : at + frame_bytes(8000)], 0.0)

    # What is said before it is open is as good as what a stream took with it.
    push(quiet(500) + tone(100))
    ear.speech_started()
    push(tone(1900))
    if paused:
        push(quiet(200))
        ear.speech_paused()
    await ear.open()
    if not paused:
        push(quiet(200))
        ear.speech_paused()

    def settled() -> list[Heard]:
        assert not any(isinstance(event, SttFailed) for event in events)
        return [event for event in events if isinstance(event, Heard) and event.settled]

    await server.until(lambda: bool(settled()))
    assert [(heard.text, heard.pause) for heard in settled()] == [("I need a table for four.", 1)]
    # 300 ms of lead, of which 100 ms were voice.
    ms = (300 - 100) + 2000 + 200
    if mode == "file":
        assert len(server.uploads[0].pcm) == ms * 16
    else:
        assert server.sessions[0].ear is not None
        assert server.sessions[0].ear.at_ms == ms
    await ear.aclose()
