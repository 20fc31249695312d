"""What the media WebSocket reads by itself, against what the library makes of the same bytes: valid, broken, cut."""

import asyncio
import itertools
import socket
import time
from dataclasses import dataclass

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from test_asterisk_media_socket import Heard, client_of, server_of
from websockets.client import ClientProtocol
from websockets.frames import Opcode
from websockets.protocol import OPEN
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

MASK = b"\x01\xfe\x80\x7f"
MAX_BYTES = 131_072


@dataclass(frozen=True)
class Sent:
    """A frame as somebody may send it, right or wrong (RFC 6455 5.2)."""

    opcode: int
    size: int
    fin: bool
    reserved: int
    masked_right: bool
    wide: int
    """Bytes that its length is said in at least: 0, 2 or 8."""

    def serialise(self, as_server: bool) -> bytes:
        masked = as_server == self.masked_right
        data = bytes(65 + n % 26 for n in range(self.size))
        if self.opcode == Opcode.CLOSE and self.size >= 2:
            data = b"\x03\xe8" + data[2:]
        bit = 0x80 if masked else 0
        head = bytes([0x80 * self.fin | self.reserved | self.opcode])
        if self.size < 126 and not self.wide:
            head += bytes([bit | self.size])
        elif self.size < 65_536 and self.wide < 8:
            head += bytes([bit | 126]) + self.size.to_bytes(2, "big")
        else:
            head += bytes([bit | 127]) + self.size.to_bytes(8, "big")
        if masked:
            head += MASK
            data = bytes(byte ^ MASK[n % 4] for n, byte in enumerate(data))
        return head + data


def seldom(usual: object, *others: object) -> st.SearchStrategy[object]:
    return st.integers(0, 30).flatmap(lambda n: st.sampled_from(others) if n == 0 else st.just(usual))


frames = st.builds(
    Sent,
    opcode=st.sampled_from([0, 1, 2, 2, 2, 8, 9, 10, 3, 11]),
    size=st.sampled_from([0, 1, 2, 40, 125, 126, 160, 640, 3000]),
    fin=st.sampled_from([True, True, True, False]),
    # The first of the reserved bits says that a frame is compressed.
    reserved=seldom(0, 0x40, 0x20, 0x10),
    masked_right=seldom(True, False),
    wide=seldom(0, 2, 8),
)


def by_library(stream: bytes, as_server: bool) -> tuple[bytes, list[str], bool]:
    """Audio and texts that are in it, and whether it is the end of the connection."""
    url = parse_uri("ws://127.0.0.1/")
    protocol = (
        ServerProtocol(state=OPEN, max_size=MAX_BYTES)
        if as_server
        else ClientProtocol(url, state=OPEN, max_size=MAX_BYTES)
    )
    protocol.parser = protocol.parse()
    next(protocol.parser)
    protocol.receive_data(stream)
    audio = b""
    texts: list[str] = []
    pieces: list[str] | None = None
    for frame in protocol.events_received():
        opcode, data = frame.opcode, bytes(frame.data)
        if opcode is Opcode.BINARY or (opcode is Opcode.CONT and pieces is None):
            audio += data
            pieces = None
        elif opcode in (Opcode.TEXT, Opcode.CONT):
            pieces = [*(pieces or []), data.decode()] if opcode is Opcode.CONT else [data.decode()]
            if frame.fin:
                texts.append("".join(pieces))
                pieces = None
    return audio, texts, protocol.parser_exc is not None or protocol.close_rcvd is not None


@example([Sent(Opcode.BINARY, 40, fin=True, reserved=0x40, masked_right=True, wide=0)], [700], False)
@example([Sent(Opcode.BINARY, 40, fin=True, reserved=0, masked_right=False, wide=2)], [1], False)
@example([Sent(Opcode.BINARY, 40, fin, reserved=0, masked_right=True, wide=0) for fin in (False, True)], [3], True)
@given(st.lists(frames, max_size=8), st.lists(st.integers(1, 700), min_size=1, max_size=20), st.booleans())
def test_what_is_read_is_what_the_library_reads(sent: list[Sent], cuts: list[int], as_server: bool) -> None:
    async def run() -> None:
        near, far = socket.socketpair()
        near.setblocking(False)
        media = server_of(near) if as_server else client_of(near)
        heard = Heard(media)
        stream = b"".join(frame.serialise(as_server) for frame in sent)
        at = 0
        for cut in itertools.cycle(cuts):
            if at >= len(stream) or media.closed:
                break
            far.sendall(stream[at : at + cut])
            at += cut
            media.read(1.0)
        assert (b"".join(heard.audio), heard.texts, bool(heard.lost)) == by_library(stream, as_server)
        media.close()
        far.close()

    asyncio.run(run())


@pytest.mark.parametrize("by_s", [3600.0, -3600.0, 0.5, -0.5])
async def test_what_came_before_the_wall_clock_was_set_has_the_time_at_which_it_came(
    by_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        socket.create_connection(listening.getsockname()) as far,
    ):
        near, _ = listening.accept()
        near.setblocking(False)
        media = client_of(near)
        times: list[float] = []
        media.on_audio = lambda payload, arrival: times.append(arrival)
        async with asyncio.timeout(30):
            # The kernel begins to tell some moments after it was first asked to.
            while not media.timed:
                far.sendall(b"\x82\x03one")
                times.clear()
                while not times:
                    media.read(1.0)
                    await asyncio.sleep(0)
            before = time.monotonic()
            far.sendall(b"\x82\x03two")
            wall = time.time
            monkeypatch.setattr(time, "time", lambda: wall() + by_s)
            times.clear()
            while not times:
                media.read(1.0)
                await asyncio.sleep(0)
        assert before - 0.4 <= times[0] <= time.monotonic()
        media.close()
