"""Offer and answer: which codec, where to, which way (RFC 3264; RFC 4733 for telephone-event).

Pure functions between what we want (`LocalMedia`) and session descriptions. To add a codec, add a `Codec`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from bridge.rtp.srtp_keys import SrtpKeys
from bridge.sip.codecs import G722, L16_8K, L16_16K, OPUS, PCMA, PCMU, STATIC, Codec
from bridge.sip.errors import NoAudioError, NoCommonCodecError, SdpError
from bridge.sip.flow import Address
from bridge.sip.sdes import Crypto, new_keys
from bridge.sip.sdp import Attribute, Connection, Direction, MediaDescription, Origin, SessionDescription
from bridge.sip.secure_media import (
    PLAIN,
    REFUSED,
    SECURE,
    SrtpPolicy,
    accept_keys,
    answer_keys,
    judge,
    offered_keys,
    offered_protocol,
)

__all__ = [
    "G722",
    "L16_8K",
    "L16_16K",
    "OPUS",
    "PCMA",
    "PCMU",
    "Codec",
    "LocalMedia",
    "Negotiated",
    "accept_answer",
    "make_offer",
    "negotiate_answer",
    "revised",
]

PROTOCOLS = (*PLAIN, *SECURE)
"""Transports that we know: RTP and SRTP, with or without early feedback."""

LONGEST_PTIME_MS = 60
"""More delay than anyone should have to wait for."""

_EVENT = "TELEPHONE-EVENT"
_NOISE = "CN"
_NOISE_TYPE = 13
"""Static, at 8 kHz (RFC 3389 4)."""
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
    comfort_noise: bool = False
    """Name comfort noise (RFC 3389), which lets the peer suppress its silence. It is understood anyway; but a peer
    that suppresses cuts the first sounds of words, which costs speech recognition more than silent packets cost."""
    direction: Direction = "sendrecv"
    """What we want: `sendonly` or `inactive` puts the peer on hold."""
    session_id: int = 1
    version: int = 1
    """For `o=`: up by one in each new description of a session; see `revised`."""
    srtp: SrtpPolicy = "off"
    """`offered`: encrypt if the peer does; `required`: or else there is no call."""
    keys: tuple[Crypto, ...] = field(default_factory=new_keys)
    """Ours, one a crypto suite, the same in all descriptions of a session."""
    rtcp_mux: bool = False
    """Offer RTCP on RTP's port; an offer of it is taken either way."""


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
    dtmf_receive: Mapping[int, int]
    """Events that the peer may send: clock rate (Hz) by payload type."""
    dtmf_clock_rate: int
    """Of the durations in the events that we send (Hz)."""
    remote: Address
    """Where to send RTP: an IP address, rarely a host name."""
    remote_rtcp: Address
    ptime_ms: int
    """How much audio goes into a packet of ours, 10 to 60 ms: what the peer wants, as the codec can have it."""
    direction: Direction
    """Ours: `recvonly` and `inactive` mean that we send no audio."""
    held: bool
    """The peer put us on hold: it sends sendonly, inactive, or a null address."""
    rtcp_mux: bool = False
    """RTCP goes over RTP's port (RFC 5761)."""
    srtp: SrtpKeys | None = None
    """None: in clear."""
    fmtp: str = ""
    """The peer's format parameters of what we send: what it wants of its codec."""
    comfort_noise: frozenset[int] = field(default_factory=frozenset)
    """Payload types of comfort noise that the peer may send."""


@dataclass(frozen=True, slots=True)
class _Stream:
    """An audio stream of a description that can be taken."""

    index: int
    media: MediaDescription
    formats: Mapping[int, tuple[str, int, int]]
    """Name, clock rate and channels by payload type, in the author's order of preference."""

    @property
    def codecs(self) -> dict[int, tuple[str, int, int]]:
        return {n: entry for n, entry in self.formats.items() if entry[0] not in (_EVENT, _NOISE)}

    @property
    def events(self) -> dict[int, int]:
        """Clock rate of telephone events by payload type."""
        return {number: entry[1] for number, entry in self.formats.items() if entry[0] == _EVENT}

    @property
    def noise(self) -> dict[int, int]:
        """Clock rate of comfort noise by payload type."""
        return {number: entry[1] for number, entry in self.formats.items() if entry[0] == _NOISE}


