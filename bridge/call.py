"""A call's life: one owner for its leg, its agent, its recording and its record; one cause at the end."""

import asyncio
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from bridge.agents.base import Agent, AgentDone, CallSession, QueueView
from bridge.audio.recording import StereoRecorder
from bridge.audio.voice import OpenVoiceDetector
from bridge.events import (
    Answered,
    CallAnswered,
    CallEnded,
    CallEvent,
    CallStarted,
    Cause,
    FarPartyChanged,
    LegEnded,
    LegEvent,
    LegJoined,
    LegNote,
    Note,
    OneWayAudio,
)
from bridge.legs.base import Capability, Leg, LegError, LegInfo, LegState, MediaQuality
from bridge.names import other_names
from bridge.parties import CallParts
from bridge.second_leg import Dial
from bridge.tracing import CallPackets
from bridge.transfers import DEFAULT_LIMITS, TransferLimits, Transfers

log = structlog.get_logger(__name__)

AGENT_STOP_S = 5.0
"""An agent that is cancelled closes what it opened; one that takes longer is a bug, logged, and left behind."""

CALL_ID_VARIABLE = "OFFHOOK_CALL_ID"

OpenRecording = Callable[[str, int, Callable[[str], None], float], StereoRecorder]
"""(call id, sample rate in Hz, told once why the recording stopped, clock time of the answer) -> the recorder."""


@dataclass(frozen=True, slots=True)
class CallServices:
    """What every call is given."""

    record: Callable[[str, CallEvent], None]
    """Puts an event of the call with this id on the record, the metrics and the live streams. Returns at once."""
    open_voice: OpenVoiceDetector
    open_recording: OpenRecording
    clock: Callable[[], float]
    """Monotonic time (s)."""
    max_call_s: float
    dial: Dial | None = None
    """Calls somebody on behalf of a call's caller; without it only the carrier can transfer."""
    transfer_limits: TransferLimits = DEFAULT_LIMITS
    queues: Callable[[str], QueueView | None] = lambda trunk: None
    """The queues of the telephone system that a trunk (by name) leads to, where they can be looked at."""


def new_call_id() -> str:
    return uuid.uuid4().hex


