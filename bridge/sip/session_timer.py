"""Session timers (RFC 4028): a call whose far side has vanished is noticed, and ended."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bridge.sip.errors import SipSyntaxError
from bridge.sip.grammar import get_param, parse_params
from bridge.sip.message import Request, Response
from bridge.sip.settings import Refusal, UserAgentConfig
from bridge.sip.timers import Timers

if TYPE_CHECKING:
    from bridge.sip.call import Call
    from bridge.sip.uac import ClientInvite

SHORTEST_S = 90
"""No interval is shorter (RFC 4028 5); what a peer says below that is taken for this."""

_LAST_CALL_S = 32.0
"""The BYE of an expired session leaves so much before its end (or a third of it), to be through in time (10)."""

_BUSY_S = 2.0
"""How long a refresh waits for another exchange within the call, which is a refresh itself."""

_RETRY_S = 30.0
"""How soon a refresh that was refused is tried again."""

_MAX_RAISES = 5
"""How often a longer interval may be asked of us within one call: each proxy on the way has one wish, and a peer that
wants more and more never takes any."""

# Answers to an UPDATE that say nothing about UPDATE as such.
_NOT_THE_METHOD = (401, 403, 407, 422, 491)


@dataclass(frozen=True, slots=True)
class SessionExpires:
    """The field of that name."""

    interval_s: int
    refresher: str = ""
    """`uac` or `uas`: in a request, who of the two is to refresh; "" leaves it open."""

    @classmethod
    def parse(cls, text: str) -> "SessionExpires":
        """Raises SipSyntaxError."""
        seconds, semicolon, params = text.partition(";")
        number = _seconds(seconds)
        if number is None:
            raise SipSyntaxError("malformed Session-Expires", text)
        refresher = (get_param(parse_params(semicolon + params), "refresher") or "").lower()
        return cls(number, refresher if refresher in ("uac", "uas") else "")

    def __str__(self) -> str:
        return f"{self.interval_s};refresher={self.refresher}" if self.refresher else str(self.interval_s)


def session_expires_of(message: Request | Response) -> SessionExpires | None:
    """The message's Session-Expires; an unreadable one is none."""
    try:
        return SessionExpires.parse(message.headers.get("Session-Expires") or "")
    except SipSyntaxError:
        return None


def min_se_of(message: Request | Response) -> int:
    """The message's Min-SE in seconds, RFC 4028's least where it has none."""
    number = _seconds((message.headers.get("Min-SE") or "").partition(";")[0])
    return max(number or 0, SHORTEST_S)


def refusal_of(request: Request, config: UserAgentConfig) -> Refusal | None:
    """422 for an INVITE or UPDATE whose interval is too small for us, if its sender can understand that."""
    if request.method not in ("INVITE", "UPDATE") or "timer" not in config.supported:
        return None
    asked = session_expires_of(request)
    if asked is None or asked.interval_s >= config.min_se_s or not _knows_timers(request):
        return None
    return Refusal(422, headers=(("Min-SE", str(config.min_se_s)),))