def make_offer(local: LocalMedia, previous: SessionDescription | None = None) -> SessionDescription:
    """An offer of all our codecs. In mid-call `previous` is the last description of ours: payload types keep their
    meaning and streams their place (RFC 3264 8)."""
    audio = _Types(local, previous)
    before = previous.media if previous is not None else ()
    ours = next((i for i, media in enumerate(before) if media.media == "audio" and media.port), None)
    protocol, keys = offered_protocol(local.srtp), offered_keys(local.srtp, local.keys)
    if ours is not None:
        # In mid-call the transport does not change: what is encrypted is offered so again, what is in clear stays so.
        protocol = before[ours].protocol
        keys = keys if before[ours].attribute("crypto") is not None else ()
    attributes = (*audio.attributes, *keys)
    if local.rtcp_mux:
        attributes += (("rtcp-mux", None),)
    offered = _media(local, protocol, audio.formats, attributes, local.direction, local.ptime_ms)
    if previous is None:
        return _description(local, (offered,))
    media = [offered if i == ours else _declined(other) for i, other in enumerate(previous.media)]
    return _description(local, tuple(media if ours is not None else [*media, offered]))


def negotiate_answer(offer: SessionDescription, local: LocalMedia) -> Negotiated:
    """Answer an offer: one audio stream with one codec of ours, everything else declined with port 0.

    Raises NoAudioError or NoCommonCodecError (both 488), or SdpError."""
    stream, payload_type, codec = _choose(offer, local.codecs, local.srtp)
    events = stream.events if local.dtmf else {}
    dtmf_type, dtmf_rate = _choose_events(events, codec)
    noise = {number for number, rate in stream.noise.items() if rate == codec.clock_rate}
    held, theirs = _offered_direction(offer, stream.media)
    direction = _narrow(local.direction, theirs)
    ptime_ms = _ptime(offer, stream.media, codec, local.ptime_ms)
    # The same payload types back: a type of our own would be legal, and lost on many a peer.
    formats = [payload_type]
    attributes: list[Attribute] = [*_named(payload_type, codec.rtpmap, codec.fmtp)]
    if local.comfort_noise and noise:
        formats.append(min(noise))
        attributes += _named(formats[-1], f"CN/{codec.clock_rate}")
    if dtmf_type is not None:
        formats.append(dtmf_type)
        attributes += _named(dtmf_type, f"telephone-event/{dtmf_rate}", _EVENT_FMTP)
    crypto, srtp = answer_keys(stream.media, local.srtp, local.keys)
    attributes += crypto
    rtcp_mux = stream.media.attribute("rtcp-mux") is not None
    if rtcp_mux:
        attributes.append(("rtcp-mux", None))
    names = tuple(str(number) for number in formats)
    taken = _media(local, stream.media.protocol, names, tuple(attributes), direction, ptime_ms)
    media = tuple(taken if i == stream.index else _declined(other) for i, other in enumerate(offer.media))
    remote, remote_rtcp = _addresses(offer, stream.media)
    return Negotiated(
        local=_description(local, media, offer.timing),
        codec=codec,
        payload_type=payload_type,
        receive={payload_type: codec},
        dtmf_payload_type=dtmf_type,
        dtmf_receive=events,
        dtmf_clock_rate=dtmf_rate,
        remote=remote,
        remote_rtcp=remote_rtcp,
        ptime_ms=ptime_ms,
        direction=direction,
        held=held,
        fmtp=stream.media.fmtp(payload_type),
        comfort_noise=frozenset(noise),
        rtcp_mux=rtcp_mux,
        srtp=srtp,
    )


