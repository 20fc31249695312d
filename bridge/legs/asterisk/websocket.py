"""ExternalMedia by chan_websocket: a WebSocket a call, that we open to Asterisk's HTTP server or it opens to us.

Our clock paces what we send; Asterisk's own timer plays it, from a queue that is kept as short as it may be
(`bridge.asterisk.far_queue`). See protocols/asterisk.md.
"""

from collections.abc import Mapping
from urllib.parse import quote

from bridge.asterisk.ari import Ari, AriError, Entering
from bridge.asterisk.media_dialect import MediaCommands
from bridge.asterisk.settings import AsteriskSettings, MediaKind
from bridge.asterisk.tls import CertificateFileError, what_failed
from bridge.audio.clock import MediaClock
from bridge.legs.asterisk.media import LegMedia
from bridge.legs.asterisk.websocket_listener import PARAMETER, SUBPROTOCOL, WebsocketListener
from bridge.legs.asterisk.websocket_media import CODECS, WebsocketCounters, WebsocketMedia
from bridge.legs.base import LegError
from bridge.legs.media_socket import MediaSocketError, open_media_socket
from bridge.rtp.format import RtpLimits


class WebsocketTransport:
    """See `bridge.legs.asterisk.media.MediaTransport`. Digits that come this way come by ARI as well: not read."""

    kind: MediaKind = "websocket"

    def __init__(
        self, clock: MediaClock, settings: AsteriskSettings, limits: RtpLimits, listener: WebsocketListener
    ) -> None:
        """`listener` is used if Asterisk is to connect to us; it listens by then."""
        self.codec = settings.websocket.codec
        self.counters = WebsocketCounters()
        self._clock = clock
        self._settings = settings
        self._limits = limits
        self._listener = listener
        self._commands = MediaCommands(settings.websocket.control)

    @property
    def sample_rate(self) -> int:
        return CODECS[self.codec][0]

    async def open(self, ari: Ari, channel_id: str) -> LegMedia:
        media = WebsocketMedia(self._clock, self.codec, self._limits, self._commands, self.counters)
        try:
            with ari.entering(channel_id) as entering:
                if self._settings.websocket.connects == "us":
                    await self._connect(ari, channel_id, media)
                else:
                    await self._be_connected(ari, channel_id, media, entering)
                await entering.wait(self._settings.request_s)
                await media.run(self._settings.request_s)
        except BaseException as error:
            media.stream.close()
            if isinstance(error, AriError | MediaSocketError | CertificateFileError | TimeoutError):
                what = what_failed(error, "the host of url") or str(error) or "it does not begin"
                raise LegError(f"no audio by WebSocket from Asterisk {self._settings.name!r}: {what}") from error
            raise
        self.counters.calls += 1
        return media.stream

    async def _connect(self, ari: Ari, channel_id: str, media: WebsocketMedia) -> None:
        made = await ari.external_media(
            channel_id,
            format=self.codec,
            encapsulation="none",
            transport="websocket",
            connection_type="server",
            transport_data=self._options,
        )
        id = made.variables.get("MEDIA_WEBSOCKET_CONNECTION_ID", "")
        if not id:
            raise MediaSocketError("it does not say where it takes the connection (chan_websocket)")
        base = self._settings.url.replace("http", "ws", 1)
        tls = self._settings.trust.context() if base.startswith("wss:") else None
        # Its answer and its first message may come together.
        socket = await open_media_socket(
            f"{base}/media/{quote(id, safe='')}",
            subprotocol=SUBPROTOCOL,
            on_text=media.on_text,
            timeout_s=self._settings.request_s,
            tls=tls,
        )
        media.attach(socket)

    async def _be_connected(self, ari: Ari, channel_id: str, media: WebsocketMedia, entering: Entering) -> None:
        with self._listener.expecting(media.attach) as secret:
            await ari.external_media(
                channel_id,
                external_host=self._settings.websocket.client,
                format=self.codec,
                encapsulation="none",
                transport="websocket",
                transport_data=f"v({PARAMETER}={secret}){self._options}",
            )
            # The channel enters once it is connected; if it can't, it ends.
            try:
                await entering.wait(self._settings.request_s)
            except AriError as error:
                raise MediaSocketError(
                    f"{error}; it is to connect {self._listener.wanted}, by section "
                    f"{self._settings.websocket.client!r} of websocket_client.conf"
                ) from error

    @property
    def _options(self) -> str:
        # Plain text is what Asterisks before 20.18 and 22.8 speak, which know no such option.
        return "f(json)" if self._settings.websocket.control == "json" else ""

    def readings(self) -> Mapping[str, float]:
        """For the metrics, without the Asterisk's name."""
        counters = self.counters
        return {
            "websocket_calls_total": float(counters.calls),
            "websocket_lost_total": float(counters.lost),
            "websocket_flushes_total": float(counters.flushes),
            "websocket_flush_ms_total": counters.flush_ms,
            "websocket_flush_max_ms": counters.flush_max_ms,
            "websocket_flushed_ms_total": counters.flushed_ms,
            "websocket_holes_total": float(counters.holes),
            "websocket_full_total": float(counters.full),
            "websocket_stalls_total": float(counters.stalls),
            "websocket_faults_total": float(counters.faults),
        }
