"""What `offhook doctor` tries of an Asterisk's media: two channels of ours in one bridge, and a tone each way."""

import asyncio
import contextlib
import errno
import socket
import time
from collections.abc import AsyncIterator, Sequence

from bridge.asterisk.ari import Ari
from bridge.asterisk.ari_errors import AriError, AriNotFoundError
from bridge.asterisk.settings import AUDIOSOCKET_PORT, AsteriskSettings, MediaKind
from bridge.audio.frames import BYTES_PER_SAMPLE
from bridge.audio.tones import tone, tone_level
from bridge.config import Config
from bridge.doctor_agents import Finding
from bridge.doctor_asterisk_dialplan import Seen
from bridge.legs.asterisk.media import LegMedia, MediaTransport
from bridge.legs.base import LegError
from bridge.legs.media import MediaPlane

TONES_HZ = (620.0, 1130.0)
"""Sent by the first channel, and by the second: neither holds the other's harmonics."""
TONE_MS = 6000
HEARD_LEVEL = 700.0
"""Of the peak, a tenth of what was sent: G.711 and Asterisk's mixing change it by far less."""
WINDOW_MS = 200
HEARD_S = 4.0
"""Longest wait for both tones."""
ASK_S = 2.0
"""Longest wait for what Asterisk plays itself, to see which direction fails."""


class Listener:
    """Whether a tone is in what a channel brings."""

    def __init__(self, media: LegMedia, hz: float) -> None:
        self._rate = media.sample_rate
        self._hz = hz
        self._window = bytearray()
        self._size = int(self._rate * WINDOW_MS / 1000) * BYTES_PER_SAMPLE
        self.heard = asyncio.Event()
        media.listen(self._take)

    def _take(self, frame: bytes, now: float) -> None:
        if self.heard.is_set():
            return
        self._window += frame
        if len(self._window) >= self._size:
            if tone_level(bytes(self._window), self._hz, self._rate) > HEARD_LEVEL:
                self.heard.set()
            self._window.clear()


async def try_media(
    config: Config,
    settings: AsteriskSettings,
    ari: Ari,
    transport: MediaTransport,
    contexts: Sequence[str],
    seen: Seen,
) -> Finding:
    """One transport, both ways. `ari` is connected, with an application of the doctor's own: its channels, and the
    bridge, are gone when this returns, however it does."""
    what = _what(settings, transport.kind)
    # Not as a bridge names its own: one that looks for what it left must not take these for it.
    stem = f"{ari.app.removeprefix('offhook-')}-{transport.kind}"
    ids = (f"{stem}-1", f"{stem}-2")
    begun = time.monotonic()
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(_clean_up, ari, f"{stem}-bridge", ids, seen)
        media: list[LegMedia] = []
        try:
            for channel_id in ids:
                opened = await transport.open(ari, channel_id)
                stack.callback(opened.close)
                media.append(opened)
                seen.channels += 1
            if not seen.contexts:
                seen.contexts = await _contexts(ari, ids[0], contexts)
            await ari.create_bridge(f"{stem}-bridge")
            await ari.add_to_bridge(f"{stem}-bridge", *ids)
        except (LegError, AriError) as error:
            return Finding("wrong", what, f"{error}. {_mend_opening(transport.kind, config, settings)}")
        took_ms = (time.monotonic() - begun) * 1000
        listeners = [Listener(one, hz) for one, hz in zip(media, reversed(TONES_HZ), strict=True)]
        for one, hz in zip(media, TONES_HZ, strict=True):
            generation = one.playout.begin()
            one.playout.write(generation, tone((hz,), TONE_MS, one.sample_rate))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HEARD_S):
                for listener in listeners:
                    await listener.heard.wait()
        heard = [listener.heard.is_set() for listener in listeners]
        if all(heard):
            return Finding(
                "ok", what, f"a tone was heard both ways ({transport.codec}; two channels in {took_ms:.0f} ms)"
            )
        comes_out = any(heard) or await _plays_to_us(ari, f"{stem}-bridge", ids, media)
        return Finding("wrong", what, await _mend_silence(config, settings, ari, ids[0], transport.kind, comes_out))


async def _contexts(ari: Ari, channel_id: str, contexts: Sequence[str]) -> dict[str, bool]:
    """Asked by a function of the dialplan on a channel: ARI itself does not tell. Empty without func_dialplan."""
    found = {}
    for context in contexts:
        said = await ari.get_variable(channel_id, f"DIALPLAN_EXISTS({context})")
        if said not in ("0", "1"):
            return {}
        found[context] = said == "1"
    return found


async def _plays_to_us(ari: Ari, bridge_id: str, ids: Sequence[str], media: Sequence[LegMedia]) -> bool:
    """Whether anything comes of what Asterisk itself plays: then it is our packets that don't arrive there."""
    before = [one.quality.packets_received for one in media]
    try:
        await ari.remove_from_bridge(bridge_id, *ids)
        for channel_id in ids:
            await ari.play(channel_id, f"{channel_id}-play", "tone:dial;tonezone=us")
    except AriError:
        return any(before)
    until = time.monotonic() + ASK_S
    while time.monotonic() < until:
        if any(one.quality.packets_received > count for one, count in zip(media, before, strict=True)):
            return True
        await asyncio.sleep(0.05)
    return False


async def _clean_up(ari: Ari, bridge_id: str, ids: Sequence[str], seen: Seen) -> None:
    for what, request in (
        *((f"channel {channel_id}", ari.hangup(channel_id)) for channel_id in ids),
        (f"bridge {bridge_id}", ari.delete_bridge(bridge_id)),
    ):
        try:
            await request
        except AriNotFoundError:
            continue
        except AriError as error:
            seen.left.append(f"{what} ({error})")


