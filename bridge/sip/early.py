"""The early dialogs of one INVITE of ours, one for each phone that rings (RFC 3261 12.1, 13.2.2.4), and the PRACKs
of their reliable provisional responses (RFC 3262 4)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bridge.sip.dialog import Dialog
from bridge.sip.errors import SipSyntaxError
from bridge.sip.exchange import Exchange
from bridge.sip.message import Request, Response
from bridge.sip.transaction import ignore_response

if TYPE_CHECKING:
    from bridge.sip.call import Call

MAX_FORKS = 16
"""Phones that may ring for one call; the responses of others make no dialog until they answer."""

_MAX_RSEQ = 2**32


@dataclass(slots=True)
class EarlyDialog:
    """A dialog that waits for its 2xx."""

    dialog: Dialog
    sdp: bytes | None = None
    """The last description that it sent."""
    answered: bool = False
    """Our offer was answered for good, in a reliable response (RFC 3262 5)."""
    rseq: int | None = None
    """Number of the last reliable response that we acknowledged."""


class EarlyDialogs:
    """By remote tag. In a re-INVITE there is one at most: that of the call."""

    def __init__(self, call: "Call") -> None:
        self._call = call
        self._by_tag: dict[str, EarlyDialog] = {}

    def get(self, tag: str) -> EarlyDialog | None:
        return self._by_tag.get(tag)

    def __len__(self) -> int:
        return len(self._by_tag)

    def clear(self) -> None:
        """A final response that was no 2xx ended them."""
        self._by_tag.clear()

    def open(self, tag: str, dialog: Dialog) -> EarlyDialog:
        """Take up a dialog that is there: the call's own."""
        return self._by_tag.setdefault(tag, EarlyDialog(dialog))

    def enter(self, tag: str, formed: Dialog) -> EarlyDialog | None:
        """The dialog of a response with this tag, `formed` by it unless it was there; None for one too many."""
        early = self._by_tag.get(tag)
        if early is None and len(self._by_tag) < MAX_FORKS:
            early = self._by_tag[tag] = EarlyDialog(formed)
        return early

    def confirm(self, tag: str, formed: Dialog) -> Dialog:
        """The dialog of a 2xx: that of its early one goes on, with routes and target of the 2xx."""
        early = self._by_tag.get(tag)
        if early is None:
            return formed
        dialog = early.dialog
        dialog.remote, dialog.route_set, dialog.remote_target = formed.remote, formed.route_set, formed.remote_target
        if dialog.remote_cseq is None:
            dialog.flow = formed.flow
        return dialog

    def acknowledge(self, early: EarlyDialog, rseq: int, invite: Request, now: float) -> bool:
        """Send the PRACK of a reliable response. False for a repeated one, and for one that came before its turn:
        that is as good as lost, and will come again."""
        if early.rseq is not None and rseq != early.rseq + 1:
            return False
        early.rseq = rseq
        call, dialog = self._call, early.dialog
        prack = dialog.request("PRACK")
        prack.headers.add("RAck", f"{rseq} {invite.cseq}")
        if call.layer.config.user_agent:
            prack.headers.add("User-Agent", call.layer.config.user_agent)
        flow = dialog.next_flow(call.layer.config.resolve)
        Exchange(call.layer, prack, flow, ignore_response, now, digest=call.digest, renumber=dialog.next_cseq)
        return True


def reliable_number(response: Response) -> int | None:
    """RSeq of a reliable provisional response, None for one that is not reliable."""
    if response.status == 100 or "100rel" not in response.headers.tokens_of("Require"):
        return None
    text = response.headers.get("RSeq") or ""
    if not (text.isascii() and text.isdigit()) or len(text) > 10 or not 0 < int(text) < _MAX_RSEQ:
        return None
    return int(text)


def tag_of(response: Response) -> str:
    """Tag of To, "" when absent or unreadable."""
    try:
        return response.to.tag or ""
    except SipSyntaxError:
        return ""
