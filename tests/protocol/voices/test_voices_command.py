"""`offhook voices`, against stand-ins of the vendors."""

import wave
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import standin_voice
from cartesia_server import KEY as CARTESIA_KEY
from cartesia_server import Cartesia
from deepgram_speak import KEY as DEEPGRAM_KEY
from deepgram_speak import DeepgramVoices
from elevenlabs_server import KEY as ELEVENLABS_KEY
from elevenlabs_server import VOICE, ElevenLabs
from standin import Standin
from telnyx_speech_server import TelnyxSpeech

from bridge.cli import _parser, main
from bridge.config import Config
from bridge.voices import VoiceError, check_files, run

KEYS = {
    "ELEVENLABS_API_KEY": ELEVENLABS_KEY,
    "CARTESIA_API_KEY": CARTESIA_KEY,
    "DEEPGRAM_API_KEY": DEEPGRAM_KEY,
}
WAV = b"RIFF\x00\x00\x00\x00WAVEfmt " + bytes(20_000)
MP3 = b"ID3\x04" + bytes(20_000)


@dataclass
class Ran:
    code: int
    said: list[str]
    complained: list[str]


@dataclass
class Vendors:
    elevenlabs: ElevenLabs
    cartesia: Cartesia
    deepgram: DeepgramVoices

    @property
    def all(self) -> Mapping[str, Standin]:
        return {"elevenlabs": self.elevenlabs, "cartesia": self.cartesia, "deepgram": self.deepgram}


@pytest.fixture
async def vendors() -> AsyncIterator[Vendors]:
    async with ElevenLabs() as elevenlabs, Cartesia() as cartesia, DeepgramVoices() as deepgram:
        yield Vendors(elevenlabs, cartesia, deepgram)


Command = Callable[..., Awaitable[Ran]]


@pytest.fixture
async def command(vendors: Vendors, tmp_path: Path) -> AsyncIterator[Command]:
    """Runs `offhook voices ...` with the keys of `of`; in the end nothing may be open."""

    async def command(*line: str, of: tuple[str, ...] = ("elevenlabs", "cartesia", "deepgram")) -> Ran:
        providers = {name: {"base_url": server.http_url} for name, server in vendors.all.items() if name in of}
        config = Config(data_dir=tmp_path, providers=providers)
        args = _parser().parse_args(["voices", *line])
        ran = Ran(0, [], [])
        environ = {variable: key for variable, key in KEYS.items() if variable.partition("_")[0].lower() in of}
        ran.code = await run(args, config, ran.said.append, ran.complained.append, environ)
        return ran

    yield command
    for server in vendors.all.values():
        await server.all_closed()


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "anna.wav"
    path.write_bytes(WAV)
    return path


# -- list -----------------------------------------------------------------------------------------------------


async def test_list_shows_the_voices_of_all_that_have_a_key_and_the_embedded_one(command: Command) -> None:
    ran = await command("list")
    assert ran.code == 0
    assert [line for line in ran.said if line.endswith(":")] == ["local:", "elevenlabs:", "cartesia:", "deepgram:"]
    assert f"  {VOICE}  George  premade     en" in ran.said
    assert "  aura-2-thalia-en  thalia  aura-2      en, en-US" in ran.said


async def test_list_turns_the_pages_of_long_lists_and_shows_own_voices_first(
    vendors: Vendors, command: Command
) -> None:
    for number in range(230):
        vendors.elevenlabs.voices[f"v{number}"] = {
            "voice_id": f"v{number}",
            "name": f"Voice {number}",
            "category": "cloned" if number == 200 else "premade",
        }
        vendors.cartesia.voices.append({**vendors.cartesia.voices[0], "id": f"c{number}", "is_owner": number == 7})
    ran = await command("list", "--provider", "elevenlabs")
    assert len(ran.said) == 232
    assert ran.said[1].split()[0] == "v200"
    ran = await command("list", "--provider", "cartesia")
    assert len(ran.said) == 232
    assert ran.said[1].split()[0] == "c7"


