"""RTCP packets (RFC 3550 6): compounds of reports, names and goodbyes, parsed and serialised."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

SENDER_REPORT = 200
RECEIVER_REPORT = 201
SOURCE_DESCRIPTION = 202
GOODBYE = 203

CNAME = 1
"""The one item of a source description that everybody must send (RFC 3550 6.5.1)."""

MAX_BLOCKS = 31
"""Report blocks, chunks or sources in one packet: a five-bit count."""

_header = struct.Struct(">BBH")
_sender = struct.Struct(">QIII")
_block = struct.Struct(">IIIIII")
_ssrc = struct.Struct(">I")


class RtcpError(Exception):
    """Bytes that are no whole RTCP compound, or a value that does not fit one."""


@dataclass(frozen=True, slots=True)
class ReportBlock:
    """What one receiver says of one source (RFC 3550 6.4.1)."""

    ssrc: int
    """The source that is reported on."""
    fraction_lost: int
    """Since the report before, in 1/256."""
    lost: int
    """Since the beginning; negative after duplicates."""
    highest_sequence: int
    """With the count of wraps in its upper 16 bits."""
    jitter: int
    """In units of the RTP clock."""
    last_report: int
    """Middle 32 bits of the NTP time in the last sender report that came from the source; 0: none did."""
    delay_since: int
    """From its arrival to this report, in 1/65536 s."""


@dataclass(frozen=True, slots=True)
class SenderReport:
    ssrc: int
    ntp: int
    """64 bits: seconds since 1900 and their fraction."""
    timestamp: int
    """The same instant in the RTP clock."""
    packets: int
    octets: int
    blocks: tuple[ReportBlock, ...] = ()


@dataclass(frozen=True, slots=True)
class ReceiverReport:
    ssrc: int
    blocks: tuple[ReportBlock, ...] = ()


@dataclass(frozen=True, slots=True)
class SourceDescription:
    names: tuple[tuple[int, str], ...]
    """SSRC and CNAME of each chunk; "" where a chunk has none. Other items are left out."""


@dataclass(frozen=True, slots=True)
class Goodbye:
    ssrcs: tuple[int, ...]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Unknown:
    """A well-formed packet that we have no use for: APP, feedback (RFC 4585), extended reports (RFC 3611), ..."""

    packet_type: int
    count: int
    body: bytes
    """What follows the first four bytes, padding included; a multiple of 4 bytes."""


RtcpPacket = SenderReport | ReceiverReport | SourceDescription | Goodbye | Unknown


def parse_compound(data: bytes) -> tuple[RtcpPacket, ...]:
    """The packets of one datagram. Raises RtcpError unless all of it is RTCP of version 2.

    A compound need not begin with a report (RFC 5506): the field sends such, and nothing here depends on it."""
    packets = []
    at = 0
    while at < len(data):
        if len(data) - at < 4:
            raise RtcpError(f"{len(data) - at} bytes are less than an RTCP header")
        first, packet_type, words = _header.unpack_from(data, at)
        end = at + 4 + 4 * words
        if first & 0xC0 != 0x80:
            raise RtcpError(f"version {first >> 6} is not 2")
        if not 192 <= packet_type <= 223:
            raise RtcpError(f"{packet_type} is no RTCP packet type")
        if end > len(data):
            raise RtcpError(f"the header says {end - at} bytes and {len(data) - at} are left")
        body = data[at + 4 : end]
        if first & 0x20:
            if end != len(data):
                raise RtcpError("padding before the last packet")
            body = _without_padding(body)
        packets.append(_parse(packet_type, first & 0x1F, body))
        at = end
    if not packets:
        raise RtcpError("an empty datagram")
    return tuple(packets)


def serialise_compound(packets: Sequence[RtcpPacket]) -> bytes:
    """One datagram. Raises RtcpError for a value out of its range."""
    try:
        return b"".join(_serialise(packet) for packet in packets)
    except struct.error as error:
        raise RtcpError(f"a field is out of range: {error}") from error


# -- reading --------------------------------------------------------------------------------------------------


def _without_padding(body: bytes) -> bytes:
    padding = body[-1] if body else 0
    if not padding or padding % 4 or padding > len(body):
        raise RtcpError(f"{padding} bytes of padding do not fit the packet")
    return body[:-padding]


def _parse(packet_type: int, count: int, body: bytes) -> RtcpPacket:
    match packet_type:
        case 200:
            _need(body, 24 + 24 * count, "sender report")
            ntp, timestamp, packets, octets = _sender.unpack_from(body, 4)
            (ssrc,) = _ssrc.unpack_from(body)
            return SenderReport(ssrc, ntp, timestamp, packets, octets, _blocks(body, 24, count))
        case 201:
            _need(body, 4 + 24 * count, "receiver report")
            return ReceiverReport(_ssrc.unpack_from(body)[0], _blocks(body, 4, count))
        case 202:
            return SourceDescription(_names(body, count))
        case 203:
            _need(body, 4 * count, "goodbye")
            return Goodbye(struct.unpack_from(f">{count}I", body), _reason(body[4 * count :]))
        case _:
            return Unknown(packet_type, count, body)


def _need(body: bytes, size: int, what: str) -> None:
    if len(body) < size:
        raise RtcpError(f"a {what} of {len(body) + 4} bytes that should have {size + 4}")


def _blocks(body: bytes, start: int, count: int) -> tuple[ReportBlock, ...]:
    """Report blocks; what a profile puts behind them is left out."""
    blocks = []
    for at in range(start, start + 24 * count, 24):
        ssrc, loss, highest, jitter, last, delay = _block.unpack_from(body, at)
        lost = loss & 0xFFFFFF
        lost -= (lost & 0x800000) << 1
        blocks.append(ReportBlock(ssrc, loss >> 24, lost, highest, jitter, last, delay))
    return tuple(blocks)


def _names(body: bytes, count: int) -> tuple[tuple[int, str], ...]:
    names = []
    at = 0
    for _ in range(count):
        if at + 4 > len(body):
            raise RtcpError(f"a source description with fewer than its {count} chunks")
        (ssrc,) = _ssrc.unpack_from(body, at)
        at += 4
        name = ""
        while True:
            if at >= len(body):
                raise RtcpError("a source description that does not end")
            item = body[at]
            if item == 0:
                # Zeros up to the next multiple of four, one at least.
                at += 4 - at % 4
                break
            if at + 2 > len(body) or at + 2 + body[at + 1] > len(body):
                raise RtcpError("an item of a source description that is cut off")
            if item == CNAME:
                name = body[at + 2 : at + 2 + body[at + 1]].decode(errors="replace")
            at += 2 + body[at + 1]
        names.append((ssrc, name))
    return tuple(names)


def _reason(rest: bytes) -> str:
    if not rest:
        return ""
    if 1 + rest[0] > len(rest):
        raise RtcpError("the reason of a goodbye is cut off")
    return rest[1 : 1 + rest[0]].decode(errors="replace")


# -- writing --------------------------------------------------------------------------------------------------


def _serialise(packet: RtcpPacket) -> bytes:
    match packet:
        case SenderReport(ssrc, ntp, timestamp, packets, octets, blocks):
            body = _ssrc.pack(ssrc) + _sender.pack(ntp, timestamp, packets & 0xFFFFFFFF, octets & 0xFFFFFFFF)
            return _packet(SENDER_REPORT, len(blocks), body + _pack_blocks(blocks))
        case ReceiverReport(ssrc, blocks):
            return _packet(RECEIVER_REPORT, len(blocks), _ssrc.pack(ssrc) + _pack_blocks(blocks))
        case SourceDescription(names):
            return _packet(SOURCE_DESCRIPTION, len(names), b"".join(_chunk(*name) for name in names))
        case Goodbye(ssrcs, reason):
            body = struct.pack(f">{len(ssrcs)}I", *ssrcs)
            if reason:
                text = _short(reason)
                body += bytes([len(text)]) + text
                body += bytes(-len(body) % 4)
            return _packet(GOODBYE, len(ssrcs), body)
        case Unknown(packet_type, count, body):
            if len(body) % 4:
                raise RtcpError(f"a body of {len(body)} bytes is not a multiple of 4")
            return _packet(packet_type, count, body)


def _packet(packet_type: int, count: int, body: bytes) -> bytes:
    if count > MAX_BLOCKS:
        raise RtcpError(f"{count} parts do not fit a packet that counts to {MAX_BLOCKS}")
    return _header.pack(0x80 | count, packet_type, len(body) // 4) + body


def _pack_blocks(blocks: tuple[ReportBlock, ...]) -> bytes:
    return b"".join(
        _block.pack(
            block.ssrc,
            # 24 bits with a sign: a stream that lost more is told as the most that can be said (RFC 3550 A.3).
            block.fraction_lost << 24 | max(-0x800000, min(block.lost, 0x7FFFFF)) & 0xFFFFFF,
            block.highest_sequence & 0xFFFFFFFF,
            block.jitter,
            block.last_report,
            block.delay_since,
        )
        for block in blocks
    )


def _chunk(ssrc: int, name: str) -> bytes:
    text = _short(name)
    chunk = _ssrc.pack(ssrc) + bytes([CNAME, len(text)]) + text
    return chunk + bytes(4 - len(chunk) % 4)


def _short(text: str) -> bytes:
    """What one length byte can count, cut between characters."""
    return text.encode()[:255].decode(errors="ignore").encode()
