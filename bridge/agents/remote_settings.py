"""Settings of the agent that is somebody else's bot, behind a WebSocket."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from bridge.agents.call_context import context_problem
from bridge.settings import PasswordSource

Ms = Annotated[int, Field(ge=0)]


class RemoteSettings(PasswordSource):
    """A bot that speaks a carrier's media-stream protocol. `password_env` or `password_file` is the secret it shares
    with that carrier: Twilio's auth token, Telnyx's API key and streaming token."""

    url: Annotated[tuple[str, ...], Field(min_length=1)]
    """Where the bot listens (ws:// or wss://); of several the first that answers takes the call."""
    protocol: Literal["twilio", "telnyx"] = "twilio"
    encoding: Literal["PCMU", "PCMA", "L16"] = "PCMU"
    """On the wire. Twilio has PCMU alone; L16 is of 16 kHz, little-endian."""
    parameters: dict[str, str] = Field(default_factory=dict)
    """Told to the bot: Twilio's custom parameters, Telnyx's client state. `from` and `to` are told besides."""
    context: tuple[str, ...] = ()
    """What the dialplan or the carrier passed on with a call and the bot is told beside `parameters`: names of
    arguments, variables or headers, in lower case."""
    account: str = ""
    """The account's id that the bot is told, should it look at it."""
    connect_ms: Annotated[int, Field(ge=100)] = 3000
    """For each URL."""
    buffer_ms: Ms = 60
    """Held back at the start of each burst of the bot's audio, so that its network's jitter is not heard."""
    max_call_s: Annotated[int, Field(ge=5)] = 3600
    handover: str = ""
    """Where callers go when the bot fails: a SIP URI or a number. Empty: they hear a tone, and the call ends."""
    transfer_to: tuple[str, ...] = ()
    """Where the bot may transfer callers to, by the carrier's REST interface; `*` stands for any characters."""

    @field_validator("url", mode="before")
    @classmethod
    def _one_or_more(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("context")
    @classmethod
    def _context(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        lower = tuple(name.lower() for name in value)
        if problem := next(filter(None, map(context_problem, lower)), ""):
            raise ValueError(problem)
        return lower

    @field_validator("url")
    @classmethod
    def _sockets(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for url in value:
            if not url.startswith(("ws://", "wss://")):
                raise ValueError(f"{url!r} is not a ws:// or wss:// URL")
        return value

    @model_validator(mode="after")
    def _twilio_is_mu_law(self) -> Self:
        if self.protocol == "twilio" and self.encoding != "PCMU":
            raise ValueError(f"encoding {self.encoding}: Twilio's protocol has PCMU alone")
        return self
