"""The API as it runs: a real server on 127.0.0.1, a real database, and a bridge whose calls the tests make up."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path
from types import MappingProxyType

import httpx
import pytest

from bridge.api.app import create_app
from bridge.api.control import CallVerbs, DialRefused, DialRequest, LiveCall
from bridge.api.live import LiveEvents
from bridge.api.metrics import Metrics
from bridge.api.server import HttpServer
from bridge.api.services import ApiSettings
from bridge.asterisk.ami import Ami
from bridge.asterisk.status import AsteriskStatus
from bridge.capture import Capture
from bridge.events import CallAnswered, CallEnded, CallEvent, CallStarted, Cause, TurnDelays, TurnEnded
from bridge.legs.base import NotCapableError
from bridge.legs.supervision import Supervision
from bridge.names import other_names
from bridge.sip.trace import SipTrace, TracedMessage
from bridge.store.call_log import CallLog
from bridge.store.store import Store
from bridge.tracing import CallPackets, Tracing
from bridge.trunks.guard import Ban
from bridge.trunks.status import TrunkStatus
from bridge.view import Api as Reach

KEY = "the-key-of-these-tests-0123456789"
T0 = 1_790_000_000.0


class MadeUpBridge:
    """A bridge whose calls exist on paper: it dials, hangs up and refuses as the tests say."""

    def __init__(self, log: CallLog) -> None:
        self.log = log
        self.reasons: list[str] = []
        self.calls: dict[str, LiveCall] = {}
        self.dialled: list[DialRequest] = []
        self.refusal: DialRefused | None = None
        self.trunks: list[TrunkStatus] = []
        self.registered: list[str] = []
        self.banned: dict[str, Ban] = {}
        self.asterisks: list[AsteriskStatus] = []
        self.managers: dict[str, Ami] = {}
        self.reconnected: list[str] = []
        self.tracing = Tracing(SipTrace(ahead_s=0.0))
        self.verbs: dict[str, CallVerbs] = {}
        """Of the calls to which something can be done."""
        self.supervisions: dict[str, Supervision] = {}
        self.packets: dict[str, CallPackets] = {}
        """Of the calls whose packets can be captured."""

    def ready(self) -> tuple[bool, Sequence[str]]:
        return not self.reasons, self.reasons

    def live_calls(self) -> Sequence[LiveCall]:
        return list(self.calls.values())

    async def dial(self, request: DialRequest) -> str:
        if self.refusal:
            raise self.refusal
        self.dialled.append(request)
        call_id = f"dialled{len(self.dialled)}"
        self.begin(call_id, direction="outbound", agent=request.agent)
        return call_id

    async def hang_up(self, call_id: str) -> bool:
        if call_id not in self.calls:
            return False
        self.end(call_id, Cause.API_HUNG_UP)
        return True

    def on_call(self, call_id: str) -> CallVerbs | None:
        return self.verbs.get(call_id)

    def supervision(self, call_id: str) -> Supervision | None:
        if call_id in self.calls and call_id not in self.supervisions:
            raise NotCapableError("calls by sip can't be supervised")
        return self.supervisions.get(call_id)

    def leg_ids(self, call_id: str) -> Sequence[str] | None:
        packets = self.packets.get(call_id)
        return None if packets is None else packets.leg_ids

    def sip_messages(self, leg_ids: Sequence[str]) -> Sequence[TracedMessage]:
        return self.tracing.messages(leg_ids)

    def capture(self, call_id: str) -> AbstractContextManager[Capture] | None:
        packets = self.packets.get(call_id)
        return None if packets is None else self.tracing.capture(packets)

    def captures(self) -> int:
        return self.tracing.captures

    def trunk_status(self) -> Sequence[TrunkStatus]:
        return self.trunks

    def register_again(self, trunk: str) -> bool:
        self.registered.append(trunk)
        return any(one.name == trunk and one.registration is not None for one in self.trunks)

    def bans(self) -> Sequence[Ban]:
        return list(self.banned.values())

    def lift_ban(self, source: str) -> bool:
        if source == "nobody":
            raise ValueError("'nobody' is no address")
        return self.banned.pop(source, None) is not None

    def asterisk_status(self) -> Sequence[AsteriskStatus]:
        return self.asterisks

    async def reconnect_asterisk(self, name: str) -> bool:
        self.reconnected.append(name)
        return name in (one.name for one in self.asterisks)

    def asterisk_ami(self, name: str) -> Ami | None:
        return self.managers.get(name)

    def begin(
        self,
        call_id: str,
        *,
        at: float = T0,
        direction: str = "inbound",
        agent: str = "receptionist",
        leg_id: str = "",
        kind: str = "sip",
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        assert direction in ("inbound", "outbound")
        leg_id = leg_id or f"{call_id}@pbx"
        started = CallStarted(direction, "+4930123456", "agent", "private", agent, kind, leg_id, at, headers)
        self.calls[call_id] = LiveCall(
            call_id,
            direction,
            started.from_,
            started.to,
            started.trunk,
            agent,
            kind,
            leg_id,
            at,
            None,
            names=other_names(headers),
        )
        self.log.record(call_id, started)

    def say(self, call_id: str, index: int, text: str = "Good evening") -> None:
        self.log.record(call_id, self.turn(index, text))

    @staticmethod
    def turn(index: int, text: str = "Good evening") -> TurnEnded:
        delays = TurnDelays(
            300.0,
            0.0,
            12.5,
            140.0,
            560.0,
            "openai/gpt-4.1-mini",
            clause_ms=80.0,
            playout_ms=15.0,
            stt="deepgram",
            tts="cartesia",
        )
        return TurnEnded(index, "agent", text, 100.0, 1900.0, "Good", 800.0, True, delays)

    def end(self, call_id: str, cause: Cause = Cause.CALLER_HUNG_UP, recording: str | None = None) -> None:
        call = self.calls.pop(call_id)
        self.log.record(call_id, CallEnded(cause, "", call.started_at + 60, recording, {"packets_lost": 3.0}))

    def whole_call(self, call_id: str, *, recording: str | None = None, extra: Sequence[CallEvent] = ()) -> None:
        self.begin(call_id)
        self.log.record(call_id, CallAnswered(T0 + 1, 250.0))
        self.say(call_id, 0)
        for event in extra:
            self.log.record(call_id, event)
        self.end(call_id, recording=recording)


class Api:
    """The running API with all its parts."""

    def __init__(self, tmp_path: Path, store: Store, log: CallLog, settings: ApiSettings) -> None:
        self.dir = tmp_path
        self.recordings = settings.recordings_dir
        self.store = store
        self.log = log
        self.live = LiveEvents()
        self.metrics = Metrics()
        self.bridge = MadeUpBridge(log)
        log.subscribe(self.live.publish)
        log.subscribe(lambda item: self.metrics.observe(item.call_id, item.event))
        self.app = create_app(
            self.bridge,
            store=store,
            call_log=log,
            live=self.live,
            metrics=self.metrics,
            settings=settings,
            api_key=KEY,
            asterisks=self.bridge,
        )
        self.server = HttpServer(self.app, "127.0.0.1", 0, closing=self.live.close)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.port}"

    def client(self, *, key: str | None = KEY) -> httpx.AsyncClient:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=30)

    async def until(self, true: "object") -> None:
        """Wait until `true()` holds, for what only the server's side can see."""
        assert callable(true)
        deadline = time.monotonic() + 30
        while not true():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.005)


