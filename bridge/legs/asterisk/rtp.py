"""ExternalMedia by RTP: Asterisk sends a call's audio to a port of ours, and takes ours at a port of its own.

See protocols/asterisk.md: Asterisk takes static payload types alone, sends no RTCP and no telephone-events.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Mapping
from urllib.parse import urlsplit

from bridge.asterisk.ari import Ari
from bridge.asterisk.ari_errors import AriError
from bridge.asterisk.ari_events import Channel
from bridge.asterisk.settings import AsteriskSettings, MediaKind, RtpCodec
from bridge.legs.asterisk.failures import leg_error
from bridge.legs.asterisk.media import LegMedia
from bridge.legs.base import LegError
from bridge.legs.media import MediaPlane
from bridge.sip.codecs import G722, L16_8K, PCMA, PCMU, Codec
from bridge.sip.flow import Address
from bridge.sip.offer_answer import LocalMedia, Negotiated, make_offer

_CODECS: Mapping[RtpCodec, tuple[int, Codec]] = {
    "ulaw": (0, PCMU),
    "alaw": (8, PCMA),
    "g722": (9, G722),
    # Asterisk's own use of the number, which RFC 3551 has for 44.1 kHz.
    "slin": (10, L16_8K),
}
"""Payload type and codec."""

JITTER_BUFFER = {"JITTERBUFFER(adaptive)": "default"}
"""Of the media channel. Without it Asterisk passes packets on in the order of their coming, whenever that is: with 20
to 60 ms on the way, each by chance, a caller heard 30 % of a tone whole, and with it 90 % (22.10)."""


class RtpTransport:
    """See `bridge.legs.asterisk.media.MediaTransport`."""

    kind: MediaKind = "rtp"

    def __init__(self, plane: MediaPlane, settings: AsteriskSettings) -> None:
        self.codec = settings.rtp.codec
        self._payload_type, self._codec = _CODECS[self.codec]
        self._plane = plane
        self._settings = settings

    @property
    def sample_rate(self) -> int:
        return self._codec.sample_rate

    async def open(self, ari: Ari, channel_id: str) -> LegMedia:
        stream = self._plane.open()
        try:
            own = self._settings.media_address or ari.local_address()
            with ari.entering(channel_id) as entering:
                made = await ari.external_media(
                    channel_id,
                    external_host=_shown((own, stream.port)),
                    format=self.codec,
                    variables=JITTER_BUFFER if self._settings.rtp.jitter_buffer else None,
                )
                stream.start(self._agreed((own, stream.port), await self._remote(made)), reports=False)
                await entering.wait(self._settings.request_s)
        except AriError as error:
            stream.close()
            raise leg_error(error, f"no media channel on Asterisk {self._settings.name!r}") from error
        except BaseException:
            stream.close()
            raise
        return stream

    async def _remote(self, made: Channel) -> Address:
        """Where Asterisk takes our audio. Raises LegError."""
        host = made.variables.get("UNICASTRTP_LOCAL_ADDRESS", "")
        port = made.variables.get("UNICASTRTP_LOCAL_PORT", "")
        if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
            raise LegError(f"Asterisk {self._settings.name!r} does not say where it takes RTP (chan_rtp)")
        try:
            if not ipaddress.ip_address(host).is_unspecified:
                return host, int(port)
        except ValueError:
            pass
        # Bound to all its addresses: then it is where its ARI is.
        host = urlsplit(self._settings.url).hostname or ""
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, int(port), type=socket.SOCK_DGRAM)
        except OSError as error:
            raise LegError(f"the address of {host!r} can't be found: {error}") from error
        return str(found[0][4][0]), int(port)

    def _agreed(self, local: Address, remote: Address) -> Negotiated:
        """What a negotiation would have come to, had there been one."""
        return Negotiated(
            local=make_offer(LocalMedia(local[0], local[1], codecs=(self._codec,), dtmf=False)),
            codec=self._codec,
            payload_type=self._payload_type,
            receive={self._payload_type: self._codec},
            dtmf_payload_type=None,
            dtmf_receive={},
            dtmf_clock_rate=8000,
            remote=remote,
            remote_rtcp=("0.0.0.0", 0),
            ptime_ms=20,
            direction="sendrecv",
            held=False,
        )


def _shown(address: Address) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
