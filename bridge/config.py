"""The configuration: one typed tree of settings, each with its default and its unit."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from bridge.agents.realtime_settings import RealtimeSettings
from bridge.agents.remote_settings import RemoteSettings
from bridge.agents.settings import ConversationSettings, EchoSettings
from bridge.asterisk.settings import (
    AsteriskSettings,
    AudioSocketSettings,
    MediaKind,
    WebsocketListenerSettings,
)
from bridge.providers.chain import FallbackSettings
from bridge.providers.local.settings import EngineSettings
from bridge.providers.registry import KINDS, LOCAL, settings_class
from bridge.providers.settings import ProviderSettings
from bridge.rtp.settings import RtpSettings
from bridge.settings import Address, NameServer, Network, Port, Section
from bridge.trunks.settings import GuardSettings, Hop, Strangers, TrunkSettings

ENV_PREFIX = "OFFHOOK_"

PRIVATE_NETWORKS = (
    "127.0.0.0/8",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "169.254.0.0/16",
    "::1/128",
    "fc00::/7",
    "fe80::/10",
)
"""Where calls are taken from until trunks are configured: loopback and private addresses (RFC 1918, RFC 4193)."""

LOOPBACK = ("127.0.0.0/8", "::1/128")
"""Where calls are taken from besides the trunks, once there are any."""


class CertificateSettings(Section):
    """PEM files. The key may stand in the certificate's file, which holds the whole chain, our own first."""

    certificate: Path
    key: Path | None = None


class TlsSettings(Section):
    """SIP over TLS. The files are read again at SIGHUP."""

    port: Port = 5061
    """Listened on if there is a certificate."""
    certificate: Path | None = None
    key: Path | None = None
    by_name: dict[str, CertificateSettings] = Field(default_factory=dict)
    """Further certificates, for peers that ask for these host names (SNI)."""
    ca: Path | None = None
    """Whom we trust, as a PEM file; by default whom the system trusts."""
    client: Literal["none", "request", "require"] = "none"
    """Whether peers that connect to us must show a certificate that `ca` vouches for. Trunks told by
    `certificate_names` need `request` or `require`."""
    verify: bool = True
    """Whether servers that we connect to must show a valid certificate of the name that we wanted."""
    advertised_port: Port | None = None

    @model_validator(mode="after")
    def _pair(self) -> "TlsSettings":
        if self.key is not None and self.certificate is None:
            raise ValueError("key without certificate")
        return self


class SipSettings(Section):
    listen: Address = "0.0.0.0"
    more_listen: tuple[Address, ...] = ()
    """Further addresses, e.g. `::` for IPv6."""
    port: Port = 5060
    """Of UDP and TCP."""
    udp: bool = True
    tcp: bool = True
    advertised_address: Address | None = None
    """Address written into Contact, Via and SDP for peers beyond the NAT; by default the one they reach us by."""
    advertised_port: Port | None = None
    """Where NAT maps our port to another one."""
    local_networks: tuple[Network, ...] = ()
    """Peers on our side of the NAT: they are shown our own address."""
    outbound_proxy: Hop = ""
    """Calls that no trunk is named for go to this hop first (SIP URI or host)."""
    nameservers: tuple[NameServer, ...] = ()
    """Addresses of name servers, with a port if it is not 53; by default the system's."""
    allow_from: tuple[Network, ...] | None = None
    """Networks that calls are taken from though they are no trunk's. Not given: loopback and private networks until
    there are trunks, then loopback alone."""
    strangers: Strangers = "refuse"
    """Anyone else: `refuse` with 403 (401 where trunks have `users`), `silent` as if nobody listened (but for who
    calls as one of the `users`), `challenge` everybody with 401."""
    realm: Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f\"\\]+$")] = "offhook"
    """Of our digest challenges; passwords are for this realm."""
    digest: Annotated[tuple[Literal["SHA-256", "MD5"], ...], Field(min_length=1)] = ("SHA-256", "MD5")
    """Algorithms of our challenges, the preferred first. Old peers look at the first alone and know only MD5: for
    those, `[MD5]`."""
    nonce_s: Annotated[float, Field(ge=5)] = 60
    """How long an answer to a challenge is good for further requests."""
    user_agent: str = "Offhook"
    t1_ms: Annotated[int, Field(ge=50, le=5000)] = 500
    """RFC 3261's T1: the first retransmission interval."""
    session_expires_s: Annotated[int, Field(ge=0, le=86400)] = 1800
    """How often a call that is up is confirmed anew (RFC 4028), so that none outlives its far end; 0: we don't ask
    for it, and follow the peer's wish."""
    min_se_s: Annotated[int, Field(ge=90, le=86400)] = 90
    """The shortest such interval that peers may ask for; shorter ones get 422."""
    reliable: Literal["off", "supported", "required"] = "supported"
    """Provisional responses that are acknowledged (RFC 3262): never, with peers that can, or with such ones alone."""
    trace_mb: Annotated[int, Field(ge=0, le=1024)] = 16
    """Memory for the latest SIP messages, which `offhook trace` shows (MB); 0 keeps none."""


