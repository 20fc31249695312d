"""Test bench of the SIP tests: user agents on an in-memory network with faults, under fake time; and raw messages."""

import heapq
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from bridge.sip.agent import UserAgent
from bridge.sip.events import CallKey, Event, InviteReceived, Reoffered
from bridge.sip.flow import Address, Flow
from bridge.sip.message import Request, Response, make_response, parse_message
from bridge.sip.offer_answer import LocalMedia, make_offer, negotiate_answer
from bridge.sip.sdp import parse_sdp
from bridge.sip.settings import UserAgentConfig

ALICE: Address = ("192.0.2.1", 5060)
BOB: Address = ("192.0.2.2", 5060)

E = TypeVar("E")


def offer(port: int = 4000, host: str = ALICE[0]) -> bytes:
    return make_offer(LocalMedia(host, port)).serialise()


def answer_to(sdp: bytes, port: int = 6000, host: str = BOB[0]) -> bytes:
    return negotiate_answer(parse_sdp(sdp), LocalMedia(host, port)).local.serialise()


def kind(data: bytes) -> str:
    """What a message is, for scripts of faults: `INVITE`, `200 INVITE`, `BYE`."""
    message = parse_message(data)
    return message.method if isinstance(message, Request) else f"{message.status} {message.cseq.method}"


@dataclass
class Owner:
    """An agent with everything it told; answers calls and re-INVITEs by itself if asked to."""

    agent: UserAgent
    address: Address
    answers: bool = False
    rings: bool = False
    events: list[Event] = field(default_factory=list)

    def drain(self, now: float) -> None:
        while events := self.agent.events():
            for event in events:
                self.events.append(event)
                self.react(event, now)

    def react(self, event: Event, now: float) -> None:
        if isinstance(event, InviteReceived):
            if self.rings:
                self.agent.ring(event.key, now)
            if self.answers:
                self.agent.answer(event.key, answer_to(event.sdp) if event.sdp else offer(), now)
        elif isinstance(event, Reoffered) and self.answers:
            self.agent.answer_reinvite(event.key, answer_to(event.sdp) if event.sdp else offer(), now)

    def seen(self, wanted: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, wanted)]

    def one(self, wanted: type[E]) -> E:
        found = self.seen(wanted)
        assert len(found) == 1, f"{len(found)} {wanted.__name__} in {self.events}"
        return found[0]


class Network:
    """Carries datagrams between owners. `fault(data, copy)` names what happens to the copy-th (from 0) message of
    its kind: "drop", "duplicate", or a delay in seconds."""

    def __init__(self, *, seed: int = 0, loss: float = 0.0, duplication: float = 0.0, jitter_s: float = 0.0) -> None:
        self.now = 0.0
        self.owners: dict[Address, Owner] = {}
        self.fault: Callable[[str, int], str | float | None] = lambda kind, copy: None
        self.carried: list[tuple[float, str]] = []
        """Everything that was sent: when, and its kind; lost messages included."""
        self._random = random.Random(seed)
        self._loss = loss
        self._duplication = duplication
        self._jitter_s = jitter_s
        self._queue: list[tuple[float, int, bytes, Address, Address]] = []
        self._serial = 0
        self._copies: Counter[str] = Counter()

    def add(self, address: Address, config: UserAgentConfig | None = None, **how: bool) -> Owner:
        owner = Owner(UserAgent(config or UserAgentConfig()), address, **how)
        self.owners[address] = owner
        return owner

    def flow(self, source: Address, target: Address) -> Flow:
        return Flow("udp", target, source)

    def call(self, sdp: bytes | None = None, *, late: bool = False) -> CallKey:
        """Alice calls Bob."""
        alice = self.owners[ALICE]
        return alice.agent.invite(
            f"sip:agent@{BOB[0]}",
            self.flow(ALICE, BOB),
            self.now,
            from_='"Alice" <sip:alice@192.0.2.1>',
            sdp=None if late else sdp or offer(),
        )

    def run(self, seconds: float) -> None:
        """Let the world turn."""
        end = self.now + seconds
        self._pump()
        while (at := self._next()) is not None and at <= end:
            self.now = max(self.now, at)
            while self._queue and self._queue[0][0] <= self.now:
                _, _, data, source, target = heapq.heappop(self._queue)
                if target in self.owners:
                    self.owners[target].agent.receive(data, Flow("udp", source, target), self.now)
                    self._pump()
            for owner in self.owners.values():
                owner.agent.handle_timer(self.now)
            self._pump()
        self.now = end

    def count(self, wanted: str) -> int:
        return sum(1 for _, kind in self.carried if kind == wanted)

    def _next(self) -> float | None:
        times = [owner.agent.timer() for owner in self.owners.values()]
        if self._queue:
            times.append(self._queue[0][0])
        return min((at for at in times if at is not None), default=None)

    def _pump(self) -> None:
        for owner in self.owners.values():
            owner.drain(self.now)
        for owner in self.owners.values():
            for data, flow in owner.agent.outgoing():
                self._carry(data, flow)

    def _carry(self, data: bytes, flow: Flow) -> None:
        what = kind(data)
        self.carried.append((self.now, what))
        fault = self.fault(what, self._copies[what])
        self._copies[what] += 1
        if fault == "drop" or self._random.random() < self._loss:
            return
        twice = fault == "duplicate" or self._random.random() < self._duplication
        for _ in range(2 if twice else 1):
            delay = fault if isinstance(fault, float) else 0.01 + self._random.random() * self._jitter_s
            self._serial += 1
            heapq.heappush(self._queue, (self.now + delay, self._serial, data, flow.local, flow.remote))


