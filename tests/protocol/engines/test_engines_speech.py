"""The real embedded engines: recorded callers are understood, the voice is understood, alike is close."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
from engines_audio import FRAME, RATE, Listener, Recording, hear, recording, recordings, words, wrong_words

from bridge.providers.base import Heard, ProviderUnavailableError, SttStream
from bridge.providers.local.embed import Embedder
from bridge.providers.local.engines import LocalEngines
from bridge.providers.local.settings import EngineSettings
from bridge.providers.local.transcript import loudest_dbfs

pytestmark = pytest.mark.asyncio(loop_scope="module")

# The machine that runs the tests may be busy; what a deadline does is shown in test_engines_pool.py.
PATIENT = EngineSettings(stt_deadline_s=60, partial_deadline_s=60, tts_deadline_s=60, embed_deadline_s=60)

VAGUE = ("yes1", "spell")
"""A lone "Yes" is heard as "Yeah", and spelled letters are hard for every engine."""


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def engines(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalEngines]:
    engines = LocalEngines(PATIENT, tmp_path_factory.mktemp("data"))
    progress: list[str] = []
    await engines.start(progress.append)
    assert any("stt" in line for line in progress)
    yield engines
    await engines.aclose()


async def say(engines: LocalEngines, text: str, rate: int = RATE) -> list[bytes]:
    stream = engines.tts.synthesize(text, voice="", sample_rate=rate, language="en-GB")
    return [chunk.pcm async for chunk in stream]


CLEAR = [each for each in recordings() if not any(vague in each.file for vague in VAGUE)]


@pytest.mark.parametrize("caller", CLEAR, ids=lambda caller: caller.file)
async def test_a_recorded_caller_is_understood(engines: LocalEngines, caller: Recording) -> None:
    heard = await hear(engines.stt, caller.pcm, caller.onset, caller.end)
    assert wrong_words(heard, caller.text) <= 2, heard


async def test_few_words_of_all_callers_together_are_wrong(engines: LocalEngines) -> None:
    texts = await asyncio.gather(*(hear(engines.stt, each.pcm, each.onset, each.end) for each in recordings()))
    wrong = sum(wrong_words(heard, each.text) for heard, each in zip(texts, recordings(), strict=True))
    assert wrong / sum(len(words(each.text)) for each in recordings()) < 0.12


def speak(stream: SttStream, pcm: bytes) -> None:
    for start in range(0, len(pcm), FRAME):
        stream.push(pcm[start : start + FRAME])


async def test_a_turn_with_pauses_is_told_whole_at_each_pause_and_anew_after_a_commit(engines: LocalEngines) -> None:
    listener = Listener()
    stream = await engines.stt.open(sample_rate=RATE, language="en", emit=listener.events.put_nowait)
    texts = []
    for name in ("piper_name_clean8k", "piper_short_clean8k"):
        caller = recording(name)
        speak(stream, caller.pcm[: caller.onset])
        stream.speech_started()
        speak(stream, caller.pcm[caller.onset : caller.end])
        stream.speech_paused()
        heard = await listener.settled()
        texts.append((" ".join(words(heard.text)), heard.pause))
        assert heard.took_ms > 0
    assert texts == [
        ("my name is sarah thompson", 1),
        ("my name is sarah thompson tuesday afternoon works", 2),
    ]
    stream.commit()
    caller = recording("piper_hours_clean8k")
    stream.speech_started()
    speak(stream, caller.pcm[caller.onset : caller.end])
    stream.speech_paused()
    heard = await listener.settled()
    assert (heard.text, heard.pause) == ("What time do you close on Sundays?", 3)
    await stream.aclose()


async def test_a_partial_text_comes_while_the_caller_speaks(engines: LocalEngines) -> None:
    listener = Listener()
    stream = await engines.stt.open(sample_rate=RATE, language="en", emit=listener.events.put_nowait)
    caller = recording("piper_book_clean8k")
    half = (caller.onset + caller.end) // 2 // FRAME * FRAME
    stream.want_partial()  # nobody speaks: nothing to tell
    stream.speech_started()
    speak(stream, caller.pcm[caller.onset : half])
    stream.want_partial()
    stream.want_partial()  # one is under way
    partial = await listener.next()
    assert isinstance(partial, Heard)
    assert not partial.settled
    assert partial.pause == 0
    assert {"book", "table"} <= set(words(partial.text))
    speak(stream, caller.pcm[half : caller.end])
    stream.speech_paused()
    settled = await listener.settled()
    assert "730" in words(settled.text)
    await stream.aclose()


async def test_only_the_newest_pause_is_told_and_nothing_after_a_commit(engines: LocalEngines) -> None:
    listener = Listener()
    stream = await engines.stt.open(sample_rate=RATE, language="en", emit=listener.events.put_nowait)
    caller = recording("piper_order_clean8k")
    stream.speech_started()
    speak(stream, caller.pcm[caller.onset : caller.end])
    for _ in range(3):
        stream.speech_paused()
        stream.speech_started()
    stream.speech_paused()
    assert (await listener.settled()).pause == 4
    stream.speech_started()
    speak(stream, caller.pcm[caller.onset : caller.end])
    stream.speech_paused()
    stream.commit()
    stream.speech_started()
    stream.speech_paused()
    heard = await listener.settled()
    assert (heard.text, heard.pause) == ("", 6)
    await stream.aclose()
    assert listener.events.empty()


async def test_a_long_turn_without_a_pause_is_understood_to_its_end(engines: LocalEngines) -> None:
    names = ("book", "phone", "doctor", "order", "addr", "human", "hours", "name")
    callers = [recording(f"piper_{name}_clean8k") for name in names]
    pcm = b"".join(caller.pcm[caller.onset - 3200 : caller.end] for caller in callers)
    assert len(pcm) > 2 * RATE * 25
    heard = await hear(engines.stt, pcm)
    assert {"book", "5552178904", "dentist", "7319", "maple", "person", "close", "thompson"} <= set(words(heard)), (
        heard
    )


def noises() -> dict[str, bytes]:
    rng = np.random.default_rng(3)
    times = np.arange(3 * RATE) / RATE
    clicks = np.zeros(len(times))
    clicks[::3000] = 0.8
    sounds = {
        "silence": np.zeros(len(times)),
        "hiss": rng.normal(0, 0.03, len(times)),
        "line noise": rng.normal(0, 0.0005, len(times)),
        "hum": 0.1 * np.sin(2 * np.pi * 100 * times),
        "ringback": 0.2 * (np.sin(2 * np.pi * 440 * times) + np.sin(2 * np.pi * 480 * times)),
        "clicks": clicks,
        "keys": 0.2 * (np.sin(2 * np.pi * 697 * times) + np.sin(2 * np.pi * 1209 * times)) * (times % 0.3 < 0.15),
        "coughs": rng.normal(0, 0.2, len(times)) * np.exp(-(((times % 0.9) - 0.1) ** 2) / 0.003),
    }
    return {name: (np.clip(sound, -1, 1) * 32767).astype("<i2").tobytes() for name, sound in sounds.items()}


@pytest.mark.parametrize("name", noises())
async def test_noise_says_nothing(engines: LocalEngines, name: str) -> None:
    assert await hear(engines.stt, noises()[name]) == ""


async def test_a_language_that_the_engine_does_not_know_is_refused(engines: LocalEngines) -> None:
    if engines.pool.engines["stt"] == "moonshine":
        with pytest.raises(ProviderUnavailableError, match="English only"):
            await engines.stt.open(sample_rate=RATE, language="de", emit=lambda event: None)
    with pytest.raises(ProviderUnavailableError, match="44100 Hz"):
        await engines.stt.open(sample_rate=44100, language="en", emit=lambda event: None)


@pytest.mark.parametrize("rate", [8000, 16000])
async def test_what_the_voice_says_is_understood(engines: LocalEngines, rate: int) -> None:
    text = "Your table is booked for Friday evening. Is there anything else I can do for you?"
    chunks = await say(engines, text, rate)
    assert len(chunks) == 2
    listener = Listener()
    stream = await engines.stt.open(sample_rate=rate, language="en", emit=listener.events.put_nowait)
    stream.speech_started()
    speak(stream, b"".join(chunks))
    stream.speech_paused()
    heard = (await listener.settled()).text
    assert wrong_words(heard, text) <= 3, heard
    await stream.aclose()


async def test_numbers_are_said_as_they_are_meant(engines: LocalEngines) -> None:
    heard = await hear(engines.stt, b"".join(await say(engines, "Please call 020 7946 0123.")))
    assert "02079460123" in "".join(words(heard)), heard
    heard = await hear(engines.stt, b"".join(await say(engines, "We are open until 22:00.")))
    assert re.search(r"\b(10|ten)\s?p", heard.lower()), heard


async def test_the_voice_has_the_level_of_a_talker_and_no_long_silence(engines: LocalEngines) -> None:
    for text in ("Yes.", "Thank you very much for calling Luigi's restaurant."):
        pcm = b"".join(await say(engines, text))
        samples = np.frombuffer(pcm, "<i2").astype(np.float64) / 32768
        frames = np.sqrt(np.square(samples[: len(samples) // 80 * 80].reshape(-1, 80)).mean(axis=1))
        voiced = np.flatnonzero(frames > frames.max() * 10 ** (-35 / 20))
        level = 20 * np.log10(np.sqrt(np.square(frames[voiced]).mean()))
        assert -23 < level < -18
        assert np.abs(samples).max() < 0.95
        assert voiced[0] <= 5
        assert len(frames) - voiced[-1] <= 35
        assert loudest_dbfs(pcm, RATE) < -6


async def test_a_long_sentence_starts_with_its_first_clause(engines: LocalEngines) -> None:
    chunks = await say(engines, "Good evening, this is Luigi's restaurant, how may I help you with your plans today?")
    assert len(chunks) == 2
    assert len(chunks[0]) < len(b"".join(chunks)) * 0.7


async def test_an_unknown_voice_is_refused_and_its_own_name_is_not(engines: LocalEngines) -> None:
    with pytest.raises(ProviderUnavailableError, match=r"'amy'.*'en_US-joe-medium'"):
        async for _ in engines.tts.synthesize("Hi.", voice="amy", sample_rate=RATE, language="en"):
            pass
    async for chunk in engines.tts.synthesize("Hi.", voice="en_US-joe-medium", sample_rate=RATE, language="en"):
        assert chunk.pcm


async def test_prepared_phrases_are_synthesised_once_for_all_starts(engines: LocalEngines, tmp_path: Path) -> None:
    texts = ["Welcome to Luigi's.", "One moment, please. I am looking."]
    first = LocalEngines(EngineSettings(workers=1, tts_deadline_s=60), tmp_path, roles=["tts"])
    second = LocalEngines(EngineSettings(workers=1, tts_deadline_s=60), tmp_path, roles=["tts"])
    audio = []
    for started in (first, second):
        await started.start()
        await started.tts.prepare(texts, voice="", sample_rate=RATE)
        prepared = started.pool.counters["tts"].done
        audio.append([pcm for text in texts for pcm in await say(started, text)])
        assert started.pool.counters["tts"].done == prepared
        await started.aclose()
    assert (first.pool.counters["tts"].done, second.pool.counters["tts"].done) == (3, 0)
    assert audio[0] == audio[1]
    assert len(audio[0]) == 3


async def test_alike_sentences_are_close(engines: LocalEngines) -> None:
    texts = ["What time do you open?", "When are you open?", "I want to book a table", "Could I reserve a table?"]
    vectors = await engines.embedder.embed(texts)
    assert vectors.shape == (4, 384)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(4), abs=1e-5)
    likeness = vectors @ vectors.T
    assert min(likeness[0, 1], likeness[2, 3]) > 0.6
    assert likeness[:2, 2:].max() < 0.4


async def test_a_text_embedded_before_costs_nothing(engines: LocalEngines) -> None:
    texts = [f"sentence number {number}" for number in range(40)]
    before = await engines.embedder.embed(texts)
    done = engines.pool.counters["embed"].done
    again = await engines.embedder.embed(texts[::-1])
    assert engines.pool.counters["embed"].done == done
    assert np.array_equal(again, before[::-1])


async def test_a_batch_gives_what_single_texts_give(engines: LocalEngines) -> None:
    texts = ["hi", "a considerably longer sentence about nothing in particular", "hello there"]
    batch = await Embedder(engines.pool, PATIENT).embed(texts)
    alone = Embedder(engines.pool, PATIENT)
    for text, row in zip(texts, batch, strict=True):
        assert (await alone.embed([text]))[0] @ row == pytest.approx(1.0, abs=1e-3)
    assert (await alone.embed([])).shape == (0, 384)
