"""Messages in the manner of RFC 4475, the torture tests: odd but right ones are taken, wrong ones refused."""

import pytest
from sip_network import RawPeer, offer

from bridge.sip.agent import UserAgent
from bridge.sip.events import InviteReceived
from bridge.sip.message import Request, Response, check, parse_message
from bridge.sip.settings import UserAgentConfig

TORTUOUS = """INVITE sip:vivekg@chair-dnrc.example.com;unknownparam SIP/2.0
TO :
 sip:vivekg@chair-dnrc.example.com
from   : "J Rosenberg \\\\\\""       <sip:jdrosen@example.com>
  ;
  tag = 98asjd8
MaX-fOrWaRdS: 0068
Call-ID: wsinv.ndaksdj@192.0.2.1
Content-Length   : 0
cseq: 0009
  INVITE
Via  : SIP  /   2.0
 /UDP
    192.0.2.2;rport;branch=390skdjuw
s :
NewFangledHeader:   newfangled value
 continued newfangled value
UnknownHeaderWithUnusualValue: ;;,,;;,;
Route:
 <sip:services.example.com;lr;unknownwith=value;unknown-no-value>
v:  SIP  / 2.0  / TCP     spindle.example.com   ;
  branch  =   z9hG4bK9ikj8  ,
 SIP  /    2.0   / UDP  192.168.255.111   ; branch=
 z9hG4bK30239
m:"Quoted string \\"\\"" <sip:jdrosen@example.com> ; newparam =
      newvalue ;
  secondparam ; q = 0.33

"""


def test_tortuous_invite_is_understood() -> None:
    message = parse_message(TORTUOUS.replace("\n", "\r\n").encode())
    assert isinstance(message, Request)
    check(message)
    assert message.from_.display_name == 'J Rosenberg \\"'
    assert (message.from_.tag, message.cseq.number) == ("98asjd8", 9)
    assert [via.split()[-1] for via in message.headers.items_of("Via")] == [
        "192.0.2.2;rport;branch=390skdjuw", "z9hG4bK9ikj8", "z9hG4bK30239",
    ]  # fmt: skip
    assert message.via.branch == "390skdjuw"
    assert message.headers.get("Subject") == ""
    assert message.headers.get("newfangledheader") == "newfangled value continued newfangled value"
    assert message.headers.get("UnknownHeaderWithUnusualValue") == ";;,,;;,;"
    assert message.contact is not None
    assert message.contact.display_name == 'Quoted string ""'
    assert (message.contact.param("newparam"), message.contact.param("secondparam")) == ("newvalue", "")


def message(
    start: str = "INVITE sip:user@example.com SIP/2.0",
    *,
    to: str = "sip:user@example.com",
    from_: str = "<sip:caller@example.net>;tag=341",
    call_id: str = "x@192.0.2.1",
    cseq: str = "8 INVITE",
    via: str = "SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKk",
    contact: str = "<sip:caller@192.0.2.1>",
    extra: str = "",
    length: str = "",
) -> bytes:
    body = offer()
    head = (
        f"{start}\nTo: {to}\nFrom: {from_}\nCall-ID: {call_id}\nCSeq: {cseq}\nVia: {via}\nMax-Forwards: 70\n"
        f"Contact: {contact}\n{extra}Content-Type: application/sdp\nContent-Length: {length or len(body)}\n\n"
    )
    return head.replace("\n", "\r\n").encode() + body