# -- transports ---------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def transport_for(
    kind: MediaKind, config: Config, settings: AsteriskSettings, plane: MediaPlane
) -> AsyncIterator[MediaTransport | Finding]:
    """The transport as a bridge would have it, or why it can't be tried from here."""
    match kind:
        case "rtp":
            from bridge.legs.asterisk.rtp import RtpTransport

            yield RtpTransport(plane, settings)
        case "audiosocket":
            async with _audiosocket(config, settings, plane) as transport:
                yield transport
        case "websocket":
            async with _websocket(config, settings, plane) as transport:
                yield transport


@contextlib.asynccontextmanager
async def _audiosocket(
    config: Config, settings: AsteriskSettings, plane: MediaPlane
) -> AsyncIterator[MediaTransport | Finding]:
    from bridge.legs.asterisk.audiosocket import AudioSocketTransport
    from bridge.legs.audiosocket_server import AudioSocketServer

    listener = config.audiosocket
    if not _is_free(listener.listen, listener.port or AUDIOSOCKET_PORT):
        # A running bridge has it; Asterisk connects to whichever port we name.
        listener = listener.model_copy(update={"port": _free_port(listener.listen)})
    server = AudioSocketServer(listener, plane.clock)
    try:
        await server.start()
    except OSError as error:
        said = f"can't listen on {listener.listen} ({error.strerror}): correct audiosocket.listen"
        yield Finding("wrong", _what(settings, "audiosocket"), said)
        return
    try:
        yield AudioSocketTransport(server, settings, plane.limits)
    finally:
        await server.aclose()


@contextlib.asynccontextmanager
async def _websocket(
    config: Config, settings: AsteriskSettings, plane: MediaPlane
) -> AsyncIterator[MediaTransport | Finding]:
    from bridge.legs.asterisk.websocket import WebsocketTransport
    from bridge.legs.asterisk.websocket_listener import WebsocketListener

    listener = WebsocketListener(config.websocket_listener)
    if settings.websocket.connects == "asterisk":
        where = f"{config.websocket_listener.listen} port {config.websocket_listener.port}"
        try:
            listener.start()
        except OSError as error:
            what = _what(settings, "websocket")
            if error.errno == errno.EADDRINUSE:
                # Asterisk connects to the port of its websocket_client.conf and to no other.
                yield Finding("note", what, f"not tried: {where} is in use, by the running bridge most likely")
            else:
                yield Finding("wrong", what, f"can't listen on {where} ({error.strerror or error})")
            return
    try:
        yield WebsocketTransport(plane.clock, settings, plane.limits, listener)
    finally:
        await listener.aclose()


def _is_free(host: str, port: int) -> bool:
    with _bindable(host) as sock:
        try:
            sock.bind((host, port))
        except OSError as error:
            return error.errno != errno.EADDRINUSE
    return True


def _free_port(host: str) -> int:
    with _bindable(host) as sock:
        sock.bind((host, 0))
        return int(sock.getsockname()[1])


def _bindable(host: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return sock


# -- what to do ---------------------------------------------------------------------------------------------


def _what(settings: AsteriskSettings, kind: MediaKind) -> str:
    return f"Asterisk {settings.name}, media {kind}"


def _mend_opening(kind: MediaKind, config: Config, settings: AsteriskSettings) -> str:
    match kind:
        case "rtp":
            ours = f"media_address {settings.media_address}" if settings.media_address else "our address"
            return (
                f"Check that chan_rtp.so is loaded there, that {ours} is one it can send to, and that ports are "
                f"free: {config.rtp.port_min} to {config.rtp.port_max} here, those of its rtp.conf there"
            )
        case "audiosocket":
            return (
                f"Asterisk must reach us by TCP at port {config.audiosocket.port or 9092} of media_address (or the "
                "address that we reach it by), from an address of audiosocket.networks; and chan_audiosocket.so "
                "must be loaded"
            )
        case "websocket" if settings.websocket.connects == "us":
            return "Check that chan_websocket.so is loaded, and sessionlimit in http.conf"
        case "websocket":
            tls = config.websocket_listener.certificate is not None
            return (
                f"In websocket_client.conf the section [{settings.websocket.client}] must lead to us: uri = "
                f"{'wss' if tls else 'ws'}://OUR-ADDRESS:{config.websocket_listener.port}/media"
                f"{', tls_enabled = yes, and ca_list_file with who vouches for our certificate' if tls else ''}"
            )


async def _mend_silence(
    config: Config, settings: AsteriskSettings, ari: Ari, channel_id: str, kind: MediaKind, comes_out: bool
) -> str:
    """No tone came through one way at least. `comes_out`: what Asterisk sends arrives here."""
    if kind != "rtp":
        return "its channels are up, but no tone is heard: check codec modules, and Asterisk's log for the channel"
    ours = settings.media_address or ari.local_address()
    ports = f"UDP ports {config.rtp.port_min} to {config.rtp.port_max}"
    if not comes_out:
        return (
            f"nothing that Asterisk sends by RTP to {ours} arrives here. Set media_address to an address of ours "
            f"that it can reach, and let {ports} in from it (firewall, NAT, container)"
        )
    try:
        host = await ari.get_variable(channel_id, "UNICASTRTP_LOCAL_ADDRESS") or "its host"
        port = await ari.get_variable(channel_id, "UNICASTRTP_LOCAL_PORT") or "?"
    except AriError:
        host, port = "its host", "?"
    return (
        f"what Asterisk sends arrives here, but what we send by RTP to {host} (port {port} this time) does not come "
        f"through. Let the UDP ports of its rtp.conf in from {ours}; if {host} is not where it is, correct that there"
    )
