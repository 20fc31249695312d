"""Every message of RFC 4475: what the parser makes of it, and what the user agent answers."""

import pytest
from torture_messages import TortureMessage, torture_messages

from bridge.sip.agent import UserAgent
from bridge.sip.errors import MalformedMessage, SipSyntaxError
from bridge.sip.events import InviteReceived
from bridge.sip.flow import Flow
from bridge.sip.message import Request, Response, check, parse_message
from bridge.sip.offer_answer import LocalMedia, negotiate_answer
from bridge.sip.sdp import parse_sdp
from bridge.sip.settings import UserAgentConfig
from bridge.sip.uri import NameAddr

MESSAGES = torture_messages("rfc4475")
FLOW = Flow("udp", ("198.51.100.7", 5070), ("192.0.2.2", 5060))

CALL, DROPPED = "call", "dropped"

ANSWERS: dict[str, str | int] = {
    # Valid. REGISTER, MESSAGE and methods of no known meaning are not ours: 405 says the message was understood.
    "wsinv": 481,  # Its To has a tag: it belongs to a dialog, which we don't know.
    "intmeth": 405,
    "esc01": CALL,
    "escnull": 405,
    "esc02": 405,  # RE%47IST%45R is not REGISTER.
    "lwsdisp": 200,
    "longreq": CALL,
    "dblreq": 405,
    "semiuri": 200,
    "transports": 200,
    "mpart01": 405,
    "unreason": DROPPED,  # A response to nothing of ours.
    "noreason": DROPPED,
    # Invalid.
    "badinv01": 400,
    "clerr": 400,
    "ncl": 400,
    "scalar02": 400,
    "scalarlg": DROPPED,
    "quotbal": 400,
    "ltgtruri": 400,
    "lwsruri": 400,
    "lwsstart": 400,
    "trws": 400,
    "escruri": CALL,  # "An element could choose to be liberal": the headers in the Request-URI are ignored.
    "baddate": CALL,  # Nobody here reads Date.
    "regbadct": 405,  # The method is looked at before Contact (RFC 3261 8.2.1).
    "badaspec": 200,  # Blanks around the URI, which may be ignored.
    "baddn": 400,
    "badvers": 505,
    "mismatch01": 400,
    "mismatch02": 400,
    "bigcode": DROPPED,
    # Transactions.
    "badbranch": 200,
    # Application.
    "insuf": 400,
    "unkscm": 416,
    "novelsc": 416,
    "unksm2": 405,
    "bext01": 420,
    "invut": 415,
    "regaut01": 405,
    "multi01": 400,
    "mcl01": 400,
    "bcast": DROPPED,
    "zeromf": 483,
    "cparam01": 405,
    "cparam02": 405,
    "regescrt": 405,
    "sdp01": 406,
    "inv2543": CALL,
}


def parsed(name: str) -> Request | Response:
    message = parse_message(MESSAGES[name].data)
    check(message)
    return message


def parsed_request(name: str) -> Request:
    message = parsed(name)
    assert isinstance(message, Request)
    return message


def contacts(request: Request) -> list[NameAddr]:
    return [NameAddr.parse(item) for item in request.headers.items_of("Contact")]


def say(agent: UserAgent, data: bytes) -> list[tuple[Response, Flow]]:
    """What the agent answers, provisional responses left out."""
    agent.receive(data, FLOW, 0.0)
    out = [(parse_message(sent), flow) for sent, flow in agent.outgoing()]
    return [(message, flow) for message, flow in out if isinstance(message, Response) and message.status >= 200]


def test_all_49_messages_are_here_and_have_an_answer() -> None:
    assert len(MESSAGES) == 49
    assert ANSWERS.keys() == MESSAGES.keys()
    assert len(MESSAGES["longreq"].data) == 3515
    assert len(MESSAGES["mpart01"].data.partition(b"\r\n\r\n")[2]) == 553


@pytest.mark.parametrize("message", [pytest.param(m, id=f"{m.section} {m.name}") for m in MESSAGES.values()])
def test_user_agent_answers_as_the_rfc_asks(message: TortureMessage) -> None:
    agent = UserAgent(UserAgentConfig())
    expected = ANSWERS[message.name]
    answers = say(agent, message.data)
    events = agent.events()
    if expected == CALL:
        (event,) = events
        assert isinstance(event, InviteReceived)
        assert (answers, agent.call_count) == ([], 1)
        return
    assert (events, agent.call_count) == ([], 0)
    assert [response.status for response, _ in answers] == ([] if expected == DROPPED else [expected])
    for response, flow in answers:
        assert flow.remote[0] == FLOW.remote[0]
        request = parse_or_rest(message.data)
        for name in ("Via", "From", "To", "Call-ID", "CSeq"):
            # Whatever could be read is given back; the top Via has learnt where the request came from.
            assert len(response.headers.get_all(name)) == len(request.headers.get_all(name))
        assert response.headers.get_all("Call-ID") == request.headers.get_all("Call-ID")


