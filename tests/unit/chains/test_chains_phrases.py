"""Fixed phrases of any voice: synthesised once, kept on disk, spoken without the voice."""

import asyncio
from pathlib import Path

import pytest
from chains_peers import NEVER, RATE, VoicePeer, collect

from bridge.providers.base import ProviderError, ProviderUnavailableError, SpeechChunk, WordTiming
from bridge.providers.phrases import Phrases, PhraseTts, pack, unpack

PHRASES = Phrases(("Hello there.", "Goodbye."), "anna", RATE, "en")
REFUSED = ProviderUnavailableError("a", "the network is down")


def kept(voice: VoicePeer, folder: Path, sounds_by: str = "model 1") -> PhraseTts:
    return PhraseTts(voice, folder, sounds_by=sounds_by, first_retry_s=0.01)


def damage(folder: Path) -> None:
    for file in folder.iterdir():
        file.write_bytes(file.read_bytes()[:-10])


async def speak(tts: PhraseTts, text: str, voice: str = "anna", rate: int = RATE) -> list[SpeechChunk]:
    return await collect(tts.synthesize(text, voice=voice, sample_rate=rate, language="en"))


async def test_what_was_prepared_is_spoken_without_the_voice_and_with_its_words(tmp_path: Path) -> None:
    voice = VoicePeer("a")
    tts = kept(voice, tmp_path)
    live = await speak(tts, "Hello there.")
    await tts.prepare(PHRASES)
    voice.first_s = NEVER
    (ready,) = await speak(tts, "Hello there.")
    assert ready.pcm == b"".join(chunk.pcm for chunk in live)
    assert ready.words == tuple(word for chunk in live for word in chunk.words)
    assert voice.busy == 0


async def test_a_restart_takes_them_from_disk(tmp_path: Path) -> None:
    await kept(VoicePeer("a"), tmp_path).prepare(PHRASES)
    voice = VoicePeer("a", words=0, error=REFUSED)
    tts = kept(voice, tmp_path)
    await tts.prepare(PHRASES)
    assert len(await speak(tts, "Goodbye.")) == 1 and voice.asked == []


@pytest.mark.parametrize("changed", ["text", "voice", "rate", "model", "provider"])
async def test_whatever_the_sound_depends_on_makes_another_phrase(tmp_path: Path, changed: str) -> None:
    await kept(VoicePeer("a"), tmp_path).prepare(PHRASES)
    voice = VoicePeer("b" if changed == "provider" else "a")
    tts = kept(voice, tmp_path, "model 2" if changed == "model" else "model 1")
    await tts.load(PHRASES)
    await speak(
        tts,
        "Hello you." if changed == "text" else "Hello there.",
        "bert" if changed == "voice" else "anna",
        16000 if changed == "rate" else RATE,
    )
    assert len(voice.asked) == 1


async def test_a_damaged_file_is_made_anew(tmp_path: Path) -> None:
    await kept(VoicePeer("a"), tmp_path).prepare(PHRASES)
    damage(tmp_path)
    voice = VoicePeer("a")
    await kept(voice, tmp_path).prepare(PHRASES)
    assert {text for text, _ in voice.asked} == set(PHRASES.texts)


async def test_a_voice_that_can_t_be_reached_is_tried_again_until_it_can(tmp_path: Path) -> None:
    voice = VoicePeer("a", words=0, error=REFUSED)
    tts, told = kept(voice, tmp_path), list[ProviderError]()
    task = tts.keep_preparing(PHRASES, told.append)
    assert tts.keep_preparing(PHRASES, told.append) is task
    async with asyncio.timeout(30):
        while len(voice.asked) < 5:
            await asyncio.sleep(0.01)
        assert told == [REFUSED] and not task.done()
        voice.error, voice.words = None, None
        await task
    assert tts.prepared("Goodbye.", voice="anna", sample_rate=RATE, language="en") is not None
    await tts.aclose()


async def test_closing_ends_what_is_prepared(tmp_path: Path) -> None:
    voice = VoicePeer("a", first_s=NEVER)
    tts = kept(voice, tmp_path)
    tts.keep_preparing(PHRASES, lambda error: None)
    async with asyncio.timeout(30):
        while voice.busy < 2:
            await asyncio.sleep(0.01)
    await tts.aclose()
    assert voice.busy == 0


async def test_what_is_not_prepared_goes_to_the_voice(tmp_path: Path) -> None:
    voice = VoicePeer("a", words=1, error=REFUSED)
    tts = kept(voice, tmp_path)
    with pytest.raises(ProviderUnavailableError):
        await speak(tts, "What else?")
    assert voice.asked == [("What else?", "anna")] and voice.busy == 0


def test_words_and_audio_come_back_as_they_were_packed() -> None:
    words = (WordTiming("naïve", 0.0, 250.5), WordTiming("\n", 250.5, 300.0))
    pcm = bytes(range(256)) * 4
    assert unpack(pack(pcm, words)) == SpeechChunk(pcm, words)
    assert unpack(b"nothing of ours") is None
