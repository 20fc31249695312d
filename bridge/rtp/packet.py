"""RTP packets (RFC 3550 5.1)."""

import struct
from dataclasses import dataclass

HEADER_BYTES = 12
VERSION_2 = 0x80
MARKER = 0x80
MASK_16 = 0xFFFF
MASK_32 = 0xFFFFFFFF

pack_header = struct.Struct(">BBHII").pack
"""(first byte, marker and payload type, sequence, timestamp, SSRC) -> 12 bytes; for the sender's hot loop."""

unpack_header = struct.Struct(">BBHII").unpack_from
"""(data) -> first byte, marker and payload type, sequence, timestamp, SSRC; for the receiver's hot loop."""

unpack_order = struct.Struct(">HII").unpack_from
"""(data, 2) -> sequence, timestamp, SSRC."""


class RtpError(Exception):
    """Bytes that are no RTP packet, or a value that does not fit one."""


@dataclass(frozen=True, slots=True)
class RtpPacket:
    payload_type: int
    sequence: int
    timestamp: int
    ssrc: int
    payload: bytes = b""
    marker: bool = False
    csrcs: tuple[int, ...] = ()
    extension: tuple[int, bytes] | None = None
    """Profile and data of the header extension (RFC 3550 5.3.1); the data is a multiple of 4 bytes."""
    padding: int = 0
    """Bytes of padding, the last of which counts them; 0 for none."""

    @classmethod
    def parse(cls, data: bytes) -> "RtpPacket":
        """Raises RtpError for anything that is not a whole RTP packet of version 2."""
        start, end = payload_bounds(data)
        sequence, timestamp, ssrc = unpack_order(data, 2)
        csrc_end = HEADER_BYTES + 4 * (data[0] & 0x0F)
        extension = None
        if data[0] & 0x10:
            profile = int.from_bytes(data[csrc_end : csrc_end + 2], "big")
            extension = (profile, bytes(data[csrc_end + 4 : start]))
        return cls(
            payload_type=data[1] & 0x7F,
            sequence=sequence,
            timestamp=timestamp,
            ssrc=ssrc,
            payload=bytes(data[start:end]),
            marker=bool(data[1] & MARKER),
            csrcs=struct.unpack(f">{data[0] & 0x0F}I", data[HEADER_BYTES:csrc_end]),
            extension=extension,
            padding=len(data) - end,
        )

    def serialize(self) -> bytes:
        """Raises RtpError for a field out of its range."""
        if not (0 <= self.payload_type <= 127 and len(self.csrcs) <= 15 and 0 <= self.padding <= 255):
            raise RtpError(
                f"payload type {self.payload_type}, {len(self.csrcs)} CSRCs or {self.padding} bytes of padding "
                "are out of range (127, 15, 255)"
            )
        first = VERSION_2 | len(self.csrcs) | (0x10 if self.extension else 0) | (0x20 if self.padding else 0)
        second = self.payload_type | (MARKER if self.marker else 0)
        try:
            parts = [pack_header(first, second, self.sequence, self.timestamp, self.ssrc)]
            parts.append(struct.pack(f">{len(self.csrcs)}I", *self.csrcs))
            if self.extension:
                profile, data = self.extension
                if len(data) % 4:
                    raise RtpError(f"a header extension of {len(data)} bytes is not a multiple of 4")
                parts += [struct.pack(">HH", profile, len(data) // 4), data]
        except struct.error as error:
            raise RtpError(f"a field is out of range: {error}") from error
        parts.append(self.payload)
        if self.padding:
            parts.append(bytes(self.padding - 1) + bytes([self.padding]))
        return b"".join(parts)


def is_rtcp(data: bytes) -> bool:
    """Whether a packet on the RTP port is RTCP: types 192 to 223 in the second byte (RFC 5761 4)."""
    return len(data) >= 4 and 192 <= data[1] <= 223


def payload_bounds(data: bytes) -> tuple[int, int]:
    """Where the payload starts and ends. Raises RtpError for anything that is not a whole packet."""
    size = len(data)
    if size < HEADER_BYTES:
        raise RtpError(f"{size} bytes are less than the RTP header")
    first = data[0]
    if first & 0xC0 != VERSION_2:
        raise RtpError(f"version {first >> 6} is not 2")
    start = HEADER_BYTES + 4 * (first & 0x0F)
    if first & 0x10:
        if size < start + 4:
            raise RtpError("the header extension is cut off")
        start += 4 + 4 * int.from_bytes(data[start + 2 : start + 4], "big")
    if size < start:
        raise RtpError(f"the header says {start} bytes and the packet has {size}")
    end = size
    if first & 0x20:
        padding = data[-1]
        end -= padding
        if not padding or end < start:
            raise RtpError(f"{padding} bytes of padding do not fit the packet")
    return start, end
