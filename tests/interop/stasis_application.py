"""A Stasis application of an `AsteriskShop` that does with a channel what a test says, in place of Offhook."""

import base64
import json
from typing import Any

import httpx
from asterisk_shop import AsteriskShop
from websockets.sync.client import ClientConnection, connect


class Application:
    """Subscribed as `offhook` while it is entered."""

    def __init__(self, shop: AsteriskShop) -> None:
        self._http = httpx.Client(base_url=f"{shop.ari_url}/ari", auth=(shop.username, shop.password), timeout=20)
        token = base64.b64encode(f"{shop.username}:{shop.password}".encode()).decode()
        self._socket: ClientConnection = connect(
            f"{shop.ari_url.replace('http', 'ws', 1)}/ari/events?app=offhook",
            additional_headers={"Authorization": f"Basic {token}"},
        )

    def __enter__(self) -> "Application":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._http.close()

    def started(self) -> dict[str, Any]:
        """The next StasisStart."""
        while True:
            event: dict[str, Any] = json.loads(self._socket.recv(timeout=30))
            if event["type"] == "StasisStart":
                return event

    def post(self, path: str, **query: str) -> None:
        self._http.post(path, params=query).raise_for_status()

    def give_back(self, channel: str, variables: dict[str, str], **place: str) -> None:
        for name, value in variables.items():
            self.post(f"/channels/{channel}/variable", variable=name, value=value)
        self.post(f"/channels/{channel}/continue", **place)
