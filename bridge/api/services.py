"""What the routes work with, and how they get it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from fastapi import Depends, Request

from bridge.api.asterisk_control import AsteriskControl, NoAsterisks
from bridge.api.control import BridgeControl
from bridge.api.live import LiveEvents
from bridge.api.metrics import Metrics
from bridge.store.call_log import CallLog
from bridge.store.store import Store


@dataclass(frozen=True, slots=True)
class ApiSettings:
    recordings_dir: Path
    max_streams: int = 100
    """Event streams at a time; each is an open connection."""
    keepalive_s: float = 15.0
    """A silent event stream says so this often, so that proxies keep it open and dead clients are noticed."""


@dataclass(frozen=True, slots=True)
class Services:
    control: BridgeControl
    store: Store
    call_log: CallLog
    live: LiveEvents
    metrics: Metrics
    settings: ApiSettings
    asterisk: AsteriskControl = field(default_factory=NoAsterisks)


async def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


Bridge = Annotated[Services, Depends(_services)]
