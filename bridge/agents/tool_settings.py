"""What an operator sets about an agent's tools: the built-in ones, HTTP requests, MCP servers. Units are in names."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from jsonschema import Draft202012Validator, SchemaError
from pydantic import AfterValidator, Field, field_validator, model_validator

from bridge.agents.call_context import PREFIX, context_problem, may_be_fact
from bridge.agents.tools_template import CALL_FACTS, TemplateError, parameters_in, secrets_in, without_secrets
from bridge.agents.transfer_settings import AnnounceSettings, TransferSettings, TransferTarget
from bridge.settings import Section
from bridge.variables import name_problem

__all__ = [
    "AgentToolSettings",
    "AnnounceSettings",
    "BuiltInTools",
    "CollectDigitsSettings",
    "HttpTool",
    "McpServerSettings",
    "TransferSettings",
    "TransferTarget",
    "check_schema",
]

Seconds = Annotated[float, Field(gt=0)]
Bytes = Annotated[int, Field(ge=100)]

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}\Z")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")

RESERVED = frozenset(
    {"hang_up", "transfer", "send_dtmf", "collect_digits", "take_message", "set_variables", "queue_status"}
)
"""Names of the built-in tools: another one can't take them, switched off or not."""

OURS = frozenset({"host", "content-length", "transfer-encoding", "connection", "accept-encoding", "idempotency-key"})
"""Headers that a request has from us alone."""

IDEMPOTENT = frozenset({"GET", "HEAD", "PUT", "DELETE"})
"""Methods that may be sent again without doing the work twice (RFC 9110 9.2.2)."""


def _tool_name(value: str) -> str:
    if not _NAME.match(value):
        raise ValueError(f"{value!r} is no name of a tool: a letter, then at most 63 letters, digits, _ and -")
    if value in RESERVED:
        raise ValueError(f"{value!r} is a built-in tool")
    return value


class CollectDigitsSettings(Section):
    """How digits are taken from the caller, by keys or spoken."""

    enabled: bool = True
    first_s: Seconds = 10
    """From the end of the question to the first digit."""
    between_s: Seconds = 4
    """From one digit to the next; then what was entered counts as all."""
    max_s: Seconds = 90
    """For the whole of it."""
    terminator: Literal["#", "*", ""] = "#"
    """The key that ends the entry; empty: none does."""
    clear: Literal["#", "*", ""] = "*"
    """The key that begins it anew."""
    spoken: bool = True
    """Take digits that the caller speaks, too."""

    @model_validator(mode="after")
    def _keys_differ(self) -> Self:
        if self.terminator and self.terminator == self.clear:
            raise ValueError(f"terminator and clear are the same key {self.clear!r}")
        return self


class BuiltInTools(Section):
    """The tools that come with every agent. What a leg can't do is not offered on it."""

    hang_up: bool = True
    transfer: bool = True
    """Where there is somebody to be put through to."""
    send_dtmf: bool = False
    """Press keys at the far end: for door phones and menus. Off, as there is a person on most calls."""
    collect_digits: CollectDigitsSettings = Field(default_factory=CollectDigitsSettings)
    take_message: bool = True
    """Not where the brief has a form of that name: the form is used."""
    queue_status: bool = True
    """Look at a queue before the caller is put into it: where a target is one, and the telephone system tells."""

    @field_validator("collect_digits", mode="before")
    @classmethod
    def _switch(cls, value: object) -> object:
        return {"enabled": value} if isinstance(value, bool) else value


