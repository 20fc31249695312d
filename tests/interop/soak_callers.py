"""Callers of every bad habit on a network that loses packets: what the soak test sets on a bridge.

They use our own user agent, as no other can be told to misbehave call by call; SIPp's calls are in the other tests.
"""

import asyncio
import random
import socket
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import cast

from bridge.sip.agent import UserAgent
from bridge.sip.errors import CallGoneError, CallStateError
from bridge.sip.events import Answered, ByeAnswered, ByeReceived, CallKey, Event, Lost, Rejected, Reoffered
from bridge.sip.flow import Address, Flow
from bridge.sip.offer_answer import PCMA, PCMU, Codec, LocalMedia, make_offer, negotiate_answer
from bridge.sip.sdp import Direction, parse_sdp
from bridge.sip.settings import UserAgentConfig
from bridge.sip.timers import TimerValues

FRAME_S = 0.02
TERMINAL = (Rejected, ByeReceived, ByeAnswered, Lost)


class Habit(StrEnum):
    HANGS_UP = "hangs up"
    CANCELS = "cancels"
    IS_HUNG_UP = "is hung up by the bridge"
    VANISHES = "vanishes without a word"
    IS_MUTE = "never sends RTP"


SHARES = {
    Habit.HANGS_UP: 65,
    Habit.CANCELS: 10,
    Habit.IS_HUNG_UP: 10,
    Habit.VANISHES: 8,
    Habit.IS_MUTE: 7,
}
"""Per cent of the calls."""


@dataclass
class Caller:
    """One call."""

    habit: Habit
    rtp: socket.socket
    key: CallKey
    call_id: str
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    up: asyncio.Event = field(default_factory=asyncio.Event)
    destination: Address | None = None
    sequence: int = 0
    dead: bool = False


