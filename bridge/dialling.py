"""Calls that we make: for who asks by the API, and on behalf of a caller who is to be handed on."""

import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from bridge.admission import Admission
from bridge.api.control import DialRefused, DialRequest
from bridge.api.refusals import answer_to
from bridge.asterisks import Asterisks
from bridge.events import LegEnded, LegEvent
from bridge.legs.asterisk.asked import AsteriskCall, asterisk_call
from bridge.legs.asterisk.endpoint import AsteriskEndpoint
from bridge.legs.asterisk.outbound import CallLimitError
from bridge.legs.base import Leg, LegError
from bridge.legs.codecs import CODECS
from bridge.legs.media import MediaUnavailableError
from bridge.legs.outbound import OutboundCall
from bridge.legs.sip import SipLeg
from bridge.legs.sip_endpoint import SipEndpoint
from bridge.sip.errors import SipSyntaxError
from bridge.sip.uri import Uri, format_host
from bridge.targets import in_asterisk
from bridge.trunks.outbound import DialError, asked_headers, is_number, outbound_call, profile_of
from bridge.trunks.trunks import Trunk

DEFAULT_CALLER = "offhook"

_BY_US = {"OFFHOOK_DIALLED": "1"}
"""A channel variable by which the dialplan tells calls that we make from callers whom we hand over."""

_NOT_SHOWN = re.compile(r"[\x00-\x1f\x7f<>\"]+")
"""Of a caller's number: what is in none, and would keep it from being shown to whom the caller is handed."""


class Dialler:
    """Finds the trunk, asks admission, and has the endpoint send the INVITE."""

    def __init__(self, endpoint: SipEndpoint, asterisks: Asterisks, admission: Admission) -> None:
        self._endpoint = endpoint
        self._asterisks = asterisks
        self._admission = admission
        self._trunks = admission.trunks

    async def dial(self, request: DialRequest) -> Leg:
        """The leg, which rings. It is not counted as live: the call that takes it is. Raises DialRefused."""
        try:
            if (asterisk := self._asterisks.get(request.trunk)) is not None:
                call = _asked_of(asterisk, request)
                return await self._by_asterisk(asterisk, call, request.timeout_s)
            return await self._by_sip(request)
        except DialError as error:
            raise DialRefused(400, "bad-target", str(error)) from error
        except (_NoRoomError, CallLimitError) as error:
            raise DialRefused(503, "busy", str(error)) from error
        except LegError as error:
            status, code = answer_to(error)
            if type(error) is LegError:
                # Of nobody's kind: the carrier, or the way to it, did not do what is needed for a call.
                status, code = 502, "trunk-refused"
            raise DialRefused(status, code, str(error)) from error

    async def _by_sip(self, request: DialRequest) -> Leg:
        """Raises DialRefused, DialError, LegError."""
        trunk: Trunk | None = None
        if request.trunk:
            trunk = self._trunks.get(request.trunk)
            if trunk is None:
                known = ", ".join((*(one.name for one in self._trunks), *self._asterisks.names)) or "none"
                raise DialRefused(404, "no-such-trunk", f"there is no trunk {request.trunk!r}; known: {known}")
        if in_asterisk(request.to):
            known = ", ".join(self._asterisks.names) or "none"
            raise DialError(f"{request.to!r} is to be had of an Asterisk, named as trunk; known: {known}")
        if request.caller_name or request.variables or request.machine != "off":
            raise DialError("caller_name, variables and machine need an Asterisk as trunk")
        if trunk is not None:
            headers = asked_headers(trunk, request.headers)
            call = outbound_call(
                trunk, request.to, profile=profile_of(trunk, CODECS), caller=request.from_, headers=headers
            )
        else:
            if request.headers:
                raise DialError("headers need a trunk that allows them (allow_headers)")
            call = _direct(request.to, request.from_)
        return await self._place(call, trunk, request.timeout_s)

    async def on_behalf(
        self, target: str, caller: Leg, *, headers: Sequence[tuple[str, str]] = (), timeout_s: float
    ) -> Leg:
        """A second leg for `caller`: `target` is a URI, or a number for the way that the caller came by. It counts as
        a live call of its trunk until it ends. Raises LegError."""
        info = caller.info
        theirs = _NOT_SHOWN.sub("", info.from_ if info.direction == "inbound" else info.to)
        asterisk = self._asterisks.get(info.trunk)
        if asterisk is None and in_asterisk(target):
            asterisk = self._asterisks.only
            if asterisk is None:
                raise LegError(f"{target!r} is a place in an Asterisk, and the call comes from none")
        if asterisk is not None and not target.startswith(("sip:", "sips:")):
            # Only PJSIP's endpoints take any; the call is worth more than they are.
            sent = headers if target.upper().startswith("PJSIP/") else ()
            wanted = asterisk_call(asterisk.settings, target, caller=theirs, headers=sent)
            reached = await self._by_asterisk(asterisk, wanted, timeout_s)
            self._count(reached, None)
            return reached
        trunk = self._trunks.get(info.trunk)
        ours = info.to if info.direction == "inbound" else info.from_
        try:
            if trunk is not None and trunk.settings.host and _is_its(trunk, target):
                call = outbound_call(
                    trunk,
                    target,
                    profile=profile_of(trunk, CODECS),
                    caller=trunk.settings.caller if not trunk.settings.diversion else theirs,
                    headers=headers,
                    diverted_by=ours,
                )
            elif target.startswith(("sip:", "sips:")):
                call = _direct(target, theirs, headers)
                trunk = None
            elif info.kind != "sip":
                raise DialError(f"{target!r} can't be called from there: a SIP URI can")
            else:
                call = _direct(_at_peer(target, caller), theirs, headers)
                if trunk is not None:
                    call = replace(call, profile=profile_of(trunk, CODECS))
            leg = await self._place(call, trunk, timeout_s)
        except (DialError, MediaUnavailableError) as error:
            raise LegError(str(error)) from error
        self._count(leg, trunk)
        return leg

    async def _by_asterisk(self, asterisk: AsteriskEndpoint, call: AsteriskCall, timeout_s: float) -> Leg:
        with self._room(None):
            return await asterisk.place(call, timeout_s=timeout_s)

    @contextmanager
    def _room(self, trunk: Trunk | None) -> Iterator[None]:
        """Held while a leg is made: many requests at once must not pass the limit together. Raises _NoRoomError."""
        problem = self._admission.takes_outbound(trunk)
        if problem is not None:
            raise _NoRoomError(problem)
        place = f"dialling {secrets.token_hex(8)}"
        self._admission.began(place, trunk.name if trunk is not None else "", embedded=False)
        try:
            yield
        finally:
            self._admission.ended(place)

    async def _place(self, call: OutboundCall, trunk: Trunk | None, timeout_s: float) -> SipLeg:
        with self._room(trunk):
            try:
                leg = await self._endpoint.place(call, timeout_s=timeout_s)
            except LegError as error:
                # That no port of ours is free is none of its faults.
                if trunk is not None and not isinstance(error, MediaUnavailableError):
                    trunk.failed(f"INVITE: {error}", self._admission.now())
                raise
        if trunk is not None:
            self._note_failure(leg, trunk)
        return leg

    def _note_failure(self, leg: Leg, trunk: Trunk) -> None:
        """Keep the trunk's own refusals as its last error; that a called party is busy is none."""

        def on_event(event: LegEvent) -> None:
            if isinstance(event, LegEnded) and (event.by == "network" or _is_trunks_fault(event.status)):
                trunk.failed(f"INVITE: {event.detail or event.cause.value}", self._admission.now())

        leg.subscribe(on_event)

    def _count(self, leg: Leg, trunk: Trunk | None) -> None:
        place = f"second leg {secrets.token_hex(8)}"
        self._admission.began(place, trunk.name if trunk is not None else "", embedded=False)

        def on_event(event: LegEvent) -> None:
            if isinstance(event, LegEnded):
                self._admission.ended(place)

        leg.subscribe(on_event)