class RawPeer:
    """A peer that says exactly what a test wants, to one agent, and reads what comes back."""

    def __init__(self, agent: UserAgent, *, address: Address = ALICE, local: Address = BOB) -> None:
        self.agent = agent
        self.flow = Flow("udp", address, local)
        self.now = 0.0

    def send(self, data: bytes | str) -> list[Request | Response]:
        """Give a message (text may have bare line ends) to the agent; what it sends in return."""
        if isinstance(data, str):
            data = data.replace("\n", "\r\n").encode()
        self.agent.receive(data, self.flow, self.now)
        return self.sent()

    def sent(self) -> list[Request | Response]:
        return [message for message, _ in self.sent_to()]

    def sent_to(self) -> list[tuple[Request | Response, Address]]:
        """What the agent sent, with where to."""
        return [(parse_message(data), flow.remote) for data, flow in self.agent.outgoing()]

    def respond(
        self,
        request: Request | Response,
        status: int,
        *,
        tag: str = "a1",
        sdp: bytes = b"",
        extra: dict[str, str] | None = None,
    ) -> list[Request | Response]:
        """Answer a request of the agent's; what it sends in return."""
        assert isinstance(request, Request), request
        response = make_response(request, status, to_tag=tag)
        response.headers.add("Contact", f"<sip:alice@{self.flow.remote[0]}:{self.flow.remote[1]}>")
        response.headers.extend((extra or {}).items())
        if sdp:
            response.headers.add("Content-Type", "application/sdp")
            response.body = sdp
        return self.send(response.serialise())

    def pass_time(self, seconds: float) -> list[Request | Response]:
        """Run the agent's timers for so long; what it sends meanwhile."""
        end = self.now + seconds
        out = []
        while (at := self.agent.timer()) is not None and at <= end:
            self.now = at
            self.agent.handle_timer(at)
            out += self.sent()
        self.now = end
        return out


def request(
    method: str = "INVITE",
    *,
    uri: str = "sip:agent@192.0.2.2",
    cseq: int = 1,
    branch: str = "z9hG4bK1",
    to_tag: str = "",
    from_tag: str = "a1",
    call_id: str = "call-1",
    body: bytes = b"",
    content_type: str = "application/sdp",
    extra: str = "",
    via_extra: str = "",
    contact: str = "Contact: <sip:alice@192.0.2.1:5060>\n",
) -> bytes:
    """A request from Alice, as text with holes."""
    head = (
        f"{method} {uri} SIP/2.0\n"
        f"Via: SIP/2.0/UDP 192.0.2.1:5060;branch={branch}{via_extra}\n"
        "Max-Forwards: 70\n"
        f"From: <sip:alice@192.0.2.1>;tag={from_tag}\n"
        f"To: <sip:agent@192.0.2.2>{';tag=' + to_tag if to_tag else ''}\n"
        f"Call-ID: {call_id}\n"
        f"CSeq: {cseq} {method}\n"
        f"{contact}{extra}"
    )
    if body:
        head += f"Content-Type: {content_type}\n"
    return f"{head}Content-Length: {len(body)}\n\n".replace("\n", "\r\n").encode() + body
