"""What is built at start and drained at stop: the one place that knows everybody."""

import asyncio
import contextlib
import gc
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace

import structlog

from bridge.admission import Admission
from bridge.api.app import create_app
from bridge.api.audiosocket import audiosocket_router
from bridge.api.control import CallVerbs, DialRefused, DialRequest, LiveCall
from bridge.api.key import KeyFileError, load_or_create_key
from bridge.api.live import LiveEvents
from bridge.api.metrics import Metrics
from bridge.api.server import HttpError, HttpServer
from bridge.api.services import ApiSettings
from bridge.asterisk.ami import Ami
from bridge.asterisk.settings import MediaKind
from bridge.asterisk.status import AsteriskStatus
from bridge.asterisks import Asterisks
from bridge.audio.clock import MediaClock
from bridge.audio.recording import Recordings, StereoRecorder
from bridge.audio.vad import VoiceActivity
from bridge.call import CallServices
from bridge.capture import Capture
from bridge.config import Config, TracingSettings
from bridge.dialling import Dialler
from bridge.events import CallEvent
from bridge.legs.base import LegInfo
from bridge.legs.codecs import CODECS
from bridge.legs.media import MediaPlane
from bridge.legs.outbound import LegProfile
from bridge.legs.sip_endpoint import SipEndpoint, inbound_info
from bridge.legs.supervision import Supervision, supervision_of
from bridge.log import Logs
from bridge.reload import ReloadError, running_with
from bridge.router import pick_route
from bridge.sip.errors import TlsError
from bridge.sip.events import RequestAnswered
from bridge.sip.flow import Flow
from bridge.sip.message import Request
from bridge.sip.trace import SipTrace, TracedMessage
from bridge.startup import StartError, endpoint_settings, make_data_dir, only_one, sip_port_problem
from bridge.store.call_log import CallLog
from bridge.store.errors import StoreError
from bridge.store.retention import attach_recovered, keep_purging
from bridge.store.store import Store
from bridge.switchboard import Switchboard
from bridge.talkers import AgentError, Progress, Talkers
from bridge.tracing import Tracing
from bridge.trunks.guard import Ban, Guard
from bridge.trunks.keeper import TrunkKeeper
from bridge.trunks.outbound import profile_of
from bridge.trunks.status import TrunkStatus, moved
from bridge.trunks.trunks import TrunkError, Trunks, prepare
from bridge.turn_log import log_turn

__all__ = ["Bridge", "StartError"]

log = structlog.get_logger(__name__)

UNREGISTER_S = 2.0
"""How long registrars get to answer when the bridge stops."""

HANG_UP_S = 5.0
"""After the drain limit: how long the last calls get to hang up properly."""


