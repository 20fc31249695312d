"""What the fuzzer feeds with bytes.

A target returns if all is well and raises if it is not: an AssertionError for a broken promise, whatever else for a
crash. Each is a plain function, so that its corpus runs without the fuzzer too."""

from collections.abc import Callable
from contextlib import suppress

from bridge.audio.codec import L16, PCMA, PCMU
from bridge.audio.playout import Playout
from bridge.rtp.rtcp import RtcpError, parse_compound, serialise_compound
from bridge.rtp.rtcp_session import RtcpSession
from bridge.rtp.session import RtpEvent, RtpFormat, RtpSession
from bridge.rtp.srtp import Srtp
from bridge.rtp.srtp_keys import SrtpKeys
from bridge.sip.agent import UserAgent
from bridge.sip.codecs import G722, OPUS
from bridge.sip.codecs import PCMA as SDP_PCMA
from bridge.sip.codecs import PCMU as SDP_PCMU
from bridge.sip.digest import Credentials, DigestClient, DigestServer, Secret
from bridge.sip.errors import MalformedMessage, SdpError, SipError, SipSyntaxError
from bridge.sip.events import CallKey, InviteReceived, Referred, Reoffered
from bridge.sip.flow import Flow
from bridge.sip.message import Request, Response, check, parse_message
from bridge.sip.offer_answer import LocalMedia, accept_answer, make_offer, negotiate_answer, revised
from bridge.sip.sdes import new_keys
from bridge.sip.sdp import parse_sdp
from bridge.sip.settings import DEFAULT_ALLOW, UserAgentConfig
from bridge.sip.stream import Broken, Frame, Message, SipStream
from bridge.sip.trace import SipTrace, without_secrets
from bridge.sip.uri import NameAddr, Uri

SEPARATOR = b"\x1e"
"""Between the messages or packets of one input that has several."""

PEER = Flow("udp", ("192.0.2.1", 5060), ("192.0.2.2", 5060))
OURS = LocalMedia("192.0.2.2", 4000)
OURS_IN_FULL = LocalMedia(
    "192.0.2.2", 4000, (OPUS, G722, SDP_PCMU, SDP_PCMA), srtp="offered", keys=new_keys(), rtcp_mux=True
)
CREDENTIALS = Credentials("alice", "open sesame")
END_S = 60.0
"""How long the user agent's timers run on after an input."""


def sip_message(data: bytes) -> None:
    """Parse one message; one that passes can be read, and reads the same after being written."""
    try:
        message = parse_message(data)
        check(message)
    except MalformedMessage as error:
        if error.request is not None:
            error.request.serialise()
        return
    assert message.via.host
    assert message.call_id
    for name in ("Contact", "Route", "Record-Route", "Refer-To", "Referred-By", "P-Asserted-Identity", "Diversion"):
        with suppress(SipSyntaxError):
            for item in message.headers.items_of(name):
                address = NameAddr.parse(item)
                assert NameAddr.parse(str(address)).uri == address.uri
                assert "\0" not in address.uri.user_text
                Uri.parse(str(address.uri))
    again = parse_message(message.serialise())
    assert type(again) is type(message)
    assert (again.headers, again.body) == (message.headers, message.body)
    if isinstance(message, Request) and isinstance(again, Request):
        assert (again.method, again.uri) == (message.method, message.uri)


def sip_agent(data: bytes) -> None:
    """Messages to a user agent with calls in every state. `@1@` to `@3@` are its tags of the established, the ringing
    and the outbound call, `@b@`, `@i@` and `@c@` branch, Call-ID and CSeq of its INVITE."""
    config = UserAgentConfig(allow=(*DEFAULT_ALLOW, "REFER"), max_calls=10, max_transactions=50)
    agent = UserAgent(config)
    established = _invited(agent, b"call-1")
    agent.answer(established, negotiate_answer(parse_sdp(OFFER), OURS).local.serialise(), 0.0)
    agent.receive(_request(b"ACK", b"call-1", b"ack", b";tag=" + established.encode()), PEER, 0.0)
    ringing = _invited(agent, b"call-2")
    agent.ring(ringing, 0.0)
    agent.outgoing()
    outbound = agent.invite(
        "sip:bob@192.0.2.1", PEER, 0.0, from_="<sip:agent@192.0.2.2>", sdp=make_offer(OURS).serialise()
    )
    ((invite, _),) = agent.outgoing()
    ours = parse_message(invite)
    names = {
        b"@1@": established.encode(),
        b"@2@": ringing.encode(),
        b"@3@": outbound.encode(),
        b"@b@": ours.via.branch.encode(),
        b"@i@": ours.call_id.encode(),
        b"@c@": str(ours.cseq.number).encode(),
    }
    agent.events()
    now = 1.0
    for name, value in names.items():
        data = data.replace(name, value)
    for message in data.split(SEPARATOR)[:12]:
        agent.receive(message, PEER, now)
        _settle(agent, now)
        now += 0.1
    while (at := agent.timer()) is not None and at <= now + END_S:
        agent.handle_timer(at)
        _settle(agent, at)
    assert agent.call_count <= config.max_calls