def _at_peer(user: str, caller: Leg) -> str:
    """A user where the caller's signalling comes from; on TCP and TLS that is his connection."""
    host, _, port = caller.info.peer.rpartition(":")
    transport = caller.transport if isinstance(caller, SipLeg) else "udp"
    way = "" if transport == "udp" else f";transport={transport}"
    return f"sip:{user}@{format_host(host.strip('[]'))}:{port}{way}"


class _NoRoomError(LegError):
    """A limit is reached."""


def _asked_of(asterisk: AsteriskEndpoint, request: DialRequest) -> AsteriskCall:
    """Raises LegError for what it can't dial or send."""
    return asterisk_call(
        asterisk.settings,
        request.to,
        caller=request.from_,
        caller_name=request.caller_name,
        headers=request.headers,
        variables={**_BY_US, **dict(request.variables)},
        amd=request.machine != "off",
        on_machine="talk" if request.machine == "talk" else "hangup",
    )


def _direct(to: str, caller: str, headers: Sequence[tuple[str, str]] = ()) -> OutboundCall:
    if not to.startswith(("sip:", "sips:")):
        raise DialError(f"{to!r} is not a SIP URI: a number needs a trunk to be called by")
    try:
        uri = Uri.parse(to)
    except SipSyntaxError as error:
        raise DialError(f"{to!r} is not a SIP URI: {error}") from error
    return OutboundCall(
        target=to,
        from_=caller or DEFAULT_CALLER,
        headers=tuple(headers),
        shown_from=caller or DEFAULT_CALLER,
        shown_to=uri.user_text or uri.host,
    )


def _is_trunks_fault(status: int | None) -> bool:
    return status in (401, 402, 403, 407) or (status is not None and 500 <= status < 600)


def _is_its(trunk: Trunk, target: str) -> bool:
    """Whether a target is to be called by the trunk: a number, or a user at its host."""
    if is_number(target) or not target.startswith(("sip:", "sips:")):
        return True
    try:
        return Uri.parse(target).host in (trunk.settings.host, trunk.settings.from_host)
    except SipSyntaxError:
        return False
