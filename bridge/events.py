"""Everything that happens to a call, as typed values. They go to the record, the API, the metrics and the log.

Times inside a call (`at_ms`) are milliseconds since the call's media began (its answer), the zero of its recording.
Before the answer they are 0.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal


class Cause(StrEnum):
    """The one reason a call ended with."""

    CALLER_HUNG_UP = "caller-hung-up"
    AGENT_HUNG_UP = "agent-hung-up"
    API_HUNG_UP = "api-hung-up"
    CANCELLED = "cancelled"
    """The caller gave up before we answered (CANCEL), or we did on an outbound call."""
    TRANSFERRED = "transferred"
    MEDIA_TIMEOUT = "media-timeout"
    """No RTP came for the configured time, or none ever came."""
    SILENCE = "silence"
    """The caller said nothing through the last re-prompt."""
    MAX_LENGTH = "max-length"
    ENGINE_FAILED = "engine-failed"
    """A provider failed and no fallback was left; the caller heard the apology."""
    INTERNAL_ERROR = "internal-error"
    """A crash of this call's code; the log has the traceback with the call's id."""
    DRAINED = "drained"
    """The bridge stopped and the drain limit ran out."""
    REFUSED_BUSY = "refused-busy"
    REFUSED_DRAINING = "refused-draining"
    REFUSED_FORBIDDEN = "refused-forbidden"
    REFUSED_NO_ROUTE = "refused-no-route"
    REFUSED_MEDIA = "refused-media"
    """No codec in common, or no audio in the offer (488)."""
    BUSY = "busy"
    NO_ANSWER = "no-answer"
    REJECTED = "rejected"
    """The far end of an outbound call declined, with its status in the event."""
    SIGNALLING_LOST = "signalling-lost"
    """A request timed out (no ACK, no answer to BYE or re-INVITE), or the peer lost the dialog (481)."""


# -- what a leg tells ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DtmfReceived:
    digit: str
    """One of 0-9 * # A-D."""
    duration_ms: int


@dataclass(frozen=True, slots=True)
class Held:
    """The far party put us on hold: it takes no audio of ours."""

    music: bool = False
    """It goes on sending (its own music); else nothing comes from it."""


@dataclass(frozen=True, slots=True)
class Resumed:
    pass


@dataclass(frozen=True, slots=True)
class Answered:
    """The leg is up: media flows from now on."""


@dataclass(frozen=True, slots=True)
class Progress:
    """An outbound leg's provisional answer, e.g. 180 or 183."""

    status: int
    early_media: bool = False
    """Frames come from now on: a ringback tone, an announcement."""


@dataclass(frozen=True, slots=True)
class MediaLost:
    """No media for `silent_ms`; the leg ends itself when its own limit is reached."""

    silent_ms: int


class OneWay(StrEnum):
    """Why a call is heard by one side only."""

    NOT_HEARD = "no audio from the caller"
    NOT_ARRIVING = "our audio does not arrive"
    UNDECIPHERABLE = "media can't be decrypted"


@dataclass(frozen=True, slots=True)
class OneWayAudio:
    """Audio flows one way only; told once for each reason."""

    reason: OneWay
    detail: str
    """For people: what was seen."""


@dataclass(frozen=True, slots=True)
class TransferResult:
    """How a transfer we asked for ended: the final SIP status seen by the referee (200 is success)."""

    status: int
    reason: str


@dataclass(frozen=True, slots=True)
class TransferAsked:
    """The far party asks us to call somebody else in its place. `Leg.follow_transfer` or `refuse_transfer` answers;
    unanswered it is refused after a while."""

    target: str
    """SIP URI, without headers."""
    referred_by: str = ""
    """Who asks, as the far party says."""
    headers: tuple[tuple[str, str], ...] = ()
    """To be sent with the call (Replaces, Referred-By)."""


@dataclass(frozen=True, slots=True)
class FarPartyChanged:
    """Another party took the far party's place on this leg (Replaces, or a transfer that it asked for). The leg goes
    on: same listeners, same playout."""

    id: str
    """The new party's id of the leg (SIP Call-ID)."""
    peer: str
    from_: str
    why: str


@dataclass(frozen=True, slots=True)
class MediaSetUp:
    """The audio of a leg is connected, by one of several transports that its carrier has."""

    transport: str
    """`rtp`, `websocket`, `audiosocket`."""
    codec: str
    """As the carrier names it, e.g. `ulaw`, `slin16`."""
    took_ms: float
    """From our first request for it until audio can flow both ways."""


@dataclass(frozen=True, slots=True)
class FarFlushed:
    """The far side was told to drop the audio that it had not played yet (barge-in)."""

    took_ms: float
    """Until it said that it had."""
    dropped_ms: float
    """Audio that was sent and never heard."""


