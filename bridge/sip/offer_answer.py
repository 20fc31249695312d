"""Offer and answer: which codec, where to, which way (RFC 3264; RFC 4733 for telephone-event).

Pure functions between what we want (`LocalMedia`) and session descriptions. To add a codec, add a `Codec`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from bridge.rtp.srtp_keys import SrtpKeys
from bridge.sip.errors import NoAudioError, NoCommonCodecError, SdpError
from bridge.sip.flow import Address
from bridge.sip.sdp import Attribute, Connection, Direction, MediaDescription, Origin, SessionDescription

PROTOCOLS = ("RTP/AVP", "RTP/AVPF")
"""Transports that we take: plain RTP, with or without early feedback."""


@dataclass(frozen=True, slots=True)
class Codec:
    name: str
    """Encoding name as in an rtpmap, upper case."""
    clock_rate: int
    """Of RTP timestamps (Hz). Not always that of the samples: G.722 says 8000 by an old mistake."""
    sample_rate: int
    payload_type: int | None = None
    """The static one (RFC 3551 6), None for a dynamic one."""
    channels: int = 1
    fmtp: str = ""
    """Format parameters that we send with it."""

    @property
    def rtpmap(self) -> str:
        channels = "" if self.channels == 1 else f"/{self.channels}"
        return f"{self.name}/{self.clock_rate}{channels}"


PCMU = Codec("PCMU", 8000, 8000, 0)
PCMA = Codec("PCMA", 8000, 8000, 8)
L16_16K = Codec("L16", 16000, 16000)

_STATIC = {
    0: ("PCMU", 8000, 1), 3: ("GSM", 8000, 1), 4: ("G723", 8000, 1), 8: ("PCMA", 8000, 1), 9: ("G722", 8000, 1),
    10: ("L16", 44100, 2), 11: ("L16", 44100, 1), 13: ("CN", 8000, 1), 15: ("G728", 8000, 1), 18: ("G729", 8000, 1),
}  # fmt: skip
"""What a payload type without an rtpmap means (RFC 3551 6)."""

_EVENT = "TELEPHONE-EVENT"
_EVENT_FMTP = "0-15"
"""The digits 0-9 * # A-D."""
_FIRST_EVENT_TYPE = 101
"""What everybody uses for 8 kHz events, though nothing says so."""


@dataclass(frozen=True, slots=True)
class LocalMedia:
    """What we can do on one audio stream, and where."""

    address: str
    """IP address where the peer reaches our RTP."""
    port: int
    codecs: tuple[Codec, ...] = (PCMU, PCMA)
    """In order of preference, which counts above the peer's."""
    ptime_ms: int = 20
    dtmf: bool = True
    """Take and offer RFC 4733 events."""
    direction: Direction = "sendrecv"
    """What we want: `sendonly` or `inactive` puts the peer on hold."""
    session_id: int = 1
    version: int = 1
    """For `o=`: up by one in each new description of a session; see `revised`."""


@dataclass(frozen=True, slots=True)
class Negotiated:
    """What both sides have agreed on."""

    local: SessionDescription
    """Our half: the answer to be sent, or the offer that was answered."""
    codec: Codec
    payload_type: int
    """Of what we send."""
    receive: Mapping[int, Codec]
    """Payload types that the peer may send audio with."""
    dtmf_payload_type: int | None
    """Of the events that we send; None: the peer takes none."""
    dtmf_receive: frozenset[int]
    """Payload types of events that the peer may send."""
    dtmf_clock_rate: int
    """Of the timestamps in the events that we send (Hz)."""
    remote: Address
    """Where to send RTP: an IP address, rarely a host name."""
    remote_rtcp: Address
    ptime_ms: int
    """How much audio the peer wants in a packet."""
    direction: Direction
    """Ours: `recvonly` and `inactive` mean that we send no audio."""
    held: bool
    """The peer put us on hold: it sends sendonly, inactive, or a null address."""
    rtcp_mux: bool = False
    """RTCP goes over RTP's port (RFC 5761)."""
    srtp: SrtpKeys | None = None
    """None: in clear."""


