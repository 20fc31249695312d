"""Supervisors of an Asterisk call: a phone of theirs, in a bridge with a snoop channel on the caller's channel.

A snoop hears and speaks into the caller's channel itself: the call's own bridge stays as it is, simple and without
delay.
"""

import asyncio
import itertools
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from bridge.asterisk.ari import Ari
from bridge.asterisk.ari_errors import AriError, AriNotFoundError
from bridge.asterisk.ari_events import AriEvent, Channel, ChannelDestroyed, ChannelStateChange, StasisEnd
from bridge.asterisk.ari_verbs import Direction
from bridge.asterisk.settings import AsteriskSettings
from bridge.events import FarPartyChanged, LegEnded, LegEvent, LegNote
from bridge.legs.asterisk.asked import asterisk_call
from bridge.legs.asterisk.catch_up import CatchUp
from bridge.legs.asterisk.failures import leg_error
from bridge.legs.asterisk.names import Names, snoop_of, supervisor_bridge_of, supervisor_of
from bridge.legs.asterisk.outbound import CallProgress, PickedUp, create
from bridge.legs.base import LegError, LegState, LegStateError
from bridge.legs.supervision import Mode, NoSuchSupervisorError, Supervisor
from bridge.variables import as_value

if TYPE_CHECKING:
    from bridge.legs.asterisk.leg import AsteriskLeg

log = structlog.get_logger(__name__)

RING_S = 30
"""A supervisor who does not answer by then is not waited for."""

NOTE = "supervisor"

_SPEAKS_TO: Mapping[Mode, Direction] = {"listen": "none", "whisper": "in", "barge": "both"}
"""Where the supervisor's words go. `in` is what comes from the caller's channel: what the agent hears."""

_DOES: Mapping[Mode, str] = {"listen": "listens", "whisper": "speaks to the agent alone", "barge": "speaks to both"}


class SnoopSide(Protocol):
    """What supervision needs of the endpoint."""

    ari: Ari
    settings: AsteriskSettings
    names: Names

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> "asyncio.Task[None]": ...

    def watch(self, channel_id: str, handler: Callable[[AriEvent], None]) -> None: ...

    def unwatch(self, channel_id: str) -> None: ...


class Supervisors:
    """Those of one leg. See `bridge.legs.supervision.Supervision`."""

    def __init__(self, leg: "AsteriskLeg", side: SnoopSide) -> None:
        self.leg = leg
        self.side = side
        self._present: dict[str, _Attended] = {}
        self._count = itertools.count(1)
        self._snoops = itertools.count(1)
        leg.subscribe(self._on_leg_event)

    @property
    def supervisors(self) -> Sequence[Supervisor]:
        return tuple(one.shown for one in self._present.values())

    async def begin(self, endpoint: str, mode: Mode) -> Supervisor:
        leg = self.leg
        if leg.state is not LegState.UP:
            raise LegStateError("only a call that is up can be supervised")
        dialled = asterisk_call(self.side.settings, endpoint).endpoint
        index = next(self._count)
        attended = self._present[str(index)] = _Attended(self, index, endpoint, mode)
        try:
            await attended.call(dialled)
        except BaseException as error:
            attended.leave("" if isinstance(error, LegError) else "nobody waits for it")
            raise
        return attended.shown

    async def change(self, id: str, mode: Mode) -> Supervisor:
        attended = self._find(id)
        await attended.change(mode)
        return attended.shown

    async def stop(self, id: str) -> None:
        done = self._find(id).leave("stopped")
        if done is not None:
            await asyncio.shield(done)

    def new_snoop(self) -> str:
        """The id of another snoop channel."""
        return snoop_of(self.leg.line.stem, next(self._snoops))

    def gone(self, attended: "_Attended") -> None:
        self._present.pop(attended.shown.id, None)

    def note(self, text: str) -> None:
        if self.leg.state is not LegState.ENDED:
            self.leg.tell(LegNote(NOTE, text))

    def _find(self, id: str) -> "_Attended":
        attended = self._present.get(id)
        if attended is None:
            raise NoSuchSupervisorError(f"no supervisor {id!r}; there are: {', '.join(self._present) or 'none'}")
        return attended

    def _on_leg_event(self, event: LegEvent) -> None:
        if isinstance(event, LegEnded):
            for attended in list(self._present.values()):
                attended.leave("the call has ended")
        elif isinstance(event, FarPartyChanged):
            for attended in self._present.values():
                attended.snoop_again()


