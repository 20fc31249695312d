"""The endpoint of one Asterisk: its ARI, the calls that its dialplan hands over, and what is left of them."""

import asyncio
import os
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import structlog

from bridge.asterisk.arguments import named_arguments
from bridge.asterisk.ari import Ari
from bridge.asterisk.ari_errors import AriError
from bridge.asterisk.ari_events import (
    AriEvent,
    Channel,
    ChannelDestroyed,
    ChannelDtmfReceived,
    ChannelHangupRequest,
    ChannelHold,
    ChannelStateChange,
    ChannelUnhold,
    ChannelVarset,
    Connected,
    Dial,
    RecordingFailed,
    RecordingFinished,
    StasisEnd,
    StasisStart,
)
from bridge.asterisk.settings import AsteriskSettings, MediaKind
from bridge.asterisk.status import ARI_STATES, AsteriskStatus
from bridge.audio.clock import MediaClock
from bridge.causes import NORMAL_CLEARING
from bridge.events import Cause
from bridge.legs.asterisk.asked import AsteriskCall
from bridge.legs.asterisk.dead_man import DeadMan
from bridge.legs.asterisk.joined import JoinedPairs, delete_bridge
from bridge.legs.asterisk.leg import AsteriskLeg
from bridge.legs.asterisk.line import CallLine
from bridge.legs.asterisk.media import MediaTransport
from bridge.legs.asterisk.names import Names, is_made
from bridge.legs.asterisk.outbound import CallLimitError, place
from bridge.legs.asterisk.reconcile import DEFAULT_WAITS, Known, Reconciler, Waits
from bridge.legs.asterisk.recording import SpoolRecording
from bridge.legs.asterisk.release import Release
from bridge.legs.asterisk.snoop import Supervisors
from bridge.legs.base import LegInfo

log = structlog.get_logger(__name__)

RETRY_S = 1.0
LONGEST_RETRY_S = 8.0
"""Between two attempts to give a channel back: at first, and at most."""
CLOSE_S = 2.0
"""On top of a request's limit, what is under way may take when the endpoint closes."""


