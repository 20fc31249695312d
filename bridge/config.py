"""The configuration: one typed tree, read from a YAML file and `OFFHOOK_*` variables, every mistake with its place."""

import ipaddress
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from bridge.agents.settings import ConversationSettings, EchoSettings
from bridge.providers.local.settings import EngineSettings
from bridge.providers.openai_settings import OpenAiSettings

ENV_PREFIX = "OFFHOOK_"

DEFAULT_FILE = "offhook.yaml"
"""Read from the working directory when no file is named."""

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


class ConfigError(Exception):
    """The configuration can't be used; `problems` holds one line for each mistake, with its place."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


def _network(value: str) -> str:
    ipaddress.ip_network(value)
    return value


def _address(value: str) -> str:
    ipaddress.ip_address(value)
    return value


Network = Annotated[str, AfterValidator(_network)]
Address = Annotated[str, AfterValidator(_address)]
Port = Annotated[int, Field(ge=1, le=65535)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SipSettings(Section):
    listen: Address = "0.0.0.0"
    port: Port = 5060
    advertised_address: Address | None = None
    """Address written into Contact and SDP; by default the one the peer is reached from."""
    allow_from: tuple[Network, ...] = PRIVATE_NETWORKS
    """Networks that calls are taken from; anyone else gets 403."""
    user_agent: str = "Offhook"
    t1_ms: Annotated[int, Field(ge=50, le=5000)] = 500
    """RFC 3261's T1: the first retransmission interval."""


class RtpSettings(Section):
    port_min: Annotated[int, Field(ge=1024, le=65534)] = 20000
    port_max: Annotated[int, Field(ge=1025, le=65535)] = 24999
    """A call takes an even port and the odd one behind it: 5000 ports carry 2500 legs."""
    first_media_timeout_s: Annotated[float, Field(gt=0)] = 30
    """A call whose caller never sends RTP ends after this."""
    media_timeout_s: Annotated[float, Field(gt=0)] = 20
    """A call whose RTP stops ends after this; not while it is on hold."""

    @model_validator(mode="after")
    def _range(self) -> "RtpSettings":
        if self.port_max - self.port_min < 2:
            raise ValueError(f"port_max {self.port_max} must be at least 2 above port_min {self.port_min}")
        return self


class HttpSettings(Section):
    listen: Address = "127.0.0.1"
    port: Port = 8080


class LimitSettings(Section):
    calls: Annotated[int, Field(ge=1)] = 500
    """Live calls on this box; the next one gets 503."""
    conversations: Annotated[int, Field(ge=1)] = 8
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


class ConversationAgentSettings(ConversationSettings):
    kind: Literal["conversation"] = "conversation"
    stt: Literal["local"] = "local"
    llm: Literal["local", "openai"] = "local"
    tts: Literal["local"] = "local"
    record: bool = True
    """Write a stereo WAV of each call: caller left, agent right."""
    brief_file: str = ""
    """Take `greeting` and `brief` from this file (relative to the configuration), or `receptionist`: the built-in."""

    @property
    def embedded(self) -> bool:
        """Whether it needs the embedded engines."""
        return "local" in (self.stt, self.llm, self.tts)


class EchoAgentSettings(EchoSettings):
    kind: Literal["echo"]
    record: bool = False


AgentSettings = Annotated[ConversationAgentSettings | EchoAgentSettings, Field(discriminator="kind")]


class Route(Section):
    """The first route whose every pattern matches picks the agent. `*` stands for any characters."""

    to: str = "*"
    from_: Annotated[str, Field(alias="from")] = "*"
    agent: str