def parse_or_rest(data: bytes) -> Request:
    """The request, or what could be read of a malformed one."""
    try:
        message = parse_message(data)
    except MalformedMessage as error:
        assert error.request is not None
        return error.request
    assert isinstance(message, Request)
    return message


@pytest.mark.parametrize("name", [name for name, answer in ANSWERS.items() if answer == CALL])
def test_call_that_is_made_can_be_answered_and_hung_up(name: str) -> None:
    agent = UserAgent(UserAgentConfig())
    say(agent, MESSAGES[name].data)
    (event,) = agent.events()
    assert isinstance(event, InviteReceived)
    assert event.sdp is not None
    answer = negotiate_answer(parse_sdp(event.sdp), LocalMedia("192.0.2.2", 4000)).local
    agent.answer(event.key, answer.serialise(), 0.0)
    agent.bye(event.key, 0.0)
    (ok, _), *_ = [(parse_message(data), flow) for data, flow in agent.outgoing()]
    assert isinstance(ok, Response)
    assert (ok.status, ok.call_id, ok.to.tag) == (200, event.request.call_id, event.key)


# -- what the parser must have understood ---------------------------------------------------------------------


def test_tortuous_invite_is_understood() -> None:
    message = parsed_request("wsinv")
    assert (message.uri, message.target.param("unknownparam")) == (
        "sip:vivekg@chair-dnrc.example.com;unknownparam",
        "",
    )
    assert (message.from_.display_name, message.from_.tag) == ('J Rosenberg \\"', "98asjd8")
    assert (message.to.uri.user, message.to.tag) == ("vivekg", "1918181833n")
    assert (str(message.cseq), message.headers.get("Max-Forwards")) == ("9 INVITE", "0068")
    assert (message.via.host, message.via.branch) == ("192.0.2.2", "390skdjuw")
    assert len(message.headers.items_of("Via")) == 3
    assert message.headers.get("Subject") == ""
    assert message.headers.get("newfangledheader") == "newfangled value continued newfangled value"
    assert message.headers.get("UnknownHeaderWithUnusualValue") == ";;,,;;,;"
    assert NameAddr.parse(message.headers.items_of("Route")[0]).uri.is_loose_router
    (contact,) = contacts(message)
    assert contact.display_name == 'Quoted string ""'
    assert (contact.param("newparam"), contact.param("secondparam"), contact.param("q")) == ("newvalue", "", "0.33")
    assert len(message.body) == 150


def test_wide_range_of_characters_is_understood() -> None:
    message = parsed_request("intmeth")
    assert message.method == message.cseq.method == "!interesting-Method0123456789_*+`.%indeed'~"
    target = message.target
    assert target.user == "1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*"
    assert target.password == "&it+has=1,weird!*pas$wo~d_too.(doesn't-it)"
    assert target.host == "example.com"
    assert message.to.display_name == "BEL: NUL: DEL:"  # Control characters are not for showing.
    assert message.from_.display_name == "token1~` token2'+_ token3*%!.-"
    assert message.from_.param("fromparam''~+*_!.-%") == "работающий"
    assert message.from_.tag == "_token~1'+`*%!-."
    assert message.headers.get("extensionHeader-!.%*+_`'~") == "\ufeff大停電"
    assert message.serialise().replace(b"Content-Length: 0", b"") == (
        # Nothing is lost on the way through: only the blank after the colon is ours.
        MESSAGES["intmeth"].data.replace(b"~:\xef", b"~: \xef").replace(b"Content-Length: 0", b"")
    )


def test_escapes_are_kept_and_read_once() -> None:
    message = parsed_request("esc01")
    assert message.target.user == "sips%3Auser%40example.com"
    assert message.target.user_text == "sips:user@example.com"
    assert message.to.uri.user_text == "user"
    assert message.from_.uri.user_text == "I have spaces"
    (contact,) = contacts(message)
    assert contact.uri.user_text == "caller"
    assert str(contact.uri) == "sip:cal%6Cer@host5.example.net;%6c%72;n%61me=v%61lue%25%34%31"


def test_escaped_nulls_end_nothing() -> None:
    message = parsed_request("escnull")
    assert message.to.uri.user_text == "null-%00-null"
    assert [contact.uri.user_text for contact in contacts(message)] == ["%00", "%00%00"]


