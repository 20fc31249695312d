"""A WebSocket that carries one leg's audio, read and written in the clock's tick: no task, queue or wake-up a frame.

The socket is non-blocking; the protocol is the websockets library's, without its I/O, but for whole messages of
audio, which are nearly all that comes and goes: those are read and written here. The event loop watches the socket
only during the handshake, and while an answer is awaited whose time matters.
"""

import asyncio
import logging
import os
import secrets
import socket
import ssl
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import urlsplit

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHandshake, InvalidURI
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import OPEN
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

try:
    from websockets.speedups import apply_mask
except ImportError:  # Where the library was built without a compiler.
    from websockets.utils import apply_mask

from bridge.audio.frames import FRAME_S

READ_BYTES = 4096
"""In one piece; what is not there costs time as well."""
READS = 16
"""Pieces in one tick, 2 s of audio: what floods us is left to wait in the kernel, and then with its sender."""
SEND_BUFFER_BYTES = 32_768
"""Of the kernel: what is more would be old before it is heard."""
MAX_UNSENT_BYTES = 16_384
"""Commands for a far side that reads nothing; more, and it is lost."""
MAX_MESSAGE_BYTES = 131_072

LOGGER = logging.getLogger("bridge.legs.media_socket")
"""The library's own would write each line of a handshake, the secret in its path too, to a log that is open for
debugging."""
LOGGER.setLevel(logging.WARNING)

_FIN_BINARY = 0x80 | Opcode.BINARY
_FIN, _OPCODE, _CONTROL, _MASKED = 0x80, 0x0F, 0x08, 0x80
"""Bits of the two bytes that each frame begins with (RFC 6455 5.2)."""
_MASK_BYTES = 4
_HEAD_END = b"\r\n\r\n"

MASKS = 256
"""That are drawn at once: a system call for each would cost as much as masking does."""

SO_TIMESTAMPNS = 35
"""Linux; the socket module has no name for it."""
_STAMP = struct.Struct("@qq")
_STAMP_SPACE = socket.CMSG_SPACE(_STAMP.size)


class MediaSocketError(Exception):
    """No connection, or it was refused; the message says why."""


