"""An ARI client of the tests: what it told, and waits for what it does."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from bridge.asterisk.ari import Ari, AriState
from bridge.asterisk.ari_events import AriEvent
from bridge.asterisk.settings import AsteriskSettings

PATIENCE_S = 30.0


def spawn(work: Coroutine[Any, Any, None], name: str) -> "asyncio.Task[None]":
    return asyncio.create_task(work, name=name)


class Client:
    """An `Ari` and what it told."""

    def __init__(self, url: str, *, password: str = "s3cret-of-ari", **settings: Any) -> None:
        self.environ = {"ARI_PASSWORD": password}
        values = {"name": "pbx", "url": url, "username": "offhook", "password_env": "ARI_PASSWORD", **settings}
        self.events: list[AriEvent] = []
        self.on_event: Callable[[AriEvent], None] = lambda event: None
        self.ari = Ari(AsteriskSettings.model_validate(values), self._event, environ=self.environ)

    def _event(self, event: AriEvent) -> None:
        self.events.append(event)
        self.on_event(event)

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                await asyncio.sleep(0.005)

    async def is_in(self, state: AriState) -> None:
        await self.until(lambda: self.ari.state == state)

    async def up(self, *, over_socket: bool = True) -> "Client":
        self.ari.start()
        await self.is_in("up")
        if over_socket:
            await self.until(lambda: self.ari.rest_over_socket)
        else:
            await self.until(lambda: bool(self.ari.version))
        return self
