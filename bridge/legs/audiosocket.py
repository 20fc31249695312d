"""The leg of a dialplan without ARI: a call that comes by AudioSocket() alone (Asterisk 18 and later).

All there is of it is a UUID and its audio. Who calls, and where the caller goes afterwards, passes by
`bridge.asterisk.dialplan_calls`: the dialplan says and asks it over HTTP.
"""

import asyncio
from collections.abc import Callable, Mapping

import structlog

from bridge.asterisk.audiosocket import ConnectionOver
from bridge.asterisk.dialplan_calls import Announcement, DialplanCalls, LiveError
from bridge.audio.frames import FrameSink, Unsubscribe
from bridge.audio.playout import Playout
from bridge.events import Answered, Cause, DtmfReceived, LegEnded, LegEvent, MediaSetUp, TransferResult
from bridge.legs.audiosocket_server import AudioSocketConnection, AudioSocketServer
from bridge.legs.base import (
    Capability,
    Leg,
    LegError,
    LegInfo,
    LegState,
    LegStateError,
    MediaQuality,
    NotCapableError,
    TransferFailedError,
    TransferRefusedError,
)
from bridge.legs.frame_stream import FrameStream
from bridge.legs.media import MediaCrashed, MediaExpired, StreamEvent
from bridge.legs.subscribers import Subscribers
from bridge.rtp.format import RtpLimits
from bridge.targets import SipTarget, TargetError, parse_target

CODEC = "slin"
RATE_HZ = 8000
"""All that AudioSocket() has, whatever the caller's codec."""

DIGIT_MS = 100
"""Asterisk does not say how long a key was held."""

log = structlog.get_logger(__name__)


class AudioSocketLeg:
    """One call. See `bridge.legs.base.Leg`. The dialplan has answered it already."""

    def __init__(
        self,
        endpoint: "AudioSocketEndpoint",
        connection: AudioSocketConnection,
        announced: Announcement | None,
        stream: FrameStream,
    ) -> None:
        self.refusal: tuple[Cause, str] | None = None
        self._endpoint = endpoint
        self._connection = connection
        self._announced = announced
        self._stream = stream
        self.uuid = connection.uuid
        known = announced or Announcement(follows=False)
        self._info = LegInfo(
            kind="audiosocket",
            direction="inbound",
            from_=known.from_,
            to=known.to,
            trunk=endpoint.trunk,
            id=str(self.uuid),
            peer=connection.peer,
            display_name=known.display_name,
            headers=known.variables,
            agent=known.agent,
        )
        self._state = LegState.OFFERED
        self._subscribers = Subscribers()
        self._digits_came = False
        stream.on_event = self._on_media_event
        connection.on_digit = self._on_digit
        connection.on_over = self._on_over
        connection.send_silence()

    # -- the Leg contract -----------------------------------------------------------------------------------

    @property
    def info(self) -> LegInfo:
        return self._info

    @property
    def capabilities(self) -> Capability:
        """Digits: of an Asterisk that is known to send them, or has. Transfers and variables: where the dialplan
        announced the call, and asks for them afterwards."""
        can = Capability.NONE
        announced = self._announced
        if self._digits_came or (announced is not None and announced.sends_digits):
            can |= Capability.DTMF_RECEIVE
        if announced is not None and announced.follows:
            can |= Capability.TRANSFER | Capability.VARIABLES
        return can

    @property
    def state(self) -> LegState:
        return self._state

    @property
    def sample_rate(self) -> int:
        return self._stream.sample_rate

    @property
    def playout(self) -> Playout:
        return self._stream.playout

    @property
    def quality(self) -> MediaQuality:
        return self._stream.quality

    def listen(self, sink: FrameSink) -> Unsubscribe:
        return self._stream.listen(sink)

    def subscribe(self, handler: Callable[[LegEvent], None]) -> Unsubscribe:
        return self._subscribers.subscribe(handler)

    async def ringing(self) -> None:
        """The caller hears no ringing: the dialplan answered."""

    async def early_media(self) -> None:
        if self._state is not LegState.OFFERED:
            raise LegStateError(f"the call {self.uuid} is answered or over")
        raise NotCapableError("a call by AudioSocket is answered before it comes to us")

    async def answer(self) -> None:
        if self._state is not LegState.OFFERED:
            raise LegStateError(f"the call {self.uuid} is answered or over")
        self._state = LegState.UP
        self._connection.end_silence()
        self._stream.start()
        self._stream.await_media()
        self._tell(MediaSetUp("audiosocket", CODEC, 0.0))
        self._tell(Answered())

    async def hangup(self, cause: Cause, detail: str = "") -> None:
        self._end(LegEnded(cause, detail, "us"))

    async def transfer(self, target: str, *, replacing: Leg | None = None) -> None:
        self._must_be_up()
        if Capability.TRANSFER not in self.capabilities:
            raise NotCapableError(
                "the dialplan did not announce the call: it would not ask where its caller is to go"
            )
        if replacing is not None:
            raise TransferRefusedError("a dialplan without ARI can't join two calls", 501)
        try:
            parsed = parse_target(target)
        except TargetError as error:
            raise TransferFailedError(str(error), 400) from error
        if isinstance(parsed, SipTarget):
            raise TransferRefusedError("a dialplan dials numbers and endpoints of its own, no SIP URI", 501)
        self._endpoint.calls.send_to(self.uuid, target)
        # The request is accepted first, as everywhere; then the caller is let go.
        asyncio.get_running_loop().call_soon(self._let_go, target)

    def stop_transfer(self) -> None:
        """There is nothing to undo: the caller is with the dialplan."""

    def follow_transfer(self, dialled: Leg) -> None:
        raise NotCapableError("a caller by AudioSocket asks for no transfer")

    def refuse_transfer(self, status: int) -> None:
        """Nobody asked for one."""

    def send_dtmf(self, digits: str, *, tone_ms: int = 120, gap_ms: int = 80) -> None:
        self._must_be_up()
        raise NotCapableError("AudioSocket takes no digits")

    async def hold(self, on: bool) -> None:
        self._must_be_up()
        raise NotCapableError("AudioSocket knows no hold")

    async def music(self, on: bool) -> None:
        raise NotCapableError("AudioSocket knows no music on hold")

    async def set_variables(self, values: Mapping[str, str]) -> None:
        if Capability.VARIABLES not in self.capabilities:
            raise NotCapableError("the dialplan did not announce the call: it would not ask for variables")
        if self._state is LegState.ENDED:
            raise LegStateError(f"the call {self.uuid} is over")
        try:
            self._endpoint.calls.set_variables(self.uuid, values)
        except ValueError as error:
            raise LegError(str(error)) from error

    # -- inside ---------------------------------------------------------------------------------------------

    def _must_be_up(self) -> None:
        if self._state is not LegState.UP:
            raise LegStateError(f"the call {self.uuid} is not up")

    def _let_go(self, target: str) -> None:
        if self._state is LegState.UP:
            self._tell(TransferResult(200, "the dialplan goes on with the caller"))
            self._end(LegEnded(Cause.TRANSFERRED, target, "us"))

    def _on_digit(self, digit: str) -> None:
        self._digits_came = True
        if self._state is LegState.UP:
            self._tell(DtmfReceived(digit, DIGIT_MS))

    def _on_over(self, event: ConnectionOver) -> None:
        if not event.far_hung_up:
            self._end(LegEnded(Cause.SIGNALLING_LOST, event.detail, "network"))
        elif self._state is LegState.OFFERED:
            self._end(LegEnded(Cause.CANCELLED, event.detail, "far"))
        else:
            self._end(LegEnded(Cause.CALLER_HUNG_UP, event.detail, "far"))

    def _on_media_event(self, event: StreamEvent) -> None:
        match event:
            case MediaExpired(detail=detail):
                self._end(LegEnded(Cause.MEDIA_TIMEOUT, detail, "network"))
            case MediaCrashed(detail=detail):
                self._end(LegEnded(Cause.INTERNAL_ERROR, detail, "us"))
            case _:
                self._tell(event)

    def _end(self, ended: LegEnded) -> None:
        if self._state is LegState.ENDED:
            return
        was_up = self._state is LegState.UP
        self._state = LegState.ENDED
        # Before the connection is closed: the dialplan asks at once.
        self._endpoint.left(self, ended, was_up=was_up)
        self._stream.close()
        self._subscribers.end(ended)

    def _tell(self, event: LegEvent) -> None:
        self._subscribers.tell(event)