def outcome(data: bytes) -> int | str:
    """`call` if it makes one, the status it is refused with, or `dropped`."""
    peer = RawPeer(UserAgent(UserAgentConfig()))
    sent = peer.send(data)
    events = peer.agent.events()
    if events:
        assert isinstance(events[0], InviteReceived)
        return "call"
    assert peer.agent.transaction_count == 0
    if not sent:
        return "dropped"
    assert len(sent) == 1
    assert isinstance(sent[0], Response)
    return sent[0].status


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(TORTUOUS.replace("\n", "\r\n").encode(), id="wsinv"),
        pytest.param(
            message("INVITE sip:sips%3Auser%40example.com@example.net SIP/2.0", to="sip:%75se%72@example.com",
                    from_="<sip:I%20have%20spaces@example.net>;tag=938",
                    contact="<sip:caller@host5.example.net;%6C%72;n%61me=v%61lue%25%34%31>"), id="esc01"),
        pytest.param(message(from_="caller<sip:caller@example.com>;tag=323"), id="lwsdisp"),
        pytest.param(
            message("INVITE sip:user;par=u%40example.net@example.com SIP/2.0",
                    to="sip:user;par=u%40h@example.com"), id="semiuri"),
        pytest.param(message(via="SIP/2.0/UNKNOWN t5.example.com;branch=z9hG4bKkdjf"), id="transports"),
        pytest.param(message(via="SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK"), id="badbranch"),
        pytest.param(message(contact='"Joe" <sip:joe@example.org>;;;;,,;,'), id="stray semicolons"),
        pytest.param(message(extra="Date: Fri, 01 Jan 2010 16:00:00 EST\n"), id="baddate"),
        pytest.param(message(extra="X-Long: " + "a" * 5000 + "\n"), id="longreq"),
        pytest.param(message(from_="sip:caller@example.net", via="SIP/2.0/UDP 192.0.2.1"), id="inv2543"),
        pytest.param(message(to='"\u0442\u0435\u0441\u0442" <sip:user@example.com>'), id="unreason"),
        pytest.param(message(via="SIP/2.0/UDP [2001:db8::9:1];branch=z9hG4bK6",
                             contact="<sip:caller@[2001:db8::9:1]>"), id="ipv6"),
        pytest.param(message(extra="Proxy-Require: nothing, interesting\nAccept: text/nobody\n"), id="proxy"),
    ],
)  # fmt: skip
def test_odd_but_right_message_makes_a_call(data: bytes) -> None:
    assert outcome(data) == "call"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(message(contact='"Joe" <sip:joe@example.org>;=;q'), 400, id="badinv01"),
        pytest.param(message(length="9999"), 400, id="clerr"),
        pytest.param(message(length="-999"), 400, id="ncl"),
        pytest.param(message(cseq="36893488147419103232 INVITE"), 400, id="scalar02"),
        pytest.param(message(to='"Mr. J. User <sip:j.user@example.com>'), 400, id="quotbal"),
        pytest.param(message("INVITE <sip:user@example.com> SIP/2.0"), 400, id="ltgtruri"),
        pytest.param(message("INVITE sip:user@example.com; lr SIP/2.0"), 400, id="lwsruri"),
        pytest.param(message("INVITE  sip:user@example.com  SIP/2.0"), 400, id="lwsstart"),
        pytest.param(message("INVITE sip:user@example.com  SIP/2.0"), 400, id="trws"),
        pytest.param(message("OPTIONS sip:u@e.com SIP/2.0", cseq="8 INVITE"), 400, id="mismatch01"),
        pytest.param(message("NEWMETHOD sip:u@e.com SIP/2.0", cseq="8 INVITE"), 400, id="mismatch02"),
        pytest.param(message("INVITE sip:user@example.com SIP/7.0"), 505, id="badvers"),
        pytest.param(message(from_='Bell, Alexander <sip:a.g.bell@example.com>;tag=43'), 400, id="baddn"),
        pytest.param(message(from_="sip:caller@example.net?x=y;tag=1"), 400, id="badaspec"),
        pytest.param(message("NEWMETHOD sip:u@e.com SIP/2.0", cseq="8 NEWMETHOD"), 405, id="unkmethod"),
        pytest.param(message("INVITE nobodyKnowsThisScheme:totallyopaque SIP/2.0"), 416, id="unkscm"),
        pytest.param(message("OPTIONS soap.beep://192.0.2.103:3002 SIP/2.0", cseq="8 OPTIONS"), 416, id="novelsc"),
        pytest.param(message(extra="Require: nothingSupportsThis, nothingSupportsThisEither\n"), 420, id="bext01"),
        pytest.param(message(extra="Call-ID: other\nCSeq: 9 INVITE\n"), 400, id="multi01"),
        pytest.param(message(extra="Content-Length: 5\n"), 400, id="mcl01"),
        pytest.param(message(extra="Max-Forwards: 300\n"), 400, id="scalarlg"),
        pytest.param(b"INVITE sip:u@e.com SIP/2.0\r\nMax-Forwards: 70\r\n\r\n", "dropped", id="insuf"),
        pytest.param(message().replace(b"application/sdp", b"application/unknownformat"), 415, id="invut"),
        pytest.param(b"SIP/2.0 4294967301 better not break the receiver\r\n\r\n", "dropped", id="bigcode"),
    ],
)  # fmt: skip
def test_wrong_message_is_refused_as_it_deserves(data: bytes, expected: int | str) -> None:
    assert outcome(data) == expected
