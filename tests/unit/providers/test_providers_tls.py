"""What a provider's socket is opened with."""

import ssl

from bridge.providers.sdk_sockets import connection_options
from bridge.providers.sockets import tls


def test_all_sockets_share_one_tls_context() -> None:
    first, second = tls("wss://a.example/x"), connection_options("wss://b.example/y")
    assert isinstance(first["ssl"], ssl.SSLContext)
    assert first["ssl"] is second["ssl"]
    assert first["ssl"].verify_mode is ssl.CERT_REQUIRED


def test_plain_sockets_have_none() -> None:
    assert tls("ws://127.0.0.1:1/x") == {}
    assert "ssl" not in connection_options("ws://127.0.0.1:1/x")