def check_schema(schema: dict[str, Any]) -> str:
    """What is wrong with a tool's JSON schema; empty if nothing is."""
    try:
        Draft202012Validator.check_schema(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
    except SchemaError as error:
        place = "".join(f".{part}" for part in error.absolute_path)
        return f"not a JSON schema: {place.lstrip('.') or 'it'}: {error.message}"
    if schema.get("type") != "object":
        return "a tool's parameters are an object: type must be `object`"
    return ""


class HttpTool(Section):
    """A request that the model may have sent. The URL's host is fixed; what a model fills in is checked by the schema
    and can't leave its place."""

    name: Annotated[str, AfterValidator(_tool_name)]
    description: Annotated[str, Field(min_length=1)]
    parameters: dict[str, Any] = Field(default_factory=lambda: {"type": "object", "properties": {}})
    """JSON schema of the arguments."""
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    url: str
    """`{argument}` may stand in its path and query, besides {call.id}, {call.from}, {call.to}; `${env:NAME}` and
    `${file:PATH}` anywhere."""
    headers: dict[str, str] = Field(default_factory=dict)
    """Their values may hold `${env:NAME}`, `${file:PATH}` and the call's facts, but no arguments."""
    query: dict[str, str] | None = None
    """Templates. Not given, and no `body` either: the arguments that the URL does not name, for methods without a
    body."""
    body: Any = None
    """A template, or a structure of templates; `{argument}` alone keeps the argument's type, and is left out where
    the argument is. Not given, and no `query` either: the arguments that the URL does not name, for methods with a
    body."""
    body_format: Literal["json", "form"] = "json"
    timeout_s: Seconds | None = None
    """For all of it, with retries; by default `limits.tool_ms`."""
    connect_s: Seconds = 3
    retries: Annotated[int, Field(ge=0, le=5)] = 1
    """After failures that may pass (no connection, 429, 502, 503, 504). GET, HEAD, PUT and DELETE only, others with
    `idempotency_key`."""
    idempotency_key: bool = False
    """Send an Idempotency-Key, the same with each retry, which the server must honour."""
    interruptible: bool | None = None
    """Whether a caller who speaks stops it. By default what only reads is stopped: an order that may have been taken
    is not."""
    say: str = ""
    """What the caller hears when it takes longer than `limits.tool_filler_ms`; empty: the filler phrase."""
    result: Annotated[str, Field(pattern=r"^(/.*)?$")] = ""
    """JSON pointer (RFC 6901) to what the model gets of the answer; empty: all."""
    fields: tuple[str, ...] = ()
    """Of an object, or of each one in a list, only these keys."""
    max_result_bytes: Bytes | None = None
    """What the model gets at most; by default `limits.tool_result_bytes`."""
    max_response_bytes: Bytes = 262_144
    """A larger answer is not read to its end, and is a failure."""
    use_environment_proxy: bool = False
    """Go by the proxy that HTTP_PROXY and the like name."""

    @property
    def reads_only(self) -> bool:
        return self.method in ("GET", "HEAD")

    @property
    def stops_for_caller(self) -> bool:
        return self.reads_only if self.interruptible is None else self.interruptible

    @field_validator("parameters")
    @classmethod
    def _schema(cls, value: dict[str, Any]) -> dict[str, Any]:
        if wrong := check_schema(value):
            raise ValueError(wrong)
        return value

    @field_validator("headers")
    @classmethod
    def _headers(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            if not _HEADER.match(name):
                raise ValueError(f"{name!r} is no name of a header")
            if name.lower() in OURS:
                raise ValueError(f"{name!r} is set by the bridge itself")
            if any(ord(char) < 32 or ord(char) == 127 for char in text):
                raise ValueError(f"{name!r} holds a control character")
            _only(text, (), f"the header {name}")
        return value

    @model_validator(mode="after")
    def _fits(self) -> Self:
        known = self.parameters.get("properties", {})
        if clash := sorted(filter(may_be_fact, known)):
            raise ValueError(f"parameters.{clash[0]}: this name is a fact of the call")
        self._check_url(known)
        for key, text in (self.query or {}).items():
            _only(text, known, f"query.{key}")
        for text in _strings(self.body):
            _only(text, known, "body")
        if self.body is not None and self.method in ("GET", "HEAD"):
            raise ValueError(f"a {self.method} has no body: use query")
        if self.body_format == "form" and self.body is not None and not _is_flat(self.body):
            raise ValueError("the body of a form is one level of names and values")
        return self

    def named(self) -> set[str]:
        """What its templates name."""
        texts = [self.url, *self.headers.values(), *(self.query or {}).values(), *_strings(self.body)]
        return {name for text in texts for name in parameters_in(text)} - set(self.parameters.get("properties", {}))

    def _check_url(self, known: dict[str, Any]) -> None:
        _only(self.url, known, "url")
        plain = without_secrets(self.url)
        try:
            parts = urlsplit(plain)
            parts.port  # noqa: B018 - it is checked when it is read
        except ValueError as error:
            raise ValueError(f"url: {error}") from error
        if parts.scheme not in ("http", "https"):
            raise ValueError("url: it must begin with http:// or https://")
        if not parts.hostname:
            raise ValueError("url: it names no host")
        if "@" in parts.netloc:
            raise ValueError("url: user and password belong into a header, by ${env:NAME}")
        if parts.fragment:
            raise ValueError("url: a fragment (#) is never sent")
        if parameters_in(parts.scheme + parts.netloc):
            raise ValueError("url: an argument may stand in the path and the query only")


def _only(text: str, known: dict[str, Any] | tuple[str, ...], place: str) -> None:
    """Raises ValueError where a template names what there is not."""
    try:
        secrets_in(text)
        named = parameters_in(text)
    except TemplateError as error:
        raise ValueError(f"{place}: {error}") from error
    for name in named:
        # Which facts there are is the agent's to know (`AgentToolSettings`).
        if name not in known and not may_be_fact(name):
            there = ", ".join((*known, *CALL_FACTS))
            raise ValueError(f"{place} names {{{name}}}; there are: {there}")


def _strings(body: object) -> list[str]:
    match body:
        case str():
            return [body]
        case dict():
            return [text for value in body.values() for text in _strings(value)]
        case list():
            return [text for value in body for text in _strings(value)]
    return []


def _is_flat(body: object) -> bool:
    return isinstance(body, dict) and not any(isinstance(value, dict | list) for value in body.values())


class McpServerSettings(Section):
    """A server of tools by the Model Context Protocol: a program that is started (`command`), or a URL."""

    name: Annotated[str, AfterValidator(_tool_name)]
    command: str = ""
    args: tuple[str, ...] = ()
    env: dict[str, str] = Field(default_factory=dict)
    """Besides PATH, HOME and the like, which it inherits; values may be `${env:NAME}` or `${file:PATH}`."""
    cwd: Path | None = None
    url: str = ""
    """Of the streamable HTTP transport."""
    headers: dict[str, str] = Field(default_factory=dict)
    """Values may hold `${env:NAME}` and `${file:PATH}`."""
    tools: tuple[str, ...] | None = None
    """The server's tools that may be called; not given: all."""
    timeout_s: Seconds | None = None
    """For a call; by default `limits.tool_ms`."""
    start_s: Seconds = 20
    """For the start and the first list of tools."""
    check_s: Seconds = 30
    """How often a server is asked for its tools, which also shows that it lives."""
    retry_s: Seconds = 1
    """Before a server that died is started again; doubled each time, up to `max_retry_s`."""
    max_retry_s: Seconds = 60
    interruptible: bool = True
    """A caller who speaks stops its calls."""
    call_facts: bool = False
    """Tell it with each call of a tool whose telephone call it is for, as `_meta` of the request: id, from, to, and
    what `context` names."""
    say: str = ""
    """What the caller hears while a call of it takes long; empty: the filler phrase."""
    max_result_bytes: Bytes | None = None
    max_response_bytes: Bytes = 1_048_576
    """A larger answer over HTTP is a failure."""

    @field_validator("env", "headers")
    @classmethod
    def _secrets(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            _only(text, (), name)
        return value

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if bool(self.command) == bool(self.url):
            raise ValueError("give either command or url")
        if self.url and not without_secrets(self.url).startswith(("http://", "https://")):
            raise ValueError(f"url: {self.url!r} is not an http:// or https:// URL")
        if self.url and (self.args or self.env or self.cwd):
            raise ValueError("args, env and cwd belong to command")
        if self.command and self.headers:
            raise ValueError("headers belong to url")
        return self


class AgentToolSettings(Section):
    """What an agent may do besides talking; every kind of agent that calls tools has it."""

    tools: tuple[HttpTool, ...] = ()
    mcp: tuple[McpServerSettings, ...] = ()
    transfer: TransferSettings = Field(default_factory=TransferSettings)
    builtin_tools: BuiltInTools = Field(default_factory=BuiltInTools)
    context: dict[str, str] = Field(default_factory=dict)
    """What the agent is told of what the dialplan or the carrier passed on with a call (arguments, variables,
    headers): names in lower case, each with what it is, for the model; or names alone."""
    variables: dict[str, str] = Field(default_factory=dict)
    """Variables that the model may set for who has the call after it, by name with what belongs into each."""

    @field_validator("context", "variables", mode="before")
    @classmethod
    def _names_alone(cls, value: object) -> object:
        if isinstance(value, list | tuple) and all(isinstance(name, str) for name in value):
            return dict.fromkeys(value, "")
        return value

    @field_validator("context")
    @classmethod
    def _context(cls, value: dict[str, str]) -> dict[str, str]:
        lower = {name.lower(): meaning for name, meaning in value.items()}
        if problem := next(filter(None, map(context_problem, lower)), ""):
            raise ValueError(problem)
        return lower

    @field_validator("variables")
    @classmethod
    def _variables(cls, value: dict[str, str]) -> dict[str, str]:
        if problem := next(filter(None, map(name_problem, value)), ""):
            raise ValueError(problem)
        return value

    @field_validator("tools", "mcp")
    @classmethod
    def _names_differ(cls, value: tuple[HttpTool | McpServerSettings, ...]) -> Any:
        names = [one.name for one in value]
        if twice := next((name for i, name in enumerate(names) if name in names[:i]), None):
            raise ValueError(f"{twice!r} stands there twice")
        return value

    @model_validator(mode="after")
    def _facts_are_known(self) -> Self:
        facts = {*CALL_FACTS, *(PREFIX + name for name in self.context)}
        for tool in self.tools:
            for name in tool.named():
                if name.startswith(PREFIX) and name not in facts:
                    there = ", ".join((*CALL_FACTS, *sorted(facts - set(CALL_FACTS))))
                    raise ValueError(
                        f"tools: {tool.name} names {{{name}}}; there are: {there}; `context` names others"
                    )
        return self

    def clash(self, form_ids: Iterable[str]) -> str:
        """What is wrong with an agent that has these forms besides; empty if nothing is."""
        for form in form_ids:
            if form in RESERVED - {"take_message"}:
                return f"brief.forms: {form!r} is the name of a built-in tool"
            if form in [tool.name for tool in self.tools]:
                return f"tools: {form!r} is the name of a form"
        return ""

    def tool_phrases(self) -> tuple[str, ...]:
        """What is said while tools work, and before transfers."""
        says = [*(tool.say for tool in self.tools), *(server.say for server in self.mcp)]
        says += [target.say for target in self.transfer.targets.values()]
        return tuple(dict.fromkeys(say for say in says if say))