class HttpSettings(Section):
    listen: Address = "127.0.0.1"
    port: Port = 8080


class LimitSettings(Section):
    calls: Annotated[int, Field(ge=1)] = 500
    """Live calls on this box; the next one gets 503."""
    calls_per_s: Annotated[float, Field(gt=0)] | None = None
    """New calls a second on this box; those beyond get 503. As many may come at once."""
    conversations: Annotated[int, Field(ge=1)] = 12
    """Live calls on embedded engines; docs/performance.md says how many a box holds."""
    clock_lateness_ms: Annotated[float, Field(gt=0)] = 40
    """New calls get 503 while the media clock's recent 99th percentile of lateness is above this."""
    drain_s: Annotated[float, Field(ge=0)] = 60
    """After SIGTERM live calls may go on for this long."""
    call_s: Annotated[float, Field(gt=0)] = 14400
    """The longest any call may last, whatever its agent."""
    retry_after_s: Annotated[int, Field(ge=1)] = 10
    """Retry-After of a 503."""


class StoreSettings(Section):
    url: str = ""
    """SQLAlchemy URL; empty: `offhook.sqlite3` in the data directory."""
    keep_days: Annotated[int, Field(ge=0)] = 0
    """Calls and recordings older than this are deleted; 0 keeps all."""


class LogSettings(Section):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["console", "json"] = "console"
    mask_numbers: bool = True


class TracingSettings(Section):
    """OpenTelemetry: each call as a trace, each turn as a span (docs/tracing.md)."""

    otlp_endpoint: Annotated[str, Field(pattern=r"^(https?://[^\s/]+.*)?$")] = ""
    """The collector's OTLP/HTTP address, e.g. `http://localhost:4318`; empty: no tracing."""
    service_name: Annotated[str, Field(min_length=1)] = "offhook"
    headers_env: str = ""
    """Environment variable with headers for the collector (a key): `name=value,name=value`."""
    sample: Annotated[float, Field(ge=0, le=1)] = 1.0
    """The share of calls that is traced. A call that comes with a `traceparent` follows that one's flag."""
    content: bool = False
    """Whether spans show what was said, tools' arguments and results, and numbers in full."""


def _chain(value: object) -> object:
    return (value,) if isinstance(value, str) else value


Chain = Annotated[tuple[str, ...], BeforeValidator(_chain), Field(min_length=1)]
"""Names of providers: the first that works is used. One name alone may stand without brackets."""


def _each_once(chain: tuple[str, ...]) -> tuple[str, ...]:
    if twice := sorted({name for name in chain if chain.count(name) > 1}):
        raise ValueError(f"{', '.join(twice)} stands in it more than once")
    return chain


class ConversationAgentSettings(ConversationSettings):
    kind: Literal["conversation"] = "conversation"
    stt: Chain = (LOCAL,)
    llm: Chain = (LOCAL,)
    tts: Chain = (LOCAL,)
    voices: dict[str, str] = Field(default_factory=dict)
    """The voice by provider, where a chain has several; `voice` is the first one's."""
    record: bool = True
    """Write a stereo WAV of each call: caller left, agent right."""
    brief_file: str = ""
    """Take `greeting` and `brief` from this file (relative to the configuration), or `receptionist`: the built-in."""

    @property
    def embedded(self) -> bool:
        """Whether it needs the embedded engines."""
        return any(LOCAL in chain for chain in (self.stt, self.llm, self.tts))

    @property
    def leans_on_embedded(self) -> bool:
        """Whether every call works the embedded engines: they are more than what is fallen back on."""
        return any(chain[0] == LOCAL for chain in (self.stt, self.llm, self.tts))

    @field_validator("stt", "llm", "tts")
    @classmethod
    def _no_name_twice(cls, chain: tuple[str, ...]) -> tuple[str, ...]:
        return _each_once(chain)


