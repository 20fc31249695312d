"""Replaces (RFC 3891): an INVITE that takes the place of a call of ours, as in an attended transfer or a pickup."""

from collections.abc import Mapping
from dataclasses import dataclass

from bridge.sip.call import Call, CallState
from bridge.sip.errors import SipSyntaxError
from bridge.sip.events import CallKey
from bridge.sip.grammar import get_param, has_param, parse_params
from bridge.sip.message import Request
from bridge.sip.settings import Refusal


@dataclass(frozen=True, slots=True)
class Replaces:
    """The field: a dialog as its other party, who gets the INVITE, names it."""

    call_id: str
    to_tag: str
    """The tag of who gets the INVITE."""
    from_tag: str
    """The tag of the party that is replaced."""
    early_only: bool = False

    @classmethod
    def parse(cls, text: str) -> "Replaces":
        """Raises SipSyntaxError."""
        call_id, semicolon, rest = text.partition(";")
        params = parse_params(semicolon + rest)
        to_tag, from_tag = get_param(params, "to-tag"), get_param(params, "from-tag")
        if not call_id.strip() or not to_tag or not from_tag:
            raise SipSyntaxError("malformed Replaces", text)
        return cls(call_id.strip(), to_tag, from_tag, has_param(params, "early-only"))

    def __str__(self) -> str:
        text = f"{self.call_id};to-tag={self.to_tag};from-tag={self.from_tag}"
        return f"{text};early-only" if self.early_only else text


def replaces_of(call: Call, *, early_only: bool = False) -> Replaces:
    """How a third party names this call to our peer. Raises CallStateError before there is a dialog."""
    dialog = call.named_dialog
    return Replaces(dialog.call_id, dialog.remote_tag or "0", dialog.local_tag, early_only)


def find_replaced(request: Request, calls: Mapping[CallKey, Call]) -> CallKey | Refusal | None:
    """The call that an INVITE replaces; None where it replaces none, a refusal where it can't (RFC 3891 3)."""
    fields = request.headers.get_all("Replaces")
    if not fields:
        return None
    if len(fields) > 1 or "Join" in request.headers:
        return Refusal(400, "Conflicting Replaces")
    try:
        named = Replaces.parse(fields[0])
    except SipSyntaxError:
        return Refusal(400, "Malformed Replaces")
    call = calls.get(CallKey(named.to_tag))
    dialog = call.dialog if call is not None else None
    if call is None or dialog is None:
        return Refusal(481)
    if dialog.call_id != named.call_id or named.from_tag not in (dialog.remote_tag, "" if dialog.remote_tag else "0"):
        return Refusal(481)
    if call.closing:
        return Refusal(603)
    if call.state is CallState.SETUP:
        # One that rings here can't be picked up this way: only the caller's own may (RFC 3891 3).
        return Refusal(481) if call.inbound else call.key
    return Refusal(486) if named.early_only else call.key
