"""The one table of models: what each kind uses in each role when nothing is configured, and what is to be shut down.

Taken from the vendors' SDKs and documents in November 2026. A default has no announced end where the vendor offers
such a model. `offhook check` and `offhook doctor` warn of a configured model whose end is past or near.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta

from bridge.providers.base import Role

WARN_AHEAD = timedelta(days=90)
"""How long before a model's end operators are told of it."""


@dataclass(frozen=True, slots=True)
class Default:
    """The model that is used where the configuration names none."""

    model: str
    source: str


@dataclass(frozen=True, slots=True)
class Shutdown:
    """A model's announced end."""

    on: date
    instead: str
    """What to configure in its place; empty: the kind's default, or nothing is offered yet."""
    source: str


_OPENAI_SDK = "openai 3.52.0"
_GEMINI_SDK = "google-genai 3.4.0"
_ANTHROPIC_SDK = "anthropic 2.11.0"

DEFAULTS: Mapping[tuple[str, Role], Default] = {
    ("openai", "llm"): Default("gpt-5.4-mini", f"{_OPENAI_SDK} types/shared/chat_model.py: no end announced"),
    ("openai", "stt"): Default("gpt-live-transcribe", f"{_OPENAI_SDK} types/realtime/audio_transcription.py"),
    ("openai", "tts"): Default(
        "gpt-4o-mini-tts", f"{_OPENAI_SDK} types/audio/speech_model.py: every model there ends on 2027-01-06"
    ),
    ("openai", "realtime"): Default(
        "gpt-realtime-2.1", f"{_OPENAI_SDK} types/realtime/realtime_session_create_request.py"
    ),
    ("groq", "llm"): Default("openai/gpt-oss-120b", "Groq's announcement as users quote it: named as replacement"),
    ("groq", "stt"): Default("whisper-large-v3-turbo", "console.groq.com/docs/models: its fastest for files"),
    ("cerebras", "llm"): Default("gpt-oss-120b", "inference-docs.cerebras.ai/support/deprecation: named likewise"),
    ("together", "llm"): Default("moonshotai/Kimi-K2.5", "docs.together.ai/docs/inference-options: its example"),
    ("telnyx", "llm"): Default("moonshotai/Kimi-K2.6", "telnyx 4 resources/ai/openai/openai.py: its example"),
    ("telnyx", "stt"): Default("nova-3", "engine Deepgram; telnyx 4 and Deepgram's list below"),
    ("anthropic", "llm"): Default("claude-haiku-5-5", f"{_ANTHROPIC_SDK} types/model.py: the fastest family"),
    ("gemini", "llm"): Default("gemini-3.8-flash", f"{_GEMINI_SDK} client.py: its example"),
    ("gemini", "realtime"): Default("gemini-3.1-flash-live-preview", f"{_GEMINI_SDK} live API"),
    ("deepgram", "stt"): Default("nova-3", "deepgram-sdk 7.17.0 types/listen_v1model.py"),
    ("deepgram", "tts"): Default("aura-2-thalia-en", "deepgram-sdk 7.17.0 speak/v1; the voice is the model"),
    ("deepgram", "realtime"): Default(
        "think-fast", "deepgram-sdk 7.17.0 types/deepgram_think_provider_model.py: what thinks in a voice agent"
    ),
    ("assemblyai", "stt"): Default("universal-streaming-english", "assemblyai 1.8.2 streaming/v3/models.py"),
    ("elevenlabs", "stt"): Default("scribe_v2_realtime", "elevenlabs 2.78.0 realtime/scribe.py"),
    ("elevenlabs", "tts"): Default("eleven_flash_v2_5", "elevenlabs 2.78.0; the low-latency family"),
    ("cartesia", "tts"): Default("sonic-3.5", "cartesia 4.2.0 types"),
}


def _ends(on: str, models: str, instead: str, source: str) -> dict[str, Shutdown]:
    return {model: Shutdown(date.fromisoformat(on), instead, source) for model in models.split()}


_OPENAI_CHAT = f"{_OPENAI_SDK} types/shared/chat_model.py"
_OPENAI_AUDIO = f"{_OPENAI_SDK} types/audio"
_OPENAI_REALTIME = f"{_OPENAI_SDK} types/realtime/realtime_session_create_request.py"
_ANTHROPIC = f"{_ANTHROPIC_SDK} resources/messages: DEPRECATED_MODELS"