class EchoAgentSettings(EchoSettings):
    kind: Literal["echo"]
    record: bool = False


class RemoteAgentSettings(RemoteSettings):
    kind: Literal["remote"]
    record: bool = True


class RealtimeAgentSettings(RealtimeSettings):
    kind: Literal["realtime"]
    realtime: Chain
    tts: Annotated[tuple[str, ...], BeforeValidator(_chain)] = ()
    """Speaks what is fixed (the greeting, the apology, goodbyes) in place of the model, best in one voice. Empty:
    the model does, and nothing but a tone apologises for it when no provider works."""
    voices: dict[str, str] = Field(default_factory=dict)
    """The voice by provider, where a chain has several; `voice` is that of the first of `realtime`."""
    record: bool = True
    """Write a stereo WAV of each call: caller left, agent right."""
    brief_file: str = ""
    """Take `greeting` and `brief` from this file (relative to the configuration), or `receptionist`: the built-in."""

    @field_validator("realtime", "tts")
    @classmethod
    def _no_name_twice(cls, chain: tuple[str, ...]) -> tuple[str, ...]:
        return _each_once(chain)


AgentSettings = Annotated[
    ConversationAgentSettings | EchoAgentSettings | RemoteAgentSettings | RealtimeAgentSettings,
    Field(discriminator="kind"),
]


class Route(Section):
    """The first route whose every pattern matches picks the agent. `*` stands for any characters."""

    to: str = "*"
    trunk: str = "*"
    """Name of a trunk; a call from none has the empty name."""
    from_: Annotated[str, Field(alias="from")] = "*"
    agent: str
    media: MediaKind | None = None
    """How the audio of an Asterisk's calls reaches us; not given: as that Asterisk's settings say."""


def _provider(name: str, entry: Any, problems: list[str]) -> Any:
    """One entry of `providers` as its kind's settings; what is wrong with it goes to `problems`."""
    if isinstance(entry, ProviderSettings):
        return entry
    if entry is not None and not isinstance(entry, dict):
        problems.append(f"{name}: it must be a mapping of settings")
        return entry
    kind = (entry or {}).get("kind") or name
    if name == LOCAL or kind not in KINDS:
        problems.append(f"{name}: there is no kind {kind!r}; known: {', '.join(KINDS)} (`local` is set in `engines`)")
        return entry
    try:
        return settings_class(kind)(**{**KINDS[kind].preset, **(entry or {})})
    except ValidationError as error:
        for item in error.errors(include_url=False, include_input=False):
            place = ".".join(str(part) for part in (name, *item["loc"]))
            said = "there is no such setting" if item["type"] == "extra_forbidden" else item["msg"]
            problems.append(f"{place}: {said.removeprefix('Value error, ')}")
        return entry


