"""Which kinds of provider there are, what roles each can take, and where its settings and classes are.

Everything is named, not imported: a kind's SDK is loaded only where it is configured.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from bridge.providers.base import ProviderUnavailableError, Role
from bridge.providers.settings import ProviderSettings

LOCAL = "local"
"""The embedded engines: a kind of its own, configured in `engines`, made by `bridge.talkers`."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A vendor, or a protocol that many servers speak."""

    settings: str
    """`module:Class` of its `ProviderSettings`."""
    roles: Mapping[Role, str]
    """`module:Class` for each role it can take, made as `Class(name, settings, environ=...)`; that raises
    ProviderUnavailableError where the key is missing."""
    key_env: str = ""
    """The variable that its key usually stands in; empty: it needs none."""
    preset: Mapping[str, Any] = field(default_factory=dict)
    """Settings that an entry of this kind begins with."""
    extra: str = "cloud"
    """The extra of the distribution that installs its SDK; empty: always installed."""


_OPENAI = "bridge.providers.openai"
_OPENAI_SETTINGS = f"{_OPENAI}.settings:OpenAiSettings"
_OPENAI_LLM: Mapping[Role, str] = {"llm": f"{_OPENAI}.llm:OpenAiLlm"}
_OPENAI_STT: Mapping[Role, str] = {"stt": f"{_OPENAI}.stt:OpenAiStt"}


def _compatible(base_url: str, key_env: str = "", *, hears: bool = False) -> Kind:
    """`hears`: it transcribes files too."""
    roles = {**(_OPENAI_STT if hears else {}), **_OPENAI_LLM}
    return Kind(_OPENAI_SETTINGS, roles, key_env, {"base_url": base_url}, extra="")


KINDS: Mapping[str, Kind] = {
    "openai": Kind(
        _OPENAI_SETTINGS,
        {
            "stt": f"{_OPENAI}.stt:OpenAiStt",
            "llm": f"{_OPENAI}.llm:OpenAiLlm",
            "tts": f"{_OPENAI}.tts:OpenAiTts",
            "realtime": f"{_OPENAI}.realtime:OpenAiRealtime",
        },
        "OPENAI_API_KEY",
        extra="",
    ),
    "groq": _compatible("https://api.groq.com/openai/v1", "GROQ_API_KEY", hears=True),
    "cerebras": _compatible("https://api.cerebras.ai/v1", "CEREBRAS_API_KEY"),
    "together": _compatible("https://api.together.xyz/v1", "TOGETHER_API_KEY", hears=True),
    "vllm": _compatible("http://127.0.0.1:8000/v1", hears=True),
    "ollama": _compatible("http://127.0.0.1:11434/v1"),
    "llamacpp": _compatible("http://127.0.0.1:8080/v1"),
    "deepgram": Kind(
        "bridge.providers.deepgram.settings:DeepgramSettings",
        {
            "stt": "bridge.providers.deepgram.stt:DeepgramStt",
            "tts": "bridge.providers.deepgram.tts:DeepgramTts",
            "realtime": "bridge.providers.deepgram.voice_agent:DeepgramVoiceAgent",
        },
        "DEEPGRAM_API_KEY",
    ),
    "assemblyai": Kind(
        "bridge.providers.assemblyai.settings:AssemblyAiSettings",
        {"stt": "bridge.providers.assemblyai.stt:AssemblyAiStt"},
        "ASSEMBLYAI_API_KEY",
    ),
    "elevenlabs": Kind(
        "bridge.providers.elevenlabs.settings:ElevenLabsSettings",
        {
            "stt": "bridge.providers.elevenlabs.stt:ElevenLabsStt",
            "tts": "bridge.providers.elevenlabs.tts:ElevenLabsTts",
        },
        "ELEVENLABS_API_KEY",
    ),
    "cartesia": Kind(
        "bridge.providers.cartesia.settings:CartesiaSettings",
        {"tts": "bridge.providers.cartesia.tts:CartesiaTts"},
        "CARTESIA_API_KEY",
    ),
    "telnyx": Kind(
        "bridge.providers.telnyx.settings:TelnyxSettings",
        {
            "stt": "bridge.providers.telnyx.stt:TelnyxStt",
            "llm": "bridge.providers.telnyx.llm:TelnyxLlm",
            "tts": "bridge.providers.telnyx.tts:TelnyxTts",
        },
        "TELNYX_API_KEY",
    ),
    "anthropic": Kind(
        "bridge.providers.anthropic.settings:AnthropicSettings",
        {"llm": "bridge.providers.anthropic.llm:AnthropicLlm"},
        "ANTHROPIC_API_KEY",
    ),
    "gemini": Kind(
        "bridge.providers.gemini.settings:GeminiSettings",
        {
            "llm": "bridge.providers.gemini.llm:GeminiLlm",
            "realtime": "bridge.providers.gemini.live:GeminiLive",
        },
        "GEMINI_API_KEY",
    ),
}


def settings_class(kind: str) -> type[ProviderSettings]:
    """The settings of a kind. Raises KeyError for one that there is not."""
    found: type[ProviderSettings] = _load(KINDS[kind].settings)
    return found


def make(role: Role, name: str, settings: ProviderSettings, environ: Mapping[str, str]) -> Any:
    """The provider `name` in `role`, not started. Raises ProviderUnavailableError: no such kind or role, no key, its
    SDK is not installed."""
    kind = settings.kind or name
    known = KINDS.get(kind)
    if known is None:
        raise ProviderUnavailableError(name, f"there is no provider kind {kind!r}; known: {', '.join(KINDS)}")
    path = known.roles.get(role)
    if path is None:
        can = ", ".join(other for other, entry in KINDS.items() if role in entry.roles)
        raise ProviderUnavailableError(name, f"{kind} has no {role}; these have: {can}")
    try:
        made = _load(path)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("bridge."):
            raise
        raise ProviderUnavailableError(
            name, f"its SDK is not installed ({error.name} is missing): pip install 'offhook[{known.extra}]'"
        ) from error
    return made(name, settings, environ=environ)


def _load(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)
