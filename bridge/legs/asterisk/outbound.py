"""Calls that we make through an Asterisk: a channel is created, brought into the call's bridge, then dialled.

Dialled in the bridge (not by `originate`, which brings a channel to the application once it is answered), a channel
lets us hear what comes before the answer: ringback tones, announcements.
"""

import asyncio
import math
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bridge.asterisk.ari import Ari
from bridge.asterisk.ari_errors import AriError, AriNotFoundError, AriRefusedError
from bridge.asterisk.ari_events import (
    AriEvent,
    Channel,
    ChannelDestroyed,
    ChannelHangupRequest,
    ChannelStateChange,
    Dial,
    StasisEnd,
)
from bridge.asterisk.ari_wire import segment
from bridge.causes import NORMAL_CLEARING
from bridge.events import AnsweredBy, Cause, LegEnded, LegEvent, Progress
from bridge.legs.asterisk.amd import AmdLostError, detect
from bridge.legs.asterisk.asked import AsteriskCall
from bridge.legs.asterisk.catch_up import CatchUp
from bridge.legs.asterisk.ends import DIAL_STATUSES, end_of_call, end_of_dialling, refusal
from bridge.legs.asterisk.failures import leg_error
from bridge.legs.asterisk.leg import AsteriskLeg
from bridge.legs.asterisk.line import CallLine
from bridge.legs.asterisk.names import called_of
from bridge.legs.asterisk.release import Release, set_all
from bridge.legs.base import (
    LegError,
    LegInfo,
    LegState,
    PeerDownError,
    PeerRefusedError,
    UnknownTargetError,
)
from bridge.variables import as_values

if TYPE_CHECKING:
    from bridge.legs.asterisk.endpoint import AsteriskEndpoint

DEAD_MAN_S = 5
"""Asterisk's own limit comes so much later than ours: it is for a bridge that has died meanwhile."""

ABSENT = 20
"""Q.850: the subscriber is not registered."""


class CallLimitError(LegError):
    """No call more at present: the limit of this Asterisk is reached, or the bridge stops."""


class AbsentError(LegError):
    """The endpoint is known, but no phone is registered for it."""


# -- the way of a call, by Asterisk's events ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PickedUp:
    """The called party has taken the call."""


Step = Progress | PickedUp | LegEnded


class CallProgress:
    """Reads the events of a channel that is dialled, until it is over."""

    def __init__(self) -> None:
        self.dialled = False
        """Asterisk has begun to call."""
        self.picked_up = False
        self.ended = False
        self._told: set[int] = set()

    def step(self, event: AriEvent) -> Step | None:
        """What an event means; None: nothing new."""
        if self.ended:
            return None
        match event:
            case Dial(status=""):
                self.dialled = True
            case Dial(status="RINGING") | ChannelStateChange(channel=Channel(state="Ringing")):
                return self._progress(Progress(180))
            case Dial(status="PROGRESS"):
                return self._progress(Progress(183, early_media=True))
            case Dial(status="ANSWER") | ChannelStateChange(channel=Channel(state="Up")):
                if not self.picked_up:
                    self.dialled = self.picked_up = True
                    return PickedUp()
            case Dial(status=status) if status in DIAL_STATUSES and not self.picked_up:
                # A dialplan may play its busy tone without end before it hangs up.
                self.ended = True
                return refusal(DIAL_STATUSES[status], status)
            case ChannelDestroyed():
                self.ended = True
                return end_of_call(event) if self.picked_up else end_of_dialling(event, dialled=self.dialled)
        return None

    def _progress(self, progress: Progress) -> Progress | None:
        self.dialled = True
        if self.picked_up or progress.status in self._told:
            return None
        self._told.add(progress.status)
        return progress


# -- carrying it out ----------------------------------------------------------------------------------------------