class Config(BaseSettings):
    """The whole configuration. Variables name a value by its path: `OFFHOOK_SIP_PORT=5070`."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_nested_delimiter="_", env_nested_max_split=1, extra="forbid", frozen=True
    )

    data_dir: Path = Path("data")
    """Database, recordings, phrase cache, API key. Relative to the working directory."""
    sip: SipSettings = SipSettings()
    rtp: RtpSettings = RtpSettings()
    http: HttpSettings = HttpSettings()
    limits: LimitSettings = LimitSettings()
    store: StoreSettings = StoreSettings()
    log: LogSettings = LogSettings()
    engines: EngineSettings = EngineSettings()
    openai: OpenAiSettings = OpenAiSettings()
    agents: dict[str, AgentSettings] = Field(default_factory=dict)
    routes: tuple[Route, ...] = ()

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
    def _references(self) -> "Config":
        problems = [
            f"routes[{i}].agent: there is no agent {route.agent!r}; known: {', '.join(self.agents) or 'none'}"
            for i, route in enumerate(self.routes)
            if route.agent not in self.agents
        ]
        if problems:
            raise ValueError("\n".join(problems))
        return self


@dataclass(frozen=True, slots=True)
class Loaded:
    config: Config
    source: str
    """The file it came from, for people."""


def load(path: Path | None) -> Loaded:
    """Read the configuration from `path`, else `offhook.yaml` in the working directory, else the built-in default.

    `OFFHOOK_*` variables take precedence. Raises ConfigError with every mistake and its place."""
    if path is None and Path(DEFAULT_FILE).is_file():
        path = Path(DEFAULT_FILE)
    if path is None:
        text = resources.files("bridge").joinpath("default.yaml").read_text(encoding="utf-8")
        return Loaded(parse(text, "built-in default", Path()), "built-in default")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: can't be read: {error}"]) from error
    return Loaded(parse(text, str(path), path.parent), str(path))


def parse(text: str, source: str, folder: Path) -> Config:
    """Turn YAML `text` into a Config. `source` names it in errors; `brief_file` is looked up in `folder`."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{source}:{mark.line + 1}:{mark.column + 1}" if mark else source
        raise ConfigError([f"{place}: not valid YAML: {getattr(error, 'problem', error)}"]) from error
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise ConfigError([f"{source}:1: the configuration must be a mapping of sections, not {type(data).__name__}"])
    problems = list(_duplicate_keys(root, source)) if root is not None else []
    problems += _take_in_briefs(data, folder, root, source)
    if problems:
        raise ConfigError(problems)
    try:
        return Config(**data)
    except ValidationError as error:
        raise ConfigError(list(_describe(error, root, source))) from error


def _take_in_briefs(data: dict[str, Any], folder: Path, root: yaml.Node | None, source: str) -> list[str]:
    problems: list[str] = []
    agents = data.get("agents")
    if not isinstance(agents, dict):
        return problems
    for name, agent in agents.items():
        if not isinstance(agent, dict):
            continue
        if agent.get("kind", "conversation") == "conversation":
            agent.setdefault("kind", "conversation")
        wanted = agent.get("brief_file")
        if not isinstance(wanted, str) or not wanted:
            continue
        try:
            if wanted == "receptionist":
                text = resources.files("bridge").joinpath("receptionist.yaml").read_text(encoding="utf-8")
            else:
                text = (folder / wanted).read_text(encoding="utf-8")
            brief = yaml.safe_load(text)
            if not isinstance(brief, dict):
                raise TypeError("it must be a mapping with greeting and brief")
        except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError) as error:
            place = _place(root, ("agents", name, "brief_file"), source)
            problems.append(f"{place}: agents.{name}.brief_file: {wanted}: {error}")
            continue
        for key, value in brief.items():
            agent.setdefault(key, value)
    return problems


def _describe(error: ValidationError, root: yaml.Node | None, source: str) -> Iterator[str]:
    for item in error.errors(include_url=False):
        # A tagged union puts its tag into the location; the file knows nothing of it.
        loc = tuple(part for i, part in enumerate(item["loc"]) if not (i == 2 and item["loc"][0] == "agents"))
        path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).lstrip(".")
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            message = "there is no such setting"
        elif item["type"] not in ("missing", "value_error") and isinstance(item.get("input"), str | int | float | bool):
            message += f" (it is {item['input']!r})"
        place = _place(root, loc, source)
        for line in message.splitlines():
            yield f"{place}: {path}: {line}" if path else f"{place}: {line}"


def _place(root: yaml.Node | None, loc: tuple[int | str, ...], source: str) -> str:
    """`file:line` of the deepest part of `loc` that stands in the file."""
    line = 1
    node = root
    for part in loc:
        found: yaml.Node | None = None
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == str(part):
                    line = key.start_mark.line + 1
                    found = value
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            found = node.value[part]
            line = found.start_mark.line + 1
        if found is None:
            break
        node = found
    return f"{source}:{line}"


def _duplicate_keys(node: yaml.Node, source: str) -> Iterator[str]:
    """YAML lets a key stand twice and keeps the last; in a configuration that hides a mistake."""
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            if key.value in seen:
                first = seen[key.value]
                yield f"{source}:{key.start_mark.line + 1}: {key.value}: stands here for the second time (line {first})"
            seen[key.value] = key.start_mark.line + 1
            yield from _duplicate_keys(value, source)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _duplicate_keys(value, source)
