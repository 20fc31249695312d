"""The Asterisks of the configuration: an endpoint and a manager interface for each, and the listeners they share."""

import asyncio
import ipaddress
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal
from urllib.parse import urlsplit

import structlog

from bridge.agents.base import QueueNumbers, QueueView
from bridge.asterisk.ami import Ami, AmiError
from bridge.asterisk.ari import Ari, AriError, AriUnauthorizedError
from bridge.asterisk.changes import changed, connection_of
from bridge.asterisk.dialplan_calls import DialplanCalls
from bridge.asterisk.settings import AsteriskSettings, AudioSocketSettings, MediaKind
from bridge.asterisk.status import AsteriskStatus
from bridge.asterisk.tls import CertificateFileError
from bridge.check_asterisk import media_kinds
from bridge.config import Config
from bridge.legs.asterisk.audiosocket import AudioSocketTransport
from bridge.legs.asterisk.endpoint import AsteriskEndpoint
from bridge.legs.asterisk.media import MediaTransport
from bridge.legs.asterisk.rtp import RtpTransport
from bridge.legs.asterisk.websocket import WebsocketTransport
from bridge.legs.asterisk.websocket_listener import WebsocketListener
from bridge.legs.audiosocket import AudioSocketEndpoint
from bridge.legs.audiosocket_server import AudioSocketServer
from bridge.legs.base import LegInfo
from bridge.legs.media import MediaPlane
from bridge.settings import PasswordError
from bridge.startup import StartError
from bridge.switchboard import Inbound

log = structlog.get_logger(__name__)

RETIRED_LOOK_S = 0.5
GIVING_BACK_LOOKS = 120
"""An Asterisk that is not in the configuration any more has so many looks' time to take the last channels back."""


Change = Literal["in place", "another"]
"""Of an Asterisk's settings: they hold for new calls, its connection is changed under the live ones if need be; or it
is another Asterisk, or application, from now on, and the former one goes when its calls have ended."""


@dataclass(frozen=True, slots=True)
class Pbx:
    """One Asterisk."""

    endpoint: AsteriskEndpoint
    ami: Ami | None
    websocket: WebsocketTransport

    def start(self) -> None:
        self.endpoint.start()
        if self.ami is not None:
            self.ami.start()

    async def aclose(self) -> None:
        await self.endpoint.aclose()
        if self.ami is not None:
            await self.ami.aclose()


