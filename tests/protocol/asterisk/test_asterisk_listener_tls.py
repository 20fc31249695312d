"""The listener for Asterisk's media sockets with a certificate: who is let in, strangers, renewals."""

import asyncio
import shutil
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import structlog
from websockets.asyncio.client import connect

from bridge.asterisk.settings import WebsocketListenerSettings
from bridge.asterisk.tls import CertificateFileError, Trust
from bridge.legs.asterisk import websocket_listener
from bridge.legs.asterisk.websocket_listener import WebsocketListener
from bridge.legs.media_socket import MediaSocket

sys.path.append(str(Path(__file__).parents[2] / "interop"))

from certificates import Authority, KeyPair

WAIT_S = 30.0


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def put(pair: KeyPair, folder: Path) -> None:
    """As a renewal does it: a new file in the place of the old."""
    for source, name in ((pair.certificate, "own.pem"), (pair.key, "own.key")):
        shutil.copy(source, folder / f"{name}.new")
        (folder / f"{name}.new").rename(folder / name)


@asynccontextmanager
async def listening(folder: Path) -> AsyncIterator[WebsocketListener]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    settings = WebsocketListenerSettings(
        listen="127.0.0.1", port=port, certificate=folder / "own.pem", key=folder / "own.key"
    )
    listener = WebsocketListener(settings)
    listener.start()
    try:
        yield listener
    finally:
        await listener.aclose()


async def until(true: Callable[[], Any]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not true():
            await asyncio.sleep(0.005)


async def shown_to(listener: WebsocketListener, trusted: Path) -> str:
    """The serial number of the certificate that a new connection is shown."""
    _reader, writer = await asyncio.open_connection("127.0.0.1", listener.port, ssl=Trust(ca=trusted).context())
    serial = writer.get_extra_info("peercert")["serialNumber"]
    writer.transport.abort()
    return str(serial)


async def test_a_connection_by_tls_is_its_calls(authority: Authority, tmp_path: Path) -> None:
    put(authority.issue("first"), tmp_path)
    taken: list[MediaSocket] = []
    heard: list[bytes] = []

    def take(media: MediaSocket) -> None:
        taken.append(media)
        media.on_audio = lambda payload, arrival: heard.append(payload)

    async with listening(tmp_path) as listener:
        url = f"wss://127.0.0.1:{listener.port}/media"
        with listener.expecting(take) as secret:
            trusting = Trust(ca=authority.certificate).context()
            async with connect(f"{url}?call={secret}", ssl=trusting, subprotocols=["media"], proxy=None) as far:  # type: ignore[list-item] # a NewType
                await until(lambda: taken)
                await far.send(b"\x01" * 640)
                await until(lambda: heard)
                taken[0].send_audio(b"\x02" * 640)
                assert await far.recv() == b"\x02" * 640
        assert heard == [b"\x01" * 640]
        taken[0].close()
        assert listener.readings()["websocket_connections_total"] == 1


async def test_strangers_who_say_nothing_or_no_tls_go_again_and_hold_up_nobody(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket_listener, "MAX_WAITING", 3)
    put(authority.issue("second"), tmp_path)
    async with listening(tmp_path) as listener:
        silent = [await asyncio.open_connection("127.0.0.1", listener.port) for _ in range(5)]
        await until(lambda: listener.readings()["websocket_refused_total"] == 2)
        assert [await asyncio.wait_for(reader.read(), WAIT_S) for reader, _ in silent[:2]] == [b"", b""]
        assert await shown_to(listener, authority.certificate)
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        writer.write(b"GET /media HTTP/1.1\r\nHost: x\r\n\r\n")
        with suppress(ConnectionResetError):
            await asyncio.wait_for(reader.read(), WAIT_S)
        # One that goes in the midst of it.
        _, leaving = await asyncio.open_connection("127.0.0.1", listener.port)
        leaving.write(b"\x16\x03\x01")
        leaving.transport.abort()
        monkeypatch.setattr(websocket_listener, "HANDSHAKE_S", 0.01)
        reader, _ = await asyncio.open_connection("127.0.0.1", listener.port)
        assert await asyncio.wait_for(reader.read(), WAIT_S) == b""
    for _, left in silent:
        left.transport.abort()


async def test_a_renewed_certificate_is_shown_to_the_next_connection_and_a_broken_one_is_not(
    authority: Authority, tmp_path: Path
) -> None:
    put(authority.issue("third"), tmp_path)
    async with listening(tmp_path) as listener:
        first = await shown_to(listener, authority.certificate)
        assert await shown_to(listener, authority.certificate) == first
        put(authority.issue("fourth"), tmp_path)
        second = await shown_to(listener, authority.certificate)
        assert second != first
        with structlog.testing.capture_logs() as logs:
            (tmp_path / "own.key").write_text("not a key\n")
            assert await shown_to(listener, authority.certificate) == second
            (tmp_path / "own.pem").unlink()
            assert await shown_to(listener, authority.certificate) == second
        assert len([one for one in logs if one["log_level"] == "error"]) == 1
        put(authority.issue("fifth"), tmp_path)
        assert await shown_to(listener, authority.certificate) not in (first, second)


@pytest.mark.parametrize("what", ["missing", "another's key"])
async def test_a_certificate_that_can_not_be_used_is_told_of_at_the_start(
    authority: Authority, tmp_path: Path, what: str
) -> None:
    if what != "missing":
        put(authority.issue("sixth"), tmp_path)
        shutil.copy(authority.issue("seventh").key, tmp_path / "own.key")
    with pytest.raises(CertificateFileError, match=str(tmp_path / "own.pem")):
        async with listening(tmp_path):
            pass


def test_an_authority_s_file_is_loaded_once_until_it_changes(authority: Authority, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    shutil.copy(authority.certificate, file)
    first = Trust(ca=file).context()
    assert Trust(ca=file).context() is first
    assert first.verify_mode is ssl.CERT_REQUIRED
    file.write_text("")
    with pytest.raises(CertificateFileError, match=str(file)):
        Trust(ca=file).context()
    assert Trust(verify=False, ca=file).context().verify_mode is ssl.CERT_NONE
