"""Settings of OpenAI, and of every server that speaks its protocols. Importing this does not import the SDK."""

from typing import Annotated, Literal

from pydantic import Field

from bridge.providers.settings import Ms, ProviderSettings, Seconds
from bridge.settings import Section

BASE_URL = "https://api.openai.com/v1"


class OpenAiLlmSettings(Section):
    """A language model: OpenAI's, or behind Groq, vLLM, Ollama, llama.cpp, ..."""

    model: str = ""
    """Empty: the kind's default (`bridge.providers.models_table`). Servers of one's own have none: name it."""
    api: Literal["chat", "responses"] = "chat"
    """Chat Completions, which every compatible server has, or OpenAI's newer Responses, whose reasoning models keep
    their thoughts from one tool call to the next."""
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """Not sent if not given: some reasoning models refuse it."""
    reasoning_effort: Literal["", "none", "minimal", "low", "medium", "high", "xhigh", "max"] = ""
    """Not sent if empty. On the telephone take the lowest the model knows: it decides the first token's delay."""
    verbosity: Literal["", "low", "medium", "high"] = ""
    """Not sent if empty."""
    service_tier: Literal["", "auto", "default", "flex", "scale", "priority", "fast"] = ""
    """Not sent if empty. `priority` buys a steadier first token."""
    parallel_tool_calls: bool | None = None
    """Whether the model may ask for several tools at once; not sent if not given."""
    prompt_cache: bool | None = None
    """Send `prompt_cache_key`, so that the requests of one call meet the same cache. Not given: to OpenAI itself
    alone, as other servers may refuse a key they don't know."""
    max_reply_tokens: Annotated[int, Field(ge=16)] | None = None
    """Not sent if not given. Includes what a reasoning model thinks."""
    first_token_s: Seconds = 6.0
    """From the request to the first piece of the reply; a caller takes a longer silence for a dead line."""
    between_tokens_s: Seconds = 4.0
    idle_connection_s: Seconds = 120.0
    """How long an unused connection is kept open for the next turn."""


class OpenAiSttSettings(Section):
    """Speech recognition: a realtime transcription session, or a file for each pause of the caller."""

    model: str = ""
    """Empty: `gpt-live-transcribe` in a session; for files `gpt-transcribe`, or the kind's own (Groq: Whisper)."""
    mode: Literal["", "realtime", "file"] = ""
    """`realtime`: text while the caller speaks. `file`: what other servers take too (Groq, vLLM, ...); each pause is
    sent as one WAV. Empty: `realtime` for the kind `openai`, `file` for others."""
    turn_detection: Literal["none", "server_vad", "semantic_vad"] = "none"
    """`none`: pauses are found here. The others, in a session: the server finds them too, and its word counts as one
    sign of the turn's end."""
    prompt: str = ""
    """What the call is about, or words to expect; how it helps depends on the model."""
    keywords: tuple[str, ...] = ()
    """Names and terms to expect; `gpt-transcribe` and `gpt-live-transcribe` take them."""
    noise_reduction: Literal["", "near_field", "far_field"] = ""
    """In a session. Empty: off, as a telephone's own does enough."""
    delay: Literal["", "minimal", "low", "medium", "high", "xhigh"] = ""
    """In a session of `gpt-realtime-whisper`: how long text may wait to be better. Empty: the model's own."""
    partials: bool = True
    """For files: recognise the caller while he still speaks, to tell an interruption from a cough. Costs a request
    each time."""
    settle_s: Seconds = 4.0
    """From a pause to its text; beyond it the next provider of the chain is asked."""
    turn_max_s: Seconds = 60.0
    """For files: of a longer turn the beginning is forgotten once it is recognised no more."""


class OpenAiTtsSettings(Section):
    """Text to speech (`/audio/speech`)."""

    model: str = ""
    """Empty: the kind's default (`bridge.providers.models_table`)."""
    voice: str = "marin"
    """Where the agent names none."""
    instructions: str = ""
    """How to speak, in words; `tts-1` and `tts-1-hd` don't take it."""
    speed: Annotated[float, Field(ge=0.25, le=4)] | None = None
    """Not sent if not given."""
    rate_hz: Annotated[int, Field(ge=8000, le=48000, multiple_of=50)] = 24000
    """Of the PCM that comes: OpenAI's is 24000; other servers follow it, mostly."""
    first_audio_s: Seconds = 4.0
    """From a text to its first audio; beyond it the next provider of the chain is asked."""
    between_audio_s: Seconds = 3.0
    idle_connection_s: Seconds = 120.0
    """How long an unused connection is kept open for the next text."""


class OpenAiRealtimeSettings(Section):
    """One model that hears and speaks (the Realtime interface)."""

    model: str = ""
    """Empty: the default of `bridge.providers.models_table`."""
    voice: str = "marin"
    """Where the agent names none."""
    speed: Annotated[float, Field(ge=0.25, le=1.5)] = 1.0
    transcription_model: str = "gpt-transcribe"
    """Writes down what the caller says, for the record; the model itself hears the audio."""
    turn_detection: Literal["server_vad", "semantic_vad"] = "server_vad"
    """When the caller's turn is over: after silence, or by what was said."""
    vad_threshold: Annotated[float, Field(ge=0, le=1)] = 0.5
    prefix_padding_ms: Ms = 300
    silence_ms: Ms = 500
    """For `server_vad`."""
    eagerness: Literal["low", "medium", "high", "auto"] = "auto"
    """For `semantic_vad`: how soon it takes a turn for complete."""
    noise_reduction: Literal["", "near_field", "far_field"] = ""
    reasoning_effort: Literal["", "minimal", "low", "medium", "high", "xhigh"] = ""
    """Not sent if empty; only models that reason know it."""
    setup_s: Seconds = 4.0
    """From the connection to the session being set up."""
    session_minutes: Annotated[float, Field(gt=0)] = 55.0
    """The server ends a session after 60; by then another one has gone on with the call."""


class OpenAiSettings(ProviderSettings):
    """OpenAI, or another server by `base_url`; of those only the language model is known to work."""

    llm: OpenAiLlmSettings = OpenAiLlmSettings()
    realtime: OpenAiRealtimeSettings = OpenAiRealtimeSettings()
    stt: OpenAiSttSettings = OpenAiSttSettings()
    tts: OpenAiTtsSettings = OpenAiTtsSettings()