class SessionTimer:
    """The session timer of one call, in whichever role: off until a 2xx sets it."""

    def __init__(self, call: "Call") -> None:
        config = call.layer.config
        self.interval_s = 0
        """The session's interval; 0 while none is agreed."""
        self.ours = False
        """We are the one who refreshes."""
        self.invite: ClientInvite | None = None
        """The re-INVITE that refreshes, while it is under way."""
        self.timers = Timers(call.layer.queue, self._fire)
        self._call = call
        self._enabled = "timer" in config.supported
        self._wanted = max(config.session_expires_s, config.min_se_s, SHORTEST_S) if config.session_expires_s else 0
        self._min_se = max(config.min_se_s, SHORTEST_S)
        self._raises = 0
        self._settled = False
        self._update_refused = False
        self._ends_at = 0.0

    # -- what messages carry --------------------------------------------------------------------------------

    def fields(self) -> list[tuple[str, str]]:
        """What an INVITE or UPDATE of ours says of the session's interval."""
        interval = self.interval_s if self._settled else self._wanted
        if not self._enabled or not interval:
            # A peer that agreed on no interval is not asked again.
            return []
        refresher = ("uac" if self.ours else "uas") if self.interval_s else ""
        fields = [("Session-Expires", str(SessionExpires(max(interval, self._min_se), refresher)))]
        if self._min_se > SHORTEST_S:
            fields.append(("Min-SE", str(self._min_se)))
        return fields

    def accept(self, request: Request, now: float) -> list[tuple[str, str]]:
        """What our 2xx to the peer's INVITE or UPDATE says; the timer starts with it (RFC 4028 9)."""
        if not self._enabled:
            return []
        knows = _knows_timers(request)
        asked = session_expires_of(request)
        if asked is None:
            if not self._wanted:
                self._off()
                return []
            # Who wants the timer does the work, unless it was shared out before.
            self._start(max(self._wanted, min_se_of(request)), self.ours or not self.interval_s or not knows, now)
        else:
            interval = max(asked.interval_s, SHORTEST_S)
            if self._wanted:
                interval = min(interval, max(self._wanted, min_se_of(request)))
            if asked.refresher and knows:
                ours = asked.refresher == "uas"
            else:
                ours = not knows or (self.ours and self.interval_s > 0)
            self._start(interval, ours, now)
        agreed = SessionExpires(self.interval_s, "uas" if self.ours else "uac")
        fields = [("Session-Expires", str(agreed))]
        return [*fields, ("Require", "timer")] if knows else fields

    def accepted(self, response: Response, now: float) -> None:
        """A 2xx to our INVITE or UPDATE came (RFC 4028 7.2)."""
        agreed = session_expires_of(response) if self._enabled else None
        if agreed is None:
            self._off()
        else:
            self._start(max(agreed.interval_s, SHORTEST_S), agreed.refresher != "uas", now)

    def too_small(self, response: Response) -> bool:
        """Take in a 422: whether to ask again, with a longer interval (RFC 4028 7.3)."""
        least = min_se_of(response)
        if not self._enabled or least <= max(self._min_se, self.interval_s if self._settled else self._wanted):
            return False
        self._raises += 1
        if self._raises > _MAX_RAISES:
            return False
        self._min_se = least
        return True

    # -- its course -----------------------------------------------------------------------------------------

    def stop(self) -> None:
        """The call ends."""
        self.invite = None
        self.timers.stop_all()

    def refused(self, response: Response | None, now: float, *, by_update: bool = False) -> None:
        """Our refresh failed: the session lasts until its end comes, and until then it is tried again (10)."""
        self.invite = None
        call = self._call
        if call.closing:
            return
        status = 408 if response is None else response.status
        if status == 481:
            call.ending.gone("UPDATE" if by_update else "INVITE", now)
        elif response is None or status == 408:
            call.ending.unreachable("no answer to our session refresh", now)
        elif status == 422 and self.too_small(response):
            self._refresh(now)
        elif by_update and (status == 501 or (400 <= status < 500 and status not in _NOT_THE_METHOD)):
            self._update_refused = True
            self._refresh(now)
        else:
            delay = call.offers.glare_delay_s() if status == 491 else min(_RETRY_S, (self._ends_at - now) / 2)
            self.timers.set("refresh", now + max(delay, 1.0))

    def _start(self, interval: int, ours: bool, now: float) -> None:
        self._settled = True
        self.interval_s, self.ours = interval, ours
        self._ends_at = now + interval - min(_LAST_CALL_S, interval / 3)
        self.timers.stop_all()
        self.timers.set("expiry", self._ends_at)
        if ours:
            self.timers.set("refresh", now + interval / 2)

    def _off(self) -> None:
        self._settled = True
        self.interval_s, self.ours = 0, False
        self.timers.stop_all()

    def _fire(self, name: str, now: float) -> None:
        if name == "expiry":
            self._call.ending.session_expired(self.interval_s, now)
        else:
            self._refresh(now)

    def _refresh(self, now: float) -> None:
        call = self._call
        if call.offers.changing:
            self.timers.set("refresh", now + _BUSY_S)
        elif call.peer_allows("UPDATE") and not self._update_refused:
            request = call.new_request("UPDATE")
            request.headers.extend(call.capabilities)
            request.headers.extend(self.fields())
            call.send_request(request, self._update_answered, now)
        elif call.offers.local is not None:
            self.invite = call.reinvites.send(call.offers.local, now)

    def _update_answered(self, response: Response | None, now: float) -> None:
        if response is not None and response.status < 200:
            return
        if response is None or response.status >= 300:
            self.refused(response, now, by_update=True)
        elif not self._call.closing:
            self._call.refresh_target(response)
            self.accepted(response, now)


def _knows_timers(request: Request) -> bool:
    expires = session_expires_of(request)
    # A proxy may add the field for a caller that does not know it, but then without a refresher (RFC 4028 8.1).
    named = expires is not None and expires.refresher != ""
    return named or "timer" in request.headers.tokens_of("Supported") | request.headers.tokens_of("Require")


def _seconds(text: str) -> int | None:
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else None
