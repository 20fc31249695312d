"""Reliable provisional responses (RFC 3262), as the one who sends them: repeated until their PRACK comes."""

import random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bridge.sip.body import sdp_of
from bridge.sip.events import EarlyAnswer
from bridge.sip.message import Request, Response
from bridge.sip.timers import Timers
from bridge.sip.transaction import InviteServer, NonInviteServer

if TYPE_CHECKING:
    from bridge.sip.call import Call

Build = Callable[[int, str, bytes | None, Iterable[tuple[str, str]]], Response]
"""Makes a response to the INVITE of a status, reason, SDP and further headers."""

_MAX_FIRST_RSEQ = 2**31 - 1


@dataclass(frozen=True, slots=True)
class RAck:
    """What a PRACK acknowledges (RFC 3262 7.2)."""

    rseq: int
    cseq: int
    method: str

    @classmethod
    def parse(cls, text: str) -> "RAck | None":
        """None for what can't be read."""
        parts = text.split()
        if len(parts) != 3 or not all(part.isascii() and part.isdigit() and len(part) <= 10 for part in parts[:2]):
            return None
        return cls(int(parts[0]), int(parts[1]), parts[2])


class ReliableResponses:
    """Those of the INVITE that made a call, one at a time: the next waits for the PRACK of the one before."""

    def __init__(self, call: "Call", request: Request, transaction: InviteServer, build: Build) -> None:
        config = call.layer.config
        required = request.headers.tokens_of("Require")
        supported = config.reliable != "off" and "100rel" in required | request.headers.tokens_of("Supported")
        self.late_offer = sdp_of(request) is None
        self.agreed = False
        """An offer and its answer were exchanged: the final response brings none."""
        self.timers = Timers(call.layer.queue, self._fire)
        self._always = supported and ("100rel" in required or config.reliable == "required")
        self._with_sdp = supported
        self._call = call
        self._request = request
        self._cseq = request.cseq.number
        self._transaction = transaction
        self._build = build
        self._rseq = random.randint(1, _MAX_FIRST_RSEQ)
        self._open: tuple[int, Response] | None = None
        self._queue: deque[tuple[int, str, bytes | None]] = deque()
        self._interval = 0.0
        self._final = False

    @property
    def offering(self) -> bool:
        """Our offer went out and its answer, in the PRACK, has not come."""
        return self.late_offer and not self.agreed and self.holds

    @property
    def holds(self) -> bool:
        """A 2xx has to wait: a response with SDP is not acknowledged (RFC 3262 3)."""
        return self._open is not None and bool(self._open[1].body)

    @property
    def outstanding(self) -> bool:
        """A response is not acknowledged."""
        return self._open is not None

    def serves(self, sdp: bytes | None) -> bool:
        """Whether a provisional response with this SDP is to be sent reliably."""
        return self._always or (self._with_sdp and sdp is not None)

    def send(self, status: int, reason: str, sdp: bytes | None, now: float) -> None:
        """Send a provisional response, or keep it until the one before is acknowledged."""
        if self._open is not None:
            self._queue.append((status, reason, sdp))
            return
        if self.agreed:
            # The session is described; another description would be another offer (RFC 3264 4).
            sdp = None
        self._rseq += 1
        fields = (("Require", "100rel"), ("RSeq", str(self._rseq)))
        response = self._build(status, reason, sdp, fields)
        self._open = self._rseq, response
        if sdp is not None and not self.late_offer:
            self.agreed = True
            self._call.offers.agreed_on(sdp, sdp_of(self._request))
        self._transaction.respond(response, now)
        self._interval = self._call.layer.config.timers.t1
        self.timers.set("repeat", now + self._interval)
        self.timers.set("no PRACK", now + self._call.layer.config.timers.give_up)

    def receive(self, request: Request, transaction: NonInviteServer, now: float) -> None:
        """A PRACK came."""
        call = self._call
        rack = RAck.parse(request.headers.get("RAck") or "")
        if self._open is None or rack != RAck(self._open[0], self._cseq, "INVITE"):
            transaction.respond(call.response(request, 481), now)
            return
        response, self._open = self._open[1], None
        self.timers.stop_all()
        sdp = sdp_of(request)
        if sdp is not None and self.late_offer and not self.agreed and response.body:
            self.agreed = True
            call.offers.agreed_on(response.body, sdp)
            transaction.respond(call.response(request, 200), now)
            call.emit(EarlyAnswer(call.key, sdp))
        elif (
            sdp is not None
            and self.agreed
            and not self._final
            and not (call.offers.theirs_open or call.offers.ours_open)
        ):
            call.updates.take_offer(request, transaction, sdp, now)
        else:
            transaction.respond(call.response(request, 200), now)
        if self._queue and not self._final:
            self.send(*self._queue.popleft(), now)
        call.release(now)

    def finish(self) -> None:
        """A final response goes out: nothing is repeated or newly sent, a late PRACK is still answered."""
        self._final = True
        self._queue.clear()
        self.timers.stop_all()

    def _fire(self, name: str, now: float) -> None:
        if name == "repeat" and self._open is not None:
            self._transaction.respond(self._open[1], now)
            self._interval *= 2
            self.timers.set("repeat", now + self._interval)
        elif name == "no PRACK":
            self._call.never_pracked(now)