class AsteriskEndpoint:
    """Turns channels of the Stasis application into legs."""

    def __init__(
        self,
        settings: AsteriskSettings,
        *,
        clock: MediaClock,
        transports: Mapping[MediaKind, MediaTransport],
        on_leg: Callable[[AsteriskLeg], None],
        media_of: Callable[[LegInfo], MediaKind | None] = lambda info: None,
        environ: Mapping[str, str] = os.environ,
        waits: Waits = DEFAULT_WAITS,
    ) -> None:
        """`on_leg` is given each call that comes in. `media_of` says by what the audio of a call is to reach us where
        its route has a wish; None: as the settings say."""
        self.settings = settings
        self.names = Names(settings.app)
        self.ari = Ari(settings, self._on_event, environ=environ)
        self._clock = clock
        self._transports = transports
        self._on_leg = on_leg
        self._media_of = media_of
        self._legs: dict[str, AsteriskLeg] = {}
        """By the id of their channel."""
        self._media: dict[str, AsteriskLeg] = {}
        """By the id of their media channel."""
        self._lines: dict[str, CallLine] = {}
        """By stem: of calls that are not quite over."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._watched: dict[str, Callable[[AriEvent], None]] = {}
        """By the id of a supervisor's or a recording's channel."""
        self._releasing: set[str] = set()
        """Ids of channels that are being given back: nobody attends to them, and nobody is to."""
        self._placing = 0
        """Calls of ours that are not yet legs."""
        self._refusing = ""
        self._closing = False
        self._progress = False
        self._counts = dict.fromkeys(("taken", "refused"), 0)
        self.dead_man = DeadMan(self.ari, settings, self.now, self.spawn)
        self.joined = JoinedPairs(self.ari, settings, self.names, self.release, self._delete_bridge)
        """Pairs of parties that an attended transfer left talking with each other."""
        self._reconciler = Reconciler(self, waits)

    def start(self) -> None:
        """Connect, now and whenever the connection is lost."""
        self._reconciler.start()
        self.ari.start()

    async def aclose(self) -> None:
        """Give back what is left, wait until all that is ours is deleted, and leave Asterisk. Joined parties talk on;
        the next process finds them."""
        self.refuse_new("the bridge is stopping")
        self._closing = True
        for leg in self.legs:
            leg.hang_up(Cause.DRAINED, "the bridge stopped")
        await self._reconciler.aclose()
        until = self.now() + self.settings.request_s + CLOSE_S
        while self._tasks and (left := until - self.now()) > 0:
            await asyncio.wait(set(self._tasks), timeout=left)
        for task in self._tasks:
            log.warning("left undone on Asterisk", task=task.get_name())
            task.cancel()
        await self.ari.aclose()

    @property
    def peer(self) -> str:
        """Where its ARI is, `host:port`."""
        return urlsplit(self.settings.url).netloc

    @property
    def legs(self) -> Sequence[AsteriskLeg]:
        return tuple(self._legs.values())

    @property
    def busy(self) -> bool:
        """Something is still to be deleted, or given back."""
        return bool(self._tasks)

    def refuse_new(self, reason: str) -> None:
        """Calls go on in the dialplan at once, from now on."""
        self._refusing = reason

    def accept_new(self) -> None:
        self._refusing = ""

    def take_up(self, settings: AsteriskSettings, transports: Mapping[MediaKind, MediaTransport]) -> None:
        """Other settings for this Asterisk, with all but its name and application; for calls from now on. See
        `Ari.take_up` for the connection."""
        self.settings = self.joined.settings = self.dead_man.settings = settings
        self._transports = transports
        self.spawn(self.ari.take_up(settings), f"changed settings of {settings.name}")

    async def look(self) -> None:
        """Compare what Asterisk has with what is known, now. Raises AriError."""
        await self._reconciler.look()

    def status(self) -> AsteriskStatus:
        """How it stands; what its manager interface does is not known here."""
        ari, settings = self.ari, self.settings
        return AsteriskStatus(
            name=settings.name,
            url=settings.url,
            app=settings.app,
            state=ari.state,
            since=ari.state_since,
            last_error=ari.last_error,
            last_error_at=ari.last_error_at,
            version=ari.version,
            rest_over_socket=ari.rest_over_socket,
            calls=len(self._legs),
            max_calls=settings.calls,
            media=settings.media,
            orphans_cleaned=self._reconciler.orphans_cleaned,
            joined=len(self.joined),
        )

    def readings(self) -> Mapping[str, float]:
        """For the metrics."""
        name = self.settings.name
        now = {
            "up": self.ari.state == "up",
            "calls": len(self._legs),
            "joined": len(self.joined),
            "orphans_cleaned_total": self._reconciler.orphans_cleaned,
            "callers_found_total": self._reconciler.callers_found,
        }
        now |= {f"calls_{what}_total": count for what, count in self._counts.items()}
        return (
            {f'asterisk_{what}{{asterisk="{name}"}}': float(value) for what, value in now.items()}
            | {f'asterisk_ari_{what}_total{{asterisk="{name}"}}': float(n) for what, n in self.ari.counters.items()}
            | {
                f'asterisk_state{{asterisk="{name}",state="{state}"}}': float(state == self.ari.state)
                for state in ARI_STATES
            }
        )

    # -- what legs need ---------------------------------------------------------------------------------------

    @property
    def early_media(self) -> bool:
        return self._progress

    def now(self) -> float:
        return self._clock.time()

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> "asyncio.Task[None]":
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a call's task failed", task=task.get_name(), exc_info=error)

    def release(self, release: Release) -> "asyncio.Task[None]":
        self._releasing.add(release.channel_id)
        return self.spawn(self._release(release), f"release of {release.channel_id}")

    async def _release(self, release: Release) -> None:
        """Once; if Asterisk can't be asked, again and again in the background."""
        if await release.carry_out(self.ari) or self._closing:
            self._releasing.discard(release.channel_id)
            return
        log.info("channel not given back yet, trying again", channel=release.channel_id)
        self.spawn(self._release_later(release), f"later release of {release.channel_id}")

    async def _release_later(self, release: Release) -> None:
        pause_s = RETRY_S
        done = False
        while not done:
            await asyncio.sleep(pause_s)
            # An attempt without an answer may have succeeded, and the dialplan may have handed the channel over anew.
            done = self._closing or release.channel_id in self._legs or await release.carry_out(self.ari)
            pause_s = min(2 * pause_s, LONGEST_RETRY_S)
        self._releasing.discard(release.channel_id)

    def adopt(self, leg: AsteriskLeg) -> None:
        """Tell `leg` the events of its channel, and of its media channel, from now on."""
        self._legs[leg.channel_id] = leg
        self._media[leg.line.media_id] = leg
        leg.supervision = Supervisors(leg, self)
        if self.settings.recording == "asterisk":
            SpoolRecording(leg, self)

    def ended(self, leg: AsteriskLeg) -> None:
        self._legs.pop(leg.channel_id, None)
        self._media.pop(leg.line.media_id, None)
        self.spawn(leg.line.close(), f"end of {leg.line.bridge_id}")

    def renamed(self, leg: AsteriskLeg, former_id: str) -> None:
        self._legs.pop(former_id, None)
        self._legs[leg.channel_id] = leg

    async def join(self, first: AsteriskLeg, second: AsteriskLeg) -> None:
        await self.joined.join(first.channel_id, second.channel_id)

    def part(self, leg: AsteriskLeg) -> None:
        self.joined.dissolve(leg.channel_id)

    def _delete_bridge(self, bridge_id: str) -> None:
        self.spawn(delete_bridge(self.ari, bridge_id), f"end of {bridge_id}")

    def known(self) -> Known:
        """What is ours, for who looks through what Asterisk has."""
        self._lines = {stem: line for stem, line in self._lines.items() if not line.over}
        channels = frozenset(self._legs) | self.joined.channels | self._releasing
        return Known(channels, frozenset(self._lines), self.joined.bridges)

    async def place(self, call: AsteriskCall, *, timeout_s: float = 60.0) -> AsteriskLeg:
        """Call somebody: see `bridge.legs.asterisk.outbound.place`. Raises CallLimitError as well."""
        if self._refusing:
            raise CallLimitError(self._refusing)
        limit = self.settings.calls
        # With those that are being made: many requests at once must not pass the limit together.
        if limit is not None and len(self._legs) + self._placing >= limit:
            raise CallLimitError(f"{limit} calls are live on {self.settings.name} (calls)")
        self._placing += 1
        try:
            return await place(self, call, timeout_s=timeout_s)
        finally:
            self._placing -= 1

    def watch(self, channel_id: str, handler: Callable[[AriEvent], None]) -> None:
        """Tell `handler` the events of a channel that a leg has besides its own, and that of its recording."""
        self._watched[channel_id] = handler

    def unwatch(self, channel_id: str) -> None:
        self._watched.pop(channel_id, None)

    def new_line(self, info: LegInfo) -> CallLine:
        """The bridge and media channel of a call, not yet made."""
        kind = self._media_of(info) or self.settings.media
        stem = self.names.new_leg()
        line = self._lines[stem] = CallLine(self.ari, self._transports[kind], self.names, stem, self.now)
        return line

    # -- what comes in ----------------------------------------------------------------------------------------

    def _on_event(self, event: AriEvent) -> None:
        match event:
            case StasisStart(channel=channel, args=args):
                self._started(channel, args, event.replaces)
            case (
                ChannelDtmfReceived(channel=channel)
                | ChannelHold(channel=channel)
                | ChannelUnhold(channel=channel)
                | ChannelHangupRequest(channel=channel)
                | ChannelDestroyed(channel=channel)
                | ChannelStateChange(channel=channel)
                | StasisEnd(channel=channel)
                | Dial(peer=channel)
            ):
                if (leg := self._legs.get(channel.id)) is not None:
                    leg.on_ari_event(event)
                elif self.joined.has_channel(channel.id):
                    if isinstance(event, ChannelHangupRequest | ChannelDestroyed | StasisEnd):
                        self.joined.left(channel.id)
                elif (watcher := self._watched.get(channel.id)) is not None:
                    watcher(event)
                elif isinstance(event, ChannelDestroyed) and (leg := self._media.get(channel.id)) is not None:
                    leg.on_media_channel_gone(f"Asterisk ended the media channel: {event.cause_text}")
            case ChannelVarset(channel=Channel(id=channel_id)):
                if (leg := self._legs.get(channel_id)) is not None:
                    leg.on_ari_event(event)
            case RecordingFailed(target_uri=uri) | RecordingFinished(target_uri=uri):
                if (watcher := self._watched.get(uri.removeprefix("channel:"))) is not None:
                    watcher(event)
            case Connected():
                self.spawn(self._look_around(), f"look at {self.settings.name}")
            case _:
                pass

    async def _look_around(self) -> None:
        """What Asterisk can do, and what it has of ours."""
        self._reconciler.look_soon()
        try:
            await self.ari.request("OPTIONS", "channels/none/progress", over_http=True)
            self._progress = True
        except AriError:
            # Asterisks before that resource say 404.
            self._progress = False

    def _started(self, channel: Channel, args: tuple[str, ...], replaces: Channel | None) -> None:
        if replaces is not None:
            self._replaced(replaces.id, channel)
        elif self.names.is_own(channel.id):
            # One that nobody waits for any more.
            self.release(Release(channel.id, hang_up=NORMAL_CLEARING))
        elif is_made(channel.id):
            # Of a process that we have taken the application from: its calls go on.
            self._reconciler.look_soon()
        elif channel.id not in self._legs:
            self.take(channel, args)

    def _replaced(self, former_id: str, channel: Channel) -> None:
        """A phone has transferred its call: another channel is in its place, in its bridge."""
        if (leg := self._legs.get(former_id)) is not None:
            leg.replaced_by(channel)
        elif self.joined.has_channel(former_id):
            self.joined.replaced(former_id, channel.id)
        else:
            log.info("a channel took the place of one that is none of ours", channel=channel.id, former=former_id)

    def take(self, channel: Channel, args: tuple[str, ...], *, found: bool = False) -> None:
        """A call that comes in. `found`: it was in the application already, with a process before us perhaps."""
        info = self._info(channel, args)
        leg = AsteriskLeg(self, channel, info, self.new_line(info))
        self.adopt(leg)
        leg.refusal = self._refusal()
        self._counts["taken" if leg.refusal is None else "refused"] += 1
        if leg.refusal is None or found:
            leg.dead_man.begin(channel.id, channel.context, found=found)
        if self.settings.variables and leg.refusal is None:
            self.spawn(self._offer(leg), f"offer of {channel.id}")
        else:
            self._on_leg(leg)

    def _refusal(self) -> tuple[Cause, str] | None:
        """Why the call that has just come in is not taken."""
        if self._refusing:
            return Cause.REFUSED_DRAINING, self._refusing
        limit = self.settings.calls
        if limit is not None and len(self._legs) > limit:
            return Cause.REFUSED_BUSY, f"{limit} calls are live on {self.settings.name} (calls)"
        return None

    async def _offer(self, leg: AsteriskLeg) -> None:
        """Hand the call on with the variables that its agent is to see."""
        names = self.settings.variables
        asked = (self.ari.get_variable(leg.channel_id, name) for name in names)
        found = await asyncio.gather(*asked, return_exceptions=True)
        values = {name.lower(): value for name, value in zip(names, found, strict=True) if isinstance(value, str)}
        for error in {str(value) for value in found if isinstance(value, AriError)}:
            log.warning("a variable could not be read", channel=leg.channel_id, error=error)
        leg.describe(values)
        if leg.channel_id in self._legs:
            self._on_leg(leg)

    def _info(self, channel: Channel, args: Sequence[str]) -> LegInfo:
        named = named_arguments(args)
        headers = {**named, "asterisk-channel": channel.name, "asterisk-context": channel.context}
        if channel.protocol_id:
            headers["call-id"] = channel.protocol_id
        return LegInfo(
            kind="asterisk",
            direction="inbound",
            from_=channel.caller_number,
            to=named.get("did") or channel.extension,
            trunk=self.settings.name,
            id=channel.id,
            peer=self.peer,
            display_name=channel.caller_name,
            headers=headers,
            agent=named.get("agent", ""),
        )
