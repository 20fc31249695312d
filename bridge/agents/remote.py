"""The agent that is somebody else's bot: a WebSocket is dialled, and spoken to as the bot's carrier would.

Bots for Twilio's and Telnyx's media streams so take calls from any leg, unchanged. The bot's audio goes into the
playout; its marks come back when they were played, its `clear` drops what was not. A bot ends the call by closing the
socket, or by its carrier's REST interface (`bridge.api.carrier`).
"""

import asyncio
import base64
import fnmatch
import hashlib
import hmac
import os
import ssl
import uuid
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import structlog
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, WebSocketException

from bridge.agents.base import AgentDone, CallSession
from bridge.agents.call_context import passed_on
from bridge.agents.remote_dialect import (
    MAX_MESSAGE,
    Clear,
    Dialect,
    Mark,
    Media,
    Refused,
    StreamFacts,
    TelnyxDialect,
    TwilioDialect,
    read,
)
from bridge.agents.remote_settings import RemoteSettings
from bridge.agents.remote_turns import RemoteTurns
from bridge.agents.remote_voice import RemoteVoice
from bridge.agents.tone import reorder_tone
from bridge.audio.codec import PCMA, PCMU, Decode, Encode
from bridge.audio.resample import FrameResampler, Resampler
from bridge.events import Cause, DtmfReceived, LegEvent, Note, ProviderFailed, TransferResult
from bridge.legs.base import LegError
from bridge.settings import PasswordError

log = structlog.get_logger(__name__)

BACKLOG = 100
"""Frames (2 s) that wait for a bot that does not read; then what comes is dropped, as the carriers do."""

PING_S = 20.0
"""A bot that answers no ping for as long is gone, though its socket is open."""

DRAIN_S = 10.0
"""What a bot said before it closed the socket is played to its end, for so long at most."""

HANG_UP_DRAIN_S = 0.5
"""The same for a bot that hangs up: what is on its way to the caller."""

FAREWELL_S = 1.0
TRANSFER_S = 30.0
REFUSALS = 20
"""Messages that can't be understood before the stream is given up; each is told to the bot where the carrier does."""

NORMAL = (1000, 1001, 1005)
"""Close codes of a bot that is through with the call."""

L16_RATE = 16000


class RemoteCalls:
    """The calls that bots have now, by our call id: the carrier's REST interface looks here."""

    def __init__(self) -> None:
        self._live: dict[str, RemoteCall] = {}

    def get(self, call_id: str) -> "RemoteCall | None":
        return self._live.get(call_id)

    def add(self, call_id: str, call: "RemoteCall") -> None:
        self._live[call_id] = call

    def remove(self, call_id: str) -> None:
        self._live.pop(call_id, None)


class RemoteAgent:
    """An `Agent`: one bot, for any number of calls."""

    def __init__(
        self, name: str, settings: RemoteSettings, calls: RemoteCalls, environ: Mapping[str, str] = os.environ
    ) -> None:
        """Raises PasswordError where the shared secret is named and missing."""
        self.name = name
        self.settings = settings
        self.secret = settings.password(environ) if settings.has_password else ""
        self.calls = calls

    async def warm(self) -> None:
        """Nothing to open: a bot begins to talk once it is connected."""

    async def run(self, session: CallSession) -> AgentDone:
        """Let the bot talk until it is through (see `Agent.run`)."""
        call = RemoteCall(self, session)
        self.calls.add(session.call_id, call)
        try:
            return await call.run()
        finally:
            self.calls.remove(session.call_id)