class Callers(asyncio.DatagramProtocol):
    """One user agent, one socket, all calls. Made by `open_callers`."""

    def __init__(
        self, target: Address, *, user: str, shares: Mapping[Habit, int], loss: float, t1_s: float, seed: int
    ) -> None:
        self.outcomes: Counter[str] = Counter()
        self.hang_up: Callable[[str], None] = lambda call_id: None
        """Asks the bridge to hang up the call with this SIP Call-ID."""
        self._random = random.Random(seed)
        self._loss = loss
        self._target = target
        self._user = user
        self._shares = shares
        self._agent = UserAgent(UserAgentConfig(timers=TimerValues(t1=t1_s), session_expires_s=0))
        self._calls: dict[CallKey, Caller] = {}
        self._dead: set[bytes] = set()
        self._transport: asyncio.DatagramTransport
        self._flow: Flow
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._flushing = False

    # -- the socket -----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)
        name = transport.get_extra_info("sockname")
        self._flow = Flow("udp", self._target, (name[0], name[1]))

    def datagram_received(self, data: bytes, addr: Address) -> None:
        if not self._lost(data):
            self._agent.receive(data, self._flow, self._loop.time())
            self._flush()

    def _lost(self, data: bytes) -> bool:
        return self._random.random() < self._loss or any(call_id in data for call_id in self._dead)

    def _flush(self) -> None:
        if self._flushing:
            return
        self._flushing = True
        while True:
            for data, _ in self._agent.outgoing():
                if not self._lost(data):
                    self._transport.sendto(data, self._target)
            events = self._agent.events()
            if not events:
                break
            for event in events:
                self._react(event)
        self._flushing = False
        if self._timer is not None:
            self._timer.cancel()
        at = self._agent.timer()
        self._timer = None if at is None else self._loop.call_at(at, self._due)

    def _due(self) -> None:
        self._agent.handle_timer(self._loop.time())
        self._flush()

    def _react(self, event: Event) -> None:
        caller = self._calls.get(getattr(event, "key", CallKey("")))
        if caller is None:
            return
        if isinstance(event, Answered) and event.sdp is not None:
            media = parse_sdp(event.sdp)
            assert media.connection is not None
            caller.destination = (media.connection.address, media.media[0].port)
            caller.up.set()
        elif isinstance(event, Reoffered) and event.sdp is not None:
            answer = negotiate_answer(parse_sdp(event.sdp), self._media(caller, "sendrecv"))
            self._agent.answer_reinvite(event.key, answer.local.serialise(), self._loop.time())
        elif isinstance(event, TERMINAL):
            caller.ended.set()

    # -- calls ----------------------------------------------------------------------------------------------

    async def call_all(self, count: int, *, at_once: int) -> None:
        """Make `count` calls, so many at a time, each to its end."""
        room = asyncio.Semaphore(at_once)
        pacing = self._loop.create_task(self._pace())
        async with asyncio.TaskGroup() as group:
            for number in range(count):
                await room.acquire()
                group.create_task(self._call(number)).add_done_callback(lambda _: room.release())
        pacing.cancel()

    async def drain(self, limit_s: float) -> None:
        """Wait until our own side has forgotten every call."""
        until = self._loop.time() + limit_s
        while self._agent.call_count and self._loop.time() < until:
            await asyncio.sleep(0.1)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._transport.close()

    async def _call(self, number: int) -> None:
        rng = self._random
        rtp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        rtp.setblocking(False)
        rtp.bind(("127.0.0.1", 0))
        offer = make_offer(LocalMedia("127.0.0.1", rtp.getsockname()[1], codecs=(PCMU, PCMA)))
        key = self._agent.invite(
            f"sip:{self._user}@{self._target[0]}:{self._target[1]}",
            self._flow,
            self._loop.time(),
            from_=f"<sip:soak{number}@127.0.0.1>",
            sdp=offer.serialise(),
        )
        (habit,) = rng.choices(list(self._shares), list(self._shares.values()))
        caller = self._calls[key] = Caller(habit, rtp, key, self._agent.call_id(key))
        self._flush()
        try:
            await self._live(caller)
        finally:
            self.outcomes[caller.habit] += 1
            if not caller.dead:
                del self._calls[key]
            rtp.close()

    async def _live(self, caller: Caller) -> None:
        rng, agent = self._random, self._agent
        if caller.habit is Habit.CANCELS:
            await asyncio.sleep(rng.uniform(0, 0.05))
            agent.hangup(caller.key, self._loop.time())
            self._flush()
            await self._last(caller, 30)
            return
        await self._first(caller, 30)
        if caller.ended.is_set():
            self.outcomes["never came up"] += 1
            return
        over = self._loop.time() + rng.uniform(0.05, 4.0)
        while (left := over - self._loop.time()) > 0 and not caller.ended.is_set():
            await self._nap(caller, min(left, rng.uniform(0.1, 2.0)))
            if rng.random() < 0.5 and not caller.ended.is_set():
                self._reinvite(caller)
        match caller.habit:
            case Habit.VANISHES:
                caller.dead = True
                self._dead.add(caller.call_id.encode())
                return
            case Habit.IS_HUNG_UP:
                await self._loop.run_in_executor(None, self.hang_up, caller.call_id)
            case Habit.HANGS_UP:
                agent.hangup(caller.key, self._loop.time())
                self._flush()
        await self._last(caller, 40)

    async def _last(self, caller: Caller, limit_s: float) -> None:
        """Until the call is over. One whose end crosses the other side's may go without an event."""
        until = self._loop.time() + limit_s
        while not caller.ended.is_set():
            try:
                self._agent.call_id(caller.key)
            except CallGoneError:
                return
            assert self._loop.time() < until, f"{caller.call_id} ({caller.habit}) is still up after {limit_s} s"
            await self._nap(caller, 0.2)

    async def _first(self, caller: Caller, limit_s: float) -> None:
        """Until the call is up or over."""
        waits = [self._loop.create_task(caller.up.wait()), self._loop.create_task(caller.ended.wait())]
        done, rest = await asyncio.wait(waits, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        for task in rest:
            task.cancel()
        assert done, f"{caller.call_id} neither came up nor ended within {limit_s} s"

    @staticmethod
    async def _nap(caller: Caller, seconds: float) -> None:
        try:
            await asyncio.wait_for(caller.ended.wait(), seconds)
        except TimeoutError:
            return

    def _reinvite(self, caller: Caller) -> None:
        """Hold, resume, or the other codec; not while another one is under way. Who is about to fall silent does not
        hold: a held call may be silent for as long as it likes."""
        may_hold = caller.habit not in (Habit.VANISHES, Habit.IS_MUTE)
        directions: tuple[Direction, ...] = ("sendrecv", "sendonly", "inactive") if may_hold else ("sendrecv",)
        direction = self._random.choice(directions)
        codecs = self._random.choice(((PCMU, PCMA), (PCMA,)))
        offer = make_offer(self._media(caller, direction, codecs))
        try:
            self._agent.reinvite(caller.key, offer.serialise(), self._loop.time())
        except CallStateError:
            self.outcomes["re-INVITE not possible"] += 1
            return
        self.outcomes["re-INVITEs"] += 1
        self._flush()

    @staticmethod
    def _media(caller: Caller, direction: Direction, codecs: tuple[Codec, ...] = (PCMU, PCMA)) -> LocalMedia:
        port = caller.rtp.getsockname()[1]
        return LocalMedia("127.0.0.1", port, codecs=codecs, direction=direction)

    async def _pace(self) -> None:
        """RTP of all calls that talk, 20 ms apart, with losses."""
        due = self._loop.time()
        while True:
            for caller in list(self._calls.values()):
                if caller.destination is None or caller.dead or caller.habit is Habit.IS_MUTE:
                    continue
                caller.sequence += 1
                if caller.ended.is_set() or self._random.random() < self._loss:
                    continue
                head = b"\x80\x00" + caller.sequence.to_bytes(2, "big") + (caller.sequence * 160).to_bytes(4, "big")
                try:
                    caller.rtp.sendto(head + b"soak" + b"\xff" * 160, caller.destination)
                except OSError:
                    self.outcomes["RTP refused"] += 1
            due += FRAME_S
            await asyncio.sleep(max(0.0, due - self._loop.time()))


async def open_callers(
    target: Address,
    *,
    user: str = "echo",
    shares: Mapping[Habit, int] = SHARES,
    loss: float = 0.03,
    t1_s: float = 0.1,
    seed: int = 1,
) -> Callers:
    """Callers of `user` on a socket of 127.0.0.1. `shares`: of each habit, per cent of the calls."""
    _, callers = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: Callers(target, user=user, shares=shares, loss=loss, t1_s=t1_s, seed=seed),
        local_addr=("127.0.0.1", 0),
    )
    return callers