async def place(endpoint: "AsteriskEndpoint", call: AsteriskCall, *, timeout_s: float) -> AsteriskLeg:
    """Make a call. Returns the leg as soon as Asterisk has been told to dial, with its audio; its events tell the
    rest. A call that is not answered within `timeout_s` from then ends with `no-answer`.

    Raises LegError: UnknownTargetError for what there is not, MediaUnavailableError without a free port,
    PeerDownError, PeerRefusedError. An endpoint that is not registered is no error: the leg has ended then."""
    ari, settings = endpoint.ari, endpoint.settings
    if ari.state != "up":
        raise PeerDownError(f"no connection to Asterisk {settings.name!r}: {ari.last_error or ari.state}")
    info = LegInfo(
        kind="asterisk",
        direction="outbound",
        from_=call.caller_number,
        to=call.shown_to or call.endpoint,
        trunk=settings.name,
        id="",
        peer=endpoint.peer,
    )
    line = endpoint.new_line(info)
    channel_id = called_of(line.stem)
    absent: AbsentError | None = None
    channel = Channel(channel_id, call.endpoint, "Down")
    try:
        media = await line.ready()
        if call.queue:
            await _must_have(ari, line.media_id, call.queue)
        # The other party of a bridge is who calls: our media channel, so the number is put there. What is set on the
        # called channel itself is lost when it comes into the bridge.
        await _asked(set_all(ari, line.media_id, _caller(call)), call.endpoint)
        # With the media channel as originator the called one prefers its codec, and has its linked id in CDRs.
        channel = await create(
            ari,
            channel_id,
            call.endpoint,
            originator=line.media_id,
            variables=_variables(call),
            wait_s=settings.request_s,
        )
    except AbsentError as error:
        absent = error
    except BaseException:
        endpoint.spawn(_undo(endpoint, line, channel_id), f"end of {channel_id}")
        raise
    known = {"asterisk-channel": channel.name, "call-id": channel.protocol_id}
    info = replace(info, id=channel_id, headers={name: value for name, value in known.items() if value})
    leg = AsteriskLeg(endpoint, channel, info, line)
    endpoint.adopt(leg)
    if absent is not None:
        leg.end(refusal(ABSENT, str(absent)))
        return leg
    leg.attach(media)
    _Calling(leg, call, timeout_s)
    try:
        await line.join(channel_id)
        await ari.dial(channel_id, caller=line.media_id, timeout_s=math.ceil(timeout_s) + DEAD_MAN_S)
    except AriError as error:
        if leg.state is not LegState.ENDED:
            leg.hang_up(Cause.SIGNALLING_LOST, str(error))
            raise leg_error(error, f"{call.endpoint!r} could not be called") from error
    except BaseException:
        leg.hang_up(Cause.CANCELLED, "nobody waits for the call any more")
        raise
    return leg


async def create(
    ari: Ari,
    channel_id: str,
    endpoint: str,
    *,
    originator: str = "",
    variables: Mapping[str, str] | None = None,
    wait_s: float,
) -> Channel:
    """A channel to `endpoint`, in the application, not yet dialled. Raises LegError: AbsentError for an endpoint that
    is not registered, UnknownTargetError, PeerDownError, PeerRefusedError; after each of them there may be a channel
    all the same."""
    with ari.entering(channel_id) as entering:
        try:
            await ari.create_channel(channel_id, endpoint, originator=originator, variables=variables)
            return await entering.wait(wait_s)
        except AriRefusedError as error:
            if await _is_absent(ari, endpoint):
                raise AbsentError(f"{endpoint} is not registered") from error
            raise PeerRefusedError(f"Asterisk can't call {endpoint!r}: {error}") from error
        except AriError as error:
            raise leg_error(error, f"{endpoint!r} could not be called") from error


async def _asked(request: Awaitable[None], endpoint: str) -> None:
    """Raises LegError."""
    try:
        await request
    except AriError as error:
        raise leg_error(error, f"{endpoint!r} could not be called") from error


def _caller(call: AsteriskCall) -> dict[str, str]:
    shown = {"CALLERID(num)": call.caller_number, "CALLERID(name)": call.caller_name}
    return {name: value for name, value in shown.items() if value}


def _variables(call: AsteriskCall) -> dict[str, str]:
    headers = {f"PJSIP_HEADER(add,{name})": value for name, value in call.headers}
    return headers | as_values(call.variables)


async def _is_absent(ari: Ari, endpoint: str) -> bool:
    """Whether a PJSIP endpoint that could not be called is known, but not registered. Raises UnknownTargetError
    where there is no such endpoint."""
    technology, _, resource = endpoint.partition("/")
    if technology.upper() != "PJSIP":
        return False
    name = resource.partition("/")[0].rpartition("@")[2]
    try:
        found = await ari.request("GET", f"endpoints/PJSIP/{segment(name)}")
    except AriNotFoundError:
        raise UnknownTargetError(f"Asterisk has no endpoint PJSIP/{name}") from None
    except AriError:
        return False
    return isinstance(found, dict) and found.get("state") != "online"