def _settle(agent: UserAgent, now: float) -> None:
    """Do as an owner would; everything that goes out must be well-formed."""
    for event in agent.events():
        with suppress(SipError):
            if isinstance(event, InviteReceived):
                agent.reject(event.key, 486, now)
            elif isinstance(event, Reoffered):
                answer = make_offer(OURS)
                if event.sdp is not None:
                    answer = negotiate_answer(parse_sdp(event.sdp), OURS).local
                agent.answer_reinvite(event.key, answer.serialise(), now)
            elif isinstance(event, Referred):
                agent.accept_refer(event.key, now)
                agent.notify(event.key, 200, now)
    for sent, _ in agent.outgoing():
        message = parse_message(sent)
        if isinstance(message, Request):
            check(message)


def _invited(agent: UserAgent, call_id: bytes) -> CallKey:
    agent.receive(_request(b"INVITE", call_id, call_id), PEER, 0.0)
    *_, event = agent.events()
    assert isinstance(event, InviteReceived)
    return event.key


def _request(method: bytes, call_id: bytes, branch: bytes, to_tag: bytes = b"") -> bytes:
    body = OFFER if method == b"INVITE" else b""
    return (
        b"%b sip:agent@192.0.2.2 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK%b\r\nMax-Forwards: 70\r\n"
        b"From: <sip:alice@192.0.2.1>;tag=a\r\nTo: <sip:agent@192.0.2.2>%b\r\nCall-ID: %b\r\nCSeq: 1 %b\r\n"
        b"Contact: <sip:alice@192.0.2.1>\r\nContent-Type: application/sdp\r\nContent-Length: %d\r\n\r\n%b"
        % (method, branch, to_tag, call_id, method, len(body), body)
    )


def sip_stream(data: bytes) -> None:
    """A stream gives the same messages however TCP cuts it."""
    frames = _frames(SipStream(), [data])
    cut = _frames(SipStream(), [data[at : at + 7] for at in range(0, len(data), 7)])
    messages = [frame for frame in frames if isinstance(frame, Message)]
    assert messages == [frame for frame in cut if isinstance(frame, Message)]
    broken = [frame for frame in frames if isinstance(frame, Broken)]
    assert len(broken) <= 1
    assert not broken or frames[-1] is broken[0]
    assert bool(broken) == any(isinstance(frame, Broken) for frame in cut)
    for frame in messages:
        with suppress(MalformedMessage):
            parse_message(frame.data)


def _frames(stream: SipStream, pieces: list[bytes]) -> list[Frame]:
    frames = []
    for piece in pieces:
        stream.feed(piece)
        while (frame := stream.next()) is not None:
            frames.append(frame)
    return frames


def sdp(data: bytes) -> None:
    """A description that can be read can be written, and answered or refused; our own answers are right ones."""
    try:
        offer = parse_sdp(data)
    except SdpError:
        return
    # Lines that we have no use for may change places the first time.
    once = parse_sdp(offer.serialise())
    for before, after in zip(offer.media, once.media, strict=True):
        assert (after.media, after.port, after.protocol) == (before.media, before.port, before.protocol)
        assert (after.formats, after.attributes) == (before.formats, before.attributes)
    assert parse_sdp(once.serialise()) == once
    for ours in (OURS, OURS_IN_FULL):
        with suppress(SdpError):
            agreed = negotiate_answer(offer, ours)
            answer = parse_sdp(agreed.local.serialise())
            assert len(answer.media) == len(offer.media)
            assert 0 < agreed.remote[1] < 65536 or agreed.held
            assert 10 <= agreed.ptime_ms <= 60
            assert revised(agreed.local, agreed.local) == agreed.local
        with suppress(SdpError):
            accept_answer(make_offer(ours), offer, ours)


