"""REFER on a SIP leg: as the one who asks, and as the one who is asked (RFC 3515, RFC 3892, RFC 5589)."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote, unquote

import structlog

from bridge.events import Answered, Cause, LegEnded, LegEvent, Progress, TransferAsked, TransferResult
from bridge.legs.base import Leg, LegError, TransferFailedError, TransferRefusedError
from bridge.sip import events as sip
from bridge.sip.errors import SipError, SipSyntaxError
from bridge.sip.uri import Uri

if TYPE_CHECKING:
    from bridge.legs.sip import SipLeg

log = structlog.get_logger(__name__)

TransferWay = Literal["auto", "refer", "bridge"]
"""How a peer's callers are transferred: by REFER, through us, or by REFER and where that is refused through us."""

NO_TRANSFERS = frozenset({403, 405, 420, 489, 501, 603})
"""Answers to a REFER that mean the peer and not the target."""

LINGER_S = 1.0
"""After a transfer that the far party asked for it hangs up (RFC 5589 6.1); if it has not by then, we do."""

FOLLOWED_HEADERS = ("replaces",)
"""Headers in a Refer-To URI that we send with the call; others are the far party's to ask and ours not to say."""

PROGRESS_GAP = 180
"""Provisional answers from here on are worth a NOTIFY."""


class SipTransfers:
    """The transfers of one leg, at most one each way at a time."""

    def __init__(self, leg: "SipLeg") -> None:
        self.under_way = False
        """The far side took our REFER and has not told its outcome."""
        self._leg = leg
        self._asked: asyncio.Future[None] | None = None
        self._referred = False
        self._unfollow: Callable[[], None] | None = None
        self._dialled: SipLeg | None = None
        """The call that we make at the far party's wish, until it is answered."""
        self._left: LegEnded | None = None
        """How the far party left, which did not wait for that call."""

    # -- asking ---------------------------------------------------------------------------------------------

    async def refer(self, target: str, replacing: Leg | None, way: TransferWay) -> None:
        """Raises TransferFailedError, TransferRefusedError, LegError."""
        leg = self._leg
        if self.under_way or (self._asked is not None and not self._asked.done()):
            raise LegError("another transfer is under way")
        self._asked = asyncio.get_running_loop().create_future()
        try:
            refer_to = target if replacing is None else self._address_of(replacing)
            headers = (("Referred-By", f"<{leg.agent.local_uri(leg.key)}>"),)
            leg.agent.refer(leg.key, refer_to, leg.now(), headers=headers)
        except SipError as error:
            self._asked = None
            raise LegError(f"can't transfer to {target!r}: {error}") from error
        leg.flush()
        try:
            await self._asked
        except TransferRefusedError as error:
            if way == "refer":
                raise TransferFailedError(str(error), error.status) from error
            raise

    def _address_of(self, other: Leg) -> str:
        """The far party of another leg, with what names its dialog with us."""
        leg = self._leg
        # A leg's own type alone knows its dialog.
        if not isinstance(other, type(leg)):
            raise LegError(f"a {other.info.kind} leg can't be replaced by a SIP party")
        replaces = quote(leg.agent.replaces_header(other.key), safe="")
        target = Uri.parse(leg.agent.remote_target(other.key))
        return f"<{target}?Replaces={replaces}>"

    def stop(self) -> None:
        """Nobody waits for the outcome."""
        self.under_way = False

    # -- being asked ----------------------------------------------------------------------------------------

    def follow(self, dialled: Leg) -> None:
        leg = self._leg
        if not self._referred:
            raise LegError("the far side asks for no transfer")
        if not isinstance(dialled, type(leg)):
            raise LegError(f"a {dialled.info.kind} leg can't take the place of a SIP party")
        self._referred = False
        try:
            leg.agent.accept_refer(leg.key, leg.now())
        except SipError as error:
            raise LegError(f"the far side waits no longer for its transfer: {error}") from error
        leg.flush()
        self._dialled = dialled
        self._unfollow = dialled.subscribe(lambda event: self._followed(dialled, event))

    def refuse(self, status: int) -> None:
        leg = self._leg
        self._referred = False
        try:
            leg.agent.reject_refer(leg.key, status, leg.now())
        except SipError as error:
            log.info("too late to refuse a transfer", reason=str(error))
        leg.flush()

    @property
    def following(self) -> bool:
        """The call that the far party asked for rings."""
        return self._dialled is not None

    def far_left(self, ended: LegEnded) -> None:
        """The far party hung up and leaves us with whom it had us call (RFC 5589 6.1 lets it): we are there until
        that comes to nothing."""
        self._left = ended
        self._leg.wait_for_far_party()

    def _followed(self, dialled: "SipLeg", event: LegEvent) -> None:
        """What becomes of the call that the far party asked for."""
        match event:
            case Progress(status=status) if status >= PROGRESS_GAP:
                self._notify(status)
            case Answered():
                self._stop_following()
                self._notify(200)
                self._leg.replace_far_party(dialled, "the far party transferred us", LINGER_S)
            case LegEnded(status=status):
                self._stop_following()
                self._notify(status or 487)
                if self._left is not None:
                    self._leg.end(self._left)
            case _:
                pass

    def _notify(self, status: int) -> None:
        leg = self._leg
        try:
            leg.agent.notify(leg.key, status, leg.now())
        except SipError as error:
            log.info("the transfer's progress could not be told", reason=str(error))
        leg.flush()

    def _stop_following(self) -> None:
        if self._unfollow is not None:
            self._unfollow()
            self._unfollow = None
        self._dialled = None

    # -- what comes in --------------------------------------------------------------------------------------

    def on_sip_event(self, event: sip.Event) -> None:
        match event:
            case sip.ReferAccepted():
                self.under_way = True
                if self._asked is not None and not self._asked.done():
                    self._asked.set_result(None)
            case sip.ReferRejected(status=status, reason=reason):
                self._fail(f"the far side refused the transfer: {status} {reason}", status)
            case sip.ReferResult(status=status, reason=reason, final=True):
                self.under_way = False
                self._leg.tell(TransferResult(status, reason))
            case sip.Referred():
                self._on_referred(event)
            case _:
                pass

    def _on_referred(self, event: sip.Referred) -> None:
        leg = self._leg
        self._referred = True
        if not leg.options.accept_refer:
            self.refuse(603)
            return
        try:
            uri = Uri.parse(event.target)
            if uri.scheme not in ("sip", "sips"):
                raise SipSyntaxError("not a SIP URI", event.target)
        except SipSyntaxError as error:
            log.info("transfer refused", target=event.target, reason=str(error))
            self.refuse(416)
            return
        target, _, query = event.target.partition("?")
        headers = [
            (name.title(), unquote(value))
            for name, _, value in (part.partition("=") for part in query.split("&") if part)
            if name.lower() in FOLLOWED_HEADERS and not set(unquote(value)) & set("\r\n\0")
        ]
        if headers:
            headers.append(("Require", "replaces"))
        if event.referred_by:
            headers.append(("Referred-By", event.referred_by))
        leg.tell(TransferAsked(target, event.referred_by, tuple(headers)))

    def close(self, why: str) -> None:
        """The leg ended, or has another far party."""
        dialled = self._dialled
        self._stop_following()
        if dialled is not None:
            dialled.hang_up(Cause.CANCELLED, why)
        self._fail(why, 487)

    def _fail(self, message: str, status: int) -> None:
        if self._asked is not None and not self._asked.done():
            kind = TransferRefusedError if status in NO_TRANSFERS else TransferFailedError
            self._asked.set_exception(kind(message, status))