def test_percent_sign_that_is_no_escape_stays() -> None:
    message = parsed_request("esc02")
    assert message.method == "RE%47IST%45R"
    assert message.to.display_name == "%Z%45"
    assert message.via.branch == "z9hG4bK209%fzsnel234"
    assert [contact.uri.user for contact in contacts(message)] == ["alias1", "alias3"]
    assert message.headers.get("C%6Fntact") == "<sip:alias2@host2.example.com>"


def test_display_name_may_touch_the_bracket() -> None:
    message = parsed_request("lwsdisp")
    assert (message.from_.display_name, str(message.from_.uri)) == ("caller", "sip:caller@example.com")


def test_long_values_are_whole() -> None:
    message = parsed_request("longreq")
    assert message.to.display_name == f"I have a user name of {'extreme' * 10} proportion"
    assert message.to.uri.param(f"longparam{'name' * 25}") == "shortvalue"
    assert message.from_.tag == f"1{'298' * 50}2424"
    assert message.call_id == f"longreq.one{'really' * 20}longcallid"
    assert len(message.headers.items_of("Via")) == 34
    assert message.via.host == "sip33.example.com"


def test_trailing_octets_are_cut_off() -> None:
    message = parsed_request("dblreq")
    assert (message.method, message.body) == ("REGISTER", b"")


def test_user_part_may_hold_parameters() -> None:
    target = parsed_request("semiuri").target
    assert (target.user, target.user_text, target.host) == ("user;par=u%40example.net", "user", "example.com")


def test_unknown_transports_are_read() -> None:
    vias = parsed_request("transports").headers.items_of("Via")
    assert [via.split()[0].rpartition("/")[2] for via in vias] == ["UDP", "SCTP", "TLS", "UNKNOWN", "TCP"]


def test_binary_body_is_kept() -> None:
    message = parsed_request("mpart01")
    assert message.content_type == "multipart/mixed"
    assert message.body == MESSAGES["mpart01"].data.partition(b"\r\n\r\n")[2]


def test_reason_phrase_may_be_strange_or_empty() -> None:
    strange, empty = parsed("unreason"), parsed("noreason")
    assert isinstance(strange, Response)
    assert isinstance(empty, Response)
    assert (strange.status, strange.reason) == (200, "= 2**3 * 5**2 но сто девяносто девять - простое")
    assert (empty.status, empty.reason) == (100, "")


@pytest.mark.parametrize(
    "name",
    [
        "clerr", "ncl", "scalar02", "scalarlg", "quotbal", "ltgtruri", "lwsruri", "lwsstart", "trws", "baddn",
        "badvers", "mismatch01", "mismatch02", "bigcode", "insuf", "multi01", "mcl01",
    ],
)  # fmt: skip
def test_invalid_message_is_not_taken_for_a_valid_one(name: str) -> None:
    with pytest.raises(MalformedMessage):
        parsed(name)


@pytest.mark.parametrize("name", ["badinv01", "regbadct"])
def test_malformed_contact_is_not_taken_for_a_valid_one(name: str) -> None:
    with pytest.raises(SipSyntaxError):
        contacts(parsed_request(name))


def test_parameter_belongs_to_the_uri_only_within_brackets() -> None:
    (header,), (uri,) = contacts(parsed_request("cparam01")), contacts(parsed_request("cparam02"))
    assert (header.param("unknownparam"), header.uri.param("unknownparam")) == ("", None)
    assert (uri.param("unknownparam"), uri.uri.param("unknownparam")) == (None, "")


def test_headers_in_a_contact_are_kept_as_written() -> None:
    (contact,) = contacts(parsed_request("regescrt"))
    assert contact.uri.headers == "Route=%3Csip:sip.example.com%3E"


def test_unknown_schemes_are_read_where_they_may_stand() -> None:
    message = parsed_request("unksm2")
    schemes = [message.to.uri.scheme, message.from_.uri.scheme, contacts(message)[0].uri.scheme]
    assert schemes == ["isbn", "http", "name"]


def test_refusals_name_what_was_not_understood() -> None:
    (refused, _), *_ = say(UserAgent(UserAgentConfig()), MESSAGES["bext01"].data)
    assert refused.headers.get("Unsupported") == "nothingSupportsThis, nothingSupportsThisEither"
    (refused, _), *_ = say(UserAgent(UserAgentConfig()), MESSAGES["invut"].data)
    assert refused.headers.get("Accept") == "application/sdp"


def test_branch_of_nothing_but_the_cookie_is_no_transaction_identifier() -> None:
    """Two requests that differ only in Call-ID are two, though their branches are the same."""
    agent = UserAgent(UserAgentConfig())
    data = MESSAGES["badbranch"].data
    first, second = (say(agent, data)[0][0], say(agent, data.replace(b"sadonfo", b"another"))[0][0])
    assert (first.call_id == second.call_id, first.to.tag == second.to.tag) == (False, False)
