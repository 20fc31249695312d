"""The Asterisk leg: a channel in our Stasis application, with a bridge and a media channel of its own, as a `Leg`."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from typing import Any, Protocol

import structlog

from bridge.asterisk.ari import Ari
from bridge.asterisk.ari_errors import AriError, AriNotFoundError, AriRefusedError
from bridge.asterisk.ari_events import (
    AriEvent,
    Channel,
    ChannelDestroyed,
    ChannelDtmfReceived,
    ChannelHangupRequest,
    ChannelHold,
    ChannelUnhold,
    ChannelVarset,
    StasisEnd,
)
from bridge.asterisk.settings import AsteriskSettings
from bridge.audio.frames import FrameSink, Unsubscribe
from bridge.audio.playout import Playout
from bridge.causes import NORMAL_CLEARING, clearing_of, refusal_of
from bridge.events import (
    Answered,
    Cause,
    DtmfReceived,
    FarPartyChanged,
    Held,
    LegEnded,
    LegEvent,
    LegNote,
    MediaSetUp,
    OneWay,
    OneWayAudio,
    Resumed,
    TransferResult,
)
from bridge.legs.asterisk.audio import LegAudio
from bridge.legs.asterisk.caller_line import CallerLine
from bridge.legs.asterisk.dead_man import DeadMan, DeadManLimit
from bridge.legs.asterisk.digits import DIGITS, Digits
from bridge.legs.asterisk.ends import end_of_channel, end_unseen
from bridge.legs.asterisk.failures import leg_error
from bridge.legs.asterisk.line import CallLine
from bridge.legs.asterisk.media import LegMedia
from bridge.legs.asterisk.release import Release, outcome_variables, set_all, status_of
from bridge.legs.asterisk.transfer import Transfers
from bridge.legs.asterisk.waiting import Waiting
from bridge.legs.asterisk.whereabouts import whereabouts
from bridge.legs.base import (
    Capability,
    Leg,
    LegError,
    LegInfo,
    LegState,
    LegStateError,
    MediaQuality,
    NotCapableError,
    PacketTap,
)
from bridge.legs.media import MediaCrashed, MediaExpired, StreamEvent
from bridge.legs.subscribers import Subscribers
from bridge.legs.supervision import Supervision
from bridge.variables import is_name

log = structlog.get_logger(__name__)

LAST_WORD_S = 1.0
"""A request found the channel gone: the event that says why comes within this, unless it was lost."""


class AsteriskSide(Protocol):
    """What a leg needs of its endpoint."""

    ari: Ari
    settings: AsteriskSettings
    dead_man: DeadMan

    @property
    def early_media(self) -> bool:
        """Whether this Asterisk can let media flow before the answer."""
        ...

    def now(self) -> float:
        """Monotonic time (s)."""
        ...

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> "asyncio.Task[None]":
        """Run it to its end, also when the leg is over."""
        ...

    def release(self, release: Release) -> "asyncio.Task[None]":
        """Give a channel back to Asterisk. The task is the first attempt; others follow by themselves."""
        ...

    def ended(self, leg: "AsteriskLeg") -> None:
        """The leg is over: nothing of the channel is its business any more."""
        ...

    def renamed(self, leg: "AsteriskLeg", former_id: str) -> None:
        """The leg's channel is another one now."""
        ...

    def join(self, first: "AsteriskLeg", second: "AsteriskLeg") -> Coroutine[Any, Any, None]:
        """Have the two channels talk with each other, without us. Raises AriError: then they may be in no bridge."""
        ...

    def part(self, leg: "AsteriskLeg") -> None:
        """The two that were joined are no pair: one of them ended while they were brought together."""
        ...


