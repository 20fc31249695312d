"""A stand-in for Asterisk's REST interface: channels, bridges and events of its own, and misbehaviour to order.

It knows what a client of ours asks: `/ari/events` with requests over the event socket (or without, as Asterisks
before 20.14), external media, answering, variables, bridges, continuing in the dialplan, hanging up. Whatever
`Standin` can do wrong it can, and

    server.answer_with("POST", "channels/externalMedia", 500, {"message": "Allocation failed"}, times=1)
    server.hold("channels")           # requests below it wait, as behind a driver that hangs, until `let_go`
    server.lose("StasisStart")        # events of this type are never sent
    await server.call_in("c1", args=["agent=reception"])
    await server.hang_up("c1")

It differs from Asterisk: a channel is in the application as soon as it is created, and nothing is ever heard on it.
"""

import asyncio
import base64
import contextlib
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from standin import Exchange, Gone, Reply, Socket, Standin

VERSION = "22.10.1+dfsg-1"

Answer = tuple[int, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """One request to the REST interface."""

    method: str
    path: str
    """Below /ari/, decoded."""
    query: Mapping[str, str]
    body: Any
    over_socket: bool


@dataclass
class _Told:
    method: str
    path: str
    answer: Answer
    times: int


@dataclass
class _Application:
    name: str
    sockets: list[Socket] = field(default_factory=list)


class AriServer(Standin):
    def __init__(
        self,
        *,
        username: str = "offhook",
        password: str = "s3cret-of-ari",
        prefix: str = "",
        rest_over_socket: bool = True,
    ) -> None:
        super().__init__()
        self.username, self.password = username, password
        self.rest_over_socket = rest_over_socket
        self.prefix = prefix
        self.started = f"2026-11-21T13:55:05.{id(self)}+0000"
        """No other has begun at that time."""
        self.asked: list[Asked] = []
        """All requests, of both ways, in the order of their coming."""
        self.channels: dict[str, dict[str, Any]] = {}
        self.bridges: dict[str, dict[str, Any]] = {}
        self.variables: dict[tuple[str, str], str] = {}
        """By channel (empty: Asterisk's own) and name."""
        self.continued: dict[str, Mapping[str, str]] = {}
        """Where channels went on in the dialplan."""
        self.applications: dict[str, _Application] = {}
        self._told: list[_Told] = []
        self._held_up: dict[str, asyncio.Event] = {}
        self._losing: set[str] = set()
        self._created: set[str] = set()
        self._numbers = itertools.count(1)
        self.socket(f"{prefix}/ari/events", self._events)
        for depth in range(1, 6):
            path = f"{prefix}/ari/" + "/".join(f"{{p{number}}}" for number in range(depth))
            for method in ("GET", "POST", "PUT", "DELETE"):
                self.route(method, path, self._http)

    # -- what a test says -------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        return f"{self.http_url}{self.prefix}"

    @property
    def anybody_there(self) -> bool:
        """Whether somebody is there for an application's events."""
        return any(application.sockets for application in self.applications.values())

    def answer_with(self, method: str, path: str, status: int, body: Any = None, times: int = -1) -> None:
        """Answer so to requests whose path begins so, so often (-1: always), and do nothing."""
        self._told.append(_Told(method, path, (status, body), times))

    def forgive(self) -> None:
        """Carry out again what was answered otherwise."""
        self._told.clear()

    def hold(self, path: str) -> None:
        """Requests whose path begins so wait before they are carried out, and what follows on the same socket too."""
        self._held_up.setdefault(path, asyncio.Event())

    def let_go(self, path: str = "") -> None:
        """Requests that were held under this path; all, without one."""
        for held in [path] if path else list(self._held_up):
            self._held_up.pop(held).set()

    def lose(self, *types: str) -> None:
        """Never send events of these types; none: send all again."""
        self._losing = set(types)

    def requests(self, path: str, method: str = "") -> list[Asked]:
        """Those whose path begins so."""
        return [one for one in self.asked if one.path.startswith(path) and method in ("", one.method)]

    async def event(self, type: str, app: str = "offhook", **fields: Any) -> None:
        """Send an event to whoever is there for the application."""
        if type in self._losing:
            return
        message = {"type": type, "application": app, "timestamp": "2026-11-21T13:55:05.557+0000", **fields}
        await self.say(json.dumps(message, ensure_ascii=False), app)

    async def say(self, message: str | bytes, app: str = "offhook") -> None:
        """Send anything."""
        application = self.applications.get(app)
        for socket in application.sockets[-1:] if application is not None else []:
            with contextlib.suppress(Gone):
                await socket.send(message)

    async def call_in(
        self, channel_id: str = "", *, args: list[str] | None = None, app: str = "offhook", **fields: Any
    ) -> dict[str, Any]:
        """A caller's channel enters the application."""
        channel = self._channel(channel_id or f"17952700.{next(self._numbers)}", "PJSIP/carrier-00000001", "Ring")
        channel["caller"] = {"name": "Ada", "number": "+4930123"}
        channel["dialplan"] |= {"context": "from-carrier", "exten": "700"}
        await self._enter(channel | fields, app, args or [])
        return channel

    async def hang_up(self, channel_id: str, cause: int = 16, app: str = "offhook") -> None:
        """The far end of a channel leaves."""
        if (channel := self.channels.pop(channel_id, None)) is None:
            return
        await self.event("ChannelHangupRequest", app, channel=channel, cause=cause, soft=False)
        await self._leave(channel, app)
        if channel_id in self._created:
            # Of a channel that came out of the dialplan the application hears no more.
            await self.event("ChannelDestroyed", app, channel=channel, cause=cause, cause_txt="Normal Clearing")

    # -- HTTP and the socket ----------------------------------------------------------------------------------

    def refusal(self, exchange: Exchange) -> tuple[int, Mapping[str, Any]] | None:
        if not exchange.path.startswith(f"{self.prefix}/ari/"):
            return 404, {"message": "Not found"}
        wanted = "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
        if exchange.headers.get("authorization") != wanted:
            return 401, {"message": "Authentication required"}
        return None

    async def _http(self, exchange: Exchange, reply: Reply) -> None:
        path = exchange.path.removeprefix(f"{self.prefix}/ari/")
        query = {name: values[0] for name, values in exchange.query.items()}
        body = exchange.json() if exchange.body else None
        status, content = await self._carry_out(Asked(exchange.method, unquote(path), query, body, False))
        if content is None:
            await reply.send(b"", "application/json", status)
        else:
            await reply.json(content, status)

    async def _events(self, exchange: Exchange, socket: Socket) -> None:
        app = exchange.asked("app")
        await self.event("ApplicationReplaced", app)
        application = self.applications.setdefault(app, _Application(app))
        application.sockets.append(socket)
        try:
            async for message in socket:
                if self.rest_over_socket:
                    await self._socket_request(app, socket, message)
        finally:
            application.sockets.remove(socket)

    async def _socket_request(self, app: str, socket: Socket, message: str | bytes) -> None:
        request = json.loads(message)
        assert request["type"] == "RESTRequest" and request["request_id"], message
        path, _, written = request["uri"].partition("?")
        query = dict(part.split("=", 1) for part in written.split("&")) if written else {}
        query = {unquote(name): unquote(value) for name, value in query.items()}
        body = json.loads(request["message_body"]) if "message_body" in request else None
        status, content = await self._carry_out(Asked(request["method"], unquote(path), query, body, True))
        answer = {
            "type": "RESTResponse",
            "transaction_id": "",
            "request_id": request["request_id"],
            "status_code": status,
            "reason_phrase": "",
            "uri": path,
            "application": app,
        }
        if content is not None:
            answer |= {"content_type": "application/json", "message_body": json.dumps(content)}
        await socket.json(answer)

    async def _carry_out(self, asked: Asked) -> Answer:
        self.asked.append(asked)
        for path, held in list(self._held_up.items()):
            if asked.path.startswith(path):
                await held.wait()
        for told in self._told:
            if told.times and told.method == asked.method and asked.path.startswith(told.path):
                told.times -= 1
                return told.answer
        kind, *rest = asked.path.split("/", 1)
        answer = {
            "asterisk": self._asterisk,
            "channels": self._channels,
            "bridges": self._bridges,
            "applications": self._applications,
        }.get(kind)
        if answer is None:
            return 404, {"message": "Resource not found"}
        return await answer(asked, rest[0] if rest else "")

    # -- what it knows ----------------------------------------------------------------------------------------

    async def _asterisk(self, asked: Asked, path: str) -> Answer:
        if path == "info":
            system = {"version": VERSION, "entity_id": "02:fc:00:00:00:01"}
            return 200, {"system": system, "status": {"startup_time": self.started}}
        if path == "ping":
            return 200, {"ping": "pong", "asterisk_id": "02:fc:00:00:00:01"}
        if path == "variable":
            name = asked.query["variable"]
            if asked.method == "GET":
                return 200, {"value": self.variables.get(("", name), "")}
            self.variables["", name] = asked.query["value"]
            return 204, None
        if path == "modules":
            return 200, [{"name": "app_stasis.so", "status": "Running", "support_level": "core", "use_count": 0}]
        return 404, {"message": "Resource not found"}

    async def _applications(self, asked: Asked, path: str) -> Answer:
        found = [self._application(name) for name, one in self.applications.items() if one.sockets]
        if not path:
            return 200, found
        for application in found:
            if application["name"] == path:
                return 200, application
        return 404, {"message": "Application not found"}

    def _application(self, name: str) -> dict[str, Any]:
        return {
            "name": name,
            "channel_ids": list(self.channels),
            "bridge_ids": list(self.bridges),
            "endpoint_ids": [],
            "device_names": [],
        }

    async def _channels(self, asked: Asked, path: str) -> Answer:
        if not path:
            if asked.method == "GET":
                return 200, list(self.channels.values())
            return await self._create(asked, asked.query["endpoint"], "Down")
        if path == "create":
            return await self._create(asked, asked.query["endpoint"], "Down")
        if path == "externalMedia":
            return await self._create(asked, f"UnicastRTP/{asked.query.get('external_host', '')}", "Up")
        # An id may hold slashes: what is asked of it stands last.
        channel_id, verb = (path, "") if path in self.channels else path.rsplit("/", 1) if "/" in path else (path, "")
        if "/snoop/" in path:
            return await self._create(asked, "Snoop/x", "Up", path.rsplit("/", 1)[1])
        channel = self.channels.get(channel_id)
        if channel is None:
            return 404, {"message": "Channel not found"}
        if not verb:
            if asked.method == "GET":
                return 200, channel
            await self.hang_up(channel_id)
            return 204, None
        if verb == "variable":
            name = asked.query["variable"]
            if asked.method == "POST":
                self.variables[channel_id, name] = asked.query.get("value", "")
                return 204, None
            if (channel_id, name) in self.variables:
                return 200, {"value": self.variables[channel_id, name]}
            return 404, {"message": "Provided variable was not found"}
        if verb == "answer":
            channel["state"] = "Up"
            await self.event("ChannelStateChange", channel=channel)
        elif verb == "continue":
            self.continued[channel_id] = asked.query
            del self.channels[channel_id]
            await self._leave(channel, "offhook")
        return 204, None

    async def _create(self, asked: Asked, name: str, state: str, channel_id: str = "") -> Answer:
        channel_id = channel_id or asked.query.get("channelId") or f"17952700.{next(self._numbers)}"
        if channel_id in self.channels:
            return 500, {"message": "An internal error prevented this request from being handled"}
        channel = self._channel(channel_id, f"{name}-0x7f22240033d0", state)
        variables = dict((asked.body or {}).get("variables", {}))
        if name.startswith("UnicastRTP"):
            variables |= {"UNICASTRTP_LOCAL_ADDRESS": "127.0.0.1", "UNICASTRTP_LOCAL_PORT": "40000"}
        for variable, value in variables.items():
            self.variables[channel_id, variable] = value
        answer = channel | {"channelvars": variables}
        self._created.add(channel_id)
        args = asked.query.get("appArgs", "")
        await self._enter(channel, asked.query.get("app", "offhook"), args.split(",") if args else [])
        return 200, answer

    async def _bridges(self, asked: Asked, path: str) -> Answer:
        if not path:
            return 200, list(self.bridges.values())
        bridge_id, _, verb = path.partition("/")
        if asked.method == "POST" and not verb:
            if bridge_id in self.bridges:
                return 409, {"message": f"Bridge with id '{bridge_id}' already exists"}
            self.bridges[bridge_id] = {
                "id": bridge_id,
                "technology": "simple_bridge",
                "bridge_type": asked.query.get("type", "mixing"),
                "bridge_class": "stasis",
                "creator": "Stasis",
                "name": asked.query.get("name", ""),
                "channels": [],
            }
            return 200, self.bridges[bridge_id]
        bridge = self.bridges.get(bridge_id)
        if bridge is None:
            return 404, {"message": "Bridge not found"}
        if asked.method == "GET":
            return 200, bridge
        if asked.method == "DELETE":
            del self.bridges[bridge_id]
            await self.event("BridgeDestroyed", bridge=bridge)
            return 204, None
        if verb in ("addChannel", "removeChannel"):
            wanted = asked.query["channel"].split(",")
            if any(one not in self.channels for one in wanted):
                return 400, {"message": "Channel not found"}
            for one in wanted:
                await self._move(bridge, one, verb == "addChannel")
        return 204, None

    async def _move(self, bridge: dict[str, Any], channel_id: str, into: bool) -> None:
        if into == (channel_id in bridge["channels"]):
            return
        (bridge["channels"].append if into else bridge["channels"].remove)(channel_id)
        kind = "ChannelEnteredBridge" if into else "ChannelLeftBridge"
        await self.event(kind, bridge=bridge, channel=self.channels[channel_id])

    async def _enter(self, channel: dict[str, Any], app: str, args: list[str]) -> None:
        channel["dialplan"] |= {"app_name": "Stasis", "app_data": ",".join([app, *args])}
        self.channels[channel["id"]] = channel
        await self.event("StasisStart", app, channel=channel, args=args)

    async def _leave(self, channel: dict[str, Any], app: str) -> None:
        for bridge in self.bridges.values():
            if channel["id"] in bridge["channels"]:
                bridge["channels"].remove(channel["id"])
                await self.event("ChannelLeftBridge", app, bridge=bridge, channel=channel)
        await self.event("StasisEnd", app, channel=channel)

    def _channel(self, channel_id: str, name: str, state: str) -> dict[str, Any]:
        return {
            "id": channel_id,
            "name": name,
            "state": state,
            "protocol_id": "",
            "caller": {"name": "", "number": ""},
            "connected": {"name": "", "number": ""},
            "accountcode": "",
            "dialplan": {"context": "default", "exten": "s", "priority": 1, "app_name": "", "app_data": ""},
            "creationtime": "2026-11-21T13:55:05.557+0000",
            "language": "en",
        }