class RemoteCall:
    """One call's bot."""

    def __init__(self, agent: RemoteAgent, session: CallSession) -> None:
        settings = agent.settings
        rate = session.leg.sample_rate
        wire_rate = L16_RATE if settings.encoding == "L16" else 8000
        facts = StreamFacts(
            call_id=session.call_id,
            stream_id=uuid.uuid4().hex,
            from_=session.leg.info.from_,
            to=session.leg.info.to,
            encoding=settings.encoding,
            sample_rate=wire_rate,
            # What the operator sets is not to be replaced by what came with the call.
            parameters={**passed_on(session.leg.info, settings.context), **settings.parameters},
            account=settings.account or "AC" + hashlib.sha256(agent.name.encode()).hexdigest()[:32],
            token=agent.secret,
        )
        self.secret = agent.secret
        self._agent = agent
        self._settings = settings
        self._session = session
        self._leg = session.leg
        self._dialect: Dialect = TwilioDialect(facts) if settings.protocol == "twilio" else TelnyxDialect(facts)
        self._stream_sid = getattr(self._dialect, "stream_sid", "")
        self._encode, self._decode = _wire(settings.encoding)
        self._down = FrameResampler(rate, wire_rate) if rate != wire_rate else None
        self._up = Resampler(wire_rate, rate) if rate != wire_rate else None
        self._turns = RemoteTurns(session)
        self._voice = RemoteVoice(session.leg.playout, settings.buffer_ms, self._send_mark, self._turns)
        self._began = session.clock()
        self._outbox: deque[str] = deque()
        self._dropped = 0
        self._refused = 0
        self._more = asyncio.Event()
        self._asked: asyncio.Future[AgentDone] = asyncio.get_running_loop().create_future()
        """Somebody decided how the call goes on, before the bot closed its socket."""
        self._outcomes: asyncio.Queue[TransferResult] = asyncio.Queue()

    # -- what the carrier's REST interface asks for ---------------------------------------------------------

    def hang_up(self) -> None:
        """The bot wants the call to end."""
        self._decide(AgentDone(Cause.AGENT_HUNG_UP))

    def may_transfer_to(self, target: str) -> bool:
        """Whether the configuration lets the bot send callers there."""
        return any(fnmatch.fnmatchcase(target, pattern) for pattern in self._settings.transfer_to)

    async def transfer(self, target: str) -> TransferResult:
        """Hand the caller over; after success the bot is through. Raises LegError."""
        while not self._outcomes.empty():
            self._outcomes.get_nowait()
        try:
            async with asyncio.timeout(TRANSFER_S):
                await self._leg.transfer(target)
                outcome = await self._outcomes.get()
        except TimeoutError:
            self._leg.stop_transfer()
            return TransferResult(408, f"no outcome within {TRANSFER_S:g} s")
        if 200 <= outcome.status < 300:
            self._decide(AgentDone(Cause.TRANSFERRED, target))
        return outcome

    def _decide(self, done: AgentDone) -> None:
        if not self._asked.done():
            self._asked.set_result(done)

    # -- a call's life --------------------------------------------------------------------------------------

    async def run(self) -> AgentDone:
        socket = await self._dial()
        if socket is None:
            return await self._failed("no bot could be reached")
        leg, voice = self._leg, self._voice
        detector = self._session.open_voice(leg.sample_rate, self._turns.voice)
        unsubscribes = [
            detector.close,
            leg.listen(detector.push),
            leg.playout.listen(detector.reference),
            leg.listen(self._hear),
            leg.subscribe(self._on_leg),
            leg.playout.listen(voice.tick),
            leg.playout.subscribe(voice.played),
        ]
        self._outbox.extend(self._dialect.begin())
        self._more.set()
        sending = asyncio.create_task(self._send(socket), name=f"to the bot of {self._session.call_id}")
        reading = asyncio.create_task(self._read(socket), name=f"from the bot of {self._session.call_id}")
        try:
            left_s = self._session.answered_at + self._settings.max_call_s - self._session.clock()
            over: set[asyncio.Future[Any]] = {sending, reading, self._asked}
            await asyncio.wait(over, timeout=max(0.0, left_s), return_when=asyncio.FIRST_COMPLETED)
            return await self._over(socket, reading)
        finally:
            for unsubscribe in reversed(unsubscribes):
                unsubscribe()
            voice.close()
            self._turns.close()
            await self._part(socket, sending, reading)
            self._note_losses()

    async def _over(self, socket: ClientConnection, reading: "asyncio.Task[str]") -> AgentDone:
        """Why the talk is over, and what follows from it."""
        if self._asked.done():
            await self._drain(HANG_UP_DRAIN_S)
            return self._asked.result()
        if not reading.done() and socket.close_code is None:
            return AgentDone(Cause.MAX_LENGTH, f"{self._settings.max_call_s} s")
        problem = reading.result() if reading.done() else ""
        if not problem and (code := socket.close_code) is not None and code not in NORMAL:
            problem = f"the socket closed with {code} {socket.close_reason or ''}".rstrip()
        if problem:
            self._voice.drop()
            return await self._failed(problem)
        await self._drain(DRAIN_S)
        return AgentDone(Cause.AGENT_HUNG_UP)

    async def _drain(self, limit_s: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._voice.drained()

    async def _failed(self, why: str) -> AgentDone:
        """The caller must not be left in silence: somebody else takes them, or a tone says that nobody does."""
        session, target = self._session, self._settings.handover
        log.warning("bot failed", agent=self._agent.name, call=session.call_id, error=why)
        session.emit(ProviderFailed("realtime", self._agent.name, why, self._now_ms()))
        if target:
            unsubscribe = self._leg.subscribe(self._on_leg)
            try:
                outcome = await self.transfer(target)
            except LegError as error:
                session.emit(Note("transfer-failed", str(error), self._now_ms()))
            else:
                if 200 <= outcome.status < 300:
                    return AgentDone(Cause.TRANSFERRED, target)
                session.emit(Note("transfer-failed", f"{outcome.status} {outcome.reason}".rstrip(), self._now_ms()))
            finally:
                unsubscribe()
        await self._voice.sound(reorder_tone(self._leg.playout.sample_rate))
        return AgentDone(Cause.ENGINE_FAILED, why)

    # -- the socket -----------------------------------------------------------------------------------------

    async def _dial(self) -> ClientConnection | None:
        """A connection to the first bot that takes it."""
        for url in self._settings.url:
            try:
                return await dial(url, self._settings, self.secret)
            except BotUnreachableError as error:
                self._session.emit(Note("bot-unreachable", f"{url}: {error}"[:300], self._now_ms()))
        return None

    async def _send(self, socket: ClientConnection) -> None:
        with suppress(ConnectionClosed):
            while True:
                while self._outbox:
                    await socket.send(self._outbox.popleft())
                self._more.clear()
                await self._more.wait()

    async def _read(self, socket: ClientConnection) -> str:
        """Until the socket is closed. Returns what was wrong; empty: nothing."""
        try:
            async for text in socket:
                match read(text, self._stream_sid):
                    case Media(payload):
                        pcm = self._decode(payload)
                        self._voice.media(self._up.process(pcm) if self._up else pcm, self._session.clock())
                    case Mark(name):
                        self._voice.mark(name)
                    case Clear():
                        self._voice.clear(self._session.clock())
                    case Refused(why):
                        self._refused += 1
                        log.debug("bot not understood", call=self._session.call_id, error=why)
                        if self._refused > REFUSALS:
                            return f"too many messages that can't be understood, at last {why}"
                        if (answer := self._dialect.error(why)) is not None:
                            self._tell(answer)
        except ConnectionClosed as closed:
            code = closed.rcvd.code if closed.rcvd else 1006
            return "" if code in NORMAL else f"the socket closed with {code} {_reason(closed)}".rstrip()
        return ""

    def _tell(self, message: str) -> None:
        self._outbox.append(message)
        self._more.set()

    def _hear(self, pcm: bytes, now: float) -> None:
        """One frame of the caller's; a `FrameSink`."""
        if len(self._outbox) >= BACKLOG:
            self._dropped += 1
            return
        payload = self._encode(self._down.convert(pcm) if self._down else pcm)
        self._tell(self._dialect.media(payload, (now - self._began) * 1000))

    def _send_mark(self, name: str) -> None:
        self._tell(self._dialect.mark(name))

    def _on_leg(self, event: LegEvent) -> None:
        if isinstance(event, DtmfReceived):
            self._tell(self._dialect.dtmf(event.digit, (self._session.clock() - self._began) * 1000))
        elif isinstance(event, TransferResult):
            self._outcomes.put_nowait(event)

    async def _part(
        self, socket: ClientConnection, sending: "asyncio.Task[None]", reading: "asyncio.Task[str]"
    ) -> None:
        """Tell the bot that the stream is over, and close, within FAREWELL_S, whatever the bot does."""
        sending.cancel()
        with suppress(TimeoutError, ConnectionClosed):
            async with asyncio.timeout(FAREWELL_S):
                if socket.close_code is None:
                    await socket.send(self._dialect.end())
                await socket.close()
        reading.cancel()
        await asyncio.gather(sending, reading, return_exceptions=True)
        if socket.transport is not None:
            socket.transport.abort()

    def _note_losses(self) -> None:
        if self._dropped:
            detail = f"{self._dropped * 20} ms of the caller's audio: the bot did not read"
            self._session.emit(Note("bot-slow", detail, self._now_ms()))
        if self._refused:
            detail = f"{self._refused} messages could not be understood"
            self._session.emit(Note("bot-not-understood", detail, self._now_ms()))

    def _now_ms(self) -> float:
        return self._session.at_ms(self._session.clock())


class BotUnreachableError(Exception):
    """A bot does not take a connection; the message says why."""


async def dial(url: str, settings: RemoteSettings, secret: str) -> ClientConnection:
    """A connection to a bot, as its carrier would open it. Raises BotUnreachableError."""
    try:
        return await connect(
            url,
            additional_headers=_headers(url, settings, secret),
            open_timeout=settings.connect_ms / 1000,
            close_timeout=FAREWELL_S,
            ping_interval=PING_S,
            ping_timeout=PING_S,
            max_size=MAX_MESSAGE,
            compression=None,
            proxy=None,
            user_agent_header="Offhook",
        )
    except (OSError, InvalidHandshake, WebSocketException, TimeoutError, ssl.SSLError) as error:
        raise BotUnreachableError(str(error) or f"no answer within {settings.connect_ms} ms") from error


def _headers(url: str, settings: RemoteSettings, secret: str) -> dict[str, str]:
    """What shows the bot that its carrier calls."""
    if not secret:
        return {}
    if settings.protocol == "telnyx":
        return {"x-telnyx-streaming-auth-token": secret}
    # Twilio's request validation: the URL alone is signed, a socket has no parameters.
    digest = hmac.new(secret.encode(), url.encode(), hashlib.sha1).digest()
    return {"X-Twilio-Signature": base64.b64encode(digest).decode()}


def make_remote(name: str, settings: RemoteSettings, calls: RemoteCalls) -> RemoteAgent:
    """Raises ValueError with what to do where the shared secret is missing."""
    try:
        return RemoteAgent(name, settings, calls)
    except PasswordError as error:
        raise ValueError(str(error)) from error


def _reason(closed: ConnectionClosed) -> str:
    return closed.rcvd.reason if closed.rcvd else "(connection lost)"


def _wire(encoding: str) -> tuple[Encode, Decode]:
    """PCM to payload and back; L16 is little-endian, as PCM is here."""
    if encoding == "L16":
        return (lambda pcm: pcm), (lambda payload: payload[: len(payload) // 2 * 2])
    codec = PCMA if encoding == "PCMA" else PCMU
    return codec.encoder(), codec.decoder()