@dataclass(frozen=True, slots=True)
class _Stream:
    """The audio stream that we take from a description."""

    index: int
    media: MediaDescription
    codecs: Mapping[int, tuple[str, int, int]]
    """Name, clock rate and channels by payload type, in the author's order of preference."""


def make_offer(local: LocalMedia) -> SessionDescription:
    """An offer of all our codecs."""
    formats, attributes = _formats(local, _assign_types(local))
    return _description(local, (_media(local, "RTP/AVP", formats, attributes, local.direction),))


def negotiate_answer(offer: SessionDescription, local: LocalMedia) -> Negotiated:
    """Answer an offer: one audio stream with one codec of ours, everything else declined with port 0.

    Raises NoAudioError or NoCommonCodecError (both 488), or SdpError."""
    stream = _audio(offer)
    payload_type, codec = _choose(stream, local.codecs)
    dtmf_type, dtmf_rate = _choose_events(stream, codec) if local.dtmf else (None, codec.clock_rate)
    held, theirs = _offered_direction(offer, stream.media)
    direction = _narrow(local.direction, theirs)
    # The same payload types back: a type of our own would be legal, and lost on many a peer.
    types: dict[int, str] = {payload_type: codec.rtpmap}
    attributes: list[Attribute] = [("rtpmap", f"{payload_type} {codec.rtpmap}")]
    if codec.fmtp:
        attributes.append(("fmtp", f"{payload_type} {codec.fmtp}"))
    if dtmf_type is not None:
        types[dtmf_type] = f"telephone-event/{dtmf_rate}"
        attributes.append(("rtpmap", f"{dtmf_type} telephone-event/{dtmf_rate}"))
        attributes.append(("fmtp", f"{dtmf_type} {_EVENT_FMTP}"))
    formats = tuple(str(number) for number in types)
    taken = _media(local, stream.media.protocol, formats, tuple(attributes), direction)
    media = tuple(taken if i == stream.index else _declined(other) for i, other in enumerate(offer.media))
    remote, remote_rtcp = _addresses(offer, stream.media)
    return Negotiated(
        local=_description(local, media, offer.timing),
        codec=codec,
        payload_type=payload_type,
        receive={payload_type: codec},
        dtmf_payload_type=dtmf_type,
        dtmf_receive=frozenset(() if dtmf_type is None else (dtmf_type,)),
        dtmf_clock_rate=dtmf_rate,
        remote=remote,
        remote_rtcp=remote_rtcp,
        ptime_ms=_ptime(stream.media, local.ptime_ms),
        direction=direction,
        held=held,
    )


def accept_answer(offer: SessionDescription, answer: SessionDescription, local: LocalMedia) -> Negotiated:
    """Take the answer to an offer that `make_offer(local)` made.

    Raises NoAudioError or NoCommonCodecError where the peer declined, or SdpError."""
    if len(answer.media) != len(offer.media):
        raise SdpError(f"an answer with {len(answer.media)} media streams to an offer of {len(offer.media)}")
    stream = _audio(answer)
    assigned = _assign_types(local)
    # The answerer's order decides what we send (RFC 3264 7): its first codec that we offered.
    payload_type, codec = _choose_in_their_order(stream, local.codecs)
    dtmf_type, dtmf_rate = _choose_events(stream, codec) if local.dtmf else (None, codec.clock_rate)
    accepted = {_same_as(entry, local.codecs) for entry in stream.codecs.values()}
    receive = {number: ours for ours, number in assigned.items() if ours in accepted}
    events = set(_event_types(local, assigned).values()) if dtmf_type is not None else set()
    # Not a few peers send with the numbers of their own answer.
    for number, entry in stream.codecs.items():
        theirs = _same_as(entry, local.codecs)
        if theirs is not None and number not in events:
            receive.setdefault(number, theirs)
    if dtmf_type is not None and dtmf_type not in receive:
        events.add(dtmf_type)
    remote, remote_rtcp = _addresses(answer, stream.media)
    held, theirs_direction = _offered_direction(answer, stream.media)
    return Negotiated(
        local=offer,
        codec=codec,
        payload_type=payload_type,
        receive=receive,
        dtmf_payload_type=dtmf_type,
        dtmf_receive=frozenset(events),
        dtmf_clock_rate=dtmf_rate,
        remote=remote,
        remote_rtcp=remote_rtcp,
        ptime_ms=_ptime(stream.media, local.ptime_ms),
        direction=_narrow(local.direction, theirs_direction),
        # An answer of recvonly to our sendonly is our own hold, not the peer's.
        held=held and local.direction in ("sendrecv", "recvonly"),
    )


