"""How a SIP call ended, in a leg's words."""

from bridge.causes import cause_of_bye, cause_of_rejection, q850_of
from bridge.events import Cause, LegEnded
from bridge.sip import events as sip


def end_of(event: sip.Event, *, ringing_out: bool) -> LegEnded | None:
    """What a terminal event of the user agent means for the leg; None for any other. `ringing_out`: it is an outbound
    call that nobody has answered."""
    match event:
        case sip.Cancelled(reason=reason):
            return LegEnded(Cause.CANCELLED, reason, "far", 487, q850_of(reason.partition(": ")[2]))
        case sip.Rejected(status=status, reason=reason, response=response):
            told = "" if response is None else ", ".join(response.headers.get_all("Reason"))
            q850 = q850_of(told)
            return LegEnded(cause_of_rejection(status, q850), f"{status} {reason}", "far", status, q850)
        case sip.ByeReceived(reason=reason):
            q850 = q850_of(reason)
            return LegEnded(cause_of_bye(q850), reason, "far", None, q850)
        case sip.Lost(detail=detail):
            return LegEnded(Cause.NO_ANSWER if ringing_out else Cause.SIGNALLING_LOST, detail, "network")
        case _:
            return None