class Bridge:
    """A running bridge. Make it with `Bridge.run`."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.metrics = Metrics()
        self.live = LiveEvents()
        self._stack = contextlib.AsyncExitStack()
        self._state = "starting"
        self.guard = Guard(config.guard)
        self._reloading = asyncio.Lock()
        self._stop = asyncio.Event()
        self.trunks: Trunks
        self.admission: Admission
        self.dialler: Dialler
        self.keeper: TrunkKeeper
        self.tracing: Tracing
        self.calls: Switchboard
        self.asterisks: Asterisks
        self.talkers: Talkers
        self.clock: MediaClock
        self.voice: VoiceActivity
        self.sip: SipEndpoint
        self.media: MediaPlane
        self.store: Store
        self.call_log: CallLog
        self.recordings: Recordings
        self.http: HttpServer

    @classmethod
    @contextlib.asynccontextmanager
    async def run(cls, config: Config, progress: Progress, logs: Logs | None = None) -> AsyncIterator["Bridge"]:
        """A bridge that takes calls until the context is left; then it is closed, without draining.

        Raises StartError."""
        bridge = cls(config)
        async with bridge._stack:
            await bridge._start(progress, logs)
            yield bridge

    # -- start ----------------------------------------------------------------------------------------------

    async def _start(self, progress: Progress, logs: Logs | None) -> None:
        config, stack = self.config, self._stack
        loop = asyncio.get_running_loop()
        data_dir = make_data_dir(config.data_dir)
        stack.enter_context(only_one(data_dir))
        try:
            api_key = load_or_create_key(data_dir)
            trunks = prepare(config.trunks)
        except (KeyFileError, TrunkError) as error:
            raise StartError(str(error)) from error
        if logs is not None:
            logs.hide(api_key)

        self.talkers = Talkers(data_dir, observe=self.metrics.observe_provider)
        # The ports first: a start that can't succeed fails before the models are loaded.
        self.clock = MediaClock()
        stack.push_async_callback(self.clock.aclose)
        self.voice = VoiceActivity()
        stack.push_async_callback(self.voice.aclose)
        self.media = MediaPlane(self.clock, config.rtp)
        stack.callback(self.media.close)
        self.trunks = Trunks(
            trunks,
            guard=self.guard,
            allow_from=config.allowed_networks,
            strangers=config.sip.strangers,
            realm=config.sip.realm,
            algorithms=config.sip.digest,
            nonce_lifetime_s=config.sip.nonce_s,
        )
        self.admission = Admission(
            config.limits,
            self.trunks,
            now=loop.time,
            clock_lateness_ms=self.clock.lateness_p99_ms,
            record=self._record_refused,
            describe=inbound_info,
        )
        self.calls = Switchboard(self.admission, self.talkers, config.routes, self._services)
        self.calls.others = _agents_by_trunk(config)
        self.sip = SipEndpoint(
            endpoint_settings(config),
            self.media,
            self.calls.take,
            admit=self.admission.admit,
            profile_of=self._profile_of,
            on_answered=self._on_answered,
        )
        self.tracing = Tracing(
            SipTrace(ahead_s=time.time() - loop.time(), max_bytes=config.sip.trace_mb * 1024 * 1024)
        )
        self.asterisks = Asterisks(config, self.media, on_leg=self.calls.take, media_of=self._media_of)
        self.dialler = Dialler(self.sip, self.asterisks, self.admission)
        self.sip.agent.refuse_new("Starting", config.limits.retry_after_s)
        try:
            await self.sip.start()
        except OSError as error:
            raise StartError(sip_port_problem(error, config.sip)) from error
        except TlsError as error:
            raise StartError(f"tls: {error}") from error
        stack.push_async_callback(self.sip.aclose)
        self.trunks.peer_names = self.sip.transports.peer_names
        self.sip.transports.accepts = self._takes_connection
        self.guard.on_ban = self._on_ban
        self.sip.transports.tap = self.tracing.trace.tap
        stack.push_async_callback(self.asterisks.close_listeners)
        await self.asterisks.listen(config)

        try:
            self.store = await Store.open(config.store.url or f"sqlite:///{data_dir / 'offhook.sqlite3'}")
        except StoreError as error:
            raise StartError(str(error)) from error
        stack.push_async_callback(self.store.aclose)
        self.call_log = CallLog(self.store)
        self.call_log.start()
        stack.push_async_callback(self.call_log.flush_and_close)
        self.call_log.subscribe(self.live.publish)
        self.call_log.subscribe(lambda item: self.metrics.observe(item.call_id, item.event))
        self.call_log.subscribe(log_turn)
        self._register_metrics()
        if config.tracing.otlp_endpoint:
            self._start_tracing(config.tracing, logs)

        recordings_dir = data_dir / "recordings"
        self.recordings = Recordings(recordings_dir)
        self.recordings.start()
        await attach_recovered(self.store, recordings_dir)
        stack.push_async_callback(self.recordings.aclose)
        if config.store.keep_days:
            purging = asyncio.create_task(
                keep_purging(self.store, recordings_dir, keep_days=config.store.keep_days, clock=time.time),
                name="retention",
            )
            stack.push_async_callback(_cancelled, purging)

        app = create_app(
            self,
            store=self.store,
            call_log=self.call_log,
            live=self.live,
            metrics=self.metrics,
            settings=ApiSettings(recordings_dir=recordings_dir),
            api_key=api_key,
            find_bot_call=self.talkers.remote_calls.get,
            asterisks=self,
            more=(audiosocket_router(self.asterisks.dialplan_calls_taken, self.clock.time),),
        )
        self.http = HttpServer(app, config.http.listen, config.http.port, closing=self.live.close)
        try:
            await self.http.start()
        except HttpError as error:
            raise StartError(str(error)) from error
        stack.push_async_callback(self.http.aclose)

        stack.push_async_callback(self.talkers.aclose)
        try:
            await self.talkers.start(config, progress)
        except AgentError as error:
            raise StartError(str(error)) from error

        self.clock.after_tick(self.voice.after_tick)
        self.clock.start()
        # What lives from here on dies young or with its call; what was built above never dies: the collector need
        # not walk through it again in the middle of a call.
        gc.collect()
        gc.freeze()
        self._state = "up"
        self.sip.agent.accept_new()
        self.keeper = TrunkKeeper(self.trunks, self.sip.agent, self.sip.transports)
        self.sip.transports.on_connection_lost = self.keeper.connection_lost
        self.keeper.start()
        stack.push_async_callback(self.keeper.aclose)
        stack.push_async_callback(self.asterisks.aclose)
        await self.asterisks.start()
        watching = loop.create_task(self.admission.watch(), name="admission")
        stack.push_async_callback(_cancelled, watching)
        stack.push_async_callback(self._end_all_calls)

    def _start_tracing(self, settings: TracingSettings, logs: Logs | None) -> None:
        # Imported where it is wanted alone: it is much code.
        from bridge.span_export import SpanExport, TracingError

        try:
            export = SpanExport(settings, os.environ)
        except TracingError as error:
            raise StartError(str(error)) from error
        self._stack.push_async_callback(export.aclose)
        if logs is not None:
            for secret in export.secrets:
                logs.hide(secret)
        self.call_log.subscribe(export.spans.observe)
        self.metrics.register(export.readings)

    # -- calls that come in ---------------------------------------------------------------------------------

    def _profile_of(self, request: Request, flow: Flow) -> LegProfile | None:
        trunk = self.admission.trunk_of(request, flow)
        return None if trunk is None else profile_of(trunk, CODECS)

    def _media_of(self, info: LegInfo) -> MediaKind | None:
        """How the audio of an Asterisk's call is to reach us, where the call's route says so."""
        route = pick_route(self.calls.routes, info)
        return None if route is None else route.media

    def _on_answered(self, event: RequestAnswered) -> None:
        if not self.keeper.answered(event):
            log.debug("an answer that nobody waits for", method=event.request.method)

    def _takes_connection(self, address: str) -> bool:
        return not self.guard.is_banned(address, self.admission.now())

    def _on_ban(self, address: str, why: str) -> None:
        log.warning("banned", address=address, reason=why, seconds=self.guard.settings.ban_s)
        # Later: the message that brought the ban is still being worked on.
        asyncio.get_running_loop().call_soon(self.sip.transports.disconnect, address)

    def _services(self) -> CallServices:
        return CallServices(
            record=self.call_log.record,
            open_voice=self.voice.open,
            open_recording=self._open_recording,
            clock=self.clock.time,
            max_call_s=self.config.limits.call_s,
            dial=self.dialler.on_behalf,
            queues=self.asterisks.queues,
        )

    def _record_refused(self, call_id: str, event: CallEvent) -> None:
        # Before that there is no record, and every call is refused for another reason.
        if self._state != "starting":
            self.call_log.record(call_id, event)

    def _open_recording(
        self, call_id: str, sample_rate: int, on_failure: Callable[[str], None], answered_at: float
    ) -> StereoRecorder:
        return self.recordings.open(call_id, sample_rate, on_failure, started_at=answered_at)

    # -- BridgeControl --------------------------------------------------------------------------------------

    def ready(self) -> tuple[bool, Sequence[str]]:
        if self._state != "up":
            return False, [f"the bridge is {self._state}"]
        problem = self.admission.overload() or self.talkers.overloaded()
        return (True, []) if problem is None else (False, [problem])

    def live_calls(self) -> Sequence[LiveCall]:
        return self.calls.live_calls()

    async def dial(self, request: DialRequest) -> str:
        if self._state != "up":
            raise DialRefused(503, self._state, f"the bridge is {self._state}")
        talker = self.talkers.get(request.agent)
        if talker is None:
            known = ", ".join(self.talkers.names)
            raise DialRefused(404, "no-such-agent", f"there is no agent {request.agent!r}; known: {known}")
        if talker.embedded and (problem := self.admission.no_room_to_talk(self.talkers.overloaded)):
            raise DialRefused(503, "busy", problem)
        # As it is now: a reload may take it out while the name is looked up.
        return self.calls.begin(await self.dialler.dial(request), talker).id

    async def hang_up(self, call_id: str) -> bool:
        return self.calls.hang_up(call_id)

    def on_call(self, call_id: str) -> CallVerbs | None:
        call = self.calls.find(call_id)
        return None if call is None else call.transfers

    def supervision(self, call_id: str) -> Supervision | None:
        call = self.calls.find(call_id)
        return None if call is None else supervision_of(call.leg)

    def leg_ids(self, call_id: str) -> Sequence[str] | None:
        call = self.calls.find(call_id)
        return None if call is None else tuple(call.packets.leg_ids)

    def sip_messages(self, leg_ids: Sequence[str]) -> Sequence[TracedMessage]:
        return self.tracing.messages(leg_ids)

    def capture(self, call_id: str) -> contextlib.AbstractContextManager[Capture] | None:
        call = self.calls.find(call_id)
        return None if call is None else self.tracing.capture(call.packets)

    def captures(self) -> int:
        return self.tracing.captures

    def trunk_status(self) -> Sequence[TrunkStatus]:
        offset_s = time.time() - self.admission.now()
        return [moved(status, offset_s) for status in self.trunks.status()]

    def register_again(self, trunk: str) -> bool:
        return self.keeper.retry(trunk)

    def bans(self) -> Sequence[Ban]:
        now = self.admission.now()
        offset_s = time.time() - now
        return [replace(ban, since=ban.since + offset_s, until=ban.until + offset_s) for ban in self.guard.bans(now)]

    def lift_ban(self, source: str) -> bool:
        return self.guard.lift(source)

    # -- AsteriskControl ------------------------------------------------------------------------------------

    def asterisk_status(self) -> Sequence[AsteriskStatus]:
        return self.asterisks.status()

    async def reconnect_asterisk(self, name: str) -> bool:
        return await self.asterisks.reconnect(name)

    def asterisk_ami(self, name: str) -> Ami | None:
        return self.asterisks.ami(name)

    # -- reload ---------------------------------------------------------------------------------------------

    async def reload(self, wanted: Config) -> Sequence[str]:
        """Take up a changed configuration for new calls; those that are up go on as they are. Certificates are read
        again. Returns the settings that need a restart. Raises ReloadError; then everything stays as it was."""
        async with self._reloading:
            try:
                config, waiting = running_with(self.config, wanted)
                trunks = prepare(config.trunks)
                talkers = await self.talkers.prepare(config, lambda text: log.info("reloading", what=text))
                changes = await self.asterisks.prepare(config)
                await self.asterisks.listen(config)
                self.sip.transports.reload_certificates()
            except (TrunkError, AgentError, TlsError, StartError) as error:
                raise ReloadError(str(error)) from error
            # Nothing from here on can fail, or waits: no call sees a half of it.
            self.config = config
            self.talkers.apply(config, talkers)
            self.trunks.apply(trunks, allow_from=config.allowed_networks, strangers=config.sip.strangers)
            self.guard.settings = config.guard
            self.admission.limits = config.limits
            self.calls.routes = config.routes
            self.calls.others = _agents_by_trunk(config)
            self.asterisks.apply(config, changes)
            self.keeper.update()
            return waiting

    # -- stop -----------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Begin to drain; a second time: stop at once."""
        if self._state == "draining":
            self.calls.hurry()
        self._stop.set()

    async def serve_until_stopped(self) -> None:
        """Return when `stop` was called and live calls have finished, or the drain limit has run out."""
        await self._stop.wait()
        self._state = "draining"
        self._refuse_new("Draining")
        # First, so that carriers send new calls elsewhere.
        await self.keeper.unregister(UNREGISTER_S)
        await self.calls.drain(self.config.limits.drain_s)

    async def _end_all_calls(self) -> None:
        self._state = "stopping"
        self._refuse_new("Stopping")
        await self.calls.end_all(HANG_UP_S)

    def _refuse_new(self, reason: str) -> None:
        """Take no call any more, by whatever way it comes; `reason` goes with SIP's 503."""
        self.sip.agent.refuse_new(reason, self.config.limits.retry_after_s)
        self.calls.draining = True
        self.asterisks.refuse_new("the bridge is stopping")

    # -- metrics --------------------------------------------------------------------------------------------

    def _register_metrics(self) -> None:
        def sip_readings() -> Mapping[str, float]:
            agent = self.sip.agent
            readings = {
                f'sip_messages_total{{what="{name}"}}': float(count) for name, count in agent.counters.items()
            }
            readings["sip_calls"] = float(agent.call_count)
            readings["sip_transactions"] = float(agent.transaction_count)
            readings["sip_timers"] = float(agent.timer_count)
            readings["sip_connections"] = float(self.sip.transports.connection_count)
            readings["event_loop_tasks"] = float(len(asyncio.all_tasks()))
            readings["guard_bans"] = float(len(self.guard.bans(self.admission.now())))
            return readings

        self.metrics.register(sip_readings)
        self.metrics.register(self.clock.readings)
        self.metrics.register(self.media.readings)
        self.metrics.register(self._voice_readings)
        self.metrics.register(self.trunks.readings)
        self.metrics.register(self.talkers.readings)
        self.metrics.register(self.asterisks.readings)

    def _voice_readings(self) -> Mapping[str, float]:
        return {
            "vad_windows_scored_total": float(self.voice.windows_scored),
            "vad_windows_lost_total": float(self.voice.windows_lost),
            "vad_batches_total": float(self.voice.batches),
        }


def _agents_by_trunk(config: Config) -> Mapping[str, str]:
    """Who takes the calls of an Asterisk that no route matches."""
    return {one.name: one.agent for one in config.asterisk if one.agent}


# -- parts of the start -------------------------------------------------------------------------------------


async def _cancelled(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