async def _must_have(ari: Ari, channel_id: str, queue: str) -> None:
    """Raises UnknownTargetError where there is no such queue: its context may answer, for a mailbox, all the same."""
    try:
        found = await ari.get_variable(channel_id, f"QUEUE_EXISTS({queue})")
    except AriRefusedError:
        # Without app_queue it can't be told, and the context decides.
        return
    except AriError as error:
        raise leg_error(error, f"queue {queue!r} could not be called") from error
    if found == "0":
        raise UnknownTargetError(f"Asterisk has no queue {queue!r}")


async def _undo(endpoint: "AsteriskEndpoint", line: CallLine, channel_id: str) -> None:
    await line.close()
    await endpoint.release(Release(channel_id, hang_up=NORMAL_CLEARING))


class _Calling:
    """A leg that is not up yet: its channel's events carried out."""

    def __init__(self, leg: AsteriskLeg, call: AsteriskCall, timeout_s: float) -> None:
        self._leg = leg
        self._call = call
        self._progress = CallProgress()
        self._analysing = False
        leg.calling = self._on_event
        self._limit = asyncio.get_running_loop().call_later(timeout_s, self._give_up)
        self._catch_up = CatchUp(leg.side.ari, leg.channel_id, self._seen, leg.side.spawn)
        leg.subscribe(self._on_leg_event)

    def _on_event(self, event: AriEvent) -> bool:
        match event:
            case Dial() | ChannelStateChange() | ChannelDestroyed():
                step = self._progress.step(event)
            case ChannelHangupRequest() | StasisEnd():
                # What ended it, or where it is meanwhile, is told by what comes next.
                return True
            case _:
                return False
        match step:
            case Progress():
                self._leg.tell(step)
            case PickedUp():
                self._limit.cancel()
                if self._call.amd:
                    self._leg.side.spawn(self._analyse(), f"answering machine detection on {self._leg.channel_id}")
                else:
                    self._go_up()
            case LegEnded():
                self._over(step, there=isinstance(event, Dial))
        return True

    def _seen(self, channel: Channel | None) -> None:
        """How it stands; one that is gone is the endpoint's to notice."""
        if channel is not None and self._leg.calling is not None:
            self._on_event(ChannelStateChange(channel))

    def _over(self, ended: LegEnded, *, there: bool) -> None:
        leg = self._leg
        if there:
            leg.side.release(Release(leg.channel_id, hang_up=ended.q850 or NORMAL_CLEARING))
        if self._analysing:
            leg.tell(AnsweredBy("hung-up", "the called party hung up while it was analysed"))
        leg.end(ended)

    def _go_up(self) -> None:
        leg = self._leg
        leg.calling = None
        self._catch_up.stop()
        leg.go_up()

    async def _analyse(self) -> None:
        """Go up when it is known who took the call, or end."""
        leg = self._leg
        self._analysing = True
        try:
            settings = leg.side.settings
            found = await detect(leg.side.ari, leg.channel_id, settings.amd_context, limit_s=settings.amd_s)
            if found.left and found.result.who != "hung-up" and leg.state is LegState.OFFERED:
                await leg.line.join(leg.channel_id)
        except (AmdLostError, AriError) as error:
            leg.hang_up(Cause.SIGNALLING_LOST, str(error))
            return
        finally:
            self._analysing = False
        if leg.state is not LegState.OFFERED:
            return
        leg.tell(found.result)
        if found.result.who == "hung-up":
            leg.lost("the channel is gone")
        elif found.result.who == "machine" and self._call.on_machine == "hangup":
            leg.hang_up(Cause.AGENT_HUNG_UP, f"an answering machine took the call: {found.result.detail}")
        else:
            self._go_up()

    def _give_up(self) -> None:
        if self._leg.state is LegState.OFFERED:
            self._leg.hang_up(Cause.NO_ANSWER, "nobody answered in time")

    def _on_leg_event(self, event: LegEvent) -> None:
        if isinstance(event, LegEnded):
            self._limit.cancel()
            self._catch_up.stop()
