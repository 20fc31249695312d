"""Channels, bridges and events of ARI as values, and how they are read from its JSON."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

_NOTHING: Mapping[str, str] = MappingProxyType({})


class MalformedError(ValueError):
    """The JSON is not what Asterisk documents."""


@dataclass(frozen=True, slots=True)
class Channel:
    id: str
    name: str
    state: str
    """Down, Rsrvd, OffHook, Dialing, Ring, Ringing, Up, Busy, ..."""
    caller_number: str = ""
    caller_name: str = ""
    connected_number: str = ""
    context: str = ""
    extension: str = ""
    priority: int = 0
    app_name: str = ""
    """Of the dialplan: `Stasis` while an application of ARI has it."""
    app_data: str = ""
    """Its arguments: the application's name first (`offhook,agent=reception`)."""
    protocol_id: str = ""
    """Of SIP: the Call-ID."""
    created: str = ""
    """`2026-11-21T13:55:05.557+0000`, Asterisk's own clock."""
    variables: Mapping[str, str] = field(default_factory=lambda: _NOTHING, compare=False)
    """Those that Asterisk tells unasked: at external media, and with `channelvars` of ari.conf."""


@dataclass(frozen=True, slots=True)
class Bridge:
    id: str
    name: str
    type: str
    """mixing, holding."""
    technology: str
    """simple_bridge, softmix, ..."""
    channels: tuple[str, ...]
    """Ids."""


