"""ExternalMedia by AudioSocket: for each call Asterisk connects to our listener, with a UUID that we chose."""

import asyncio
import uuid

from bridge.asterisk.ari import Ari
from bridge.asterisk.ari_errors import AriError
from bridge.asterisk.settings import AsteriskSettings, MediaKind
from bridge.legs.asterisk.media import LegMedia
from bridge.legs.audiosocket_server import AudioSocketConnection, AudioSocketServer
from bridge.legs.base import LegError
from bridge.legs.frame_stream import FrameStream
from bridge.rtp.format import RtpLimits

_RATES_HZ = {"slin": 8000, "slin16": 16000}


class AudioSocketTransport:
    """See `bridge.legs.asterisk.media.MediaTransport`. Digits that come this way come by ARI as well: not read."""

    kind: MediaKind = "audiosocket"

    def __init__(self, server: AudioSocketServer, settings: AsteriskSettings, limits: RtpLimits) -> None:
        self.codec = settings.audiosocket.codec
        self._server = server
        self._settings = settings
        self._limits = limits

    @property
    def sample_rate(self) -> int:
        return _RATES_HZ[self.codec]

    async def open(self, ari: Ari, channel_id: str) -> LegMedia:
        call = uuid.uuid4()
        arrived: asyncio.Future[FrameStream] = asyncio.get_running_loop().create_future()
        opened: list[FrameStream] = []

        def take(connection: AudioSocketConnection) -> None:
            # At once: until it has audio, Asterisk may not even answer our request.
            stream = connection.open_media(self.codec, self.sample_rate, self._limits)
            opened.append(stream)
            stream.start()
            arrived.set_result(stream)

        host = self._settings.media_address or ari.local_address()
        where = f"[{host}]:{self._server.port}" if ":" in host else f"{host}:{self._server.port}"
        try:
            with self._server.expecting(call, take), ari.entering(channel_id) as entering:
                await ari.external_media(
                    channel_id,
                    external_host=where,
                    format=self.codec,
                    encapsulation="audiosocket",
                    transport="tcp",
                    data=str(call),
                )
                await entering.wait(self._settings.request_s)
                async with asyncio.timeout(self._settings.request_s):
                    return await arrived
        except BaseException as error:
            for stream in opened:
                stream.close()
            if isinstance(error, AriError | TimeoutError):
                raise LegError(self._problem(where, error)) from error
            raise

    def _problem(self, where: str, error: AriError | TimeoutError) -> str:
        what = str(error) or f"nobody connected to {where}"
        if stranger := self._server.last_stranger:
            what += f" (audiosocket.networks keeps {stranger} away)"
        return f"no audio by AudioSocket from Asterisk {self._settings.name!r}: {what}"