class AudioSocketEndpoint:
    """Makes a leg of each connection whose UUID no call of ours expects."""

    def __init__(
        self,
        server: AudioSocketServer,
        trunk: str,
        calls: DialplanCalls,
        on_leg: Callable[[AudioSocketLeg], None],
        limits: RtpLimits,
    ) -> None:
        """`on_leg` takes each leg as it is offered, or refuses it by `hangup`."""
        self.trunk = trunk
        self.calls = calls
        self.legs: dict[str, AudioSocketLeg] = {}
        """The live ones, by id."""
        self._server = server
        self._on_leg = on_leg
        self._limits = limits
        self._began = 0
        server.on_unknown = self._take

    def readings(self) -> Mapping[str, float]:
        """For the metrics."""
        return {
            "audiosocket_calls": float(len(self.legs)),
            "audiosocket_calls_total": float(self._began),
            "audiosocket_announced_total": float(self.calls.announced),
            "audiosocket_announced_expired_total": float(self.calls.expired),
        }

    def left(self, leg: AudioSocketLeg, ended: LegEnded, *, was_up: bool) -> None:
        """A leg is over."""
        del self.legs[leg.info.id]
        self.calls.end(leg.uuid, ended.cause, ended.detail, self._server.clock.time(), was_up=was_up)

    def _take(self, connection: AudioSocketConnection) -> None:
        try:
            announced = self.calls.begin(connection.uuid, self._server.clock.time())
        except LiveError as error:
            self._server.complain("a call came twice", connection, f"{error}: each call needs a UUID of its own")
            connection.refuse("duplicate-uuid")
            return
        self._began += 1
        leg = AudioSocketLeg(self, connection, announced, connection.open_media(CODEC, RATE_HZ, self._limits))
        self.legs[leg.info.id] = leg
        if announced is None:
            log.info(
                "a call by AudioSocket that nobody announced",
                uuid=leg.info.id,
                peer=connection.peer,
                detail="it has no number, and its agent can send it nowhere: the dialplan announces it by POST "
                "/api/audiosocket/UUID with our API key (a wrong one is logged as such)",
            )
        self._on_leg(leg)