def revised(previous: SessionDescription, new: SessionDescription) -> SessionDescription:
    """`new` with the `o=` line that follows `previous`: the same version if nothing changed, else one more
    (RFC 3264 8)."""
    same = replace(new, origin=previous.origin)
    if same == previous:
        return previous
    version = str(int(previous.origin.version) + 1)
    return replace(new, origin=replace(previous.origin, version=version, address=new.origin.address))


# -- making ---------------------------------------------------------------------------------------------------


def _assign_types(local: LocalMedia) -> dict[Codec, int]:
    """Our payload type of each codec: the static one, else the next free dynamic one."""
    types = {}
    free = iter(number for number in range(96, 128) if number != _FIRST_EVENT_TYPE)
    for codec in local.codecs:
        types[codec] = codec.payload_type if codec.payload_type is not None else next(free)
    return types


def _event_types(local: LocalMedia, assigned: Mapping[Codec, int]) -> dict[int, int]:
    """Our payload type of events for each clock rate among our codecs (RFC 4733 2.1: theirs must equal audio's)."""
    if not local.dtmf:
        return {}
    rates = sorted({codec.clock_rate for codec in local.codecs})
    free = (n for n in (_FIRST_EVENT_TYPE, *range(102, 128), *range(96, 101)) if n not in assigned.values())
    return dict(zip(rates, free, strict=False))


def _formats(local: LocalMedia, types: Mapping[Codec, int]) -> tuple[tuple[str, ...], tuple[Attribute, ...]]:
    attributes: list[Attribute] = []
    for codec, number in types.items():
        attributes.append(("rtpmap", f"{number} {codec.rtpmap}"))
        if codec.fmtp:
            attributes.append(("fmtp", f"{number} {codec.fmtp}"))
    events = _event_types(local, types)
    for rate, number in events.items():
        attributes.append(("rtpmap", f"{number} telephone-event/{rate}"))
        attributes.append(("fmtp", f"{number} {_EVENT_FMTP}"))
    return tuple(str(number) for number in (*types.values(), *events.values())), tuple(attributes)


def _media(
    local: LocalMedia,
    protocol: str,
    formats: tuple[str, ...],
    attributes: tuple[Attribute, ...],
    direction: Direction,
) -> MediaDescription:
    tail: tuple[Attribute, ...] = (("ptime", str(local.ptime_ms)), (direction, None))
    return MediaDescription("audio", local.port, protocol, formats, attributes=(*attributes, *tail))


def _declined(media: MediaDescription) -> MediaDescription:
    return MediaDescription(media.media, 0, media.protocol, media.formats or ("0",))


def _description(local: LocalMedia, media: tuple[MediaDescription, ...], timing: str = "0 0") -> SessionDescription:
    kind = "IP6" if ":" in local.address else "IP4"
    origin = Origin("-", str(local.session_id), str(local.version), local.address, address_type=kind)
    return SessionDescription(origin, media, Connection(local.address, kind), timing=timing)


# -- reading --------------------------------------------------------------------------------------------------


def _audio(description: SessionDescription) -> _Stream:
    """The first audio stream that is on, over a transport of ours."""
    refused = []
    for index, media in enumerate(description.media):
        if media.media != "audio":
            continue
        if media.port == 0:
            refused.append("port 0")
        elif media.protocol not in PROTOCOLS:
            refused.append(media.protocol)
        else:
            return _Stream(index, media, _codecs_of(media))
    detail = f": {', '.join(refused)}" if refused else ""
    raise NoAudioError(f"no audio stream that can be used{detail}")


