"""A call in fake time whose agent can call somebody else: a telephone that rings, and who may pick it up."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol

from agents_call import Call, echo_script
from agents_engines import Step
from agents_loopback import LoopbackLeg

from bridge.agents.base import AgentDone, CallSession, QueueView
from bridge.events import Answered, Cause, LegEnded
from bridge.legs.base import Leg, LegError, LegInfo, LegState
from bridge.parties import CallParts
from bridge.providers.base import LlmRequest
from bridge.transfers import TransferLimits, Transfers


class Phone(LoopbackLeg):
    """Somebody's telephone, called by us."""

    def __init__(self, target: str) -> None:
        super().__init__()
        self.info = LegInfo("loopback", "outbound", "agent", target, "test", "leg-2", "127.0.0.1:5060")
        self.state = LegState.OFFERED
        self.clock: asyncio.Task[None] | None = None

    def pick_up(self) -> None:
        self.state = LegState.UP
        self.clock = asyncio.create_task(self.run_clock())
        self.tell(Answered())

    async def hang_up(self, cause: Cause = Cause.CALLER_HUNG_UP, status: int | None = None) -> None:
        """They do: `status` for who never took the call."""
        if self._ended is None:
            self.state = LegState.ENDED
            self._ended = LegEnded(cause, by="far", status=status)
            self.tell(self._ended)


class AnyCall(Protocol):
    """A call of any kind of agent, not yet begun."""

    leg: LoopbackLeg
    session: CallSession
    events: list[Any]
    task: "asyncio.Task[AgentDone]"

    @property
    def now(self) -> float: ...
    async def until(self, condition: Callable[[], object], *, limit_s: float = 60) -> None: ...


class Desk:
    """What a call's agent can call: `phones` are those that it did."""

    def __init__(self, call: AnyCall, *, queues: QueueView | None = None, nobody: bool = False) -> None:
        """`nobody`: no telephone can be called."""
        self.phones: list[Phone] = []
        self._call = call
        self._nobody = nobody
        parts = CallParts(
            call.leg,
            call.events.append,
            lambda: call.now * 1000,
            lambda cause, detail: None,
            lambda: not call.task.done(),
            self._dismiss,
        )
        self.transfers = Transfers(parts, self._dial, TransferLimits())
        call.leg.subscribe(self.transfers.on_leg_event)
        call.session = replace(call.session, leg=self.transfers.line, introductions=self.transfers, queues=queues)

    def _dismiss(self) -> None:
        self._call.task.cancel()

    async def _dial(self, target: str, caller: Leg, *, headers: object = (), timeout_s: float) -> Leg:
        if self._nobody:
            raise LegError("no trunk leads there")
        phone = Phone(target)
        self.phones.append(phone)

        def unanswered() -> None:
            if phone.state is LegState.OFFERED:
                self._late = asyncio.ensure_future(phone.hang_up(Cause.NO_ANSWER, 408))

        asyncio.get_running_loop().call_later(timeout_s, unanswered)
        return phone

    async def rings(self) -> Phone:
        """The telephone that is called next, which rings."""
        count = len(self.phones)
        await self._call.until(lambda: len(self.phones) > count)
        return self.phones[-1]

    async def close(self) -> None:
        """The call is over."""
        await self.transfers.close(Cause.CALLER_HUNG_UP)
        for phone in self.phones:
            if phone.clock is not None:
                phone.clock.cancel()
                with suppress(asyncio.CancelledError):
                    await phone.clock


class DeskCall(Call):
    """A conversation agent's call with a desk."""

    def __init__(
        self,
        script: Callable[[LlmRequest], Sequence[Step]] = echo_script,
        *,
        queues: QueueView | None = None,
        nobody: bool = False,
        **settings: Any,
    ) -> None:
        super().__init__(script, **settings)
        self.desk = Desk(self, queues=queues, nobody=nobody)
        self.transfers = self.desk.transfers

    async def hang_up(self) -> float:
        took = await super().hang_up()
        await self.desk.close()
        return took

    async def rings(self) -> Phone:
        return await self.desk.rings()

    def heard_by(self, phone: Phone) -> str:
        """The words that were said to whoever picked it up."""
        return " ".join(word for _, word in self.wire(leg=phone))

    def noise_to_caller(self, since: float) -> bool:
        """Whether the caller heard anything but words since then (s since the answer): a tone."""
        frames = [frame for at, frame in self.leg.sent if at - self.answered_at >= since]
        return any(any(frame) and self.code.word(frame) is None for frame in frames)
