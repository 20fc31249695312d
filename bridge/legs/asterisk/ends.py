"""How a channel of Asterisk ended, in a leg's words: its causes are Q.850's, with a few readings of its own."""

from collections.abc import Mapping

from bridge.asterisk.ari_events import ChannelDestroyed, ChannelHangupRequest
from bridge.causes import NORMAL_CLEARING, NORMAL_UNSPECIFIED, cause_of_bye, cause_of_rejection, status_of_q850
from bridge.events import Cause, EndedBy, LegEnded

NOT_DEFINED = 0
USER_BUSY = 17
NO_USER_RESPONSE = 18
NO_ANSWER = 19
UNALLOCATED = 1
CONGESTION = 34
NO_RTP = 44
"""Requested channel unavailable: what Asterisk ends a call with whose `rtp_timeout` ran out."""

SOFT_HANGUP_DEVICE = 1
"""Of the flags of a soft hangup: the channel's driver gave up, SIP's when `rtp_timeout` ran out."""

_NETWORK = frozenset({27, 34, 38, 41, 42, 44, 47, 102})
"""Nobody was reached: the way to the called party is broken, full or misconfigured."""

DIAL_STATUSES: Mapping[str, int] = {
    "BUSY": USER_BUSY,
    "CONGESTION": CONGESTION,
    "CHANUNAVAIL": 20,
    "NOANSWER": NO_ANSWER,
    "DONTCALL": 21,
    "TORTURE": 21,
}
"""What a dialplan says by `Busy()`, `Congestion()` and the like before it hangs up, if it ever does: the cause that
it stands for."""


def end_of_call(event: ChannelDestroyed) -> LegEnded:
    """Of a channel that was up, and that we did not hang up."""
    text = _detail(event.cause_text, event.cause)
    if event.cause == NO_RTP:
        return LegEnded(Cause.MEDIA_TIMEOUT, f"{text}: no RTP reached Asterisk", "network", None, event.cause)
    cause = cause_of_bye(event.cause)
    return LegEnded(cause, text, "network" if cause is Cause.SIGNALLING_LOST else "far", None, event.cause)


def end_of_offer(event: ChannelDestroyed) -> LegEnded:
    """Of an inbound channel that was not answered yet: the caller gave up."""
    return LegEnded(Cause.CANCELLED, _detail(event.cause_text, event.cause), "far", 487, event.cause)


def end_of_channel(event: ChannelHangupRequest | ChannelDestroyed, *, was_up: bool) -> LegEnded:
    """Of a channel that somebody else ends: `was_up`, or inbound and not answered yet."""
    if isinstance(event, ChannelDestroyed):
        return end_of_call(event) if was_up else end_of_offer(event)
    if not event.soft and not event.cause:
        return end_unseen(was_up=was_up)
    if not event.soft:
        destroyed = ChannelDestroyed(event.channel, event.cause or NOT_DEFINED, "")
        return end_of_call(destroyed) if was_up else end_of_offer(destroyed)
    # The "cause" of a soft hangup is a set of flags of Asterisk's own.
    if was_up and event.cause == SOFT_HANGUP_DEVICE:
        return LegEnded(Cause.MEDIA_TIMEOUT, "Asterisk gave the channel up: no RTP reached it", "network")
    who = "Asterisk ended the channel: a command, a limit of time, or its own stop"
    return LegEnded(Cause.CALLER_HUNG_UP, who, "far") if was_up else LegEnded(Cause.CANCELLED, who, "far", 487)


def end_unseen(*, was_up: bool) -> LegEnded:
    """Of a channel that is gone, and of which Asterisk told only that it left the application: its thread, where the
    machine is busy, is through with the channel before the event of the hang-up is out."""
    return LegEnded(Cause.CALLER_HUNG_UP, by="far") if was_up else LegEnded(Cause.CANCELLED, by="far", status=487)


def end_of_dialling(event: ChannelDestroyed, *, dialled: bool) -> LegEnded:
    """Of an outbound channel that nobody answered. `dialled`: Asterisk began to call; without that there was nothing
    to be called, which it says in no other way."""
    if not dialled and event.cause in (NOT_DEFINED, NORMAL_CLEARING):
        why = "Asterisk found nothing to dial: there is no such extension or endpoint"
        return LegEnded(Cause.REJECTED, why, "far", 404, UNALLOCATED)
    return refusal(event.cause, event.cause_text, event.tech_cause)


def refusal(q850: int, text: str = "", sip_status: int | None = None) -> LegEnded:
    """Why a call of ours was not taken: Asterisk's cause, and the SIP status where it tells one."""
    if sip_status is not None and 300 <= sip_status < 700:
        status = sip_status
    else:
        status = status_of_q850(q850 or NORMAL_UNSPECIFIED)
    by: EndedBy = "network" if q850 in _NETWORK else "far"
    return LegEnded(cause_of_rejection(status, q850 or None), _detail(text, q850, status), by, status, q850 or None)


def _detail(text: str, q850: int, status: int | None = None) -> str:
    said = f"{text} ({q850})" if text else f"cause {q850}"
    return said if status is None else f"{status}: {said}"
