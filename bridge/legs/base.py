"""The Leg contract: one party's connection to us, of any kind (SIP, Asterisk, a media stream, a browser).

A new kind of telephony is one module that fulfils `Leg` and passes `tests/legs/contract.py`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from enum import Enum, Flag, auto
from typing import Literal, Protocol, runtime_checkable

from bridge.audio.frames import FrameSink, Unsubscribe
from bridge.audio.playout import Playout
from bridge.events import Cause, LegEvent


class LegError(Exception):
    """A leg could not do what was asked; the message says what and why."""


class LegStateError(LegError):
    """The request does not fit the leg's state, e.g. `answer()` on one that has ended."""


class NotCapableError(LegError):
    """The carrier can't do this; `capabilities` said so beforehand."""


class BadTargetError(LegError):
    """The target, or what is to go along with a call to it, is nothing that the carrier can be asked for."""


class UnknownTargetError(LegError):
    """The carrier knows nobody of that name: no such endpoint, queue, ..."""


class NotPermittedError(LegError):
    """The configuration keeps it from being called."""


class PeerRefusedError(LegError):
    """The carrier was asked, and answered with an error of its own."""


class PeerDownError(LegError):
    """The carrier can't be asked now: no connection, or it takes no login of ours. Later it may be."""


class PeerTimeoutError(PeerDownError):
    """The carrier was asked and has not answered: whether it was done is not known."""


class TransferFailedError(LegError):
    """The request to transfer came to nothing; the far party is still with us."""

    def __init__(self, message: str, status: int) -> None:
        """`status`: SIP's, or the like of it."""
        super().__init__(message)
        self.status = status


class TransferRefusedError(TransferFailedError):
    """The carrier does not do transfers, whatever the target: bridge the two parties instead."""


class Capability(Flag):
    """What a carrier can do, known before the call needs it."""

    NONE = 0
    RINGING = auto()
    EARLY_MEDIA = auto()
    DTMF_SEND = auto()
    DTMF_RECEIVE = auto()
    HOLD = auto()
    TRANSFER = auto()
    TRANSFER_REPLACING = auto()
    """An attended transfer: the far party takes our place on another leg."""
    VARIABLES = auto()
    """Values can be set that whoever has the call after us reads (`Leg.set_variables`)."""
    MUSIC = auto()
    """The carrier has music of its own for a caller who waits (`Leg.music`)."""


class LegState(Enum):
    OFFERED = auto()
    """Inbound, not yet answered; or outbound, no final answer yet."""
    UP = auto()
    ENDED = auto()


@dataclass(frozen=True, slots=True)
class LegInfo:
    kind: str
    """`sip`, later `asterisk`, `freeswitch`, `telnyx`, ..."""
    direction: Literal["inbound", "outbound"]
    from_: str
    """The far party's user or number."""
    to: str
    """The dialled user or number."""
    trunk: str
    id: str
    """The other side's id of this leg (SIP Call-ID)."""
    peer: str
    """Address that signalling came from, `ip:port`."""
    display_name: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    """What a carrier or dialplan passed on, names in lower case: headers (X-*, P-Asserted-Identity, Diversion), the
    named arguments of `Stasis`, channel variables."""
    agent: str = ""
    """The agent that the dialplan asks for; empty: the routes pick one."""


@dataclass(frozen=True, slots=True)
class LineQuality:
    """The far party's line up to a box that carries the call on to us, as that box measures it. What it does not know
    is None."""

    packets_received: int
    """Of the far party's; 0 while it is not heard there either."""
    packets_sent: int
    packets_lost: int | None = None
    """Of the far party's, up to the box's last RTCP report."""
    loss_percent: float | None = None
    jitter_ms: float | None = None
    """Mean of the interarrival jitter."""
    round_trip_ms: float | None = None
    remote_loss_percent: float | None = None
    """Of what was sent to the far party, by its reports."""
    remote_jitter_ms: float | None = None
    mos: float | None = None
    """How the far party sounds there, by the E-model."""
    mos_remote: float | None = None
    """How the far party hears that line, by its reports."""

    def numbers(self) -> dict[str, float]:
        """All that is known."""
        values = ((entry.name, getattr(self, entry.name)) for entry in fields(self))
        return {name: float(value) for name, value in values if value is not None}