@dataclass(frozen=True, slots=True)
class AnsweredBy:
    """Who took a call of ours, as far as the carrier could tell (answering machine detection)."""

    who: Literal["human", "machine", "unsure", "hung-up"]
    detail: str
    """As the carrier says it, e.g. `MACHINE MAXWORDS-5-5`."""


@dataclass(frozen=True, slots=True)
class LegNote:
    """Anything else about a leg that is worth keeping: on record it is a `Note` of its call."""

    name: str
    detail: str


EndedBy = Literal["us", "far", "network"]
"""Who ended a leg: we did, its far party, or nobody (it broke)."""


@dataclass(frozen=True, slots=True)
class LegEnded:
    cause: Cause
    detail: str = ""
    """For people: the status line, the Reason header, the exception's message."""
    by: EndedBy = "us"
    status: int | None = None
    """SIP's final status, sent or received; None for a call that was up."""
    q850: int | None = None
    """The Q.850 cause, sent or received; None where nobody told one."""


LegEvent = (
    DtmfReceived
    | Held
    | Resumed
    | Answered
    | Progress
    | MediaLost
    | OneWayAudio
    | TransferResult
    | TransferAsked
    | FarPartyChanged
    | MediaSetUp
    | FarFlushed
    | AnsweredBy
    | LegNote
    | LegEnded
)


# -- what a call tells of its second leg ------------------------------------------------------------------

AgentPart = Literal["left", "muted", "mixed"]
"""The agent in a bridged call: gone; there but neither heard nor hearing; or the third in the conversation."""


@dataclass(frozen=True, slots=True)
class LegJoined:
    """A further leg belongs to the call from now on."""

    leg_id: str
    """What its other side calls it (the SIP Call-ID)."""
    at_ms: float
    names: tuple[str, ...] = ()
    """What else it is known by (`bridge.names`)."""


@dataclass(frozen=True, slots=True)
class SecondDialled:
    """The call dials somebody else while its caller waits."""

    target: str
    at_ms: float


@dataclass(frozen=True, slots=True)
class SecondAnswered:
    target: str
    leg_id: str
    at_ms: float


@dataclass(frozen=True, slots=True)
class SecondEnded:
    """The second leg is over: it was refused, it hung up, or we let it go."""

    target: str
    cause: Cause
    detail: str
    by: EndedBy
    status: int | None
    q850: int | None
    at_ms: float


@dataclass(frozen=True, slots=True)
class Bridged:
    """Caller and second party talk with each other from now on."""

    target: str
    agent: AgentPart
    at_ms: float


@dataclass(frozen=True, slots=True)
class Unbridged:
    """The caller is with the agent again."""

    at_ms: float


SecondEvent = LegJoined | SecondDialled | SecondAnswered | SecondEnded | Bridged | Unbridged


# -- what a conversation tells ------------------------------------------------------------------------------

Speaker = Literal["caller", "agent"]


@dataclass(frozen=True, slots=True)
class TurnDelays:
    """Where the time of one agent turn went, in ms; None where the step did not happen.

    `reply_ms` is what the caller felt: the end of their speech to our first speech on the wire. The parts explain it:
    endpoint, stt, llm, tools, clause, tts and playout follow each other without overlap, and what they leave over
    (`rest_ms`) is the bridge's own. Each part is what the caller waited for that step, not how long the step took:
    of work done before the turn was decided on (an eager start), or beside another step, or after the first speech,
    nothing counts. So an `llm_ms` of 0 with an `ahead_ms` of 300 is a model that was asked early enough."""

    endpoint_ms: float | None = None
    """End of the caller's speech to the decision that the turn is over."""
    stt_ms: float | None = None
    """Decision to final text (0 when the text was there before)."""
    llm_ms: float | None = None
    """Request to first text, or to the tools it asks for; all requests together."""
    tts_ms: float | None = None
    """First clause given to the voice until its first audio."""
    reply_ms: float | None = None
    llm: str = ""
    """Which language model wrote the reply, as `provider/model`; empty: none did."""
    tools_ms: float | None = None
    """Tools that were carried out before the first speech."""
    clause_ms: float | None = None
    """First text to the first clause that was long enough for the voice."""
    playout_ms: float | None = None
    """First audio from the voice until the first packet with it."""
    ahead_ms: float | None = None
    """How long before the decision the reply was begun, if it was: an eager start. No part of `reply_ms`."""
    stt: str = ""
    """Which provider understood the caller; empty: it was not needed."""
    tts: str = ""
    """Which provider spoke."""

    def parts(self) -> dict[str, float]:
        """The parts of `reply_ms` that are known, by name, in their order."""
        found = {
            "endpoint": self.endpoint_ms,
            "stt": self.stt_ms,
            "llm": self.llm_ms,
            "tools": self.tools_ms,
            "clause": self.clause_ms,
            "tts": self.tts_ms,
            "playout": self.playout_ms,
        }
        return {name: value for name, value in found.items() if value is not None}

    def provider(self, part: str) -> str:
        """Who did a part, by its name in `parts`; empty for the bridge itself, or nobody known."""
        return {"stt": self.stt, "llm": self.llm.partition("/")[0], "tts": self.tts}.get(part, "")

    @property
    def rest_ms(self) -> float | None:
        """What of `reply_ms` is no step's; None where the reply answers nobody."""
        return None if self.reply_ms is None else self.reply_ms - sum(self.parts().values())


