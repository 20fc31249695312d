"""Our agent as the caller, against a peer that answers exactly what a test wants."""

from sip_network import ALICE, BOB, answer_to, offer

from bridge.sip.agent import UserAgent
from bridge.sip.events import Answered, CallKey
from bridge.sip.flow import Flow
from bridge.sip.message import Request, Response, make_response, parse_message
from bridge.sip.settings import UserAgentConfig

FLOW = Flow("udp", BOB, ALICE)
TARGET = "sip:agent@192.0.2.2"


class Caller:
    """Our agent, calling; and Bob's side of the wire in the test's hands."""

    def __init__(self, config: UserAgentConfig | None = None) -> None:
        self.agent = UserAgent(config or UserAgentConfig())
        self.now = 0.0
        self.wire: list[tuple[Request | Response, Flow]] = []
        self.key = CallKey("")

    def invite(self, **how: object) -> Request:
        arguments: dict[str, object] = {"from_": "<sip:alice@192.0.2.1>", "sdp": offer()} | how
        self.key = self.agent.invite(TARGET, FLOW, self.now, **arguments)  # type: ignore[arg-type]
        (invite,) = self.requests()
        return invite

    def requests(self) -> list[Request]:
        """What was sent since the last time, requests only."""
        return [request for request, _ in self.requests_to()]

    def requests_to(self) -> list[tuple[Request, Flow]]:
        """The same, with where to."""
        sent = [(parse_message(data), flow) for data, flow in self.agent.outgoing()]
        self.wire += sent
        return [(message, flow) for message, flow in sent if isinstance(message, Request)]

    def one(self) -> Request:
        """The only request that was sent since the last time, ACKs of refusals aside."""
        (request,) = [request for request in self.requests() if request.method != "ACK"]
        return request

    def respond(
        self,
        request: Request,
        status: int,
        *,
        tag: str = "b1",
        sdp: bytes = b"",
        contact: str = "<sip:bob@192.0.2.2:5060>",
        headers: tuple[tuple[str, str], ...] = (),
        flow: Flow = FLOW,
    ) -> None:
        response = make_response(request, status, to_tag=tag)
        if contact and status > 100:
            response.headers.add("Contact", contact)
        response.headers.extend(headers)
        if sdp:
            response.headers.add("Content-Type", "application/sdp")
            response.body = sdp
        self.agent.receive(response.serialise(), flow, self.now)

    def connect(self) -> None:
        """Bring a call up."""
        self.respond(self.invite(), 200, sdp=answer_to(offer()))
        assert [request.method for request in self.requests()] == ["ACK"]
        assert isinstance(self.agent.events()[-1], Answered)

    def pass_time(self, seconds: float) -> list[Request]:
        end = self.now + seconds
        while (at := self.agent.timer()) is not None and at <= end:
            self.now = at
            self.agent.handle_timer(at)
        self.now = end
        return self.requests()
