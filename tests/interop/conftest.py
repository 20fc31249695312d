"""Bridges and peers of the interoperability tests, started when a test asks for them and stopped after it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from asterisk_peer import Asterisk
from baresip_peer import Baresip
from bridge_process import BridgeProcess
from certificates import Authority
from kamailio_peer import Kamailio
from sipp_run import Sipp

Start = Callable[..., Any]


@pytest.fixture
def own_bridge(tmp_path: Path) -> Iterator[Callable[..., BridgeProcess]]:
    """Starts bridges that belong to one test."""
    started: list[BridgeProcess] = []

    def start(**settings: Any) -> BridgeProcess:
        started.append(BridgeProcess(tmp_path / f"box{len(started)}", **settings))
        return started[-1]

    yield start
    for process in started:
        process.kill()


@pytest.fixture
def sipp(tmp_path: Path) -> Iterator[Callable[..., Sipp]]:
    """Starts SIPp; what still runs at the end of a failed test is killed."""
    started: list[Sipp] = []

    def start(scenario: str, port: int, **options: Any) -> Sipp:
        started.append(Sipp(tmp_path, scenario, port, **options))
        return started[-1]

    yield start
    for run in started:
        run.kill()


@pytest.fixture
def baresip(tmp_path: Path) -> Iterator[Callable[..., Baresip]]:
    """Starts phones."""
    started: list[Baresip] = []

    def start(**settings: Any) -> Baresip:
        started.append(Baresip(tmp_path / f"baresip{len(started)}", **settings))
        return started[-1]

    yield start
    for phone in started:
        phone.stop()


@pytest.fixture
def asterisk(tmp_path: Path) -> Iterator[Callable[..., Asterisk]]:
    """Starts PBXs."""
    started: list[Asterisk] = []

    def start(**settings: Any) -> Asterisk:
        started.append(Asterisk(tmp_path / f"asterisk{len(started)}", **settings))
        return started[-1]

    yield start
    for pbx in started:
        pbx.stop()


@pytest.fixture
def kamailio(tmp_path: Path) -> Iterator[Callable[..., Kamailio]]:
    """Starts proxies."""
    started: list[Kamailio] = []

    def start(**settings: Any) -> Kamailio:
        started.append(Kamailio(tmp_path / f"kamailio{len(started)}", **settings))
        return started[-1]

    yield start
    for proxy in started:
        proxy.stop()


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))
