"""The end of one call: BYE both ways, and what breaks a call off (RFC 3261 15). It is told once, whatever comes."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from bridge.sip.errors import CallStateError
from bridge.sip.events import ByeAnswered, ByeReceived, Cancelled, Event, Lost, LostReason
from bridge.sip.message import Request, Response

if TYPE_CHECKING:
    from bridge.sip.call import Call


class Ending:
    """Ends a call and everything that is under way in it."""

    def __init__(self, call: "Call", tell: Callable[[Event], None], forget: Callable[["Call"], None]) -> None:
        self.closing = False
        """We hang up, or the last event was told: from now on nothing is."""
        self.over = False
        """The agent has forgotten the call."""
        self._call = call
        self._tell = tell
        self._forget = forget
        self._told = False
        self._bye_sent = False
        self._reason = ""
        self._headers: tuple[tuple[str, str], ...] = ()

    def emit(self, event: Event) -> None:
        """Tell the owner, unless it has hung up or was told the end."""
        if not self.closing:
            self._tell(event)

    def finish(self, event: Event | None, now: float, *, forget: bool = True) -> None:
        """Tell the call's end, once; None where the owner knows it. Without `forget` a BYE is still to be sent."""
        self.closing = True
        if not self._told:
            self._told = True
            if event is not None:
                self._tell(event)
        call = self._call
        call.referrals.abandon(now)
        self._abandon_offers(now)
        if forget and not self.over:
            self.over = True
            self._forget(call)

    # -- by us ----------------------------------------------------------------------------------------------

    def bye(self, reason: str, now: float, headers: Iterable[tuple[str, str]] = ()) -> None:
        """Hang up a call that is up; `reason` is a Reason header value, `headers` go with the BYE."""
        call = self._call
        if not call.up:
            raise CallStateError("a call that is not up is cancelled or rejected")
        if self.closing:
            return
        held = next((invite for invite in call.invites.values() if invite.held), None)
        if held is not None:
            # Our 200 never went out, so that there is nothing to say BYE to.
            held.reject(480, "", [("Reason", reason)] if reason else (), now)
            self.finish(ByeAnswered(call.key, 480), now)
            return
        self.closing = True
        call.session.stop()
        self._reason = reason
        self._headers = tuple(headers)
        if call.sending is not None and not call.sending.over:
            call.sending.acknowledge(None)
        # The called side may not send BYE before it has the ACK (RFC 3261 15): else the BYE could come first.
        if not any(invite.initial for invite in call.invites.values()):
            self.send_bye(now)

    def send_bye(self, now: float) -> None:
        """Send the BYE, unless it was sent."""
        if self._bye_sent:
            return
        self._bye_sent = True
        self._abandon_offers(now)
        request = self._call.new_request("BYE")
        if self._reason:
            request.headers.add("Reason", self._reason)
        request.headers.extend(self._headers)
        self._call.send_request(request, self._answered, now)

    def _answered(self, response: Response | None, now: float) -> None:
        if response is None or response.status >= 200:
            self.finish(ByeAnswered(self._call.key, 408 if response is None else response.status), now)

    def _abandon_offers(self, now: float) -> None:
        call = self._call
        if call.sending is not None:
            call.sending.abandon()
        for invite in list(call.invites.values()):
            invite.abandon(now)
        call.invites.clear()
        call.updates.abandon(now)
        call.reinvites.stop()
        call.session.stop()

    # -- by the peer ----------------------------------------------------------------------------------------

    def bye_received(self, request: Request, now: float) -> None:
        """The peer's BYE; it was answered."""
        call, reason = self._call, ", ".join(request.headers.get_all("Reason"))
        if self._bye_sent:
            return
        if self.closing:
            self.finish(ByeAnswered(call.key, 200), now)
        elif not call.established:
            self.finish(Cancelled(call.key, f"bye: {reason}" if reason else "bye"), now)
        else:
            self.finish(ByeReceived(call.key, reason), now)

    # -- by accident ----------------------------------------------------------------------------------------

    def gone(self, method: str, now: float) -> None:
        """The peer said 481: it has no such call."""
        if not self.closing:
            detail = f"the peer does not know the call ({method}: 481)"
            self.finish(Lost(self._call.key, LostReason.GONE, detail), now)

    def unreachable(self, detail: str, now: float) -> None:
        """A request within the dialog was never answered, which ends it (RFC 3261 12.2.1.2)."""
        if not self.closing:
            self.break_off(LostReason.TIMEOUT, detail, now)

    def session_expired(self, interval_s: int, now: float) -> None:
        """Nobody refreshed the session (RFC 4028 10)."""
        self._reason = 'SIP;cause=408;text="Session Expired"'
        self.break_off(LostReason.SESSION_EXPIRED, f"nobody refreshed the session of {interval_s} s", now)

    def break_off(self, reason: LostReason, detail: str, now: float) -> None:
        """Give the call up with a BYE."""
        self.finish(Lost(self._call.key, reason, detail), now, forget=False)
        self.send_bye(now)