@dataclass(frozen=True, slots=True)
class TurnEnded:
    """One utterance of one side is over."""

    index: int
    """0, 1, 2 ... within the call, in order of start, both sides counted together."""
    speaker: Speaker
    text: str
    """The caller's words as understood, or everything the agent meant to say."""
    started_ms: float
    ended_ms: float
    heard_text: str
    """For the agent: the part that was played out. For the caller: `text`."""
    heard_ms: float
    """Audio of this turn that was sent before it ended or was cut off."""
    interrupted: bool = False
    delays: TurnDelays = field(default_factory=TurnDelays)
    why: str = ""
    """The caller's: what made it over, in the turn detector's words."""


@dataclass(frozen=True, slots=True)
class BargeIn:
    """The caller spoke over the agent: the playout paused at `at_ms`, and `confirmed` says what came of it."""

    at_ms: float
    confirmed: bool
    """True: the rest of the agent's turn was dropped. False: a false alarm, it went on where it stopped."""
    reason: str
    pause_ms: float
    """From the pause to the decision."""


@dataclass(frozen=True, slots=True)
class ToolCalled:
    name: str
    arguments: dict[str, Any]
    ok: bool
    result: str
    took_ms: float
    at_ms: float


@dataclass(frozen=True, slots=True)
class FormCompleted:
    """The caller confirmed a form (a booking, a message); `fields` is what an operator acts on."""

    form: str
    fields: dict[str, Any]
    at_ms: float


@dataclass(frozen=True, slots=True)
class ProviderFailed:
    role: Literal["stt", "llm", "tts", "realtime"]
    provider: str
    error: str
    at_ms: float
    went_on: str = ""
    """The next provider of the chain, which took the work over; empty: nobody did."""


@dataclass(frozen=True, slots=True)
class Note:
    """Anything else worth keeping on the record, e.g. `recording-unavailable`."""

    name: str
    detail: str
    at_ms: float


AgentEvent = TurnEnded | BargeIn | ToolCalled | FormCompleted | ProviderFailed | Note


# -- a call's life ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CallStarted:
    direction: Literal["inbound", "outbound"]
    from_: str
    to: str
    trunk: str
    agent: str
    leg_kind: str
    """`sip`, later `asterisk`, `telnyx`, ..."""
    leg_id: str
    """What the other side calls this call (the SIP Call-ID, the channel id)."""
    started_at: float
    """Unix time (s)."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """What an inbound call brought along, by lower-case name: X- headers, P-Asserted-Identity, Diversion, ..."""


@dataclass(frozen=True, slots=True)
class CallAnswered:
    answered_at: float
    """Unix time (s)."""
    setup_ms: float
    """INVITE (or request to dial) to answer."""


@dataclass(frozen=True, slots=True)
class CallEnded:
    cause: Cause
    detail: str
    ended_at: float
    """Unix time (s)."""
    recording: str | None
    """File name inside the recordings directory, or None: then a `recording-unavailable` note says why,
    if the agent's recording was on."""
    quality: dict[str, float]
    """Media counters of the leg at its end, those that are known: packets, lost, jitter_ms, mos, ... (the numbers of
    `bridge.legs.base.MediaQuality`; of the caller's line beyond another box with `caller_` before them)."""
    by: EndedBy = "us"
    status: int | None = None
    """SIP's final status, for a call that was not answered."""
    q850: int | None = None
    codec: str = ""
    """Encoding name of what we sent; empty: there was no media."""
    srtp: str = ""
    """The crypto suite; empty: in clear."""
    one_way: str = ""
    """A `OneWay`, where audio flowed one way only until the end."""


def of_line(quality: Mapping[str, float], name: str) -> float | None:
    """One of the numbers of `CallEnded.quality`: of the caller's line beyond another box where that told of it, else
    of our own stretch, which is the caller's line where no other box is in between."""
    told = any(key.startswith("caller_") for key in quality)
    return quality.get(f"caller_{name}" if told else name)


CallEvent = CallStarted | CallAnswered | CallEnded | LegEvent | SecondEvent | AgentEvent