def _codecs_of(media: MediaDescription) -> dict[int, tuple[str, int, int]]:
    maps = media.rtpmaps()
    codecs = {}
    for text in media.formats:
        if text.isascii() and text.isdigit() and len(text) <= 3 and int(text) < 128:
            entry = maps.get(int(text)) or _STATIC.get(int(text))
            if entry is not None:
                codecs[int(text)] = entry
    return codecs


def _same_as(entry: tuple[str, int, int], codecs: tuple[Codec, ...]) -> Codec | None:
    """The codec of ours that an rtpmap means."""
    return next((c for c in codecs if (c.name.upper(), c.clock_rate, c.channels) == entry), None)


def _choose(stream: _Stream, codecs: tuple[Codec, ...]) -> tuple[int, Codec]:
    """Our most wanted codec among theirs."""
    for codec in codecs:
        for number, entry in stream.codecs.items():
            if _same_as(entry, (codec,)):
                return number, codec
    raise _no_common(stream, codecs)


def _choose_in_their_order(stream: _Stream, codecs: tuple[Codec, ...]) -> tuple[int, Codec]:
    for number, entry in stream.codecs.items():
        codec = _same_as(entry, codecs)
        if codec is not None:
            return number, codec
    raise _no_common(stream, codecs)


def _no_common(stream: _Stream, codecs: tuple[Codec, ...]) -> NoCommonCodecError:
    theirs = ", ".join(f"{name}/{rate}" for name, rate, _ in stream.codecs.values()) or "none known"
    return NoCommonCodecError(
        f"no common codec: the peer has {theirs}; we have {', '.join(c.rtpmap for c in codecs)}"
    )


def _choose_events(stream: _Stream, codec: Codec) -> tuple[int | None, int]:
    """Payload type and clock rate of events: at the audio's rate, else the first that the peer has."""
    events = {number: entry[1] for number, entry in stream.codecs.items() if entry[0] == _EVENT}
    for number, rate in events.items():
        if rate == codec.clock_rate:
            return number, rate
    return next(iter(events.items()), (None, codec.clock_rate))


def _addresses(description: SessionDescription, media: MediaDescription) -> tuple[Address, Address]:
    """Where the author takes RTP, and RTCP (RFC 3605, else the next port)."""
    host = description.connection_of(media).address
    rtcp_port, *where = (media.attribute("rtcp") or "").split() or [""]
    if not (rtcp_port.isascii() and rtcp_port.isdigit() and 0 < int(rtcp_port[:6]) < 65536):
        return (host, media.port), (host, min(media.port + 1, 65535))
    rtcp_host = where[2] if len(where) == 3 else host
    return (host, media.port), (rtcp_host, int(rtcp_port))


def _offered_direction(description: SessionDescription, media: MediaDescription) -> tuple[bool, Direction]:
    """Whether the author holds us, and its direction, an old-fashioned hold by null address translated."""
    direction = description.direction_of(media)
    if description.connection_of(media).is_null:
        return True, "inactive" if direction in ("recvonly", "inactive") else "sendonly"
    return direction in ("sendonly", "inactive"), direction


def _narrow(ours: Direction, theirs: Direction) -> Direction:
    """What is left for us of what we want, given the peer's direction (RFC 3264 6.1)."""
    send = ours in ("sendrecv", "sendonly") and theirs in ("sendrecv", "recvonly")
    receive = ours in ("sendrecv", "recvonly") and theirs in ("sendrecv", "sendonly")
    if send:
        return "sendrecv" if receive else "sendonly"
    return "recvonly" if receive else "inactive"


def _ptime(media: MediaDescription, default_ms: int) -> int:
    """The packet length that the author wants, within reason (10 to 200 ms) and its maxptime."""
    wanted = _number(media.attribute("ptime")) or default_ms
    limit = _number(media.attribute("maxptime")) or 200
    return max(10, min(wanted, limit, 200))


def _number(text: str | None) -> int | None:
    """Some write `ptime:20.0`."""
    whole = (text or "").partition(".")[0].strip()
    return int(whole) if whole.isascii() and whole.isdigit() and len(whole) < 6 else None