class MediaSocket:
    """One connection. Callbacks are set by its owner; `on_lost` is told once, unless `close` came first."""

    def __init__(self, sock: socket.socket, protocol: ClientProtocol | ServerProtocol) -> None:
        self.on_audio: Callable[[bytes, float], None] = _no_audio
        """A binary message (or a part of one), and when it came. The kernel tells it of the last that is read at
        once; those before it are taken to have come a frame's time before the next."""
        self.on_text: Callable[[str, float], None] = _no_text
        self.on_request: Callable[[Request], None] = _no_request
        """A server's: what the client asks for; answered by `accept` or `reject`."""
        self.on_open: Callable[[], None] = _nothing
        self.on_lost: Callable[[str], None] = _no_text_at_all
        self.unsent = b""
        """What the kernel did not take."""
        self.timed = False
        """The kernel tells when what is read came."""
        self._sock = sock
        self._fd = sock.fileno()
        self._protocol = protocol
        self._masks = isinstance(protocol, ClientProtocol)
        self._encrypted = isinstance(sock, ssl.SSLSocket)
        if not self._encrypted:
            with suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._read_at = self._emptied_at = float("-inf")
        """When it was read last, and when so that nothing was left (s, monotonic): what is read came after that."""
        self._loop: asyncio.AbstractEventLoop | None = None
        """That watches it now."""
        self._now: Callable[[], float] = asyncio.get_running_loop().time
        self._on_crash: Callable[[Exception], None] | None = None
        self._cuts_frames = protocol.state is OPEN
        """What comes is cut into frames here; else it is the library's as it comes: a handshake, or broken."""
        self._rest = b""
        """The beginning of a frame that has not come whole, or of the end of a handshake."""
        self._in_pieces = False
        """A message in several frames is under way."""
        self._text: list[bytes] | None = None
        """Of a message in several frames; None: the present one is binary."""
        self._masks_left = b""
        self._header = b""
        self._header_for = -1
        """Bytes of payload that `_header` is for."""
        self._closed = False

    # -- reading --------------------------------------------------------------------------------------------

    def read(self, arrival: float) -> None:
        """Take what has come. `arrival` stands in where the kernel gives no time. Nothing of it raises but the
        callbacks."""
        for _ in range(READS):
            if self._closed:
                return
            try:
                if self._encrypted:
                    data = self._sock.recv(READ_BYTES)
                else:
                    data, extra, _flags, _address = self._sock.recvmsg(READ_BYTES, _STAMP_SPACE)
                    if extra:
                        arrival = self._stamped(extra[0][2], arrival)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            except OSError as error:
                self._lose(f"the connection broke: {error}")
                return
            if data:
                self._receive(data, arrival)
                # Of TLS, records may be decrypted already of which the kernel knows nothing.
                if len(data) < READ_BYTES and not self._encrypted:
                    self._emptied_at = self._read_at
                    return
            else:
                self._protocol.receive_eof()
                self._take(arrival)
                return

    def _stamped(self, stamp: bytes, arrival: float) -> float:
        """The kernel's stamp (wall-clock time) as the time (monotonic) it stands for."""
        if len(stamp) != _STAMP.size:
            return arrival
        seconds, nanoseconds = _STAMP.unpack(stamp)
        self.timed = True
        now = time.monotonic()
        # However the wall clock is set meanwhile: it came since the last time.
        self._read_at = now
        came: float = min(now, max(self._emptied_at, seconds + nanoseconds * 1e-9 - time.time() + now))
        return came

    def _receive(self, data: bytes, arrival: float) -> None:
        if not self._cuts_frames:
            data = self._receive_head(data, arrival)
            if not self._cuts_frames:
                return
        if self._rest:
            data = self._rest + data
            self._rest = b""
        at, size = 0, len(data)
        masked, mask_bytes = (0, 0) if self._masks else (_MASKED, _MASK_BYTES)
        while size - at >= 2 and not self._closed:
            length = data[at + 1] & ~_MASKED
            payload = at + 2 + mask_bytes
            if length >= 126:
                payload += 2 if length == 126 else 8
                length = int.from_bytes(data[at + 2 : payload - mask_bytes], "big")
            if length > MAX_MESSAGE_BYTES or data[at + 1] & _MASKED != masked:
                # The library says what is wrong with it, and reads nothing more.
                self._cuts_frames = False
                self._give_library(data[at:], arrival)
                return
            end = payload + length
            if size < end:
                break
            if data[at] == _FIN_BINARY and not self._in_pieces:
                audio = data[payload:end]
                if masked:
                    audio = apply_mask(audio, data[payload - mask_bytes : payload])
                came = arrival
                if end != size:
                    came = max(arrival - (size - end) // (end - at) * FRAME_S, min(arrival, self._emptied_at))
                self.on_audio(audio, came)
            else:
                if not data[at] & _CONTROL:
                    self._in_pieces = not data[at] & _FIN
                self._give_library(data[at:end], arrival)
            at = end
        if at < size and not self._closed:
            self._rest = data[at:]

    def _receive_head(self, data: bytes, arrival: float) -> bytes:
        """Of a handshake: returns what is behind it, which is ours to read."""
        seen = self._rest + data
        end = seen.find(_HEAD_END)
        if end < 0:
            self._rest = seen[1 - len(_HEAD_END) :]
            self._give_library(data, arrival)
            return b""
        end += len(_HEAD_END) - len(self._rest)
        self._rest = b""
        self._give_library(data[:end], arrival)
        self._cuts_frames = self._protocol.state is OPEN
        if not self._cuts_frames:
            self._give_library(data[end:], arrival)
        return data[end:]

    def _give_library(self, data: bytes, arrival: float) -> None:
        if not self._closed:
            self._protocol.receive_data(data)
            self._take(arrival)

    def _take(self, arrival: float) -> None:
        protocol = self._protocol
        for event in protocol.events_received():
            if isinstance(event, Frame):
                self._take_frame(event, arrival)
            elif isinstance(event, Response):
                if protocol.state is OPEN:
                    self.on_open()
            elif protocol.handshake_exc is None:
                self.on_request(event)
            if self._closed:
                return
        self._transmit()
        if self._closed:
            return
        if protocol.handshake_exc is not None:
            self._lose(_refused(protocol.handshake_exc))
        elif protocol.parser_exc is not None or protocol.close_rcvd is not None or protocol.close_expected():
            self._lose(self._reason())

    def _take_frame(self, frame: Frame, arrival: float) -> None:
        if frame.opcode is Opcode.BINARY:
            self._text = None
            self.on_audio(bytes(frame.data), arrival)
        elif frame.opcode is Opcode.TEXT:
            if frame.fin:
                self.on_text(bytes(frame.data).decode(errors="replace"), arrival)
            else:
                self._text = [bytes(frame.data)]
        elif frame.opcode is Opcode.CONT:
            if self._text is None:
                self.on_audio(bytes(frame.data), arrival)
                return
            self._text.append(bytes(frame.data))
            if frame.fin:
                # The library refuses a message that is too long, whatever it is cut into.
                text, self._text = self._text, None
                self.on_text(b"".join(text).decode(errors="replace"), arrival)

    def _reason(self) -> str:
        protocol = self._protocol
        if protocol.parser_exc is not None and protocol.close_rcvd is None:
            return f"the far side broke the protocol, or off: {protocol.parser_exc or 'end of stream'}"
        if protocol.close_rcvd is not None:
            code, why = protocol.close_rcvd.code, protocol.close_rcvd.reason
            return f"the far side closed the connection ({code}{' ' if why else ''}{why})"
        return "the connection ended"

    # -- writing --------------------------------------------------------------------------------------------

    def send_audio(self, payload: bytes) -> bool:
        """One binary message, at once. False: the far side has no room, and nothing was sent."""
        if self.unsent and not self.write_unsent():
            return False
        size = len(payload)
        if size != self._header_for:
            self._header, self._header_for = _audio_header(size, self._masks), size
        if self._masks:
            masks = self._masks_left or secrets.token_bytes(MASKS * _MASK_BYTES)
            mask, self._masks_left = masks[:_MASK_BYTES], masks[_MASK_BYTES:]
            self._write(self._header + mask + apply_mask(payload, mask))
        else:
            self._write(self._header + payload)
        return True

    def send_texts(self, *texts: str) -> None:
        """Text messages, in one piece; behind what the far side has not taken yet."""
        if self._closed or self._protocol.state is not OPEN:
            return
        for text in texts:
            self._protocol.send_text(text.encode())
        self._transmit()

    def write_unsent(self) -> bool:
        """Try again with what the kernel did not take; whether all is gone."""
        data, self.unsent = self.unsent, b""
        if data:
            self._write(data)
        return not self.unsent

    def _transmit(self) -> None:
        for data in self._protocol.data_to_send():
            # An empty one is the end of what we send: closing the socket says it.
            if data:
                self._write(data)

    def _write(self, data: bytes) -> None:
        if self._closed:
            return
        if self.unsent:
            self.unsent += data
        else:
            try:
                sent = self._sock.send(data)
            except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                sent = 0
            except OSError as error:
                self._lose(f"the connection broke: {error}")
                return
            if sent != len(data):
                self.unsent = data[sent:]
        if len(self.unsent) > MAX_UNSENT_BYTES:
            self._lose("the far side reads nothing")

    # -- the handshake --------------------------------------------------------------------------------------

    def begin(self, protocol: ClientProtocol) -> None:
        """Ask the far side for a WebSocket."""
        protocol.send_request(protocol.connect())
        self._transmit()

    def accept(self, request: Request) -> None:
        assert isinstance(self._protocol, ServerProtocol)
        self._protocol.send_response(self._protocol.accept(request))
        self._transmit()
        if not self._closed and self._protocol.state is OPEN:
            self.on_open()

    def reject(self, status: int, text: str) -> None:
        """Refuse it, and close."""
        assert isinstance(self._protocol, ServerProtocol)
        self._protocol.send_response(self._protocol.reject(status, text))
        self._transmit()
        self.close()

    # -- the event loop -------------------------------------------------------------------------------------

    def watch(self, on: bool, on_crash: Callable[[Exception], None] | None = None) -> None:
        """Have the event loop read as well, at once when something comes. `on_crash` is told of an exception out of
        a callback."""
        if on == (self._loop is not None) or self._closed:
            return
        if on:
            self._on_crash = on_crash
            self._loop = asyncio.get_running_loop()
            # By its number: of a socket object the loop would first make a text, with two system calls.
            self._loop.add_reader(self._fd, self._readable)
        elif self._loop is not None:
            self._loop.remove_reader(self._fd)
            self._loop = None

    def _readable(self) -> None:
        try:
            self.read(self._now())
        except Exception as error:
            if self._on_crash is None:
                raise
            self._on_crash(error)

    # -- the end --------------------------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        """Say goodbye, and close. Idempotent."""
        if self._closed:
            return
        self.on_lost = _no_text_at_all
        if self._protocol.state is OPEN:
            self._protocol.send_close(CloseCode.NORMAL_CLOSURE)
            self._transmit()
        self._shut()

    def _lose(self, reason: str) -> None:
        if not self._closed:
            self._shut()
            self.on_lost(reason)

    def _shut(self) -> None:
        self.watch(False)
        self._closed = True
        self.unsent = b""
        with suppress(OSError):
            self._sock.close()


async def open_media_socket(
    url: str,
    *,
    subprotocol: str,
    on_text: Callable[[str, float], None],
    timeout_s: float,
    tls: ssl.SSLContext | None = None,
) -> MediaSocket:
    """Connect to `url` (ws: or wss:, the latter with `tls`). The loop watches it until `watch(False)`; texts may come
    before this returns. Raises MediaSocketError."""
    parts = urlsplit(url)
    where = f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'wss' else 80)}"
    try:
        async with asyncio.timeout(timeout_s):
            protocol = ClientProtocol(
                parse_uri(url), subprotocols=[Subprotocol(subprotocol)], max_size=MAX_MESSAGE_BYTES, logger=LOGGER
            )
            sock = await _connect(parts.hostname or "", parts.port or (443 if tls else 80), timeout_s, tls)
            opened = MediaSocket(sock, protocol)
            opened.on_text = on_text
            try:
                await _shake_hands(opened, protocol)
            except BaseException:
                opened.close()
                raise
            return opened
    except TimeoutError:
        raise MediaSocketError(f"no connection to {where} within {timeout_s:g} s") from None
    except (OSError, InvalidURI, UnicodeError) as error:
        # asyncio puts "Connect call failed" in the place of what the system says.
        system = error.errno if isinstance(error, ConnectionError) else None
        what = os.strerror(system) if system else str(error) or type(error).__name__
        raise MediaSocketError(f"no connection to {where}: {what}") from error


