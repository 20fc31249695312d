"""A user agent with registrations and keep-alives under fake time, and servers that answer as a test says."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bridge.sip.agent import UserAgent
from bridge.sip.digest import DigestServer, Secret
from bridge.sip.events import RequestAnswered
from bridge.sip.flow import Address, Flow
from bridge.sip.message import Request, Response, make_response, parse_message
from bridge.sip.registration import Registrations, RegistrationStatus, RegistrationTiming
from bridge.sip.settings import UserAgentConfig
from bridge.trunks.liveness import Liveness
from bridge.trunks.status import LivenessStatus

US: Address = ("192.0.2.1", 5060)
FIRST: Address = ("198.51.100.10", 5060)
SECOND: Address = ("198.51.100.20", 5060)

Answer = Callable[[Request], Response | None]


def say(status: int, **headers: str) -> Answer:
    """Always this; `Retry_After="9"` is a header."""

    def answer(request: Request) -> Response:
        response = make_response(request, status, to_tag="r")
        for name, value in headers.items():
            response.headers.add(name.replace("_", "-"), value)
        return response

    return answer


def grant(expires_s: int = 600, **headers: str) -> Answer:
    """200 with our Contact among others, and for how long."""

    def answer(request: Request) -> Response:
        response = say(200, **headers)(request)
        asked = int(request.headers.get("Expires") or 0)
        response.headers.add("Contact", "<sip:other@203.0.113.9>;expires=7")
        if asked:
            response.headers.add("Contact", f"{request.headers.get('Contact')};expires={min(asked, expires_s)}")
        return response

    return answer


def silence(request: Request) -> None:
    return None


class Registrar:
    """Asks for a password, then grants."""

    def __init__(self, password: str, then: Answer) -> None:
        self.server = DigestServer("carrier", {"alice": Secret(password)}.get)
        self.then = then
        self.bench: Bench | None = None

    def __call__(self, request: Request) -> Response | None:
        assert self.bench is not None
        verdict = self.server.check(request, self.bench.now)
        if verdict.username:
            return self.then(request)
        response = make_response(request, verdict.status, to_tag="r")
        response.headers.extend(verdict.headers)
        return response


@dataclass
class Bench:
    timing: RegistrationTiming = field(default_factory=lambda: RegistrationTiming(jitter=0.0))
    delay_s: float = 0.05

    def __post_init__(self) -> None:
        self.now = 1000.0
        self.agent = UserAgent(UserAgentConfig())
        self.flows: list[Flow] = [Flow("udp", FIRST, US)]
        self.unlocatable = ""
        self.servers: dict[Address, Answer] = {FIRST: grant()}
        self.asked: list[tuple[float, Address, Request]] = []
        """Everything that was sent, retransmissions left out."""
        self.shown: list[RegistrationStatus] = []
        self.lives: list[LivenessStatus] = []
        self._coming: list[tuple[float, bytes, Flow]] = []
        self.registrations = Registrations(
            self.agent,
            locate=lambda name: self._locate(self.registrations, name),
            changed=lambda name, status: self.shown.append(status),
            timing=self.timing,
            rng=random.Random(1),
        )
        self.liveness = Liveness(
            self.agent,
            locate=lambda name: self._locate(self.liveness, name),
            changed=lambda name, status: self.lives.append(status),
        )

    def serve(self, address: Address, answer: Any) -> None:
        if isinstance(answer, Registrar):
            answer.bench = self
        self.servers[address] = answer

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        self._drain()
        while (at := self._next()) is not None and at <= end:
            self.now = max(self.now, at)
            due = [item for item in self._coming if item[0] <= self.now]
            self._coming = [item for item in self._coming if item[0] > self.now]
            for _, data, flow in due:
                self.agent.receive(data, flow, self.now)
            self.agent.handle_timer(self.now)
            self.registrations.handle_timer(self.now)
            self.liveness.handle_timer(self.now)
            self._drain()
        self.now = end

    def sent_to(self, address: Address) -> list[Request]:
        return [request for _, to, request in self.asked if to == address]

    def _locate(self, who: Registrations | Liveness, name: str) -> None:
        if self.unlocatable:
            who.unlocated(name, self.unlocatable, self.now)
        else:
            who.located(name, self.flows, self.now)

    def _next(self) -> float | None:
        times = [self.agent.timer(), self.registrations.timer(), self.liveness.timer()]
        times += [item[0] for item in self._coming]
        return min((at for at in times if at is not None), default=None)

    def _drain(self) -> None:
        while True:
            out, events = self.agent.outgoing(), self.agent.events()
            if not out and not events:
                return
            for data, flow in out:
                request = parse_message(data)
                assert isinstance(request, Request)
                if any(request == before for _, _, before in self.asked):
                    continue
                self.asked.append((self.now, flow.remote, request))
                response = self.servers.get(flow.remote, silence)(request)
                if response is not None:
                    self._coming.append((self.now + self.delay_s, response.serialise(), flow))
            for event in events:
                assert isinstance(event, RequestAnswered)
                taken = self.registrations.answered(event, self.now) or self.liveness.answered(event, self.now)
                assert taken
