"""What an operator sets about an Asterisk: its ARI, its AMI, and how its audio reaches us."""

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from bridge.asterisk.permits import DEFAULT_DIAL, DialPattern
from bridge.asterisk.tls import Trust
from bridge.settings import Address, Name, Network, PasswordSource, Port, Section

MediaKind = Literal["rtp", "websocket", "audiosocket"]
RtpCodec = Literal["ulaw", "alaw", "slin", "g722"]
"""Those that ExternalMedia takes in both directions (protocols/asterisk.md)."""
StreamCodec = Literal["ulaw", "alaw", "slin", "slin16"]


def _base(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{value!r} is no http:// or https:// address")
    if parts.username or parts.password:
        raise ValueError("the user and the password have settings of their own")
    if parts.query or parts.fragment:
        raise ValueError(f"{value!r}: a query or fragment has no meaning here")
    return value.rstrip("/")


BaseUrl = Annotated[str, AfterValidator(_base)]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")]
Context = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,79}$")]


class AmiSettings(PasswordSource):
    """The manager interface (AMI): for what ARI lacks (queues, device states)."""

    host: Annotated[str, Field(min_length=1)]
    tls: bool = False
    """Whether `port` is that of TLS (`tlsenable`, `tlsbindaddr` of manager.conf)."""
    port: Port = Field(default_factory=lambda given: 5039 if given.get("tls") else 5038)
    """By default 5038, with TLS 5039."""
    ca: Path | None = None
    """As that of the Asterisk."""
    verify: bool = True
    """As that of the Asterisk."""
    username: Annotated[str, Field(min_length=1)]
    request_s: Annotated[float, Field(gt=0)] = 5.0
    """Longest wait for the answer to an action."""

    @model_validator(mode="after")
    def _has_password(self) -> "AmiSettings":
        if not self.has_password:
            raise ValueError("it needs password_env or password_file")
        return self

    @property
    def trust(self) -> Trust:
        return Trust(self.verify, self.ca)


class RtpMediaSettings(Section):
    """ExternalMedia by RTP."""

    codec: RtpCodec = "ulaw"
    jitter_buffer: bool = False
    """Have Asterisk put what we send in order before the caller hears it (`JITTERBUFFER(adaptive)`), for networks in
    which packets overtake each other: 40 ms and more of delay. What it sends us is put in order here in any case.
    After a cut of some seconds that buffer may stay shut: `media: websocket` is the better choice there."""


class WebsocketMediaSettings(Section):
    """ExternalMedia by chan_websocket: Asterisk 20.16, 22.6 and later."""

    codec: StreamCodec = "slin16"
    connects: Literal["us", "asterisk"] = "us"
    """Who opens the connection: we, to Asterisk's HTTP server; or Asterisk, to `websocket_listener`."""
    client: Name = "offhook"
    """Where Asterisk connects: the section of its websocket_client.conf."""
    control: Literal["json", "plain-text"] = "json"
    """How commands and events are written; JSON needs 20.18 or 22.8."""


class AudioSocketMediaSettings(Section):
    """ExternalMedia by AudioSocket: Asterisk connects to `audiosocket`."""

    codec: Literal["slin", "slin16"] = "slin"
    """slin16 needs Asterisk 20.17, 22.7 or later."""