class AsteriskLeg:
    """One channel. See `bridge.legs.base.Leg`."""

    supervision: Supervision
    """Set by its endpoint."""

    def __init__(self, side: AsteriskSide, channel: Channel, info: LegInfo, line: CallLine) -> None:
        self.refusal: tuple[Cause, str] | None = None
        """Why there is no room for it on its Asterisk; None: there is."""
        self.calling: Callable[[AriEvent], bool] | None = None
        """Of an outbound leg that is not yet answered: sees the channel's events first, True: it dealt with it."""
        self.side = side
        self.channel_id = channel.id
        self.channel_state = channel.state
        """As Asterisk told last: `Ring`, `Up`, ..."""
        self.technology = channel.name.partition("/")[0]
        """Of the channel: `PJSIP`, `DAHDI`, `Local`, ..."""
        self.line = line
        self._info = info
        self._state = LegState.OFFERED
        self._audio = LegAudio(line.transport.sample_rate, self._local_address)
        self.waiting = Waiting(side.ari, side.settings, lambda: self._audio.media)
        self._subscribers = Subscribers()
        self._untold: list[LegEvent] = []
        """Of a call that we make, up to its answer: it may be answered before anybody has it."""
        self._over = asyncio.Event()
        self._answering = False
        self._joined_ms: float | None = None
        """What it took to bring the channel into the bridge, once it is there."""
        self._digits = Digits(side.ari, side.spawn)
        self.dead_man = DeadManLimit(side.dead_man)
        self.caller_line = CallerLine(side.ari, side.spawn)
        self._replaced = False
        """The channel is not the one that the dialplan handed over."""
        self._transfers = Transfers(self)

    # -- the Leg contract -----------------------------------------------------------------------------------

    @property
    def info(self) -> LegInfo:
        return self._info

    @property
    def capabilities(self) -> Capability:
        can = Capability.DTMF_SEND | Capability.DTMF_RECEIVE | Capability.HOLD | Capability.MUSIC
        can |= Capability.TRANSFER | Capability.TRANSFER_REPLACING | Capability.VARIABLES
        if self._info.direction == "inbound":
            can |= Capability.RINGING
            if self.side.early_media:
                can |= Capability.EARLY_MEDIA
        return can

    @property
    def state(self) -> LegState:
        return self._state

    @property
    def sample_rate(self) -> int:
        return self._audio.sample_rate

    @property
    def playout(self) -> Playout:
        """Raises LegStateError before `answer` or `early_media` brought the audio."""
        return self._audio.playout

    @property
    def quality(self) -> MediaQuality:
        return replace(self._audio.quality, caller_line=self.caller_line.quality)

    def listen(self, sink: FrameSink) -> Unsubscribe:
        return self._audio.listen(sink)

    def tap_packets(self, tap: PacketTap) -> Unsubscribe:
        """See `PacketSource`."""
        return self._audio.tap_packets(tap)

    def subscribe(self, handler: Callable[[LegEvent], None]) -> Unsubscribe:
        return self._subscribers.subscribe(handler, self._untold)

    async def ringing(self) -> None:
        if self._state is not LegState.OFFERED or self._info.direction != "inbound":
            return
        self.line.prepare()
        if self.channel_state == "Up":
            return
        try:
            await self.side.ari.ring(self.channel_id)
        except AriError as error:
            # The answer will show whether anything is wrong.
            log.info("ringing not told", channel=self.channel_id, error=str(error))

    async def early_media(self) -> None:
        self._must_be_offered()
        if Capability.EARLY_MEDIA not in self.capabilities:
            raise NotCapableError("this Asterisk has no early media for applications")
        if self._audio.media is not None:
            return
        media = await self._ready()
        await self._ask(self.side.ari.progress(self.channel_id), self._join())
        self._must_be_offered()
        self.attach(media)

    async def answer(self) -> None:
        self._must_be_offered()
        if self._answering:
            raise LegStateError("the call is being answered")
        self._answering = True
        try:
            media = await self._ready()
            requests = [self._join()]
            if self.channel_state != "Up":
                requests.append(self.side.ari.answer(self.channel_id))
            await self._ask(*requests)
        finally:
            self._answering = False
        self._must_be_offered()
        self.attach(media)
        self.go_up()

    async def hangup(self, cause: Cause, detail: str = "") -> None:
        done = self.hang_up(cause, detail)
        if done is not None:
            await asyncio.shield(done)
            await self.caller_line.settled()

    def hang_up(self, cause: Cause, detail: str = "") -> "asyncio.Task[None] | None":
        """`hangup` for callers that can't wait: the task tells the far side. None: it had ended before."""
        if self._state is LegState.ENDED:
            return None
        was_up = self._state is LegState.UP
        reason = clearing_of(cause) if was_up or self._info.direction == "outbound" else refusal_of(cause)[1]
        hang_up = None if self.returns else reason.cause
        said = outcome_variables(status_of(cause, was_up=was_up), cause, detail)
        self.end(LegEnded(cause, detail, "us", None, hang_up))
        waits = self.waiting
        lift = self.dead_man.lift
        release = Release(self.channel_id, said, hang_up=hang_up, music=waits.music, held=waits.holding, lift=lift)
        return self.side.release(release)

    @property
    def returns(self) -> bool:
        """Whether the dialplan gets the channel back when we are through with it."""
        return self.stays and self.side.settings.after == "continue"

    async def transfer(self, target: str, *, replacing: Leg | None = None) -> None:
        self.must_be_up()
        # Its record is written as soon as the channel is gone from us.
        self.caller_line.look()
        await self._transfers.transfer(target, replacing)

    def stop_transfer(self) -> None:
        """Asterisk carries a transfer out, or it does not: there is nothing to undo."""

    def follow_transfer(self, dialled: Leg) -> None:
        raise NotCapableError("Asterisk itself does the transfers that its callers ask for")

    def refuse_transfer(self, status: int) -> None:
        """Nobody asks: Asterisk itself does the transfers of its callers."""

    def send_dtmf(self, digits: str, *, tone_ms: int = 120, gap_ms: int = 80) -> None:
        self.must_be_up()
        self._digits.send(self.channel_id, digits, tone_ms, gap_ms)

    async def hold(self, on: bool) -> None:
        self.must_be_up()
        await self._ask(self.waiting.hold(self.channel_id, on))

    async def music(self, on: bool) -> None:
        self.must_be_up()
        await self._ask(self.waiting.play_music(self.channel_id, on))

    async def set_variables(self, values: Mapping[str, str]) -> None:
        if self._state is LegState.ENDED:
            raise LegStateError("the call has ended")
        if wrong := [name for name in values if not is_name(name)]:
            raise LegError(f"no name of a variable: {wrong[0]!r}")
        await self._ask(set_all(self.side.ari, self.channel_id, values))

    # -- the endpoint's side --------------------------------------------------------------------------------

    def describe(self, headers: Mapping[str, str]) -> None:
        """Add what the channel's variables say, before anybody has seen the leg."""
        self._info = replace(self._info, headers={**self._info.headers, **headers})

    def attach(self, media: LegMedia) -> None:
        """The audio that was set up is this leg's from now on."""
        if self._audio.media is not None:
            return
        media.on_event = self._on_media_event
        self._audio.attach(media)
        transport = self.line.transport
        took_ms = self.line.took_ms + (self._joined_ms or 0.0)
        self.tell(MediaSetUp(transport.kind, transport.codec, round(took_ms, 1)))

    def go_up(self) -> None:
        """The call is answered."""
        self._state = LegState.UP
        self.channel_state = "Up"
        if self._audio.media is not None:
            self._audio.media.await_media()
        if self._info.direction == "outbound":
            self.dead_man.begin(self.channel_id)
        self.dead_man.learn()
        self.caller_line.begin(self.channel_id, self.technology)
        self.tell(Answered())

    def on_ari_event(self, event: AriEvent) -> None:
        if self._state is LegState.ENDED or (self.calling is not None and self.calling(event)):
            return
        match event:
            case ChannelDtmfReceived(digit=digit, duration_ms=duration_ms):
                if digit in DIGITS:
                    self.tell(DtmfReceived(digit, duration_ms))
            case ChannelHold():
                self.waiting.be_held(True)
                # Asterisk plays its music to the bridge for as long, so to us.
                self.tell(Held(music=True))
            case ChannelUnhold():
                self.waiting.be_held(False)
                self.tell(Resumed())
            case ChannelVarset(variable=variable, value=value):
                self.caller_line.told(variable, value)
            case ChannelHangupRequest() | ChannelDestroyed():
                self._far_left(end_of_channel(event, was_up=self._state is LegState.UP))
            case StasisEnd() if not self._transfers.leaving:
                # Nobody hung up.
                self.side.spawn(self._end_elsewhere(), f"whereabouts of {self.channel_id}")
            case _:
                pass

    def on_media_channel_gone(self, detail: str) -> None:
        """Asterisk has ended the media channel, unasked."""
        self.hang_up(Cause.MEDIA_TIMEOUT, detail)

    def lost(self, detail: str) -> None:
        """Asterisk no longer knows the channel, and no event said so."""
        self.end(LegEnded(Cause.SIGNALLING_LOST, detail, "network"))

    def missed(self, detail: str) -> None:
        """The same where Asterisk has been there all the time: it was hung up."""
        self.end(replace(end_unseen(was_up=self._state is LegState.UP), detail=detail))

    async def astray(self) -> None:
        """The channel is out of the application, and no event said so."""
        if self._state is not LegState.ENDED and not self._transfers.leaving:
            await self._end_elsewhere()

    @property
    def stays(self) -> bool:
        """The channel is in the application from its first moment to its last."""
        return self._info.direction == "inbound" and not self._replaced

    def replaced_by(self, channel: Channel) -> None:
        """Another channel has taken the place of ours in the bridge: the far party has transferred us."""
        former, self.channel_id = self.channel_id, channel.id
        self._replaced = True
        self.channel_state = channel.state
        self._info = replace(self._info, id=channel.id, display_name=channel.caller_name)
        self.technology = channel.name.partition("/")[0]
        self.waiting.forget()
        self.side.renamed(self, former)
        self.dead_man.begin(channel.id)
        self.caller_line.begin(channel.id, self.technology)
        # Who transferred hangs up; a phone that does not is no caller of ours any more.
        self.side.release(Release(former, hang_up=NORMAL_CLEARING))
        self.tell(FarPartyChanged(channel.id, self._info.peer, channel.caller_number, "the far party transferred us"))

    def tell(self, event: LegEvent) -> None:
        if self._info.direction == "outbound" and not (self._untold and isinstance(self._untold[-1], Answered)):
            self._untold.append(event)
        self._subscribers.tell(event)

    def end(self, ended: LegEnded) -> None:
        """The leg is over; its bridge and its media channel are deleted."""
        if self._state is LegState.ENDED:
            return
        self._state = LegState.ENDED
        self._over.set()
        self.dead_man.stop()
        self.caller_line.end(there=ended.by == "us")
        self.line.stop()
        self.side.ended(self)
        self._subscribers.end(ended)

    @property
    def expects_audio(self) -> bool:
        """Whether the caller's audio should come at present."""
        return self._state is LegState.UP and self.waiting.is_heard

    async def ended_within(self, limit_s: float) -> bool:
        """Wait for the end of the leg, for so long."""
        try:
            await asyncio.wait_for(self._over.wait(), limit_s)
        except TimeoutError:
            return False
        return True

    def must_be_up(self) -> None:
        if self._state is not LegState.UP:
            raise LegStateError("the call is not up")

    async def is_gone(self) -> bool:
        """Whether the channel is; then its end has been told when this returns."""
        if self._state is not LegState.ENDED:
            try:
                await self.side.ari.channel(self.channel_id)
            except AriNotFoundError:
                pass
            except AriError:
                # An Asterisk that is out of order says nothing of the channel.
                return False
            else:
                return False
            if not await self.ended_within(LAST_WORD_S):
                self.lost("the channel is gone")
        return True

    # -- inside ---------------------------------------------------------------------------------------------

    async def _ready(self) -> LegMedia:
        media = await self.line.ready()
        self._must_be_offered()
        return media

    async def _join(self) -> None:
        """Bring the channel into the bridge, where it may be already. Raises AriError."""
        if self._joined_ms is None:
            begun = self.side.now()
            await self.line.join(self.channel_id)
            self._joined_ms = (self.side.now() - begun) * 1000

    async def _ask(self, *requests: Coroutine[Any, Any, None]) -> None:
        """Carry out requests about our channel, at the same time. Raises LegError; LegStateError, once the end was
        told, where the channel turns out to be gone."""
        results = await asyncio.gather(*requests, return_exceptions=True)
        failed = [result for result in results if isinstance(result, BaseException)]
        if not failed:
            return
        error = failed[0]
        if not isinstance(error, AriError):
            raise error
        if isinstance(error, AriRefusedError) and await self.is_gone():
            raise LegStateError("the call has ended") from error
        raise leg_error(error) from error

    def _far_left(self, ended: LegEnded) -> None:
        if self._transfers.referring:
            done = "the far end took the transfer and hung up"
            self.tell(TransferResult(200, done))
            ended = LegEnded(Cause.TRANSFERRED, done, "far")
        self.end(ended)

    async def _end_elsewhere(self) -> None:
        """The channel has left the application, not by our wish."""
        was_up = self._state is LegState.UP
        self.end(await whereabouts(self.side.ari, self.channel_id, self.dead_man, self.side.now, was_up=was_up))

    def _local_address(self) -> str:
        try:
            return self.side.ari.local_address()
        except AriError:
            return "0.0.0.0"

    def _on_media_event(self, event: StreamEvent) -> None:
        match event:
            case MediaExpired(detail=detail):
                # Before the answer nobody promised any media.
                if self._state is LegState.UP:
                    self.hang_up(Cause.MEDIA_TIMEOUT, detail)
            case MediaCrashed(detail=detail):
                self.hang_up(Cause.INTERNAL_ERROR, detail)
            case DtmfReceived():
                # The channel's own events say the same, whatever the media goes by.
                pass
            case OneWayAudio(reason=OneWay.NOT_HEARD):
                self.tell(event)
                self.side.spawn(self._tell_where(), f"one-way audio of {self.channel_id}")
            case _:
                self.tell(event)

    async def _tell_where(self) -> None:
        """On which stretch the caller's audio is lost: to Asterisk, or from there to us."""
        heard = await self.caller_line.is_heard()
        if heard is not None and self._state is LegState.UP:
            why = "gets the caller's packets: they are lost between it and us"
            if not heard:
                why = "gets no packets of the caller either: they are not sent, or lost on their way to it"
            self.tell(LegNote("one-way-audio", f"Asterisk {why}"))

    def _must_be_offered(self) -> None:
        if self._state is LegState.ENDED:
            raise LegStateError("the call has ended")
        if self._info.direction != "inbound" or self._state is LegState.UP:
            raise LegStateError("only an inbound call that is not yet answered can be answered")