async def test_list_goes_on_after_a_vendor_that_fails_and_says_so(vendors: Vendors, command: Command) -> None:
    vendors.elevenlabs.misbehave(
        status=401, body={"detail": {"status": "invalid_api_key", "message": ELEVENLABS_KEY}}
    )
    vendors.cartesia.misbehave(status=500, body="oops")
    ran = await command("list")
    assert ran.code == 1
    assert len(ran.complained) == 2
    assert "check ELEVENLABS_API_KEY" in ran.complained[0]
    assert ELEVENLABS_KEY not in ran.complained[0]
    assert "deepgram:" in ran.said


async def test_list_shows_telnyx_s_voices_by_the_ids_that_it_takes(tmp_path: Path) -> None:
    async with TelnyxSpeech() as server:
        config = Config(data_dir=tmp_path, providers={"telnyx": {"base_url": server.base_url}})
        args = _parser().parse_args(["voices", "list", "--provider", "telnyx"])
        said: list[str] = []
        complained: list[str] = []
        environ = {"TELNYX_API_KEY": "KEY-of-a-test"}
        assert await run(args, config, said.append, complained.append, environ) == 0
        assert [line.split() for line in said] == [
            ["telnyx:"],
            ["AWS.Polly.Anna", "Anna", "aws"],
            ["Telnyx.NaturalHD.astra", "astra", "telnyx", "en-US"],
        ]
        server.refuse_other_keys("another")
        assert await run(args, config, said.append, complained.append, environ) == 1
        assert "the key is refused (401), check TELNYX_API_KEY" in complained[0] and "KEY-of" not in complained[0]
        await server.all_closed()


async def test_list_of_openai_needs_no_server(command: Command) -> None:
    assert any("marin" in line for line in (await command("list", "--provider", "openai")).said)


@pytest.mark.parametrize(
    ("name", "says"), [("nobody", "there is no provider 'nobody'"), ("anthropic", "does not tell its voices")]
)
async def test_list_says_whom_it_can_not_ask(command: Command, name: str, says: str) -> None:
    ran = await command("list", "--provider", name)
    assert ran.code == 1
    assert says in ran.complained[0]