@dataclass(frozen=True, slots=True)
class MediaQuality:
    """Counters of one leg's media since its answer."""

    packets_received: int = 0
    packets_sent: int = 0
    packets_lost: int = 0
    """Expected by sequence number and never received."""
    packets_late: int = 0
    """Received after their time of play: discarded by the jitter buffer."""
    packets_rejected: int = 0
    """From a stranger, of an unknown payload type, or malformed."""
    concealed_ms: int = 0
    jitter_ms: float = 0.0
    """Interarrival jitter, RFC 3550 6.4.1."""
    buffer_ms: float = 0.0
    """The jitter buffer's present depth."""
    loss_percent: float = 0.0
    """Of what the far end sent: lost, or too late to be played."""
    clock_drift_ppm: float | None = None
    """How much faster the far end's clock runs than ours; None until that could be measured."""
    round_trip_ms: float | None = None
    """The last measured by RTCP; None where the far end sends no reports."""
    remote_loss_percent: float | None = None
    """Of what we sent, by the far end's reports."""
    remote_jitter_ms: float | None = None
    mos: float | None = None
    """How the far end sounds to us: mean opinion score by the E-model, 1 to 4.5; None before it was measured."""
    mos_remote: float | None = None
    """How we sound to the far end, by its reports."""
    one_way: str = ""
    """A `bridge.events.OneWay` while audio flows one way only."""
    codec: str = ""
    """Encoding name of what we send."""
    srtp: str = ""
    """The crypto suite; empty: in clear."""
    caller_line: LineQuality | None = None
    """Of the stretch beyond ours, where another box carries the call on to us; all the rest is of ours."""

    def numbers(self) -> dict[str, float]:
        """All that is a number and is known; of the caller's line with `caller_` before it."""
        values = ((entry.name, getattr(self, entry.name)) for entry in fields(self))
        ours = {name: float(value) for name, value in values if isinstance(value, int | float)}
        beyond = {} if self.caller_line is None else self.caller_line.numbers()
        return ours | {f"caller_{name}": value for name, value in beyond.items()}


class Leg(Protocol):
    """One party's connection. All methods are called on the event loop's thread."""

    @property
    def info(self) -> LegInfo: ...

    @property
    def capabilities(self) -> Capability: ...

    @property
    def state(self) -> LegState: ...

    @property
    def sample_rate(self) -> int:
        """Hz of the frames given to listeners and taken from the playout; fixed from the answer on."""
        ...

    @property
    def playout(self) -> Playout: ...

    @property
    def quality(self) -> MediaQuality: ...

    def listen(self, sink: FrameSink) -> Unsubscribe:
        """Give `sink` every received frame: one per tick while the leg is up, concealed or silent where none came."""
        ...

    def subscribe(self, handler: Callable[[LegEvent], None]) -> Unsubscribe:
        """Tell `handler` every event, synchronously. `LegEnded` comes once and last; a handler that subscribes
        to a leg that has ended is told so at once."""
        ...

    async def ringing(self) -> None:
        """Tell the caller that we ring. Does nothing where the carrier can't."""
        ...

    async def early_media(self) -> None:
        """Let media flow before the answer: the caller hears the playout, and where it sends, listeners hear it.
        Raises LegStateError, or NotCapableError."""
        ...

    async def answer(self) -> None:
        """Take the call; returns when media may flow.

        Raises LegStateError if the leg has ended or is outbound."""
        ...

    async def hangup(self, cause: Cause, detail: str = "") -> None:
        """End the leg, whatever its state; returns when the far side was told (not when it confirmed).
        Idempotent: the first cause stays."""
        ...

    async def transfer(self, target: str, *, replacing: "Leg | None" = None) -> None:
        """Hand the far party to `target` (a SIP URI or a number), or to the far party of `replacing`, a leg of the
        same kind where it takes our place (then `target` is for the record). Returns when the carrier accepted the
        request; the outcome is a `TransferResult` event.

        Raises NotCapableError, TransferFailedError (TransferRefusedError where the carrier does no transfers), or
        LegError."""
        ...

    def stop_transfer(self) -> None:
        """Nobody waits for the transfer's outcome any more: undo what can be undone."""
        ...

    def follow_transfer(self, dialled: "Leg") -> None:
        """The answer to `TransferAsked`: `dialled` is the call to its target, just begun. The far party is told how
        it goes; once it is answered, its far party takes the place of ours on this leg (`FarPartyChanged`), and
        `dialled` is over. Raises LegError."""
        ...

    def refuse_transfer(self, status: int) -> None:
        """The other answer to `TransferAsked`, with a SIP status of 400 or more."""
        ...

    def send_dtmf(self, digits: str, *, tone_ms: int = 120, gap_ms: int = 80) -> None:
        """Queue digits (0-9 * # A-D). Raises NotCapableError, or ValueError for another character."""
        ...

    async def hold(self, on: bool) -> None:
        """Put the far party on hold, or take it back. Raises NotCapableError or LegError."""
        ...

    async def music(self, on: bool) -> None:
        """Play the carrier's music on hold to the far party, or stop it: what the playout sends is not heard
        meanwhile, frames keep coming. Raises NotCapableError or LegError."""
        ...

    async def set_variables(self, values: Mapping[str, str]) -> None:
        """Set variables that the carrier's side reads when it has the call again (a dialplan, a screen pop). Names
        match `[A-Za-z_][A-Za-z0-9_]*`. Raises NotCapableError or LegError."""
        ...


PacketTap = Callable[[bool, tuple[str, int], tuple[str, int], bytes], None]
"""Told of each RTP and RTCP packet of a leg: whether it was received, our address, theirs, the packet in clear."""


@runtime_checkable
class PacketSource(Protocol):
    """A leg whose media are packets that we see; not every carrier's are."""

    def tap_packets(self, tap: PacketTap) -> Unsubscribe:
        """Show `tap` every packet from now on."""
        ...
