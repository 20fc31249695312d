"""What comes of the transfer that is under way: what the carrier tells of it, and who is told."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from bridge.agent_line import AgentLine
from bridge.events import Cause, LegEnded, LegEvent, TransferResult
from bridge.legs.base import LegStateError
from bridge.parties import CallParts

NO_OUTCOME = TransferResult(408, "the carrier did not tell how the transfer went")


def went_well(result: TransferResult) -> bool:
    return 200 <= result.status < 300


class TransferOutcome:
    """Of one call, whose transfers come one after the other."""

    def __init__(self, call: CallParts, line: AgentLine) -> None:
        self._call = call
        self._line = line
        self._told: asyncio.Future[TransferResult] | None = None
        """By the carrier's leg; None: no transfer is under way."""
        self._free = asyncio.Event()
        """No transfer is under way."""
        self._free.set()
        self._keep = False
        """What the carrier tells is not the whole outcome: the agent is told that later."""
        self._kept: TransferResult | None = None
        """What it told."""

    @property
    def pending(self) -> bool:
        """A transfer is under way."""
        return self._told is not None

    def begin(self) -> None:
        """A transfer is under way. Raises LegStateError: another one is."""
        if self._told is not None:
            raise LegStateError("another transfer is under way")
        self._told = asyncio.get_running_loop().create_future()
        self._free.clear()

    def end(self) -> None:
        """It is over."""
        self._told = None
        self._free.set()

    async def settled(self) -> None:
        """Wait for the end of the transfer that is under way, if any."""
        await self._free.wait()

    async def of_carrier(self, limit_s: float) -> TransferResult:
        """What came of our request, as the carrier's leg tells within `limit_s`; else NO_OUTCOME."""
        assert self._told is not None
        try:
            async with asyncio.timeout(limit_s):
                return await self._told
        except TimeoutError:
            self._call.leg.stop_transfer()
            return NO_OUTCOME

    def tell(self, result: TransferResult) -> TransferResult:
        """What the carrier's leg did not tell itself."""
        self._call.tell(result)
        self._line.tell(result)
        return result

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Within, the agent is not told what the carrier tells (`tell_kept`)."""
        self._keep = True
        try:
            yield
        finally:
            self._keep = False

    def tell_kept(self) -> None:
        """The carrier has done it: the agent may know."""
        kept, self._kept = self._kept, None
        if kept is not None and went_well(kept):
            self._line.tell(kept)

    def tell_agent(self, event: LegEvent) -> None:
        """An event of the caller's leg, on record already."""
        if self._keep and isinstance(event, TransferResult):
            self._kept = event
            return
        if isinstance(event, LegEnded):
            # A carrier that joins two calls ends both at once: the agent is to know why.
            self.tell_kept()
        self._line.tell(event)

    def on_leg_event(self, event: LegEvent) -> None:
        """The same event, once all who stand in between know of it."""
        waited_for = self._told is not None and not self._told.done()
        match event:
            case TransferResult() if self._told is not None and waited_for:
                self._told.set_result(event)
            case TransferResult() if self._told is None and went_well(event):
                # Nobody waited any longer, but the caller is with somebody else.
                self._call.end(Cause.TRANSFERRED, "the carrier told so late")
            case LegEnded() if self._told is not None and waited_for:
                self._told.set_result(TransferResult(487, f"the call ended: {event.cause.value}"))
            case _:
                pass