class Call:
    """One call. `run` is its whole life; whatever happens, what it opened is closed when `run` returns."""

    def __init__(
        self,
        leg: Leg,
        agent: Agent,
        services: CallServices,
        *,
        record: bool,
        call_id: str | None = None,
    ) -> None:
        self.id = call_id or new_call_id()
        self.leg = leg
        self.agent_name = agent.name
        self.started_at = time.time()
        self.answered_at: float | None = None
        """Unix time (s)."""
        self._agent = agent
        self._services = services
        self._record_audio = record
        self._ending: AgentDone | None = None
        self._leg_ended: LegEnded | None = None
        self._ended = asyncio.Event()
        self._answered = asyncio.Event()
        self._agent_task: asyncio.Task[AgentDone] | None = None
        self._agent_dismissed = False
        self._recording: StereoRecorder | None = None
        self._recording_complained = False
        self._zero: float | None = None
        """Clock time of the answer."""
        self.packets = CallPackets()
        self.packets.join(leg.info.id, leg)
        self.names = other_names(leg.info.headers)
        """What its legs are called by others, besides the first one's id."""
        parts = CallParts(leg, self._emit, self._at_ms, self.end, self._agent_present, self._dismiss_agent)
        dial = None if services.dial is None else self._noting(services.dial)
        self.transfers = Transfers(parts, dial, services.transfer_limits)

    def end(self, cause: Cause, detail: str = "") -> None:
        """Ask the call to end. The first cause stays."""
        if self._ending is not None:
            return
        self._ending = AgentDone(cause, detail)
        self._ended.set()
        if self._agent_task is not None:
            self._agent_task.cancel()

    async def run(self) -> None:
        """Take the call (or wait until an outbound one is answered), let the agent talk, end. Never raises."""
        structlog.contextvars.bind_contextvars(call=self.id)
        info = self.leg.info
        self._emit(started_event(self.leg, self.agent_name, self.started_at))
        log.info("call started", agent=self.agent_name, **_shown(info))
        begun = self._services.clock()
        # While the phone rings; the answer does not wait for it.
        warming = asyncio.create_task(self._agent.warm(), name=f"warming of call {self.id}")
        naming = asyncio.create_task(self._name_to_carrier(), name=f"naming of call {self.id}")
        unsubscribe = self.leg.subscribe(self._on_leg_event)
        limit = asyncio.get_running_loop().call_later(self._services.max_call_s, self.end, Cause.MAX_LENGTH)
        try:
            if await self._reach_answer(begun):
                await self._talk()
        except LegError as error:
            self.end(Cause.SIGNALLING_LOST, str(error))
        except asyncio.CancelledError:
            # The bridge stops at once; the task's cancellation must not leave the far side hanging.
            self.end(Cause.DRAINED, "the bridge stopped")
        except Exception as error:
            # The outermost edge of this call's code: it ends, others go on.
            log.exception("call crashed")
            self.end(Cause.INTERNAL_ERROR, f"{type(error).__name__}: {error}")
        finally:
            limit.cancel()
            warming.cancel()
            naming.cancel()
        try:
            await self._warming_stopped(warming)
            await self._close(unsubscribe)
        finally:
            self.packets.over()

    # -- stages ---------------------------------------------------------------------------------------------

    async def _reach_answer(self, begun: float) -> bool:
        """Bring the leg up. False: the call ended before."""
        if self.leg.info.direction == "inbound":
            await self.leg.ringing()
            if self._ending is None:
                await self.leg.answer()
        else:
            waits = [asyncio.ensure_future(self._answered.wait()), asyncio.ensure_future(self._ended.wait())]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
        if self._ending is not None:
            return False
        now = self._services.clock()
        self._zero = now
        self.answered_at = time.time()
        self._emit(CallAnswered(answered_at=self.answered_at, setup_ms=(now - begun) * 1000))
        return True

    async def _talk(self) -> None:
        assert self._zero is not None
        if self._record_audio:
            self._recording = self._services.open_recording(
                self.id, self.leg.sample_rate, self._recording_failed, self._zero
            )
            self.leg.listen(self._recording.caller)
            self.leg.playout.listen(self._recording.agent)
        session = CallSession(
            call_id=self.id,
            leg=self.transfers.line,
            emit=self._emit,
            open_voice=self._services.open_voice,
            clock=self._services.clock,
            answered_at=self._zero,
            introductions=None if self._services.dial is None else self.transfers,
            queues=self._services.queues(self.leg.info.trunk),
        )
        self._agent_task = asyncio.create_task(self._agent.run(session), name=f"agent of call {self.id}")
        task = self._agent_task
        if self._ending is not None:
            task.cancel()
        try:
            waiting = asyncio.ensure_future(self._ended.wait())
            try:
                await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
                if task.done() and self._ending is None and not self.transfers.joined:
                    # A transfer that is under way need not fail because the agent has gone, or crashed.
                    settled = asyncio.ensure_future(self.transfers.settled())
                    await asyncio.wait((settled, waiting), return_when=asyncio.FIRST_COMPLETED)
                    settled.cancel()
                if task.done() and self._ending is None and self.transfers.joined:
                    # The agent left two parties that talk: the call goes on until one of them hangs up.
                    self._note_agent_left(task)
                    await waiting
            finally:
                waiting.cancel()
            if not task.done():
                await asyncio.wait({task}, timeout=AGENT_STOP_S)
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task}, timeout=AGENT_STOP_S)
                if not task.done():
                    log.error("agent does not stop", agent=self.agent_name)
        if not task.done():
            return
        if task.cancelled():
            self.end(Cause.INTERNAL_ERROR, "the agent was cancelled")
        elif (error := task.exception()) is not None:
            log.error("agent crashed", agent=self.agent_name, exc_info=error)
            self.end(Cause.INTERNAL_ERROR, f"{type(error).__name__}: {error}")
        else:
            done = task.result()
            self.end(done.cause, done.detail)

    async def _name_to_carrier(self) -> None:
        """Tell a carrier that keeps variables by which id our record has the call."""
        if Capability.VARIABLES in self.leg.capabilities:
            try:
                await self.leg.set_variables({CALL_ID_VARIABLE: self.id})
            except LegError as error:
                log.info("the carrier was not told the call's id", reason=str(error))

    def _noting(self, dial: Dial) -> Dial:
        """`dial`, whose legs belong to this call."""

        async def dialled(
            target: str, caller: Leg, *, headers: Sequence[tuple[str, str]] = (), timeout_s: float
        ) -> Leg:
            leg = await dial(target, caller, headers=headers, timeout_s=timeout_s)
            self.packets.join(leg.info.id, leg)
            names = other_names(leg.info.headers)
            self.names += (leg.info.id, *names)
            self._emit(LegJoined(leg.info.id, self._at_ms(), names))
            return leg

        return dialled

    def _agent_present(self) -> bool:
        task = self._agent_task
        return task is not None and not task.done() and not self._agent_dismissed

    def _dismiss_agent(self) -> None:
        """The call goes on without its agent."""
        self._agent_dismissed = True
        if self._agent_task is not None:
            self._agent_task.cancel()

    def _note_agent_left(self, task: "asyncio.Task[AgentDone]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("agent crashed", agent=self.agent_name, exc_info=error)
        self._emit(Note("agent-left", "the caller and the second party talk on", self._at_ms()))

    async def _warming_stopped(self, task: "asyncio.Task[None]") -> None:
        await asyncio.wait({task}, timeout=AGENT_STOP_S)
        if not task.done():
            log.error("agent does not stop warming", agent=self.agent_name)
        elif not task.cancelled() and (error := task.exception()) is not None:
            # A bug, which the call need not suffer from.
            log.error("agent crashed while it warmed", agent=self.agent_name, exc_info=error)

    async def _close(self, unsubscribe: Callable[[], None]) -> None:
        assert self._ending is not None
        cause, detail = self._ending.cause, self._ending.detail
        try:
            if self.leg.state is not LegState.ENDED:
                await self.leg.hangup(cause, detail)
        except LegError as error:
            log.warning("leg could not be hung up", error=str(error))
        except Exception:
            # The record must be closed whatever the leg does.
            log.exception("hanging up crashed")
        await self.transfers.close(cause)
        unsubscribe()
        recording: str | None = None
        if self._recording is not None:
            result = await self._recording.close()
            recording = result.path.name if result.path else None
            if result.lost_ms and not result.failure:
                self._emit(Note("recording-incomplete", f"{result.lost_ms:.0f} ms are silence", self._at_ms()))
            elif result.failure and not self._recording_complained:
                self._recording_failed(result.failure)
        self._emit(ended_event(cause, detail, self._leg_ended, recording, self.leg.quality))
        log.info("call ended", cause=cause.value, detail=detail, seconds=round(time.time() - self.started_at, 1))

    # -- what comes in --------------------------------------------------------------------------------------

    def _on_leg_event(self, event: LegEvent) -> None:
        if isinstance(event, LegNote):
            self._emit(Note(event.name, event.detail, self._at_ms()))
            return
        self._emit(event)
        if isinstance(event, FarPartyChanged) and event.id not in self.packets.leg_ids:
            self.packets.leg_ids.append(event.id)
            self.names += (event.id,)
        self.transfers.on_leg_event(event)
        if isinstance(event, OneWayAudio):
            # The media clock that found it does not know whose call it is.
            log.warning("one-way audio", call=self.id, reason=event.reason.value, detail=event.detail)
        elif isinstance(event, LegEnded):
            self._leg_ended = event
            if self.transfers.joined and not self._agent_present():
                # What the agent came to: it put the caller through. Who hung up then is on record beside it.
                self.end(Cause.TRANSFERRED, f"{event.cause.value} {event.detail}".strip())
            self.end(event.cause, event.detail)
        elif isinstance(event, Answered):
            self._answered.set()

    def _recording_failed(self, reason: str) -> None:
        self._recording_complained = True
        log.warning("recording stopped", reason=reason)
        self._emit(Note("recording-unavailable", reason, self._at_ms()))

    def _at_ms(self) -> float:
        return 0.0 if self._zero is None else (self._services.clock() - self._zero) * 1000

    def _emit(self, event: CallEvent) -> None:
        self._services.record(self.id, event)


def started_event(leg: Leg, agent: str, started_at: float) -> CallStarted:
    """The first event of a call on `leg`; `started_at` is Unix time (s)."""
    info = leg.info
    return CallStarted(
        direction=info.direction,
        from_=info.from_,
        to=info.to,
        trunk=info.trunk,
        agent=agent,
        leg_kind=info.kind,
        leg_id=info.id,
        started_at=started_at,
        headers=info.headers,
    )


def ended_event(
    cause: Cause, detail: str, leg: LegEnded | None, recording: str | None, quality: MediaQuality | None = None
) -> CallEnded:
    """The last event of a call, whose leg ended as `leg` says."""
    how = leg or LegEnded(cause)
    return CallEnded(
        cause=cause,
        detail=detail,
        ended_at=time.time(),
        recording=recording,
        quality=quality.numbers() if quality else {},
        by=how.by,
        status=how.status,
        q850=how.q850,
        codec=quality.codec if quality else "",
        srtp=quality.srtp if quality else "",
        one_way=quality.one_way if quality else "",
    )


async def refuse(leg: Leg, cause: Cause, detail: str, record: Callable[[str, CallEvent], None]) -> None:
    """Turn a call away before an agent has it; it is on record all the same."""
    call_id = new_call_id()
    record(call_id, started_event(leg, "", time.time()))
    ended: list[LegEnded] = []
    await leg.hangup(cause, detail)
    leg.subscribe(lambda event: ended.append(event) if isinstance(event, LegEnded) else None)
    record(call_id, ended_event(cause, detail, ended[0] if ended else None, None))
    log.info("call refused", call=call_id, cause=cause.value, detail=detail, **_shown(leg.info))


def _shown(info: LegInfo) -> dict[str, str]:
    """For the log: who calls whom by what, and as what the call is found in the logs of others. No empty ones."""
    named = {"trunk": info.trunk, "leg": info.id, "channel": info.headers.get("asterisk-channel", "")}
    shown = {"direction": info.direction, "from_": info.from_, "to": info.to}
    return shown | {name: value for name, value in named.items() if value}