class AsteriskSettings(PasswordSource):
    """One Asterisk whose dialplan hands calls over by `Stasis(APP,agent=NAME,...)`."""

    name: Name
    """Its trunk name: in routes, on record, in requests to dial."""
    url: BaseUrl
    """Of its HTTP server, e.g. `http://192.168.1.5:8088`; with `prefix` of http.conf behind it, if there is one."""
    username: Annotated[str, Field(min_length=1, pattern=r"^[^:]+$")]
    """Of ari.conf, with the password of `password_env` or `password_file`."""
    app: Name = "offhook"
    """The Stasis application. Each bridge needs one of its own."""
    agent: str = ""
    """For calls whose `Stasis` names no agent and that no route matches."""

    media: MediaKind = "rtp"
    """How audio reaches us, where a route says nothing else."""
    rtp: RtpMediaSettings = RtpMediaSettings()
    websocket: WebsocketMediaSettings = WebsocketMediaSettings()
    audiosocket: AudioSocketMediaSettings = AudioSocketMediaSettings()
    media_address: Address | None = None
    """Our address for its audio, where it is not the one that we reach it by (NAT, containers)."""

    variables: tuple[Variable, ...] = ()
    """Channel variables that are read when a call comes in; the agent finds them beside the arguments of `Stasis`."""
    after: Literal["continue", "hangup"] = "continue"
    """What a channel does when its agent is through: go on in the dialplan behind `Stasis`, or end."""
    transfer_context: Context = "offhook-transfer"
    """Where numbers are dialled: a caller who is transferred to one goes on there."""
    outbound_context: Context = "offhook-outbound"
    """Where numbers are dialled that we call ourselves, where an endpoint is not named."""
    queue_context: Context = "offhook-queue"
    """Where a caller who is handed to a queue goes on, at the queue's name."""
    amd_context: Context = "offhook-amd"
    """Where answering machines are told from people, on calls of ours that ask for it."""
    amd_s: Annotated[float, Field(gt=0)] = 20.0
    """Longest wait for its result; AMD() itself decides within `total_analysis_time` of amd.conf, 5 s unless it is
    set. A call that does not come back by then is hung up: nobody hears anybody on it."""
    music: str = ""
    """Class of its music on hold; empty: its default."""
    dial: tuple[DialPattern, ...] = DEFAULT_DIAL
    """Which endpoints, places of its dialplan and queues may be called, and callers be sent to, by the HTTP API and
    by agents. Numbers are no affair of these: the contexts above say which there are."""
    recording: Literal["off", "asterisk"] = "off"
    """Have Asterisk record each call as well, into its own spool."""

    calls: Annotated[int, Field(ge=1)] | None = None
    """Live calls, both ways; the next one goes on in the dialplan."""
    dead_man_s: Annotated[float, Field(ge=0)] = 60.0
    """If Offhook dies its callers go on in the dialplan, at the extension `T`, after this at the latest: a limit of
    time on each of their channels, which is put off again and again. 0: they hear silence until Offhook is back."""
    dead_man_refresh_s: Annotated[float, Field(gt=0)] = 20.0
    """How often it is put off."""
    request_s: Annotated[float, Field(gt=0)] = 5.0
    """Longest wait for an answer of ARI; of many requests at once each has it from the answer to the one before."""
    heartbeat_s: Annotated[float, Field(gt=0)] = 10.0
    """How often the event socket is pinged; twice without an answer, and it is opened anew."""
    reconnect_s: Annotated[float, Field(gt=0)] = 10.0
    """Longest pause between attempts to connect; the first comes after a tenth of a second."""
    ca: Path | None = None
    """With https: whom we trust to vouch for its certificate, or that certificate itself (PEM); by default whom the
    system trusts. Read again when it changes."""
    verify: bool = True
    """Whether an https server must show a valid certificate for the host of `url`. Without, whoever gets in between
    can read the password and make calls: for trials."""
    ami: AmiSettings | None = None

    @model_validator(mode="after")
    def _has_password(self) -> "AsteriskSettings":
        if not self.has_password:
            raise ValueError("it needs password_env or password_file (the password of ari.conf)")
        return self

    @model_validator(mode="after")
    def _is_put_off_in_time(self) -> "AsteriskSettings":
        if self.dead_man_s and self.dead_man_refresh_s > self.dead_man_s / 2:
            raise ValueError(
                f"dead_man_refresh_s {self.dead_man_refresh_s:g} must be at most half of dead_man_s "
                f"{self.dead_man_s:g}: one that fails is to be made good in time"
            )
        return self

    @property
    def trust(self) -> Trust:
        return Trust(self.verify, self.ca)


AUDIOSOCKET_PORT = 9092


class AudioSocketSettings(Section):
    """Where Asterisks connect by AudioSocket: for `media: audiosocket`, and for dialplans without ARI
    (`AudioSocket(UUID,host:port)`)."""

    listen: Address = "0.0.0.0"
    port: Port | None = None
    """None: 9092 if an Asterisk's or a route's media is audiosocket, or if `trunk` is set; else nobody listens."""
    trunk: Name | Literal[""] = ""
    """Take calls of dialplans without ARI, under this trunk name. Empty: a UUID that no call of ours knows is
    refused."""
    networks: tuple[Network, ...] = ()
    """Who may connect besides loopback and the Asterisks whose `url` has an address: the protocol knows no
    password."""


class WebsocketListenerSettings(Section):
    """Where Asterisks connect by chan_websocket, if `websocket.connects` is `asterisk`."""

    listen: Address = "0.0.0.0"
    port: Port = 8787
    certificate: Path | None = None
    """Take connections by TLS alone, and show them this (PEM, the whole chain, our own first). Read again when it
    changes."""
    key: Path | None = None
    """None: it is in the certificate's file."""

    @model_validator(mode="after")
    def _pair(self) -> "WebsocketListenerSettings":
        if self.key is not None and self.certificate is None:
            raise ValueError("key without certificate")
        return self