class _Attended:
    """One supervisor: a phone, a bridge, a snoop channel that is another one in each mode."""

    def __init__(self, supervisors: Supervisors, index: int, endpoint: str, mode: Mode) -> None:
        stem = supervisors.leg.line.stem
        self.shown = Supervisor(str(index), endpoint, mode, "ringing")
        self._supervisors = supervisors
        self._side = supervisors.side
        self._leg = supervisors.leg
        self._channel_id = supervisor_of(stem, index)
        self._bridge_id = supervisor_bridge_of(stem, index)
        self._snoop_id = ""
        self._progress = CallProgress()
        self._changing = asyncio.Lock()
        self._left = False
        self._catch_up: CatchUp | None = None

    async def call(self, dialled: str) -> None:
        """Have the phone ring. Raises LegError."""
        ari, info = self._side.ari, self._leg.info
        # Before the bridge, or its other party, a snoop without a number, would be what the phone shows.
        shown = {"CONNECTEDLINE(num,i)": info.from_, "CONNECTEDLINE(name,i)": info.display_name}
        # Whoever leaves meanwhile is cleared away when this is done.
        async with self._changing:
            self._must_be_here()
            self._side.watch(self._channel_id, self._on_event)
            try:
                await ari.create_bridge(self._bridge_id, name=self._side.names.bridge)
                await create(
                    ari,
                    self._channel_id,
                    dialled,
                    variables={name: as_value(value) for name, value in shown.items() if value},
                    wait_s=self._side.settings.request_s,
                )
                await ari.dial(self._channel_id, timeout_s=RING_S)
                self._catch_up = CatchUp(ari, self._channel_id, self._seen, self._side.spawn)
            except AriError as error:
                raise leg_error(error, f"{self.shown.endpoint} could not be called") from error
            self._must_be_here()
        self._supervisors.note(f"{self.shown.endpoint} is called ({self.shown.mode})")

    async def change(self, mode: Mode) -> None:
        """Raises LegError."""
        async with self._changing:
            self._must_be_here()
            if mode == self.shown.mode:
                return
            former, self.shown = self.shown, replace(self.shown, mode=mode)
            if self.shown.state == "ringing":
                return
            try:
                await self._snoop()
            except AriError as error:
                self.shown = former
                raise leg_error(error, f"{former.endpoint} goes on as it was") from error
        self._note_mode()

    def leave(self, why: str) -> "asyncio.Task[None] | None":
        """Hang up. The task is done when nothing is left; None: it was over before. `why` is for the record; empty:
        it is told otherwise."""
        if self._left:
            return None
        self._left = True
        self._supervisors.gone(self)
        if why:
            self._supervisors.note(f"{self.shown.endpoint} is gone: {why}")
        return self._side.spawn(self._clear(), f"end of supervisor {self._channel_id}")

    def snoop_again(self) -> None:
        """The leg's channel is another one, or the snoop has broken."""
        if self.shown.state == "connected":
            self._side.spawn(self._connect(), f"snooping for {self._channel_id}")

    # -- inside ---------------------------------------------------------------------------------------------

    def _must_be_here(self) -> None:
        if self._left:
            raise LegStateError(f"{self.shown.endpoint} is gone already")

    def _note_mode(self) -> None:
        self._supervisors.note(f"{self.shown.endpoint} {_DOES[self.shown.mode]}")

    def _on_event(self, event: AriEvent) -> None:
        step = self._progress.step(event)
        if isinstance(step, PickedUp):
            self._side.spawn(self._connect(), f"snooping for {self._channel_id}")
        elif isinstance(step, LegEnded):
            self.leave("hung up" if self._progress.picked_up else f"{step.cause.value} ({step.detail})")
        elif isinstance(event, StasisEnd) and self._progress.picked_up:
            self.leave("hung up")

    def _seen(self, channel: Channel | None) -> None:
        if channel is None:
            self.leave("hung up")
        elif not self._left:
            self._on_event(ChannelStateChange(channel))

    def _on_snoop_event(self, event: AriEvent) -> None:
        if isinstance(event, StasisEnd | ChannelDestroyed) and self._leg.state is LegState.UP:
            self.snoop_again()

    async def _connect(self) -> None:
        try:
            async with self._changing:
                if self._left:
                    return
                first = self.shown.state == "ringing"
                await self._snoop()
                self.shown = replace(self.shown, state="connected")
        except AriError as error:
            log.warning("a supervisor can't listen in", channel=self._channel_id, error=str(error))
            self.leave(f"Asterisk can't listen in: {error}")
        else:
            if first:
                self._note_mode()

    async def _snoop(self) -> None:
        """Put a new snoop channel in the place of the one there may be. Raises AriError."""
        ari = self._side.ari
        former, self._snoop_id = self._snoop_id, self._supervisors.new_snoop()
        self._side.unwatch(former)
        try:
            with ari.entering(self._snoop_id) as entering:
                await ari.snoop(self._leg.channel_id, self._snoop_id, spy="both", whisper=_SPEAKS_TO[self.shown.mode])
                await entering.wait(self._side.settings.request_s)
        except AriError:
            await hung_up(ari, self._snoop_id)
            self._snoop_id = former
            raise
        self._side.watch(self._snoop_id, self._on_snoop_event)
        # First this: the two would speak to each other in the bridge.
        await hung_up(ari, former)
        await ari.add_to_bridge(self._bridge_id, self._channel_id, self._snoop_id)

    async def _clear(self) -> None:
        async with self._changing:
            ari = self._side.ari
            if self._catch_up is not None:
                self._catch_up.stop()
            self._side.unwatch(self._channel_id)
            self._side.unwatch(self._snoop_id)
            await asyncio.gather(hung_up(ari, self._channel_id), hung_up(ari, self._snoop_id))
            try:
                await ari.delete_bridge(self._bridge_id)
            except AriNotFoundError:
                pass
            except AriError as error:
                left = self._bridge_id
                log.warning("left on Asterisk until it is looked through again", what=left, error=str(error))


async def hung_up(ari: Ari, channel_id: str) -> None:
    """Hang a channel up; one that has ended, or can't be hung up now, is none of our business."""
    if not channel_id:
        return
    try:
        await ari.hangup(channel_id)
    except AriNotFoundError:
        pass
    except AriError as error:
        log.warning("left on Asterisk until it is looked through again", what=channel_id, error=str(error))