@dataclass(frozen=True, slots=True)
class Connected:
    """The event socket is open: what happened meanwhile has to be asked for."""

    first: bool


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The event socket is lost; live media goes on."""

    reason: str


@dataclass(frozen=True, slots=True)
class ApplicationReplaced:
    """Another connection has taken the application: events go there from now on."""

    app: str


@dataclass(frozen=True, slots=True)
class StasisStart:
    channel: Channel
    args: tuple[str, ...]
    replaces: Channel | None


@dataclass(frozen=True, slots=True)
class StasisEnd:
    """The application no longer has the channel: hung up, or gone on in the dialplan."""

    channel: Channel


@dataclass(frozen=True, slots=True)
class ChannelDestroyed:
    """Only of channels that the application created: those that come out of the dialplan end with StasisEnd, and the
    application hears no more of them."""

    channel: Channel
    cause: int
    """Q.850."""
    cause_text: str
    tech_cause: int | None = None
    """Of SIP: the status that a call was refused with (Asterisk 22; 480 too where Asterisk's own limit ran out)."""


@dataclass(frozen=True, slots=True)
class ChannelHangupRequest:
    channel: Channel
    cause: int | None
    soft: bool


@dataclass(frozen=True, slots=True)
class ChannelStateChange:
    channel: Channel


@dataclass(frozen=True, slots=True)
class ChannelDtmfReceived:
    channel: Channel
    digit: str
    duration_ms: int


@dataclass(frozen=True, slots=True)
class ChannelHold:
    channel: Channel
    music_class: str


@dataclass(frozen=True, slots=True)
class ChannelUnhold:
    channel: Channel


@dataclass(frozen=True, slots=True)
class ChannelVarset:
    channel: Channel | None
    """None: a global variable."""
    variable: str
    value: str


@dataclass(frozen=True, slots=True)
class ChannelTransfer:
    """A REFER that came for a channel whose transfers the application handles (`PJSIP_TRANSFER_HANDLING`)."""

    channel: Channel
    """That asks."""
    destination: str
    state: str


@dataclass(frozen=True, slots=True)
class Dial:
    peer: Channel
    caller: Channel | None
    status: str
    """Empty: it began; RINGING, PROGRESS, ANSWER, BUSY, NOANSWER, CANCEL, CONGESTION, CHANUNAVAIL, ..."""
    forward: str


@dataclass(frozen=True, slots=True)
class ChannelEnteredBridge:
    bridge: Bridge
    channel: Channel | None


@dataclass(frozen=True, slots=True)
class ChannelLeftBridge:
    bridge: Bridge
    channel: Channel


@dataclass(frozen=True, slots=True)
class BridgeDestroyed:
    bridge: Bridge


@dataclass(frozen=True, slots=True)
class RecordingStarted:
    name: str
    target_uri: str


@dataclass(frozen=True, slots=True)
class RecordingFinished:
    name: str
    target_uri: str
    duration_s: int


@dataclass(frozen=True, slots=True)
class RecordingFailed:
    name: str
    target_uri: str
    cause: str


@dataclass(frozen=True, slots=True)
class PlaybackFinished:
    id: str
    target_uri: str
    failed: bool


AriEvent = (
    Connected
    | Disconnected
    | ApplicationReplaced
    | StasisStart
    | StasisEnd
    | ChannelDestroyed
    | ChannelHangupRequest
    | ChannelStateChange
    | ChannelDtmfReceived
    | ChannelHold
    | ChannelUnhold
    | ChannelVarset
    | ChannelTransfer
    | Dial
    | ChannelEnteredBridge
    | ChannelLeftBridge
    | BridgeDestroyed
    | RecordingStarted
    | RecordingFinished
    | RecordingFailed
    | PlaybackFinished
)


def parse_event(message: Mapping[str, Any]) -> AriEvent | None:
    """An event of the socket; None: of a type that is not ours to know. Raises MalformedError."""
    kind = message.get("type")
    if not isinstance(kind, str):
        raise MalformedError("an event without a type")
    parse = _PARSERS.get(kind)
    if parse is None:
        return None
    try:
        return parse(message)
    except MalformedError as error:
        raise MalformedError(f"{kind}: {error}") from None


def parse_channel(data: object) -> Channel:
    """Raises MalformedError, where the id is missing or a field is of a wrong kind."""
    channel = _object(data, "channel")
    caller, connected = _inner(channel, "caller"), _inner(channel, "connected")
    dialplan = _inner(channel, "dialplan")
    variables = _inner(channel, "channelvars")
    return Channel(
        id=_required(channel, "id"),
        name=_text(channel, "name"),
        state=_text(channel, "state"),
        caller_number=_text(caller, "number"),
        caller_name=_text(caller, "name"),
        connected_number=_text(connected, "number"),
        context=_text(dialplan, "context"),
        extension=_text(dialplan, "exten"),
        priority=_number(dialplan, "priority"),
        app_name=_text(dialplan, "app_name"),
        app_data=_text(dialplan, "app_data"),
        protocol_id=_text(channel, "protocol_id"),
        created=_text(channel, "creationtime"),
        variables={str(name): str(value) for name, value in variables.items()} if variables else _NOTHING,
    )


def parse_bridge(data: object) -> Bridge:
    """Raises MalformedError."""
    bridge = _object(data, "bridge")
    return Bridge(
        id=_required(bridge, "id"),
        name=_text(bridge, "name"),
        type=_text(bridge, "bridge_type"),
        technology=_text(bridge, "technology"),
        channels=_texts(bridge, "channels"),
    )


# -- fields -------------------------------------------------------------------------------------------------------


def _object(data: object, what: str) -> Mapping[str, Any]:
    if not isinstance(data, dict):
        raise MalformedError(f"{what} is no object")
    return data


def _inner(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = data.get(name)
    return _object(found, name) if found is not None else {}


def _required(data: Mapping[str, Any], name: str) -> str:
    found = data.get(name)
    if not isinstance(found, str) or not found:
        raise MalformedError(f"{name} is missing")
    return found


def _text(data: Mapping[str, Any], name: str) -> str:
    found = data.get(name)
    if found is None:
        return ""
    if not isinstance(found, str):
        raise MalformedError(f"{name} is no text")
    return found


def _number(data: Mapping[str, Any], name: str) -> int:
    found = data.get(name, 0)
    if not isinstance(found, int):
        raise MalformedError(f"{name} is no number")
    return found


def _texts(data: Mapping[str, Any], name: str) -> tuple[str, ...]:
    found = data.get(name, [])
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise MalformedError(f"{name} is no list of texts")
    return tuple(found)


def _channel(message: Mapping[str, Any]) -> Channel:
    return parse_channel(message.get("channel"))


def _maybe_channel(message: Mapping[str, Any], name: str) -> Channel | None:
    found = message.get(name)
    return parse_channel(found) if found is not None else None


# -- events -------------------------------------------------------------------------------------------------------


def _hangup_request(message: Mapping[str, Any]) -> AriEvent:
    cause = _number(message, "cause") if "cause" in message else None
    return ChannelHangupRequest(_channel(message), cause, message.get("soft") is True)


def _transfer(message: Mapping[str, Any]) -> AriEvent:
    wanted = _inner(_inner(message, "refer_to"), "requested_destination")
    return ChannelTransfer(
        parse_channel(_inner(message, "referred_by").get("source_channel")),
        _text(wanted, "destination") or _text(wanted, "protocol_id"),
        _text(message, "state"),
    )


def _recording(message: Mapping[str, Any]) -> AriEvent:
    recording = _inner(message, "recording")
    name, uri = _required(recording, "name"), _text(recording, "target_uri")
    if message["type"] == "RecordingStarted":
        return RecordingStarted(name, uri)
    if message["type"] == "RecordingFinished":
        return RecordingFinished(name, uri, _number(recording, "duration"))
    return RecordingFailed(name, uri, _text(recording, "cause"))


def _playback(message: Mapping[str, Any]) -> AriEvent:
    playback = _inner(message, "playback")
    return PlaybackFinished(
        _required(playback, "id"), _text(playback, "target_uri"), _text(playback, "state") == "failed"
    )


_PARSERS: Mapping[str, Callable[[Mapping[str, Any]], AriEvent]] = {
    "ApplicationReplaced": lambda it: ApplicationReplaced(_text(it, "application")),
    "StasisStart": lambda it: StasisStart(_channel(it), _texts(it, "args"), _maybe_channel(it, "replace_channel")),
    "StasisEnd": lambda it: StasisEnd(_channel(it)),
    "ChannelDestroyed": lambda it: ChannelDestroyed(
        _channel(it), _number(it, "cause"), _text(it, "cause_txt"), _number(it, "tech_cause") or None
    ),
    "ChannelHangupRequest": _hangup_request,
    "ChannelStateChange": lambda it: ChannelStateChange(_channel(it)),
    "ChannelDtmfReceived": lambda it: ChannelDtmfReceived(
        _channel(it), _required(it, "digit"), _number(it, "duration_ms")
    ),
    "ChannelHold": lambda it: ChannelHold(_channel(it), _text(it, "musicclass")),
    "ChannelUnhold": lambda it: ChannelUnhold(_channel(it)),
    "ChannelVarset": lambda it: ChannelVarset(
        _maybe_channel(it, "channel"), _required(it, "variable"), _text(it, "value")
    ),
    "ChannelTransfer": _transfer,
    "Dial": lambda it: Dial(
        parse_channel(it.get("peer")), _maybe_channel(it, "caller"), _text(it, "dialstatus"), _text(it, "forward")
    ),
    "ChannelEnteredBridge": lambda it: ChannelEnteredBridge(
        parse_bridge(it.get("bridge")), _maybe_channel(it, "channel")
    ),
    "ChannelLeftBridge": lambda it: ChannelLeftBridge(parse_bridge(it.get("bridge")), _channel(it)),
    "BridgeDestroyed": lambda it: BridgeDestroyed(parse_bridge(it.get("bridge"))),
    "RecordingStarted": _recording,
    "RecordingFinished": _recording,
    "RecordingFailed": _recording,
    "PlaybackFinished": _playback,
}
