"""What can be asked of Asterisk by ARI: one method a request, typed."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bridge.asterisk.ari_errors import AriError, AriNotFoundError
from bridge.asterisk.ari_events import Bridge, Channel, MalformedError, parse_bridge, parse_channel
from bridge.asterisk.ari_wire import segment

Direction = Literal["none", "both", "out", "in"]
"""Of snooping: what is heard, or to whom is whispered. `in`: what comes from the channel."""

IfExists = Literal["fail", "overwrite", "append"]

Listed = str | Sequence[str]
"""Written with commas (`agent=reception,campaign=spring`), or one by one."""


@dataclass(frozen=True, slots=True)
class Module:
    name: str
    """`app_stasis.so`."""
    status: str
    """Running, Not Running, ..."""
    support_level: str


@dataclass(frozen=True, slots=True)
class Application:
    name: str
    channels: tuple[str, ...]
    """Ids that it is subscribed to, as the following."""
    bridges: tuple[str, ...]
    endpoints: tuple[str, ...]
    devices: tuple[str, ...]


class AriVerbs(ABC):
    """All of them raise AriError; each is one request, with the deadline of requests."""

    app: str
    """The Stasis application that channels are created into."""

    @abstractmethod
    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: object = None,
        timeout_s: float | None = None,
        over_http: bool = False,
    ) -> Any:
        """The answer: JSON, or None where it is empty."""

    # -- channels -------------------------------------------------------------------------------------------------

    async def channels(self) -> list[Channel]:
        """All of Asterisk's, not only the application's."""
        return [_read_channel(one) for one in _listed(await self.request("GET", "channels"))]

    async def channel(self, channel_id: str) -> Channel:
        return _read_channel(await self.request("GET", f"channels/{segment(channel_id)}"))

    async def answer(self, channel_id: str) -> None:
        await self._channel_post(channel_id, "answer")

    async def ring(self, channel_id: str) -> None:
        await self._channel_post(channel_id, "ring")

    async def progress(self, channel_id: str) -> None:
        """183: early media."""
        await self._channel_post(channel_id, "progress")

    async def hangup(self, channel_id: str, reason_code: int | None = None) -> None:
        """`reason_code`: of Q.850."""
        query = {} if reason_code is None else {"reason_code": str(reason_code)}
        await self.request("DELETE", f"channels/{segment(channel_id)}", query=query)

    async def continue_in_dialplan(
        self,
        channel_id: str,
        context: str | None = None,
        extension: str | None = None,
        priority: int | None = None,
        label: str | None = None,
    ) -> None:
        """Out of the application: at the next priority, or where the arguments say. A place that does not exist is
        not refused: the channel is then hung up."""
        await self._channel_post(
            channel_id,
            "continue",
            context=context,
            extension=extension,
            priority=None if priority is None else str(priority),
            label=label,
        )

    async def redirect(self, channel_id: str, endpoint: str) -> None:
        """Have the far end call `endpoint` instead: 302 before it is answered, REFER after."""
        await self._channel_post(channel_id, "redirect", endpoint=endpoint)

    async def set_variable(self, channel_id: str, name: str, value: str) -> None:
        """Functions of the dialplan (`CALLERID(name)`) too."""
        await self._channel_post(channel_id, "variable", variable=name, value=value)

    async def get_variable(self, channel_id: str, name: str) -> str | None:
        """None: it is not set, or there is no such channel. Functions of the dialplan too."""
        path = f"channels/{segment(channel_id)}/variable"
        try:
            answer = await self.request("GET", path, query={"variable": name})
        except AriNotFoundError:
            return None
        return str(answer["value"]) if isinstance(answer, dict) and "value" in answer else None

    async def set_global(self, name: str, value: str) -> None:
        """A variable of Asterisk's own, which every channel sees."""
        await self.request("POST", "asterisk/variable", query={"variable": name, "value": value})

    async def get_global(self, name: str) -> str:
        """Empty: it is not set."""
        answer = await self.request("GET", "asterisk/variable", query={"variable": name})
        return str(answer.get("value", "")) if isinstance(answer, dict) else ""

    async def dtmf(self, channel_id: str, digits: str, tone_ms: int = 100, gap_ms: int = 100) -> None:
        await self._channel_post(channel_id, "dtmf", dtmf=digits, duration=str(tone_ms), between=str(gap_ms))

    async def hold(self, channel_id: str) -> None:
        await self._channel_post(channel_id, "hold")

    async def unhold(self, channel_id: str) -> None:
        await self._channel_delete(channel_id, "hold")

    async def start_music(self, channel_id: str, music_class: str = "") -> None:
        await self._channel_post(channel_id, "moh", mohClass=music_class or None)

    async def stop_music(self, channel_id: str) -> None:
        await self._channel_delete(channel_id, "moh")

    async def play(self, channel_id: str, playback_id: str, media: str) -> None:
        """`media`: `sound:beep`, `digits:12`, `tone:ring`, ..."""
        await self._channel_post(channel_id, f"play/{segment(playback_id)}", media=media)

    async def rtp_statistics(self, channel_id: str) -> dict[str, Any]:
        """Of the RTP between Asterisk and the channel's far end, in seconds: `rxcount`, `rxploss`, `rtt`, ...

        Raises AriNotFoundError: there is no such channel, or none yet of RTP; AriUnauthorizedError: it is of a
        technology that has none (403 `Unsupported channel type`)."""
        return _object(await self.request("GET", f"channels/{segment(channel_id)}/rtp_statistics"))

    async def snoop(
        self,
        channel_id: str,
        snoop_id: str,
        spy: Direction = "none",
        whisper: Direction = "none",
        app_args: Listed = "",
    ) -> Channel:
        """A channel of its own, in the application, that hears `channel_id` or speaks into it."""
        return _read_channel(
            await self._channel_post(
                channel_id,
                f"snoop/{segment(snoop_id)}",
                spy=spy,
                whisper=whisper,
                app=self.app,
                appArgs=_joined(app_args),
            )
        )

    async def create_channel(
        self,
        channel_id: str,
        endpoint: str,
        *,
        app_args: Listed = "",
        formats: Listed = "",
        originator: str = "",
        variables: Mapping[str, str] | None = None,
    ) -> Channel:
        """A channel to `endpoint` (`PJSIP/1001`) that is in the application before it is dialled."""
        query = {"endpoint": endpoint, "app": self.app, "channelId": channel_id}
        query |= _given(appArgs=_joined(app_args), formats=_joined(formats), originator=originator or None)
        return _read_channel(await self.request("POST", "channels/create", query=query, body=_variables(variables)))

    async def dial(self, channel_id: str, caller: str | None = None, timeout_s: int = 0) -> None:
        """Dial a created channel; 0: for as long as it takes. Returns at once: events tell how it goes."""
        await self._channel_post(channel_id, "dial", caller=caller, timeout=str(timeout_s) if timeout_s else None)

    async def external_media(
        self,
        channel_id: str,
        *,
        external_host: str = "",
        format: str,
        encapsulation: str = "rtp",
        transport: str = "udp",
        connection_type: str = "client",
        direction: str = "both",
        data: str | None = None,
        transport_data: str | None = None,
        variables: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> Channel:
        """A channel whose audio goes to and comes from `external_host` (host:port, or a name of
        websocket_client.conf). Where its audio is to be sent stands in `variables` of the channel.

        By RTP it takes two ports of rtp.conf, as the caller's channel does. Where none is free Asterisk does not
        refuse: it crashes (22.10 here, 22.9 in asterisk/asterisk#1757)."""
        query = {"channelId": channel_id, "app": self.app, "format": format}
        query |= {"encapsulation": encapsulation, "transport": transport, "connection_type": connection_type}
        query |= {"direction": direction}
        query |= _given(external_host=external_host or None, data=data, transport_data=transport_data)
        return _read_channel(
            await self.request(
                "POST",
                "channels/externalMedia",
                query=query,
                body=_variables(variables),
                timeout_s=timeout_s,
                # Asterisk connects before it answers, and does nothing else for the event socket meanwhile.
                over_http=transport != "udp",
            )
        )

    # -- bridges --------------------------------------------------------------------------------------------------

    async def bridges(self) -> list[Bridge]:
        """All of Asterisk's, not only the application's."""
        return [_read_bridge(one) for one in _listed(await self.request("GET", "bridges"))]

    async def bridge(self, bridge_id: str) -> Bridge:
        return _read_bridge(await self.request("GET", f"bridges/{segment(bridge_id)}"))

    async def create_bridge(self, bridge_id: str, type: str = "mixing", name: str = "") -> Bridge:
        query = {"type": type, **_given(name=name or None)}
        return _read_bridge(await self.request("POST", f"bridges/{segment(bridge_id)}", query=query))

    async def add_to_bridge(self, bridge_id: str, *channel_ids: str) -> None:
        """Raises AriRefusedError: 400 no such channel, 422 a channel is not in the application."""
        query = {"channel": ",".join(channel_ids)}
        await self.request("POST", f"bridges/{segment(bridge_id)}/addChannel", query=query)

    async def remove_from_bridge(self, bridge_id: str, *channel_ids: str) -> None:
        query = {"channel": ",".join(channel_ids)}
        await self.request("POST", f"bridges/{segment(bridge_id)}/removeChannel", query=query)

    async def delete_bridge(self, bridge_id: str) -> None:
        """Its channels stay in the application."""
        await self.request("DELETE", f"bridges/{segment(bridge_id)}")

    # -- recordings -----------------------------------------------------------------------------------------------

    async def record_channel(
        self,
        channel_id: str,
        name: str,
        *,
        format: str = "wav",
        longest_s: int = 0,
        if_exists: IfExists = "fail",
        beep: bool = False,
    ) -> None:
        """What comes from the channel, as `name` (without the ending) in Asterisk's spool; `longest_s`: 0 for no
        limit."""
        query = {
            "name": name,
            "format": format,
            "maxDurationSeconds": str(longest_s),
            "ifExists": if_exists,
            "beep": "true" if beep else "false",
        }
        await self.request("POST", f"channels/{segment(channel_id)}/record", query=query)

    async def stop_recording(self, name: str) -> None:
        await self.request("POST", f"recordings/live/{segment(name)}/stop")

    # -- the rest -------------------------------------------------------------------------------------------------

    async def info(self) -> dict[str, Any]:
        """As it is: `system.version`, `build`, `config`, `status`."""
        return _object(await self.request("GET", "asterisk/info"))

    async def modules(self) -> list[Module]:
        return [_read_module(one) for one in _listed(await self.request("GET", "asterisk/modules"))]

    async def module(self, name: str) -> Module:
        """`name` with `.so`. Raises AriNotFoundError where it is not loaded."""
        return _read_module(await self.request("GET", f"asterisk/modules/{segment(name)}"))

    async def application(self, app: str) -> Application:
        """Raises AriNotFoundError where nobody has connected as `app`."""
        return _read_application(await self.request("GET", f"applications/{segment(app)}"))

    async def subscribe(self, app: str, source: str) -> None:
        """`source`: `channel:ID`, `bridge:ID`, `endpoint:PJSIP/1001`, `deviceState:NAME`."""
        await self.request("POST", f"applications/{segment(app)}/subscription", query={"eventSource": source})

    async def device_states(self) -> dict[str, str]:
        """Of the devices that ARI itself keeps (`Stasis:NAME`); of phones AMI tells."""
        found = [_object(one) for one in _listed(await self.request("GET", "deviceStates"))]
        return {str(one.get("name", "")): str(one.get("state", "")) for one in found}

    async def device_state(self, name: str) -> str:
        """NOT_INUSE, INUSE, BUSY, INVALID, UNAVAILABLE, RINGING, RINGINUSE, ONHOLD, UNKNOWN; of any device."""
        return str(_object(await self.request("GET", f"deviceStates/{segment(name)}")).get("state", ""))

    async def ping(self) -> None:
        await self.request("GET", "asterisk/ping")

    async def _channel_post(self, channel_id: str, what: str, **query: str | None) -> Any:
        return await self.request("POST", f"channels/{segment(channel_id)}/{what}", query=_given(**query))

    async def _channel_delete(self, channel_id: str, what: str) -> None:
        await self.request("DELETE", f"channels/{segment(channel_id)}/{what}")


# -- arguments ----------------------------------------------------------------------------------------------------


def _given(**query: str | None) -> dict[str, str]:
    return {name: value for name, value in query.items() if value is not None}


def _joined(listed: Listed) -> str | None:
    return (listed if isinstance(listed, str) else ",".join(listed)) or None


def _variables(variables: Mapping[str, str] | None) -> object:
    return {"variables": dict(variables)} if variables else None


# -- answers ------------------------------------------------------------------------------------------------------


def _listed(answer: Any) -> list[Any]:
    if not isinstance(answer, list):
        raise AriError("the answer is no list; is this address Asterisk's?")
    return answer


def _object(answer: Any) -> dict[str, Any]:
    if not isinstance(answer, dict):
        raise AriError("the answer is no object; is this address Asterisk's?")
    return answer


def _read_channel(answer: Any) -> Channel:
    try:
        return parse_channel(answer)
    except MalformedError as error:
        raise AriError(f"the answer is no channel: {error}") from None


def _read_bridge(answer: Any) -> Bridge:
    try:
        return parse_bridge(answer)
    except MalformedError as error:
        raise AriError(f"the answer is no bridge: {error}") from None


def _read_module(answer: Any) -> Module:
    found = _object(answer)
    return Module(str(found.get("name", "")), str(found.get("status", "")), str(found.get("support_level", "")))


def _read_application(answer: Any) -> Application:
    found = _object(answer)

    def ids(name: str) -> tuple[str, ...]:
        return tuple(str(one) for one in found.get(name) or ())

    return Application(
        str(found.get("name", "")), ids("channel_ids"), ids("bridge_ids"), ids("endpoint_ids"), ids("device_names")
    )
