"""Which vendors are made to fail: each is a line, of its stand-in and how a configuration points to it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from anthropic_server import AnthropicStandin
from assemblyai_server import AssemblyAiServer
from cartesia_server import Cartesia
from deepgram_server import DeepgramServer
from deepgram_speak import DeepgramVoices
from elevenlabs_server import ElevenLabs
from gemini_server import GeminiStandin
from openai_server import ChatStandin, ResponsesStandin
from openai_speech_server import SpeechServer
from openai_transcription_server import TranscriptionServer
from scribe_server import Scribe
from standin import Standin
from standin_llm import Says
from telnyx_speech_server import TelnyxSpeech

from bridge.providers.base import Role

KEY = "sk-failing-0123456789abcdefghijkl"
SPARE_KEY = "sk-spare-0123456789abcdefghijklm"

SCRIPT = ["When do you open tomorrow?", "And what about Sunday?"]
"""What the caller says."""

ANSWERS = ["We open at nine in the morning.", "On Sunday we are closed."]
REST = "nine in the morning."
"""What a model that goes on with the first answer says, wherever it broke off."""

SSE_GARBAGE = b"data: {this is not JSON\n\n"
SOCKET_GARBAGE = "{this is not JSON"


@dataclass(frozen=True)
class Vendor:
    """One vendor in one role."""

    role: Role
    kind: str
    server: Callable[[str], Standin]
    """Made with the key that it takes."""
    path: str = ""
    """Behind the stand-in's address, in `base_url`."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Of the role."""
    garbage: str | bytes = SOCKET_GARBAGE
    name: str = ""
    """Of the line; empty: kind and role."""

    @property
    def label(self) -> str:
        return self.name or f"{self.kind}-{self.role}"

    def entry(self, server: Standin, key_env: str) -> dict[str, Any]:
        """Its entry under `providers`."""
        return {
            "kind": self.kind,
            "base_url": server.http_url + self.path,
            "api_key_env": key_env,
            self.role: self.settings,
        }


def model(made: Callable[[], Any]) -> Callable[[str], Standin]:
    """A stand-in that answers the caller; one that is asked to go on with an answer says the rest of it."""

    def make(key: str) -> Standin:
        server = made()
        server.on("tomorrow", Says(ANSWERS[0], per_token_s=0.01))
        server.on("Sunday", Says(ANSWERS[1], per_token_s=0.01))
        server.on("broke off", Says(REST))
        standin: Standin = server
        return standin

    return make


MODELS: tuple[Vendor, ...] = (
    Vendor("llm", "openai", model(ChatStandin), "/v1", {"model": "m"}, SSE_GARBAGE),
    Vendor(
        "llm", "openai", model(ResponsesStandin), "/v1", {"model": "m", "api": "responses"}, SSE_GARBAGE, "responses"
    ),
    Vendor("llm", "anthropic", model(AnthropicStandin), "", {"model": "m"}, SSE_GARBAGE),
    Vendor("llm", "gemini", model(GeminiStandin), "", {"model": "m"}, SSE_GARBAGE),
)

EARS: tuple[Vendor, ...] = (
    Vendor("stt", "deepgram", lambda key: DeepgramServer(SCRIPT, key=key)),
    Vendor(
        "stt",
        "deepgram",
        lambda key: DeepgramServer(SCRIPT, key=key),
        "",
        {"model": "flux-general-en"},
        SOCKET_GARBAGE,
        "flux",
    ),
    Vendor("stt", "assemblyai", lambda key: AssemblyAiServer(SCRIPT, key=key)),
    Vendor("stt", "openai", lambda key: TranscriptionServer(SCRIPT, key=key), "/v1"),
    Vendor("stt", "openai", lambda key: TranscriptionServer(SCRIPT, key=key), "/v1", {"mode": "file"}, name="files"),
    Vendor("stt", "elevenlabs", lambda key: Scribe(SCRIPT, key=key)),
    Vendor("stt", "telnyx", lambda key: TelnyxSpeech(SCRIPT, key=key), "/v2"),
)

VOICES: tuple[Vendor, ...] = (
    Vendor("tts", "elevenlabs", lambda key: ElevenLabs(key=key)),
    Vendor(
        "tts", "elevenlabs", lambda key: ElevenLabs(key=key), "", {"mode": "http"}, SSE_GARBAGE, "elevenlabs-http"
    ),
    Vendor("tts", "cartesia", lambda key: Cartesia(key=key)),
    Vendor("tts", "deepgram", lambda key: DeepgramVoices(key=key)),
    Vendor("tts", "openai", lambda key: SpeechServer(key=key), "/v1"),
    Vendor("tts", "telnyx", lambda key: TelnyxSpeech(key=key), "/v2"),
)

VENDORS = (*MODELS, *EARS, *VOICES)

SPARES: dict[Role, Vendor] = {"llm": MODELS[0], "stt": EARS[0], "tts": VOICES[2]}
"""Who takes over, under the name `spare`; and who works in the roles that are not made to fail."""
