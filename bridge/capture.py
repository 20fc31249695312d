"""One call's packets as a pcap stream for Wireshark: SIP from the trace's memory, then SIP and RTP as they pass."""

import asyncio
import ipaddress
import struct
from collections.abc import AsyncIterator

from bridge.sip.flow import Address
from bridge.sip.trace import TracedMessage

MEDIA_TYPE = "application/vnd.tcpdump.pcap"

LINKTYPE_RAW = 101
"""Each record begins with its IP header (www.tcpdump.org/linktypes.html)."""

SNAP_BYTES = 65_535

FLUSH_S = 0.25
"""How long packets gather before they go to the reader: an RTP packet of its own is not worth an HTTP chunk."""

DEFAULT_LIMIT_BYTES = 4 * 1024 * 1024
"""What waits for a slow reader: three minutes of G.711 both ways."""

_FILE = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, SNAP_BYTES, LINKTYPE_RAW)
_UDP = 17


def record(at: float, source: Address, destination: Address, payload: bytes) -> bytes:
    """A pcap record of one UDP datagram at Unix time `at` (s). What TCP or TLS carried is shown as a datagram, too,
    in clear: Wireshark reads it as SIP, and there is no handshake to invent.

    Raises ValueError for an address that is none, or two of different families."""
    source_ip, destination_ip = ipaddress.ip_address(source[0]), ipaddress.ip_address(destination[0])
    if source_ip.version != destination_ip.version:
        raise ValueError(f"{source[0]} and {destination[0]} are of two families")
    payload = payload[: SNAP_BYTES - 48]
    length = 8 + len(payload)
    addresses = source_ip.packed + destination_ip.packed
    udp = struct.pack("!HHHH", source[1], destination[1], length, 0)
    pseudo = addresses + struct.pack("!IHBB", length, 0, 0, _UDP)
    # A sum of 0 is sent as all ones: 0 says that there is none (RFC 768).
    udp = udp[:6] + struct.pack("!H", _checksum(pseudo + udp + payload) or 0xFFFF)
    if source_ip.version == 4:
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, 0, 0x4000, 64, _UDP, 0) + addresses
        head = head[:10] + struct.pack("!H", _checksum(head)) + head[12:]
    else:
        head = struct.pack("!IHBB", 0x6000_0000, length, _UDP, 64) + addresses
    packet = head + udp + payload
    seconds = int(at)
    return struct.pack("<IIII", seconds, int((at - seconds) * 1e6), len(packet), len(packet)) + packet


class Capture:
    """The packets of one call for one reader, who iterates over `chunks`. Fed on the event loop's thread."""

    def __init__(self, *, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> None:
        self.dropped = 0
        """Packets that came while `limit_bytes` waited for the reader."""
        self._limit = limit_bytes
        self._waiting: list[bytes] = [_FILE]
        self._bytes = len(_FILE)
        self._over = False
        self._changed = asyncio.Event()
        self._changed.set()

    def sip(self, message: TracedMessage) -> None:
        """Add a SIP message, with its secrets removed."""
        self._add(message.at, message.received, message.flow.local, message.flow.remote, message.text.encode())

    def rtp(self, at: float, received: bool, local: Address, remote: Address, packet: bytes) -> None:
        """Add an RTP or RTCP packet, in clear where the wire has SRTP, at Unix time `at` (s)."""
        self._add(at, received, local, remote, packet)

    def finish(self) -> None:
        """Nothing more comes: the reader gets what waits, and then the end."""
        self._over = True
        self._changed.set()

    async def chunks(self) -> AsyncIterator[bytes]:
        """The file, piece by piece, until `finish`."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            waiting, self._waiting, self._bytes = self._waiting, [], 0
            if waiting:
                yield b"".join(waiting)
            if self._over:
                if self._waiting:
                    yield b"".join(self._waiting)
                return
            await asyncio.sleep(FLUSH_S)

    def _add(self, at: float, received: bool, local: Address, remote: Address, payload: bytes) -> None:
        if self._over:
            return
        source, destination = (remote, local) if received else (local, remote)
        try:
            entry = record(at, source, destination, payload)
        except (ValueError, struct.error):
            self.dropped += 1
            return
        if self._bytes + len(entry) > self._limit:
            self.dropped += 1
            return
        self._waiting.append(entry)
        self._bytes += len(entry)
        self._changed.set()


def _checksum(data: bytes) -> int:
    """RFC 1071."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