class Asterisks:
    """All of them. One that can't be reached is no reason not to start: it is tried for ever."""

    def __init__(
        self,
        config: Config,
        media: MediaPlane,
        *,
        on_leg: Callable[[Inbound], None],
        media_of: Callable[[LegInfo], MediaKind | None],
    ) -> None:
        """`on_leg` takes each call that comes in; `media_of` says how its audio is to reach us, where its route
        does."""
        self.dialplan_calls = DialplanCalls()
        self._media = media
        self._on_leg = on_leg
        self._media_of = media_of
        self._pbxs: dict[str, Pbx] = {}
        self._media_kinds = _kinds_of_each(config)
        self._retired: set[asyncio.Task[None]] = set()
        self._closing = asyncio.Event()
        self._config = config
        self._audiosocket = AudioSocketServer(audiosocket_settings(config), media.clock)
        self._audiosocket_listens = False
        self._dialplans: AudioSocketEndpoint | None = None
        self._websockets = WebsocketListener(config.websocket_listener)
        self._refusing = ""
        self._started = False
        # From the first moment on they can be asked for, though nothing connects before the start.
        for settings in config.asterisk:
            self._pbxs[settings.name] = self._made(settings)

    async def start(self) -> None:
        """Listen, and begin to connect. Raises StartError."""
        await self.listen(self._config)
        if self._config.audiosocket.trunk:
            self._dialplans = AudioSocketEndpoint(
                self._audiosocket,
                self._config.audiosocket.trunk,
                self.dialplan_calls,
                self._on_leg,
                self._media.limits,
            )
        self._started = True
        for pbx in self._pbxs.values():
            pbx.start()

    async def listen(self, config: Config) -> None:
        """Open what a configuration needs opened; before the start whoever connects is turned away. Raises
        StartError."""
        if _takes_audiosocket(config) and not self._audiosocket_listens:
            try:
                await self._audiosocket.start()
            except OSError as error:
                raise StartError(
                    f"audiosocket: can't listen on {config.audiosocket.listen} port {self._audiosocket.port} "
                    f"({error.strerror}): set audiosocket.listen or audiosocket.port"
                ) from error
            self._audiosocket_listens = True
        if _takes_websockets(config) and not self._websockets.listening:
            try:
                self._websockets.start()
            except CertificateFileError as error:
                raise StartError(f"websocket_listener: {error}") from error
            except OSError as error:
                raise StartError(
                    f"websocket_listener: can't listen on {config.websocket_listener.listen} port "
                    f"{config.websocket_listener.port} ({error.strerror}): set its listen or port"
                ) from error

    async def prepare(self, config: Config) -> Mapping[str, Change]:
        """What becomes of each Asterisk that stays, with other settings. Raises StartError where one does not take
        the login that it is to be used with."""
        wanted = {one.name: one for one in config.asterisk}
        stay = [
            (pbx.endpoint, wanted[name])
            for name, pbx in self._pbxs.items()
            if name in wanted and wanted[name] != pbx.endpoint.settings
        ]
        found = await asyncio.gather(*(change_of(endpoint, settings) for endpoint, settings in stay))
        return {settings.name: change for (_, settings), change in zip(stay, found, strict=True)}

    def apply(self, config: Config, changes: Mapping[str, Change]) -> None:
        """Take up a changed configuration, for which we listen by now: Asterisks that are new, gone, or have other
        settings (`prepare`). Live calls go on: where another Asterisk is meant from now on, with the former one."""
        self._audiosocket.permit(audiosocket_settings(config).networks)
        self._media_kinds = _kinds_of_each(config)
        names = {one.name for one in config.asterisk}
        for name in [name for name in self._pbxs if name not in names]:
            self._retire(name, "this Asterisk is not in the configuration any more")
        for settings in config.asterisk:
            name = settings.name
            match changes.get(name):
                case "in place":
                    self._change(name, settings)
                case "another":
                    self._retire(name, "another Asterisk has taken this one's place")
            if name not in self._pbxs:
                self._add(settings)
        self._pbxs = {one.name: self._pbxs[one.name] for one in config.asterisk}

    async def aclose(self) -> None:
        """End the calls that are left, and leave every Asterisk as it was found."""
        self._closing.set()
        closing = [pbx.aclose() for pbx in self._pbxs.values()]
        await asyncio.gather(*closing, *self._retired)
        await self.close_listeners()

    async def close_listeners(self) -> None:
        """All that there is to close before the start."""
        await self._audiosocket.aclose()
        await self._websockets.aclose()

    def refuse_new(self, reason: str) -> None:
        """From now on callers go on in their dialplans at once."""
        self._refusing = reason
        for pbx in self._pbxs.values():
            pbx.endpoint.refuse_new(reason)

    # -- what others ask --------------------------------------------------------------------------------------

    def dialplan_calls_taken(self) -> DialplanCalls | None:
        """Calls of dialplans without ARI; None where none are taken."""
        return self.dialplan_calls if self._config.audiosocket.trunk else None

    @property
    def names(self) -> Sequence[str]:
        return tuple(self._pbxs)

    def get(self, name: str) -> AsteriskEndpoint | None:
        """The endpoint of an Asterisk."""
        pbx = self._pbxs.get(name)
        return None if pbx is None else pbx.endpoint

    @property
    def only(self) -> AsteriskEndpoint | None:
        """The endpoint, where there is just one."""
        pbxs = tuple(self._pbxs.values())
        return pbxs[0].endpoint if len(pbxs) == 1 else None

    def ami(self, name: str) -> Ami | None:
        pbx = self._pbxs.get(name)
        return None if pbx is None else pbx.ami

    async def reconnect(self, name: str) -> bool:
        """Connect now, and take the application back from who has it; before the start there is nothing to do. False:
        there is no such Asterisk."""
        pbx = self._pbxs.get(name)
        if pbx is None:
            return False
        if not self._started:
            return True
        if pbx.ami is not None:
            pbx.ami.reconnect()
        await pbx.endpoint.ari.reconnect()
        return True

    def queues(self, name: str) -> QueueView | None:
        """Of the Asterisk that calls of this trunk come from, if it has a manager interface."""
        ami = self.ami(name)
        return None if ami is None else _Queues(ami)

    def status(self) -> Sequence[AsteriskStatus]:
        return [replace(_status(pbx), media_kinds=self._media_kinds[name]) for name, pbx in self._pbxs.items()]

    def readings(self) -> Mapping[str, float]:
        """For the metrics."""
        readings: dict[str, float] = {}
        for pbx in self._pbxs.values():
            readings |= pbx.endpoint.readings()
            of = f'{{asterisk="{pbx.endpoint.settings.name}"}}'
            readings |= {name + of: value for name, value in pbx.websocket.readings().items()}
            if pbx.ami is not None:
                readings |= pbx.ami.readings()
        if self._audiosocket_listens:
            readings |= self._audiosocket.readings()
        if self._websockets.listening:
            readings |= self._websockets.readings()
        if self._dialplans is not None:
            readings |= self._dialplans.readings()
        return readings

    # -- inside -----------------------------------------------------------------------------------------------

    def _add(self, settings: AsteriskSettings) -> None:
        pbx = self._pbxs[settings.name] = self._made(settings)
        pbx.start()

    def _made(self, settings: AsteriskSettings) -> Pbx:
        websocket = WebsocketTransport(self._media.clock, settings, self._media.limits, self._websockets)
        transports = self._transports(settings, websocket)
        endpoint = AsteriskEndpoint(
            settings,
            clock=self._media.clock,
            transports=transports,
            on_leg=self._on_leg,
            media_of=self._media_of,
        )
        if self._refusing:
            endpoint.refuse_new(self._refusing)
        return Pbx(endpoint, _ami(settings), websocket)

    def _transports(
        self, settings: AsteriskSettings, websocket: WebsocketTransport
    ) -> Mapping[MediaKind, MediaTransport]:
        return {
            "rtp": RtpTransport(self._media, settings),
            "websocket": websocket,
            "audiosocket": AudioSocketTransport(self._audiosocket, settings, self._media.limits),
        }

    def _change(self, name: str, settings: AsteriskSettings) -> None:
        """Other settings for one that stays."""
        pbx = self._pbxs[name]
        former = pbx.endpoint.settings
        websocket = WebsocketTransport(self._media.clock, settings, self._media.limits, self._websockets)
        websocket.counters = pbx.websocket.counters
        pbx.endpoint.take_up(settings, self._transports(settings, websocket))
        ami = pbx.ami
        if settings.ami != former.ami:
            ami = _ami(settings)
            if pbx.ami is not None:
                self._spawn(pbx.ami.aclose(), f"end of the manager interface of {name}")
            if ami is not None:
                ami.start()
        self._pbxs[name] = Pbx(pbx.endpoint, ami, websocket)
        log.info("changed settings of an Asterisk hold", asterisk=name, settings=sorted(changed(former, settings)))

    def _retire(self, name: str, why: str) -> None:
        """One that is not in use any more: its calls go on to their ends."""
        pbx = self._pbxs.pop(name)
        pbx.endpoint.refuse_new(why)

        async def retire() -> None:
            while pbx.endpoint.legs and not await self._closes():
                pass
            # It may be out of order, or gone for good.
            for _ in range(GIVING_BACK_LOOKS):
                if not pbx.endpoint.busy or await self._closes():
                    break
            await pbx.aclose()

        self._spawn(retire(), f"end of asterisk {name}")

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._retired.add(task)
        task.add_done_callback(self._retired.discard)

    async def _closes(self) -> bool:
        """Whether all is to end within this look's time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(RETIRED_LOOK_S):
                await self._closing.wait()
        return self._closing.is_set()


class _Queues:
    """See `bridge.agents.base.QueueView`."""

    def __init__(self, ami: Ami) -> None:
        self._ami = ami

    async def queue(self, name: str) -> QueueNumbers | None:
        try:
            found = await self._ami.queues(name)
        except AmiError as error:
            log.info("a queue could not be looked at", queue=name, reason=str(error))
            return None
        return next((QueueNumbers(one.waiting, one.available) for one in found if one.name == name), None)


async def change_of(endpoint: AsteriskEndpoint, settings: AsteriskSettings) -> Change:
    """How an endpoint gets other settings. Raises StartError where Asterisk does not take the login in them."""
    present = endpoint.settings
    if settings.ami is not None and settings.ami != present.ami:
        try:
            settings.ami.password()
        except PasswordError as error:
            raise StartError(f"asterisk {settings.name}: ami: {error}") from error
    if connection_of(present) == connection_of(settings):
        return "in place"
    # Is it the same one by another name, or through another port? Then live calls can change over as well.
    there, here = await asyncio.gather(_identity(settings), _identity(present), return_exceptions=True)
    if isinstance(there, AriUnauthorizedError):
        raise StartError(f"asterisk {settings.name}: {there}")
    for found in (there, here):
        if isinstance(found, BaseException) and not isinstance(found, AriError):
            raise found
    if isinstance(there, AriError):
        log.warning("an Asterisk can't be reached by its changed settings", asterisk=settings.name, reason=str(there))
    same = present.url == settings.url or (isinstance(there, str) and there and there == here)
    return "in place" if same and present.app == settings.app else "another"


async def _identity(settings: AsteriskSettings) -> str:
    """Raises AriError."""
    ari = Ari(settings, lambda event: None)
    try:
        return await ari.identity()
    finally:
        await ari.aclose()


def _ami(settings: AsteriskSettings) -> Ami | None:
    return None if settings.ami is None else Ami(settings.ami, settings.name, reconnect_s=settings.reconnect_s)


def audiosocket_settings(config: Config) -> AudioSocketSettings:
    """Who may connect: the networks that are set, and the Asterisks whose addresses are known."""
    settings = config.audiosocket
    hosts = (urlsplit(one.url).hostname or "" for one in config.asterisk)
    known = tuple(host for host in hosts if _is_address(host))
    return settings.model_copy(update={"networks": (*settings.networks, *known)})


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _status(pbx: Pbx) -> AsteriskStatus:
    status = pbx.endpoint.status()
    if pbx.ami is None:
        return status
    ami = pbx.ami
    return replace(status, ami_state=ami.state, ami_error=ami.last_error, ami_error_at=ami.last_error_at)


def _kinds_of_each(config: Config) -> Mapping[str, tuple[MediaKind, ...]]:
    return {one.name: media_kinds(config, one) for one in config.asterisk}


def _takes_audiosocket(config: Config) -> bool:
    settings = config.audiosocket
    return settings.port is not None or bool(settings.trunk) or "audiosocket" in _media_kinds(config)


def _takes_websockets(config: Config) -> bool:
    return "websocket" in _media_kinds(config) and any(
        one.websocket.connects == "asterisk" for one in config.asterisk
    )


def _media_kinds(config: Config) -> set[MediaKind]:
    """Those that calls may come by."""
    if not config.asterisk:
        return set()
    asked = {route.media for route in config.routes if route.media is not None}
    return asked | {one.media for one in config.asterisk}