_OF_OPENAI = {
    **_ends("2024-09-13", "gpt-3.5-turbo-16k gpt-3.5-turbo-0301 gpt-3.5-turbo-0613", "", _OPENAI_CHAT),
    **_ends("2025-06-06", "gpt-4-32k gpt-4-32k-0314 gpt-4-32k-0613", "", _OPENAI_CHAT),
    **_ends("2025-07-28", "o1-preview o1-preview-2024-09-12", "", _OPENAI_CHAT),
    **_ends("2025-10-27", "o1-mini o1-mini-2024-09-12", "", _OPENAI_CHAT),
    **_ends("2026-02-17", "chatgpt-4o-latest", "", _OPENAI_CHAT),
    **_ends("2026-03-26", "gpt-4-0125-preview gpt-4-turbo-preview gpt-4-0314", "", _OPENAI_CHAT),
    **_ends(
        "2026-05-07",
        "gpt-4o-audio-preview gpt-4o-audio-preview-2024-12-17 gpt-4o-audio-preview-2025-06-03 "
        "gpt-4o-mini-audio-preview gpt-4o-mini-audio-preview-2024-12-17",
        "",
        _OPENAI_CHAT,
    ),
    **_ends(
        "2026-07-23", "gpt-5.1-codex gpt-5.1-chat-latest gpt-5-chat-latest gpt-4o-search-preview", "", _OPENAI_CHAT
    ),
    **_ends("2026-08-10", "gpt-5.3-chat-latest gpt-5.2-chat-latest", "", _OPENAI_CHAT),
    **_ends("2026-09-28", "gpt-3.5-turbo-1106", "", _OPENAI_CHAT),
    **_ends(
        "2026-10-23",
        "gpt-4.1-nano gpt-4.1-nano-2025-04-14 o4-mini o4-mini-2025-04-16 o3-mini o3-mini-2025-01-31 o1 o1-2024-12-17 "
        "gpt-4o-2024-05-13 gpt-4-turbo gpt-4-turbo-2024-04-09 gpt-4-1106-preview gpt-4 gpt-4-0613 gpt-3.5-turbo "
        "gpt-3.5-turbo-0125",
        "",
        _OPENAI_CHAT,
    ),
    **_ends(
        "2026-12-11",
        "gpt-5 gpt-5-mini gpt-5-nano gpt-5-2025-08-07 gpt-5-mini-2025-08-07 gpt-5-nano-2025-08-07 o3 o3-2025-04-16",
        "",
        _OPENAI_CHAT,
    ),
    **_ends(
        "2027-01-14",
        "gpt-4.1 gpt-4.1-mini gpt-4.1-2025-04-14 gpt-4.1-mini-2025-04-14 gpt-4o gpt-4o-2024-11-20 gpt-4o-2024-08-06 "
        "gpt-4o-mini gpt-4o-mini-2024-07-18",
        "",
        _OPENAI_CHAT,
    ),
    **_ends("2027-04-01", "gpt-5.4-nano gpt-5.4-nano-2026-03-17 gpt-5.1 gpt-5.1-2025-11-13", "", _OPENAI_CHAT),
    **_ends(
        "2027-02-26",
        "whisper-1 gpt-4o-transcribe gpt-4o-mini-transcribe gpt-4o-mini-transcribe-2025-12-15 "
        "gpt-4o-transcribe-diarize",
        "gpt-transcribe",
        f"{_OPENAI_AUDIO}_model.py",
    ),
    # Nothing is offered in their place yet (speech_model.py lists these alone).
    **_ends(
        "2027-01-06",
        "tts-1 tts-1-hd gpt-4o-mini-tts gpt-4o-mini-tts-2025-12-15",
        "",
        f"{_OPENAI_AUDIO}/speech_model.py",
    ),
    **_ends(
        "2027-01-20",
        "gpt-realtime gpt-realtime-2025-08-28 gpt-realtime-mini gpt-realtime-mini-2025-10-06 "
        "gpt-realtime-mini-2025-12-15 gpt-audio-mini gpt-audio-mini-2025-12-15",
        "",
        _OPENAI_REALTIME,
    ),
}

_OF_ANTHROPIC = {
    **_ends("2025-07-21", "claude-3-sonnet-20240229 claude-2.1 claude-2.0", "", _ANTHROPIC),
    **_ends("2026-01-05", "claude-3-opus-20240229", "", _ANTHROPIC),
    **_ends(
        "2026-02-19",
        "claude-3-7-sonnet-latest claude-3-7-sonnet-20250219 claude-3-5-haiku-latest claude-3-5-haiku-20241022",
        "",
        _ANTHROPIC,
    ),
    **_ends(
        "2026-06-15",
        "claude-opus-4-0 claude-opus-4-20250514 claude-sonnet-4-0 claude-sonnet-4-20250514",
        "",
        _ANTHROPIC,
    ),
    **_ends("2026-06-30", "claude-mythos-preview", "", _ANTHROPIC),
    **_ends("2026-11-30", "claude-sonnet-4-5 claude-sonnet-4-5-20250929", "", _ANTHROPIC),
}

SHUTDOWNS: Mapping[str, Mapping[str, Shutdown]] = {
    "openai": _OF_OPENAI,
    "anthropic": _OF_ANTHROPIC,
    "groq": _ends("2026-08-16", "llama-3.3-70b-versatile", "", "Groq's announcement as users quote it"),
    "cerebras": _ends("2026-02-16", "qwen-3-32b llama-3.3-70b", "", "inference-docs.cerebras.ai/support/deprecation"),
}


def default_model(kind: str, role: Role) -> str:
    """What `kind` uses in `role` where nothing is configured; empty: there is no such default (a server of one's own
    has the models that were put on it)."""
    found = DEFAULTS.get((kind, role))
    return found.model if found else ""


def shutdown(kind: str, model: str) -> Shutdown | None:
    """The announced end of a kind's model, if one is known."""
    return SHUTDOWNS.get(kind, {}).get(model)


@dataclass(frozen=True, slots=True)
class Ending:
    """A model in use has an announced end."""

    says: str
    """For people: which, when, by whose word, and what to do."""
    past: bool


def ending(name: str, kind: str, role: Role, model: str, today: date) -> Ending | None:
    """About the model that provider `name` uses in `role`, if its end is past or within `WARN_AHEAD`."""
    end = shutdown(kind, model)
    if end is None or end.on - today > WARN_AHEAD:
        return None
    default = default_model(kind, role)
    instead = end.instead or (default if default != model else "")
    mend = f"set providers.{name}.{role}.model to {instead}" if instead else "its maker offers nothing instead yet"
    past = end.on <= today
    when = "was shut down" if past else "will be shut down"
    return Ending(f"{name}: {role} model {model} {when} on {end.on.isoformat()} ({end.source}): {mend}", past)
