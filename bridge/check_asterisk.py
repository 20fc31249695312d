"""What `offhook check` says of Asterisks: passwords that can't be had, and settings that make no sense together."""

import ipaddress
import stat
from collections.abc import Iterator
from fnmatch import fnmatchcase
from urllib.parse import urlsplit

from bridge.asterisk.settings import AUDIOSOCKET_PORT, AsteriskSettings, MediaKind
from bridge.check_asterisk_tls import check_certificate, check_trust, doubtful_trust
from bridge.config import Config
from bridge.settings import PasswordError, PasswordSource


def media_kinds(config: Config, settings: AsteriskSettings) -> tuple[MediaKind, ...]:
    """Those that this Asterisk's calls may come by: its own first, then those of routes that may match."""
    kinds: dict[MediaKind, None] = {settings.media: None}
    for route in config.routes:
        if route.media is not None and fnmatchcase(settings.name, route.trunk):
            kinds[route.media] = None
    return tuple(kinds)


def describe_asterisks(config: Config) -> Iterator[str]:
    """A line for each: where it is, and how its audio comes."""
    for one in config.asterisk:
        codecs = {"rtp": one.rtp.codec, "websocket": one.websocket.codec, "audiosocket": one.audiosocket.codec}
        media = ", ".join(f"{kind} ({codecs[kind]})" for kind in media_kinds(config, one))
        manager = f"; AMI at {one.ami.host}:{one.ami.port}" if one.ami is not None else ""
        yield f"asterisk {one.name}: {one.url}, application {one.app}; media {media}{manager}"
    by_socket = config.audiosocket
    if by_socket.trunk:
        yield (
            f"audiosocket {by_socket.trunk}: listens on {by_socket.listen} port {by_socket.port or AUDIOSOCKET_PORT} "
            "for calls of dialplans without ARI"
        )


def check_asterisks(config: Config) -> Iterator[str]:
    """What keeps calls from an Asterisk from working, one line each."""
    owners: dict[tuple[str, str], str] = {}
    for one in config.asterisk:
        what = f"asterisk {one.name!r}"
        yield from _secrets(what, one)
        if one.ami is not None:
            yield from _secrets(f"{what}: ami", one.ami)
        yield from check_trust(what, one)
        other = owners.setdefault((one.url, one.app), one.name)
        if other != one.name:
            yield (
                f"{what}: it has url and app of {other!r}, and would take that one's calls away: each application "
                f"belongs to one connection"
            )
        if one.media_address is not None and _loopback(one.media_address) and not _here(one):
            yield f"{what}: media_address {one.media_address} is a machine's own: Asterisk would send audio to itself"
        yield from _listeners(config, one)
    yield from check_certificate(config.websocket_listener)


def doubtful(config: Config) -> Iterator[str]:
    """What may be meant otherwise, one line each; it keeps nobody from starting."""
    kinds = {kind for one in config.asterisk for kind in media_kinds(config, one)}
    called_back = any(
        one.websocket.connects == "asterisk" and "websocket" in media_kinds(config, one) for one in config.asterisk
    )
    if "websocket_listener" in config.model_fields_set and not called_back:
        yield (
            "websocket_listener: nothing uses it: an asterisk needs media: websocket and websocket: "
            "{connects: asterisk} for that"
        )
    if "audiosocket" in config.model_fields_set and "audiosocket" not in kinds and not config.audiosocket.trunk:
        yield (
            "audiosocket: nothing uses it: set media: audiosocket for an asterisk or a route, or audiosocket.trunk "
            "for dialplans without ARI"
        )
    if config.audiosocket.trunk and config.audiosocket.networks and _loopback(config.http.listen):
        yield (
            "audiosocket.trunk: dialplans on other machines can't announce their calls: http.listen is "
            f"{config.http.listen}"
        )
    for i, route in enumerate(config.routes):
        if route.media is not None and not any(fnmatchcase(one.name, route.trunk) for one in config.asterisk):
            yield f"routes[{i}].media: it is for calls of an asterisk, and no name of one matches {route.trunk!r}"
    for one in config.asterisk:
        yield from _doubtful(config, one)


def _doubtful(config: Config, one: AsteriskSettings) -> Iterator[str]:
    what = f"asterisk {one.name!r}"
    if not one.agent and not any(fnmatchcase(one.name, route.trunk) for route in config.routes):
        yield (
            f"{what}: it has no agent, and no route is for it: only calls whose Stasis names one are answered, "
            f"others go on in its dialplan"
        )
    if not one.dead_man_s:
        yield f"{what}: dead_man_s is 0: if Offhook dies its callers hear silence, until it is back or they hang up"
    if one.url.startswith("http:") and not _here(one):
        yield f"{what}: its password goes to {_host(one)} unencrypted: use https, or a network that nobody else is in"
    if "audiosocket" in media_kinds(config, one) and _address(one) is None and not config.audiosocket.networks:
        yield (
            f"{what}: unless {_host(one)} is this machine, its AudioSocket connections are refused: "
            f"audiosocket.networks is empty"
        )
    yield from doubtful_trust(what, one)
    if not one.verify and one.url.startswith("http:"):
        yield f"{what}: verify: false has no meaning without https"


def _listeners(config: Config, one: AsteriskSettings) -> Iterator[str]:
    """Whether it may and can connect where its audio needs it to."""
    what, kinds, address = f"asterisk {one.name!r}", media_kinds(config, one), _address(one)
    if address is None or _here(one):
        return
    if "audiosocket" in kinds and _loopback(config.audiosocket.listen):
        yield f"{what}: audiosocket.listen {config.audiosocket.listen} can't be reached from {address}"
    if "websocket" in kinds and one.websocket.connects == "asterisk" and _loopback(config.websocket_listener.listen):
        yield f"{what}: websocket_listener.listen {config.websocket_listener.listen} can't be reached from {address}"


def _secrets(what: str, source: PasswordSource) -> Iterator[str]:
    try:
        source.password()
    except PasswordError as error:
        yield f"{what}: {error}"
    file = source.password_file
    if file is not None and file.exists() and file.stat().st_mode & (stat.S_IRWXO | stat.S_IWGRP):
        yield f"{what}: password_file {file} is open to other users of this machine: chmod 600 it"


def _host(one: AsteriskSettings) -> str:
    return urlsplit(one.url).hostname or ""


def _address(one: AsteriskSettings) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Where it is; None: only its name is known."""
    try:
        return ipaddress.ip_address(_host(one))
    except ValueError:
        return None


def _here(one: AsteriskSettings) -> bool:
    """On this machine."""
    return _host(one) == "localhost" or _loopback(_host(one))


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
