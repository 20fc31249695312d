"""`offhook voices`: which voices there are, how they sound, and the making of new ones from recordings."""

import argparse
import os
import wave
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from pathlib import Path

from bridge.config import Config
from bridge.providers.base import ProviderError, ProviderUnavailableError, SpeechChunk, Tts
from bridge.providers.registry import KINDS, LOCAL, make
from bridge.providers.settings import ProviderSettings
from bridge.providers.voices import CLONERS, VENDORS, Recording, Voice, voices_of

Say = Callable[[str], None]

PREVIEW_TEXT = "Good morning, this is the office. How can I help you today?"

LARGEST_FILE = 10 * 1024 * 1024
"""Bytes; what ElevenLabs takes of one file, and far more than Cartesia needs."""

MOST_FILES = 25

SMALLEST_FILE = 16 * 1024
"""Bytes; a second of telephone speech. No voice can be made of less."""

CONSENT = (
    "A voice belongs to who speaks with it. By making a copy you state that this person has agreed to it and to what "
    "you do with it; vendors and laws require that, and they ask you, not Offhook."
)

EPILOG = """\
Keys come from the environment or the configuration's `providers`. A voice is used by its id: `voice: ID` of an agent,
or `voices: {PROVIDER: ID}` where its tts has several providers.

examples:
  offhook voices list --provider elevenlabs
  offhook voices preview aura-2-thalia-en --provider deepgram -o thalia.wav
  offhook voices add reception anna1.wav anna2.mp3 --provider elevenlabs
"""


class VoiceError(Exception):
    """The command can't be carried out; the message says why, and what to do."""