async def _shake_hands(opened: MediaSocket, protocol: ClientProtocol) -> None:
    answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def settle(problem: str) -> None:
        if not answer.done():
            answer.set_result(problem)

    opened.on_open = lambda: settle("")
    opened.on_lost = settle
    opened.watch(True)
    opened.begin(protocol)
    problem = await answer
    if problem:
        raise MediaSocketError(problem)
    opened.on_open = _nothing
    opened.on_lost = _no_text_at_all


async def _connect(host: str, port: int, timeout_s: float, tls: ssl.SSLContext | None) -> socket.socket:
    """A non-blocking socket. Raises OSError."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    failure: OSError = OSError("the name has no address")
    for family, kind, proto, _, address in found:
        sock = socket.socket(family, kind, proto)
        try:
            prepare(sock)
            await loop.sock_connect(sock, address)
            if tls is None:
                return sock
            return await asyncio.to_thread(_encrypt, sock, tls, host, timeout_s)
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
    raise failure


def _encrypt(sock: socket.socket, tls: ssl.SSLContext, host: str, timeout_s: float) -> socket.socket:
    sock.settimeout(timeout_s)
    encrypted = tls.wrap_socket(sock, server_hostname=host)
    encrypted.setblocking(False)
    return encrypted


def prepare(sock: socket.socket) -> None:
    """Non-blocking, each frame on its way at once, and little room for what would be late anyway."""
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)


def _audio_header(size: int, masked: bool) -> bytes:
    """Of an unfragmented binary message (RFC 6455 5.2)."""
    bit = 0x80 if masked else 0
    if size < 126:
        return bytes((_FIN_BINARY, bit | size))
    if size < 65_536:
        return bytes((_FIN_BINARY, bit | 126)) + size.to_bytes(2, "big")
    return bytes((_FIN_BINARY, bit | 127)) + size.to_bytes(8, "big")


def _refused(error: Exception) -> str:
    what = str(error) or type(error).__name__
    return f"no WebSocket there: {what}" if isinstance(error, InvalidHandshake) else what


def _nothing() -> None:
    pass


def _no_audio(payload: bytes, arrival: float) -> None:
    pass


def _no_text(text: str, arrival: float) -> None:
    pass


def _no_text_at_all(reason: str) -> None:
    pass


def _no_request(request: Request) -> None:
    pass