class Config(BaseSettings):
    """The whole configuration. Variables name a value by its path: `OFFHOOK_SIP_PORT=5070`."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_nested_delimiter="_", env_nested_max_split=1, extra="forbid", frozen=True
    )

    data_dir: Path = Path("data")
    """Database, recordings, phrase cache, API key. Relative to the working directory."""
    sip: SipSettings = SipSettings()
    tls: TlsSettings = TlsSettings()
    guard: GuardSettings = GuardSettings()
    rtp: RtpSettings = RtpSettings()
    http: HttpSettings = HttpSettings()
    limits: LimitSettings = LimitSettings()
    store: StoreSettings = StoreSettings()
    log: LogSettings = LogSettings()
    tracing: TracingSettings = TracingSettings()
    engines: EngineSettings = EngineSettings()
    providers: dict[str, SerializeAsAny[ProviderSettings]] = Field(default_factory=dict)
    """Vendors and servers by name. A kind that is not named here can be used by its own name, as it is."""
    fallback: FallbackSettings = FallbackSettings()
    trunks: tuple[TrunkSettings, ...] = ()
    asterisk: tuple[AsteriskSettings, ...] = ()
    """Asterisks whose dialplan hands calls over (docs/asterisk.md)."""
    audiosocket: AudioSocketSettings = AudioSocketSettings()
    websocket_listener: WebsocketListenerSettings = WebsocketListenerSettings()
    agents: dict[str, AgentSettings] = Field(default_factory=dict)
    routes: tuple[Route, ...] = ()

    @property
    def allowed_networks(self) -> tuple[str, ...]:
        """`sip.allow_from`, or what stands for it."""
        if self.sip.allow_from is not None:
            return self.sip.allow_from
        return LOOPBACK if self.trunks else PRIVATE_NETWORKS

    @field_validator("providers", mode="before")
    @classmethod
    def _providers(cls, value: object) -> object:
        """Each entry by the settings of its kind."""
        if not isinstance(value, dict):
            return value
        problems: list[str] = []
        entries = {name: _provider(str(name), entry, problems) for name, entry in value.items()}
        if problems:
            raise ValueError("\n".join(problems))
        return entries

    def provider(self, name: str) -> ProviderSettings:
        """The settings of a provider that an agent names; KeyError where there is none."""
        if name in self.providers:
            return self.providers[name]
        return settings_class(name)(**KINDS[name].preset)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return env_settings, init_settings

    @model_validator(mode="after")
    def _session_timer(self) -> "Config":
        if self.sip.session_expires_s and self.sip.session_expires_s < self.sip.min_se_s:
            raise ValueError(
                f"sip.session_expires_s {self.sip.session_expires_s} is below sip.min_se_s {self.sip.min_se_s}"
            )
        return self

    @model_validator(mode="after")
    def _references(self) -> "Config":
        problems = [
            f"routes[{i}].agent: there is no agent {route.agent!r}; known: {', '.join(self.agents) or 'none'}"
            for i, route in enumerate(self.routes)
            if route.agent not in self.agents
        ]
        known = sorted({LOCAL, *KINDS, *self.providers})
        problems += [
            f"agents.{agent}.{role}: there is no provider {name!r}; known: {', '.join(known)}"
            for agent, settings in self.agents.items()
            if isinstance(settings, ConversationAgentSettings)
            for role in ("stt", "llm", "tts")
            for name in getattr(settings, role)
            if name not in known
        ]
        problems += [
            f"agents.{agent}.{role}: there is no provider {name!r}; known: {', '.join(has)}"
            for agent, settings in self.agents.items()
            if isinstance(settings, RealtimeAgentSettings)
            for role, has in (("realtime", [name for name in known if name != LOCAL]), ("tts", known))
            for name in getattr(settings, role)
            if name not in has
        ]
        if not (self.sip.udp or self.sip.tcp or self.tls.certificate):
            problems.append("sip: neither udp nor tcp nor a certificate for TLS: there is nothing to listen on")
        problems += [
            f"asterisk[{i}].agent: there is no agent {one.agent!r}; known: {', '.join(self.agents) or 'none'}"
            for i, one in enumerate(self.asterisk)
            if one.agent and one.agent not in self.agents
        ]
        names = [trunk.name for trunk in self.trunks]
        others = [("asterisk", one.name) for one in self.asterisk]
        others += [("audiosocket", self.audiosocket.trunk)] if self.audiosocket.trunk else []
        for section, name in others:
            if name in names:
                problems.append(f"{section}: {name!r} is the name of another trunk already")
            names.append(name)
        problems += [
            f"routes[{i}].trunk: there is no trunk {route.trunk!r}; known: {', '.join(names) or 'none'}"
            for i, route in enumerate(self.routes)
            if not (set(route.trunk) & set("*?[")) and route.trunk and route.trunk not in names
        ]
        problems += [
            f"trunks[{i}].name: {name!r} stands here again"
            for i, name in enumerate(names[: len(self.trunks)])
            if name in names[:i]
        ]
        users: dict[str, str] = {}
        for i, trunk in enumerate(self.trunks):
            for user in trunk.users:
                if (other := users.setdefault(user.username, trunk.name)) != trunk.name:
                    problems.append(f"trunks[{i}].users: {user.username!r} is a user of trunk {other!r} already")
        if problems:
            raise ValueError("\n".join(problems))
        return self