@asynccontextmanager
async def running(tmp_path: Path, **settings: float) -> AsyncIterator[Api]:
    recordings = tmp_path / "recordings"
    recordings.mkdir()
    store = await Store.open(f"sqlite:///{tmp_path / 'offhook.sqlite3'}", busy_timeout_s=0.05)
    log = CallLog(store, interval_s=0.01)
    log.start()
    values = {"keepalive_s": 15.0, "max_streams": 100, **settings}
    api = Api(tmp_path, store, log, ApiSettings(recordings, int(values["max_streams"]), values["keepalive_s"]))
    await api.server.start()
    try:
        yield api
    finally:
        await api.server.aclose()
        await log.flush_and_close(deadline_s=0.5)
        await store.aclose()


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with running(tmp_path) as started:
        yield started


@pytest.fixture
async def client(api: Api) -> AsyncIterator[httpx.AsyncClient]:
    async with api.client() as opened:
        yield opened


@pytest.fixture
def start(tmp_path: Path):
    """Start an API with settings of one's own: `async with start(max_streams=2) as api`."""
    return lambda **settings: running(tmp_path, **settings)


@pytest.fixture
def address(api, client, monkeypatch: pytest.MonkeyPatch) -> Reach:
    """How the commands reach the bridge."""
    monkeypatch.setenv("OFFHOOK_API_KEY", client.headers["Authorization"].removeprefix("Bearer "))
    return Reach(api.url, Path())