# -- preview --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "voice"), [("elevenlabs", VOICE), ("deepgram", "aura-2-thalia-en")])
async def test_preview_writes_what_the_voice_says(command: Command, tmp_path: Path, name: str, voice: str) -> None:
    out = tmp_path / "out.wav"
    ran = await command("preview", voice, "--provider", name, "--text", "Hello there.", "-o", str(out))
    assert (ran.code, ran.complained) == (0, [])
    with wave.open(str(out)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (8000, 1, 2)
        assert file.readframes(file.getnframes()) == standin_voice.telephone("Hello there.")


async def test_preview_of_the_only_vendor_with_a_key_needs_no_name(command: Command, tmp_path: Path) -> None:
    out = tmp_path / "out.wav"
    line = ("preview", "aura-2-thalia-en", "--rate", "24000", "--text", "Hello.", "-o", str(out))
    ran = await command(*line)
    assert ran.complained == ["offhook: say which one, with --provider: elevenlabs, cartesia, deepgram"]
    ran = await command(*line, of=())
    assert ran.complained == [
        "offhook: there is no voice 'aura-2-thalia-en': the embedded one is en_US-joe-medium, and of a vendor there "
        "is no key"
    ]
    assert (await command(*line, of=("deepgram",))).code == 0
    with wave.open(str(out)) as file:
        assert file.readframes(file.getnframes()) == standin_voice.tone("Hello.", 24000)


async def test_preview_of_the_embedded_voice(command: Command, tmp_path: Path) -> None:
    out = tmp_path / "out.wav"
    ran = await command("preview", "en_US-joe-medium", "--provider", "local", "--text", "Hello.", "-o", str(out))
    assert (ran.code, ran.complained) == (0, [])
    with wave.open(str(out)) as file:
        assert file.getnframes() > 2000


async def test_preview_says_what_went_wrong(vendors: Vendors, command: Command, tmp_path: Path) -> None:
    out = str(tmp_path / "out.wav")
    ran = await command("preview", "nobody", "--provider", "elevenlabs", "-o", out)
    assert "no such voice" in ran.complained[0]
    ran = await command("preview", VOICE, "--provider", "elevenlabs", "-o", str(tmp_path / "no" / "out.wav"))
    assert "can't be written" in ran.complained[0]
    ran = await command("preview", VOICE, "--provider", "anthropic", "-o", out)
    assert "anthropic" in ran.complained[0]


# -- add ------------------------------------------------------------------------------------------------------


async def test_add_makes_a_voice_at_elevenlabs_of_several_files(
    vendors: Vendors, command: Command, recording: Path, tmp_path: Path
) -> None:
    other = tmp_path / "more.mp3"
    other.write_bytes(MP3)
    ran = await command("add", "reception", str(recording), str(other), "--provider", "elevenlabs")
    assert (ran.code, ran.complained) == (0, [])
    assert "agreed" in ran.said[0]
    assert "cloned1" in ran.said[1]
    body = vendors.elevenlabs.at("/v1/voices/add")[0].body
    assert b'filename="anna.wav"\r\nContent-Type: audio/wav' in body
    assert b'filename="more.mp3"\r\nContent-Type: audio/mpeg' in body
    assert vendors.elevenlabs.voices["cloned1"]["name"] == "reception"


async def test_add_makes_a_voice_at_cartesia_of_one_file(vendors: Vendors, command: Command, recording: Path) -> None:
    line = ("--provider", "cartesia", "--language", "de", "reception", str(recording))
    ran = await command("add", *line)
    assert (ran.code, ran.complained) == (0, [])
    assert vendors.cartesia.voices[-1]["name"] == "reception"
    assert b'name="language"\r\n\r\nde' in vendors.cartesia.at("/voices/clone")[0].body
    ran = await command("add", *line, str(recording))
    assert "one file, not 2" in ran.complained[0]


async def test_add_asks_whom_when_several_can(command: Command, recording: Path) -> None:
    ran = await command("add", "reception", str(recording))
    assert ran.complained == ["offhook: say which one, with --provider: elevenlabs, cartesia"]
    ran = await command("add", "reception", str(recording), "--provider", "deepgram")
    assert "makes no voices" in ran.complained[0]


async def test_add_tells_the_vendors_refusal_without_the_key(
    vendors: Vendors, command: Command, recording: Path
) -> None:
    body = {"detail": {"status": "can_not_use_instant_voice_cloning", "message": f"Pay, {ELEVENLABS_KEY}."}}
    vendors.elevenlabs.misbehave(status=400, body=body)
    ran = await command("add", "reception", str(recording), "--provider", "elevenlabs")
    assert ran.code == 1
    assert "can_not_use_instant_voice_cloning: Pay, ***" in ran.complained[0]
    vendors.cartesia.misbehave(status=402, body={"message": "credits"})
    ran = await command("add", "reception", str(recording), "--provider", "cartesia")
    assert "no credit left" in ran.complained[0]


def test_files_are_checked_before_anything_is_sent(tmp_path: Path) -> None:
    files = {
        "text.wav": b"not a recording" * 2000,
        "short.wav": WAV[:2000],
        "large.mp3": MP3 + bytes(11 * 1024 * 1024),
        "frames.mp3": b"\xff\xfb\x90" + bytes(20_000),
        "good.wav": WAV,
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(VoiceError) as failed:
        check_files([tmp_path / name for name in (*files, "gone.wav")])
    said = str(failed.value)
    assert [part.rpartition("/")[2].split()[0] for part in said.split("; ") if part.startswith("/")] == [
        "text.wav",
        "short.wav",
        "large.mp3",
        "gone.wav",
    ]
    good = check_files([tmp_path / "good.wav", tmp_path / "frames.mp3"])
    assert [(one.filename, one.mime) for one in good] == [("good.wav", "audio/wav"), ("frames.mp3", "audio/mpeg")]


def test_the_command_stands_in_the_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "offhook.yaml"
    config.write_text("providers: {openai: {}}\n")
    assert main(["voices", "list", "-c", str(config), "--provider", "openai"]) == 0
    assert "marin" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["voices"])
