"""What an operator sets about an agent of one model that hears and speaks. Units are in names."""

from typing import Annotated, Literal

from pydantic import Field

from bridge.agents.settings import ConversationSettings, Ms, Strict


class RealtimeLimits(Strict):
    """How long the model may take; beyond it the next one of the chain goes on with the call."""

    open_ms: Annotated[int, Field(ge=100)] = 5000
    """For a session to be opened and set up."""
    first_ms: Annotated[int, Field(ge=100)] = 5000
    """From the end of the caller's turn, or from what it was asked to say, to the first sign of a reply."""
    between_ms: Annotated[int, Field(ge=100)] = 4000
    """Between two pieces of a reply, once all that came was played."""
    unanswered_ms: Annotated[int, Field(ge=100)] = 4000
    """The caller spoke and the model tells no end of the turn: after this silence it is asked to answer."""
    unanswered_voice_ms: Ms = 400
    """Shorter voice than this need not be answered."""
    text_ms: Ms = 8000
    """The text of a caller's turn that has not come by then is left empty on the record."""
    reopens: Annotated[int, Field(ge=0)] = 3
    """Sessions in one call that may follow one that broke."""


class RealtimeSettings(ConversationSettings):
    """One talking agent. Of `turns` only `dtmf_pause_ms` counts: the model's own ear finds the ends of turns."""

    instructions: str = ""
    """The model's prompt. Empty: made from the brief, whose forms are its tools either way."""
    barge_in_by: Literal["ours", "theirs"] = "ours"
    """Whose ear stops the agent. `ours` pauses at once, lets it go on after a cough, and stops it for speech, as far
    as the provider leaves that to us (OpenAI does). `theirs`: whatever the provider takes for speech stops it."""
    realtime_limits: RealtimeLimits = Field(default_factory=RealtimeLimits)