def add_parser(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", config: argparse.ArgumentParser
) -> None:
    """Add `voices` and what stands below it; `config` has the options of every command."""
    voices = commands.add_parser(
        "voices",
        help="list a provider's voices, hear one, or make one from recordings",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = voices.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", parents=[config], help="what can be put into `voice:`")
    listing.add_argument("--provider", metavar="NAME", help="of this one alone (default: of all that have a key)")
    preview = actions.add_parser("preview", parents=[config], help="have a voice speak into a WAV file")
    preview.add_argument("voice", metavar="VOICE", help="its id, as `list` shows it")
    preview.add_argument("--provider", metavar="NAME", help="whose it is (default: the only one that has a key)")
    preview.add_argument("--text", default=PREVIEW_TEXT, help="what it says")
    preview.add_argument("--language", default="en", metavar="CODE", help="of the text (default: en)")
    preview.add_argument("-o", "--out", type=Path, required=True, metavar="FILE", help="the WAV file to write")
    preview.add_argument(
        "--rate",
        type=int,
        choices=(8000, 16000, 24000, 48000),
        default=8000,
        help="samples a second (default: 8000, as on the telephone)",
    )
    adding = actions.add_parser("add", parents=[config], help="make a voice from recordings of a person who agrees")
    adding.add_argument("name", metavar="NAME", help="what to call it")
    adding.add_argument("files", nargs="+", type=Path, metavar="FILE", help="WAV or MP3, up to 10 MB each")
    adding.add_argument("--provider", metavar="NAME", help="who makes it (default: the only one that can)")
    adding.add_argument("--language", default="en", metavar="CODE", help="that is spoken in it (default: en)")
    adding.add_argument("--description", default="", metavar="TEXT")


async def run(
    args: argparse.Namespace, config: Config, say: Say, complain: Say, environ: Mapping[str, str] = os.environ
) -> int:
    """Carry out `args`; `complain` gets what went wrong. Returns the exit code."""
    try:
        match args.action:
            case "list":
                return await _list(args.provider, config, say, complain, environ)
            case "preview":
                await _preview(args, config, say, environ)
            case "add":
                await _add(args, config, say, environ)
    except (VoiceError, ProviderError) as error:
        complain(f"offhook: {error}")
        return 1
    return 0


# -- which providers ------------------------------------------------------------------------------------------


def _settings(name: str, config: Config) -> ProviderSettings:
    """Raises VoiceError."""
    try:
        return config.provider(name)
    except KeyError:
        known = ", ".join([LOCAL, *VENDORS, *config.providers])
        raise VoiceError(f"there is no provider {name!r}; known: {known}") from None


def _with_key(config: Config, environ: Mapping[str, str], kinds: Sequence[str]) -> list[str]:
    """The providers of `kinds` that are configured, and the kinds whose usual variable holds a key."""
    found = [name for name, settings in config.providers.items() if (settings.kind or name) in kinds]
    used = {config.providers[name].kind or name for name in found}
    usual = [kind for kind in kinds if kind not in used and environ.get(KINDS[kind].key_env)]
    return found + usual


def _the_one(
    asked: str | None, config: Config, environ: Mapping[str, str], kinds: Sequence[str], more: Sequence[str] = ()
) -> str:
    """The provider that was asked for, or the only one there is. Raises VoiceError."""
    if asked:
        return asked
    found = [*_with_key(config, environ, kinds), *more]
    if not found:
        variables = ", ".join(KINDS[kind].key_env for kind in kinds)
        raise VoiceError(f"no provider has a key: set one of {variables}, or configure `providers`")
    if len(found) > 1:
        raise VoiceError(f"say which one, with --provider: {', '.join(found)}")
    return found[0]


# -- list -----------------------------------------------------------------------------------------------------


async def _list(asked: str | None, config: Config, say: Say, complain: Say, environ: Mapping[str, str]) -> int:
    names = [asked] if asked else [LOCAL, *_with_key(config, environ, tuple(VENDORS))]
    failed = 0
    for name in names:
        try:
            found = await _voices(name, config, environ)
        except ProviderError as error:
            complain(f"offhook: {error}")
            failed += 1
        else:
            for line in _table(name, found):
                say(line)
    return 1 if failed else 0


async def _voices(name: str, config: Config, environ: Mapping[str, str]) -> Sequence[Voice]:
    if name == LOCAL:
        from bridge.providers.local.models import ModelError, find_model

        try:
            model = find_model("tts", config.engines)
        except ModelError as error:
            raise ProviderUnavailableError(LOCAL, str(error)) from error
        return [Voice(model["voice.onnx"].stem, model["voice.onnx"].stem, kind="embedded")]
    voices = voices_of(name, _settings(name, config), environ)
    try:
        return await voices.list()
    finally:
        await voices.aclose()


def _table(name: str, voices: Sequence[Voice]) -> list[str]:
    """A line a voice, below the provider's name; own voices first."""
    if not voices:
        return [f"{name}: no voices"]
    ranked = sorted(voices, key=lambda voice: (voice.kind not in ("cloned", "own", "professional"), voice.name))
    wide = max(len(voice.id) for voice in voices)
    named = max(len(voice.name) for voice in voices)
    rows = [f"  {voice.id:<{wide}}  {voice.name:<{named}}  {voice.kind:<10}  {voice.language}" for voice in ranked]
    return [f"{name}:", *(row.rstrip() for row in rows)]


# -- preview --------------------------------------------------------------------------------------------------


async def _preview(args: argparse.Namespace, config: Config, say: Say, environ: Mapping[str, str]) -> None:
    kinds = tuple(kind for kind, entry in KINDS.items() if "tts" in entry.roles)
    local = _local_voice(config)
    if local and not args.provider and args.voice != local and not _with_key(config, environ, kinds):
        raise VoiceError(
            f"there is no voice {args.voice!r}: the embedded one is {local}, and of a vendor there is no key"
        )
    name = _the_one(args.provider, config, environ, kinds, [LOCAL] if args.voice == local else [])
    async with AsyncExitStack() as stack:
        voice = await _voice(name, config, environ, stack, say)
        pcm = await _spoken(voice, args.text, args.voice, args.rate, args.language)
    try:
        with args.out.open("wb") as out, wave.open(out, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(args.rate)
            file.writeframes(pcm)
    except OSError as error:
        raise VoiceError(f"{args.out} can't be written: {error}") from error
    say(f"{args.out}: {len(pcm) / 2 / args.rate:.1f} s of {name}, voice {args.voice}")


def _local_voice(config: Config) -> str:
    """The embedded one; empty: there is none."""
    from bridge.providers.local.models import ModelError, find_model

    try:
        return find_model("tts", config.engines)["voice.onnx"].stem
    except ModelError:
        return ""


async def _voice(name: str, config: Config, environ: Mapping[str, str], stack: AsyncExitStack, say: Say) -> Tts:
    """The provider, started; closed with `stack`."""
    if name == LOCAL:
        from bridge.providers.local.engines import LocalEngines

        alone = config.engines.model_copy(update={"workers": 1})
        engines = LocalEngines(alone, config.data_dir, ("tts",))
        stack.push_async_callback(engines.aclose)
        await engines.start(say)
        return engines.tts
    made: Tts = make("tts", name, _settings(name, config), environ)
    stack.push_async_callback(made.aclose)
    await made.start()
    return made


async def _spoken(tts: Tts, text: str, voice: str, rate: int, language: str) -> bytes:
    pcm = bytearray()
    spoken = tts.synthesize(text, voice=voice, sample_rate=rate, language=language)
    async with aclosing(spoken) as chunks:  # type: ignore[type-var]  # Every one is a generator.
        async for chunk in chunks:
            if isinstance(chunk, SpeechChunk):
                pcm += chunk.pcm
    return bytes(pcm)


# -- add ------------------------------------------------------------------------------------------------------


async def _add(args: argparse.Namespace, config: Config, say: Say, environ: Mapping[str, str]) -> None:
    name = _the_one(args.provider, config, environ, CLONERS)
    recordings = check_files(args.files)
    voices = voices_of(name, _settings(name, config), environ)
    say(CONSENT)
    try:
        made = await voices.clone(args.name, recordings, language=args.language, description=args.description)
    finally:
        await voices.aclose()
    say(f"{name} has made the voice {args.name!r}: {made}")
    say(f"Use it: `voice: {made}` of an agent, or `voices: {{{name}: {made}}}`. Hear it:")
    say(f"  offhook voices preview {made} --provider {name} -o {args.name}.wav")


def check_files(paths: Sequence[Path]) -> list[Recording]:
    """Read recordings of a person. Raises VoiceError with everything that is wrong with them."""
    problems, recordings = [], []
    if len(paths) > MOST_FILES:
        problems.append(f"{len(paths)} files are too many: at most {MOST_FILES}")
    for path in paths:
        try:
            size = path.stat().st_size
            content = path.read_bytes() if size <= LARGEST_FILE else b""
        except OSError as error:
            problems.append(f"{path} can't be read: {error.strerror or error}")
            continue
        mime = _mime(content)
        if size > LARGEST_FILE:
            problems.append(f"{path} is too large: {size / 1e6:.1f} MB, at most {LARGEST_FILE / 1e6:.1f}")
        elif not mime:
            problems.append(f"{path} is neither WAV nor MP3")
        elif size < SMALLEST_FILE:
            problems.append(f"{path} is too short: {size} bytes; ten seconds of clear speech are good")
        else:
            recordings.append(Recording(path.name, content, mime))
    if problems:
        raise VoiceError("; ".join(problems))
    return recordings


def _mime(content: bytes) -> str:
    """By what stands in the file: its name proves nothing. Empty: something else."""
    if content[:4] in (b"RIFF", b"RIFX") and content[8:12] == b"WAVE":
        return "audio/wav"
    # An ID3 tag, or the sync word of an MPEG audio frame of layer III.
    if content[:3] == b"ID3" or (len(content) > 1 and content[0] == 0xFF and content[1] & 0xE6 == 0xE2):
        return "audio/mpeg"
    return ""
