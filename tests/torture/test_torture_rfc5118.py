"""Every message of RFC 5118: IPv6 addresses in URIs, Via and session descriptions."""

import pytest
from torture_messages import TortureMessage, torture_messages

from bridge.sip.agent import UserAgent
from bridge.sip.errors import NoCommonCodecError
from bridge.sip.events import InviteReceived
from bridge.sip.flow import Flow
from bridge.sip.message import Request, Response, check, parse_message
from bridge.sip.offer_answer import LocalMedia, negotiate_answer
from bridge.sip.sdp import parse_sdp
from bridge.sip.settings import UserAgentConfig
from bridge.sip.via import Via

MESSAGES = torture_messages("rfc5118")
FLOW = Flow("udp", ("2001:db8::9:1", 5060), ("2001:db8::10", 5060))
OURS = LocalMedia("2001:db8::10", 4000)

ANSWERS: dict[str, str | int] = {
    "ipv6-good": 405,  # REGISTER is not ours; it was understood.
    "ipv6-bad": 400,
    "port-ambiguous": 405,
    "port-unambiguous": 405,
    "via-received-param-with-delim": 481,
    "via-received-param-no-delim": 200,
    "ipv6-in-sdp": "call",
    "mult-ip-in-header": 481,
    "mult-ip-in-sdp": "call",
    "ipv4-mapped-ipv6": "call",
    "ipv6-bug-abnf-3-colons": 200,  # "May exhibit robustness by successfully parsing" it.
    "ipv6-correct-abnf-2-colons": 200,
}


def parsed(name: str) -> Request:
    message = parse_message(MESSAGES[name].data)
    check(message)
    assert isinstance(message, Request)
    return message


def test_all_messages_are_here() -> None:
    assert ANSWERS.keys() == MESSAGES.keys()


@pytest.mark.parametrize("message", [pytest.param(m, id=f"{m.section} {m.name}") for m in MESSAGES.values()])
def test_user_agent_answers_as_the_rfc_asks(message: TortureMessage) -> None:
    agent = UserAgent(UserAgentConfig())
    agent.receive(message.data, FLOW, 0.0)
    out = [(parse_message(data), flow) for data, flow in agent.outgoing()]
    answers = [(m.status, flow.remote) for m, flow in out if isinstance(m, Response) and m.status >= 200]
    events = agent.events()
    if ANSWERS[message.name] == "call":
        assert [type(event) for event in events] == [InviteReceived]
        assert answers == []
    else:
        port = 6050 if message.name == "mult-ip-in-header" else 5060
        assert answers == [(ANSWERS[message.name], ("2001:db8::9:1", port))]
        assert events == []


def test_a_port_is_outside_the_brackets() -> None:
    ambiguous, clear = parsed("port-ambiguous").target, parsed("port-unambiguous").target
    assert (ambiguous.host_address, ambiguous.port) == ("2001:db8::10:5070", None)
    assert (clear.host_address, clear.port) == ("2001:db8::10", 5070)


@pytest.mark.parametrize("name", ["via-received-param-with-delim", "via-received-param-no-delim"])
def test_received_is_read_with_and_without_brackets_and_written_without(name: str) -> None:
    via = parsed(name).via
    assert (via.param("received") or "").strip("[]") == "2001:db8::9:255"
    elsewhere = Flow("udp", ("2001:db8::9:255", 5060), FLOW.local)
    assert via.stamped(elsewhere).param("received") == "2001:db8::9:255"


def test_hops_of_both_families_are_read() -> None:
    vias = [Via.parse(item) for item in parsed("mult-ip-in-header").headers.items_of("Via")]
    assert [(via.host, via.port) for via in vias] == [
        ("[2001:db8::9:1]", 6050),
        ("192.0.2.1", None),
        ("[2001:db8::9:255]", None),
    ]
    assert vias[2].param("received") == "192.0.2.200"


def test_ipv6_addresses_in_a_session_description_are_read() -> None:
    with pytest.raises(NoCommonCodecError):
        # G.726 is not ours; the addresses were in order.
        negotiate_answer(parse_sdp(parsed("ipv6-in-sdp").body), OURS)
    with pytest.raises(NoCommonCodecError):
        negotiate_answer(parse_sdp(parsed("ipv4-mapped-ipv6").body), OURS)


def test_each_stream_has_the_address_of_its_own_family() -> None:
    agreed = negotiate_answer(parse_sdp(parsed("mult-ip-in-sdp").body), LocalMedia("192.0.2.2", 4000))
    assert agreed.remote == ("192.0.2.1", 22334)
