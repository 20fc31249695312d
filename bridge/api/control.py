"""What the HTTP API asks of the bridge; `app.py` answers."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Literal, Protocol

from bridge.capture import Capture
from bridge.events import AgentPart
from bridge.legs.supervision import Supervision
from bridge.second_leg import Meanwhile
from bridge.sip.trace import TracedMessage
from bridge.transfers import TransferMode
from bridge.trunks.guard import Ban
from bridge.trunks.status import TrunkStatus


@dataclass(frozen=True, slots=True)
class LiveCall:
    """A call that is ringing or up, now."""

    id: str
    direction: Literal["inbound", "outbound"]
    from_: str
    to: str
    trunk: str
    agent: str
    leg_kind: str
    leg_id: str
    started_at: float
    """Unix time (s)."""
    answered_at: float | None
    """Unix time (s); None while it rings."""
    quality: dict[str, float] = field(default_factory=dict)
    """Numbers of its media so far."""
    codec: str = ""
    srtp: str = ""
    one_way: str = ""
    names: tuple[str, ...] = ()
    """What its legs are called by others, besides `leg_id`."""


MachineWish = Literal["off", "talk", "hangup"]
"""Answering machines: not looked for; told apart, and talked to all the same; hung up on."""


@dataclass(frozen=True, slots=True)
class DialRequest:
    """A call to be made: whom to dial, and the agent that talks once they answer."""

    to: str
    """SIP URI, or a number for a trunk to call."""
    agent: str
    """An agent of the configuration; the API has not checked that there is one."""
    from_: str = ""
    """User part or number to call from; empty: the bridge's default."""
    timeout_s: float = 30.0
    """Give up when nobody has answered by then."""
    trunk: str = ""
    """The trunk to call by; empty: straight to the URI."""
    headers: tuple[tuple[str, str], ...] = ()
    """X- headers for the INVITE, as far as the trunk allows them."""
    caller_name: str = ""
    """These three by an Asterisk alone: the name to call by,"""
    variables: tuple[tuple[str, str], ...] = ()
    """channel variables,"""
    machine: MachineWish = "off"
    """and whether answering machines are told from people."""


class DialRefused(Exception):
    """The bridge won't dial: no such agent (404), draining or full (503), a destination it may not call (403)."""

    def __init__(self, status: int, code: str, message: str) -> None:
        """`status` is HTTP's; `code` a word for programs (`draining`, `no-such-agent`); `message` for people."""
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


class CallVerbs(Protocol):
    """What can be done to a call that is live. Each raises LegError; LegStateError where it does not fit the state of
    the call."""

    def begin_transfer(self, target: str, mode: TransferMode = "auto", *, announce: str = "") -> None:
        """Hand the caller over; the outcome is on record. `announce` is told to who answers before (`attended`)."""
        ...

    def begin_consult(self, target: str, *, caller: Meanwhile = "waits") -> None:
        """Dial a second leg; the outcome is on record."""
        ...

    def bridge(self, agent: AgentPart = "muted") -> None:
        """Join the caller with the second party."""
        ...

    def unbridge(self) -> None:
        """Give the caller back to the agent; the second party waits."""
        ...

    async def release(self) -> None:
        """Let the second party go."""
        ...

    async def hold(self, on: bool) -> None:
        """Put the caller on hold, or take it back."""
        ...

    def send_dtmf(self, digits: str) -> None:
        """Press keys at the caller's far end. Raises ValueError for what are no digits."""
        ...

    async def set_variables(self, values: Mapping[str, str]) -> None:
        """Set variables that the carrier's side reads when it has the call again."""
        ...


class BridgeControl(Protocol):
    """The running bridge. Everything is called on the event loop's thread."""

    def ready(self) -> tuple[bool, Sequence[str]]:
        """Whether new calls are taken, and if not, why: starting, draining, overloaded, each a short sentence."""
        ...

    def live_calls(self) -> Sequence[LiveCall]:
        """Every call that has started and not ended."""
        ...

    async def dial(self, request: DialRequest) -> str:
        """Start a call and return its id at once, before anybody answers. Raises DialRefused."""
        ...

    async def hang_up(self, call_id: str) -> bool:
        """End the call; False if no such call is live. Returns when the end is under way."""
        ...

    def trunk_status(self) -> Sequence[TrunkStatus]:
        """Every configured trunk; times are Unix times (s)."""
        ...

    def register_again(self, trunk: str) -> bool:
        """Don't wait for a registration's next attempt; False: no such trunk registers."""
        ...

    def bans(self) -> Sequence[Ban]:
        """The bans that stand; times are Unix times (s)."""
        ...

    def lift_ban(self, source: str) -> bool:
        """End the ban of an address or IPv6 /64; False: it is not banned. ValueError for what is no address."""
        ...

    def on_call(self, call_id: str) -> CallVerbs | None:
        """The verbs of a live call; None if no such call is live."""
        ...

    def supervision(self, call_id: str) -> Supervision | None:
        """Of a live call; None if no such call is live. Raises NotCapableError where its carrier can't do it."""
        ...

    def leg_ids(self, call_id: str) -> Sequence[str] | None:
        """What the other sides call the legs of a live call (SIP Call-IDs); None if no such call is live."""
        ...

    def sip_messages(self, leg_ids: Sequence[str]) -> Sequence[TracedMessage]:
        """The SIP messages of these Call-IDs that are still kept, oldest first."""
        ...

    def capture(self, call_id: str) -> AbstractContextManager[Capture] | None:
        """A capture of a live call's packets, to be begun by entering it; None if no such call is live."""
        ...

    def captures(self) -> int:
        """Captures that are being taken now."""
        ...