def rtp(data: bytes) -> None:
    """Packets to a session, a tick after each. The first byte of each part says from which address."""
    for codec in (PCMU, L16):
        events: list[RtpEvent] = []
        frames: list[bytes] = []
        session = RtpSession(
            RtpFormat(codec, 0, receive={0: codec, 8: PCMA}, dtmf_payload_type=101),
            Playout(codec.sample_rate),
            remote=None,
            now=0.0,
            on_event=events.append,
        )
        session.listen(lambda frame, now, frames=frames: frames.append(frame))  # type: ignore[misc]
        now = 0.0
        for part in data.split(SEPARATOR)[:60]:
            session.receive(part[1:], ("192.0.2.1", 4000 + part[0] % 3) if part else ("192.0.2.1", 4000), now)
            now += 0.02
            session.tick(now)
        for _ in range(5):
            now += 0.02
            session.tick(now)
        size = codec.sample_rate // 50 * 2
        assert all(len(frame) == size for frame in frames)
        quality = session.quality
        assert quality.packets_lost >= 0
        assert quality.jitter_ms >= 0


class _Silent:
    """A session of which nothing is to be said."""

    reception = None

    def __init__(self) -> None:
        session = RtpSession(RtpFormat(PCMU, 0), Playout(8000), remote=None, now=0.0, on_event=lambda event: None)
        self.sender = session.sender


def rtcp(data: bytes) -> None:
    """Compounds parse or are refused; what parses is taken by a session, and reads the same after being written."""
    session = RtcpSession(_Silent(), cname="fuzz", now=0.0, unix_time=1.7e9, draw=lambda: 0.5)
    now = 0.0
    for part in data.split(SEPARATOR)[:20]:
        session.receive(part, now)
        now += 3.0
        if (report := session.poll(now)) is not None:
            parse_compound(report)
        try:
            packets = parse_compound(part)
        except RtcpError:
            continue
        with suppress(RtcpError):
            assert parse_compound(serialise_compound(packets)) == packets


def srtp(data: bytes) -> None:
    """What was not encrypted with the key gets nowhere."""
    keys = SrtpKeys("AES_CM_128_HMAC_SHA1_80", b"s" * 30, b"r" * 30)
    context = Srtp(keys)
    for number, part in enumerate(data.split(SEPARATOR)[:60]):
        assert context.unprotect(part, number * 0.02) is None
        assert context.unprotect_rtcp(part, number * 0.02) is None
        context.protect(part)
        context.protect_rtcp(part)


def digest(data: bytes) -> None:
    """Header values of a challenge and of its answer."""
    values = [part.decode("utf-8", "replace") for part in data.split(SEPARATOR)]
    request = parse_message(_request(b"INVITE", b"call", b"x"))
    assert isinstance(request, Request)
    response = Response(401, "Unauthorized")
    response.headers.extend(request.headers)
    server = DigestServer("fuzz", lambda name: Secret("open sesame") if name == "alice" else None, key=b"k" * 32)
    for value in values[:4]:
        with suppress(SipSyntaxError):
            response.headers.add("WWW-Authenticate", value)
            response.headers.add("Proxy-Authenticate", value)
            request.headers.add("Authorization", value)
    for verdict in (server.check(request, 1.0), server.check(request, 1e6)):
        assert verdict.status in (200, 400, 401, 403)
        assert verdict.status != 200, "nobody knows the nonce"
    client = DigestClient(CREDENTIALS)
    for fields in (client.answer(response, request), client.preempt(request)):
        for name, value in fields or ():
            assert "\r" not in value
            assert "\n" not in value
            request.headers.add(name, value)
            assert CREDENTIALS.password not in value


def ladder(data: bytes) -> None:
    """Whatever was on the wire can be shown, without its secrets."""
    trace = SipTrace(ahead_s=0.0, max_bytes=4096)
    for number, part in enumerate(data.split(SEPARATOR)[:20]):
        trace.tap(number % 2 == 0, part, PEER, float(number))
        without_secrets(part.decode("utf-8", "replace"))
    assert trace.kept_bytes <= 4096


OFFER = make_offer(LocalMedia("192.0.2.1", 6000)).serialise()

TARGETS: dict[str, Callable[[bytes], None]] = {
    "sip_message": sip_message,
    "sip_agent": sip_agent,
    "sip_stream": sip_stream,
    "sdp": sdp,
    "rtp": rtp,
    "rtcp": rtcp,
    "srtp": srtp,
    "digest": digest,
    "ladder": ladder,
}