def accept_answer(offer: SessionDescription, answer: SessionDescription, local: LocalMedia) -> Negotiated:
    """Take the answer to an offer that `make_offer` made of `local`, whose direction is the offer's here.

    Raises NoAudioError or NoCommonCodecError where the peer declined, or SdpError."""
    if len(answer.media) != len(offer.media):
        raise SdpError(f"an answer with {len(answer.media)} media streams to an offer of {len(offer.media)}")
    ours = next(_usable(offer), None)
    stream = next((stream for stream in _usable(answer) if ours is not None and stream.index == ours.index), None)
    if ours is None or stream is None:
        raise _no_audio(answer)
    srtp = accept_keys(ours.media, stream.media, local.srtp, local.keys)
    # The answerer's order decides what we send (RFC 3264 7): its first codec that we offered.
    payload_type, codec = _choose_in_their_order(stream, local.codecs)
    dtmf_type, dtmf_rate = _choose_events(stream.events if local.dtmf else {}, codec)
    accepted = {_same_as(entry, local.codecs) for entry in stream.codecs.values()} - {None}
    receive: dict[int, Codec] = {}
    events = {**ours.events, **stream.events} if dtmf_type is not None else {}
    # What we named counts; but not a few peers send with the numbers of their own answer.
    for number, entry in (*ours.codecs.items(), *stream.codecs.items()):
        named = _same_as(entry, local.codecs)
        if named in accepted and named is not None and number not in ours.events:
            receive.setdefault(number, named)
    direction = offer.direction_of(ours.media)
    held, theirs = _offered_direction(answer, stream.media)
    remote, remote_rtcp = _addresses(answer, stream.media)
    return Negotiated(
        local=offer,
        codec=codec,
        payload_type=payload_type,
        receive=receive,
        dtmf_payload_type=dtmf_type,
        dtmf_receive={number: rate for number, rate in events.items() if number not in receive},
        dtmf_clock_rate=dtmf_rate,
        remote=remote,
        remote_rtcp=remote_rtcp,
        ptime_ms=_ptime(answer, stream.media, codec, local.ptime_ms),
        direction=_narrow(direction, theirs),
        # An answer of recvonly to our sendonly is our own hold, not the peer's.
        held=held and direction in ("sendrecv", "recvonly"),
        fmtp=stream.media.fmtp(payload_type),
        comfort_noise=frozenset({**ours.noise, **stream.noise}),
        rtcp_mux=all(media.attribute("rtcp-mux") is not None for media in (ours.media, stream.media)),
        srtp=srtp,
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


class _Types:
    """Our payload types: the numbers that we used before, else the static ones, else free ones."""

    def __init__(self, local: LocalMedia, previous: SessionDescription | None) -> None:
        self._used: dict[str, int] = {}
        """Number by rtpmap, in upper case."""
        for stream in _usable(previous) if previous is not None else ():
            for number, (name, rate, channels) in stream.formats.items():
                self._used.setdefault(_key(f"{name}/{rate}/{channels}"), number)
        self._taken = set(self._used.values()) | set(STATIC)
        self._formats: list[int] = []
        self._attributes: list[Attribute] = []
        for codec in local.codecs:
            self._add(codec.rtpmap, codec.payload_type, range(96, 101), codec.fmtp)
        rates = sorted({codec.clock_rate for codec in local.codecs})
        if local.comfort_noise:
            for rate in (rate for rate in rates if rate <= 16000):
                self._add(f"CN/{rate}", _NOISE_TYPE if rate == 8000 else None, range(102, 128))
        if local.dtmf:
            # One for each clock rate among the codecs: an event's must equal the audio's (RFC 4733 2.1).
            for rate in rates:
                self._add(f"telephone-event/{rate}", None, range(_FIRST_EVENT_TYPE, 128), _EVENT_FMTP)

    def _add(self, rtpmap: str, static: int | None, wanted: range, fmtp: str = "") -> None:
        number = self._used.get(_key(rtpmap), static)
        if number is None:
            choice = (n for n in (*wanted, *range(102, 128), *range(96, 102)) if n not in self._taken)
            number = next(choice, None)
        if number is None:
            raise SdpError("no payload type is left for all our codecs")
        self._taken.add(number)
        self._formats.append(number)
        self._attributes += _named(number, rtpmap, fmtp)

    @property
    def formats(self) -> tuple[str, ...]:
        return tuple(str(number) for number in self._formats)

    @property
    def attributes(self) -> tuple[Attribute, ...]:
        return tuple(self._attributes)


def _key(rtpmap: str) -> str:
    return rtpmap.upper().removesuffix("/1")


def _named(payload_type: int, rtpmap: str, fmtp: str = "") -> list[Attribute]:
    attributes: list[Attribute] = [("rtpmap", f"{payload_type} {rtpmap}")]
    return [*attributes, ("fmtp", f"{payload_type} {fmtp}")] if fmtp else attributes


def _media(
    local: LocalMedia,
    protocol: str,
    formats: tuple[str, ...],
    attributes: tuple[Attribute, ...],
    direction: Direction,
    ptime_ms: int,
) -> MediaDescription:
    tail: tuple[Attribute, ...] = (("ptime", str(ptime_ms)), (direction, None))
    return MediaDescription("audio", local.port, protocol, formats, attributes=(*attributes, *tail))


def _declined(media: MediaDescription) -> MediaDescription:
    return MediaDescription(media.media, 0, media.protocol, media.formats or ("0",))


def _description(local: LocalMedia, media: tuple[MediaDescription, ...], timing: str = "0 0") -> SessionDescription:
    kind = "IP6" if ":" in local.address else "IP4"
    origin = Origin("-", str(local.session_id), str(local.version), local.address, address_type=kind)
    return SessionDescription(origin, media, Connection(local.address, kind), timing=timing)


# -- reading --------------------------------------------------------------------------------------------------


def _usable(description: SessionDescription) -> Iterator[_Stream]:
    """The audio streams that are on, over a transport of ours."""
    for index, media in enumerate(description.media):
        if media.media == "audio" and media.port and media.protocol in PROTOCOLS:
            yield _Stream(index, media, _codecs_of(media))


def _no_audio(description: SessionDescription, policy: SrtpPolicy = "offered") -> NoAudioError:
    refused = [
        (judge(media, policy)[1] or media.protocol) if media.port else "port 0"
        for media in description.media
        if media.media == "audio"
    ]
    detail = f": {', '.join(refused)}" if refused else ""
    return NoAudioError(f"no audio stream that can be used{detail}")


def _codecs_of(media: MediaDescription) -> dict[int, tuple[str, int, int]]:
    maps = media.rtpmaps()
    codecs = {}
    for text in media.formats:
        if text.isascii() and text.isdigit() and len(text) <= 3 and int(text) < 128:
            entry = maps.get(int(text)) or STATIC.get(int(text))
            if entry is not None:
                codecs[int(text)] = entry
    return codecs


def _same_as(entry: tuple[str, int, int], codecs: tuple[Codec, ...]) -> Codec | None:
    """The codec of ours that an rtpmap means."""
    return next((codec for codec in codecs if codec.means(*entry)), None)


def _choose(offer: SessionDescription, codecs: tuple[Codec, ...], policy: SrtpPolicy) -> tuple[_Stream, int, Codec]:
    """The first stream with a codec of ours, and our most wanted codec of it. Encrypted ones come before others: some
    offer the same twice."""
    judged = [(judge(stream.media, policy)[0], stream) for stream in _usable(offer)]
    streams = [stream for verdict, stream in sorted(judged, key=lambda pair: -pair[0]) if verdict != REFUSED]
    if not streams:
        raise _no_audio(offer, policy)
    for stream in streams:
        for codec in codecs:
            for number, entry in stream.codecs.items():
                if codec.means(*entry):
                    return stream, number, codec
    raise _no_common(streams[0], codecs)


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


def _choose_events(events: Mapping[int, int], codec: Codec) -> tuple[int | None, int]:
    """Payload type and clock rate of events: at the audio's rate, else the first that the peer has."""
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


def _ptime(description: SessionDescription, media: MediaDescription, codec: Codec, default_ms: int) -> int:
    """The packet length that the author wants, within reason and its maxptime, as the codec can have it."""

    def told(name: str) -> int | None:
        return _number(media.attribute(name)) or _number(description.attribute(name))

    wanted = min(told("ptime") or default_ms, told("maxptime") or LONGEST_PTIME_MS, LONGEST_PTIME_MS)
    lengths = codec.lengths_ms or range(10, LONGEST_PTIME_MS + 1, 10)
    return max((ms for ms in lengths if ms <= wanted), default=lengths[0])


def _number(text: str | None) -> int | None:
    """Some write `ptime:20.0`."""
    whole = (text or "").partition(".")[0].strip()
    return int(whole) if whole.isascii() and whole.isdigit() and len(whole) < 6 else None
