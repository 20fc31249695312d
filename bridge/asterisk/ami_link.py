"""One connection to Asterisk's manager interface: panoramisk's protocol, with what it leaves open settled here.

panoramisk 1.4 reads and writes the wire. Its `Manager` is not used: it connects again every 2 s whatever the reason
(a wrong password too, and after `close`), sends what a lost connection left unanswered once more (an Originate dials
twice), never fails an action that gets no answer, and its log shows the secret. Its judgement of when an answer is
complete raises for an Originate without `Async`, and waits for ever behind `Added interface to queue`."""

import asyncio
import hashlib
import logging
import ssl
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from panoramisk.actions import Action
from panoramisk.ami_protocol import AMIProtocol

from bridge.asterisk.queues import Fields

MOST_HELD = 1 << 20
"""Bytes of a message that has not ended: more is no message of Asterisk's."""
MOST_ROWS = 50_000
"""Of one answer."""
MOST_GIVEN_UP = 64
"""Actions without an answer in time that one may still come for."""

Value = str | int | float | bool | Sequence[str]
"""Of a field of an action; a sequence is a header for each (`Variable`)."""

_BANNER = b"Asterisk Call Manager/"
_END = b"\r\n\r\n"

_muted = logging.Logger("panoramisk", logging.CRITICAL + 1)
"""Where panoramisk writes: it shows whole actions, and whole messages."""


class AmiError(Exception):
    """An action was not carried out; the message says why, without secrets."""


class AmiUnavailableError(AmiError):
    """There is no connection, it broke, or no answer came in time: whether the action was done is not known."""


class AmiTimeoutError(AmiUnavailableError):
    """No answer came in time."""


class AmiUnauthorizedError(AmiError):
    """Our user or password is not taken."""


class AmiRefusedError(AmiError):
    """Asterisk answered that it won't."""

    def __init__(self, action: str, said: str) -> None:
        super().__init__(f"{action}: {said}")
        self.action = action
        self.said = said
        """In Asterisk's words."""

    @property
    def denied(self) -> bool:
        """The user of manager.conf may not (`write`)."""
        return "permission denied" in self.said.lower()


class _Request(Action):  # type: ignore[misc] # panoramisk ships no types
    """An action, and its answer as it comes in: one response, or a list to its end."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        super().__init__(fields)
        self.rows: list[Fields] = []
        self.listed = False

    def add_message(self, message: Any) -> bool:
        """Whether the answer is complete."""
        given_up = self.future.done()
        fields = fields_of(message)
        if "Response" in fields and "Event" not in fields:
            said = fields.get("Message", "")
            if fields["Response"] not in ("Success", "Follows", "Goodbye"):
                if not given_up:
                    self.future.set_exception(AmiRefusedError(self["Action"], said or fields["Response"]))
                return True
            self.listed = fields.get("EventList", "").lower() == "start" or "will follow" in said
            if not self.listed and not given_up:
                self.future.set_result([fields])
            return not self.listed
        if given_up:
            # The rest of a list comes to here, not to those who listen for events.
            return _ends_list(message)
        if not _ends_list(message):
            self.rows.append(fields)
            if len(self.rows) < MOST_ROWS:
                return False
            self.future.set_exception(AmiError(f"{self['Action']}: more than {MOST_ROWS} rows"))
            return False
        self.future.set_result(self.rows)
        return True


def _ends_list(message: Any) -> bool:
    return str(message.eventlist).lower() in ("complete", "cancelled") or (
        not message.eventlist and str(message.event).endswith("Complete")
    )


def fields_of(message: Any) -> dict[str, str]:
    """A message of panoramisk's as plain fields; several headers of one name become lines of one value."""
    fields = {}
    for name, value in message.items():
        fields[name] = "\n".join(map(str, value)) if isinstance(value, list) else str(value)
    content = fields.pop("content", "")
    if content:
        # The output of a command, before Asterisk 14.
        fields["Output"] = content
    return fields


class _Protocol(AMIProtocol):  # type: ignore[misc] # panoramisk ships no types
    """Hands panoramisk whole messages: it drops letters that two segments share, and keeps what never ends."""

    def __init__(self, link: "AmiLink") -> None:
        self._link = link
        self._held = bytearray()
        self.greeted = False

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.encoding = "utf-8"
        self.log = _muted
        self.factory = self._link

    def data_received(self, data: bytes) -> None:
        self._link.heard_at = self._link.loop.time()
        self._held += data
        if not self.greeted:
            if not _BANNER.startswith(self._held[: len(_BANNER)]):
                said = bytes(self._held[:40]).decode("ascii", "replace")
                self._link.close(f"no manager interface is there: it says {said!r}")
                return
            self.greeted = len(self._held) >= len(_BANNER)
        end = self._held.rfind(_END)
        if end >= 0:
            whole = bytes(self._held[: end + len(_END)])
            del self._held[: end + len(_END)]
            super().data_received(whole)
        if len(self._held) > MOST_HELD:
            self._link.close(f"a message of more than {MOST_HELD} bytes came")


class AmiLink:
    """One connection, from `connect` to `closed`. What it needs as panoramisk's factory stands at its end."""

    def __init__(self, on_event: Callable[[Fields], None]) -> None:
        """`on_event` gets each event, in order; it must not raise."""
        self.loop = asyncio.get_running_loop()
        self.heard_at = self.loop.time()
        """When the far side said anything, on the loop's clock."""
        self.closed = asyncio.Event()
        self.reason = ""
        """Why it is closed."""
        self._on_event = on_event
        self._protocol = _Protocol(self)
        self._pending: dict[str, _Request] = {}
        self._given_up: deque[str] = deque()
        # What panoramisk's protocol asks of its factory.
        self.forgetable_actions: tuple[str, ...] = ()
        self.awaiting_actions: deque[Any] = deque(maxlen=0)
        self.save_stream = None

    async def connect(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> None:
        """Raises OSError."""
        await self.loop.create_connection(lambda: self._protocol, host, port, ssl=tls)

    async def login(self, username: str, secret: str, events: str, timeout_s: float) -> None:
        """By challenge: the secret itself stays here. Raises AmiError; AmiUnauthorizedError for wrong credentials."""
        answer = await self.send("Challenge", {"AuthType": "MD5"}, timeout_s)
        challenge = answer[0].get("Challenge", "")
        key = hashlib.md5((challenge + secret).encode(), usedforsecurity=False).hexdigest()
        try:
            await self.send(
                "Login", {"AuthType": "MD5", "Username": username, "Key": key, "Events": events}, timeout_s
            )
        except AmiRefusedError as error:
            raise AmiUnauthorizedError(
                f"user {username!r} is refused ({error.said}): check the user, its secret and its permit/deny "
                f"in manager.conf"
            ) from error

    async def send(self, name: str, fields: Mapping[str, Value], timeout_s: float) -> list[Fields]:
        """One response as a list of one, or the rows of a list. Raises AmiError; ValueError for a field that would
        break out of its line."""
        request = _Request({"Action": _line(name), **{_line(key): _wire(value) for key, value in fields.items()}})
        if self.closed.is_set():
            raise AmiUnavailableError(f"{name}: {self.reason}")
        self._pending[request.id] = request
        self._protocol.send(request)
        try:
            async with asyncio.timeout(timeout_s):
                rows: list[Fields] = await request.future
        except TimeoutError as error:
            self._given_up.append(request.id)
            if len(self._given_up) > MOST_GIVEN_UP:
                self._protocol.responses.pop(self._given_up.popleft(), None)
            raise AmiTimeoutError(f"{name}: no answer within {timeout_s:g} s") from error
        finally:
            self._pending.pop(request.id, None)
        return rows

    def close(self, reason: str) -> None:
        """At once; what waits for an answer fails."""
        if self.closed.is_set():
            return
        self.reason = reason
        self.closed.set()
        for request in self._pending.values():
            if not request.future.done():
                request.future.set_exception(AmiUnavailableError(f"{request['Action']}: {reason}"))
        self._pending.clear()
        if getattr(self._protocol, "transport", None) is not None:
            self._protocol.close()
            self._protocol.transport.abort()

    # -- what panoramisk calls ----------------------------------------------------------------------------

    def dispatch(self, message: Any) -> None:
        if not self.closed.is_set():
            self._on_event(fields_of(message))

    def connection_lost(self, cause: Any) -> None:
        """The transport is gone, or Asterisk said that it shuts down."""
        if not self._protocol.greeted:
            self.close("it hung up without a greeting: if that is its TLS port, set tls: true")
        elif isinstance(cause, OSError):
            self.close(f"the connection broke: {cause.strerror or cause}")
        elif isinstance(cause, Exception):
            self.close(f"a message of it can't be read: {cause}")
        else:
            self.close("Asterisk shut down" if cause is not None else "Asterisk closed the connection")


def _wire(value: Value) -> str | list[str]:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int, float)):
        return _line(str(value))
    return [_line(item) for item in value]


def _line(text: str) -> str:
    if "\r" in text or "\n" in text or "\0" in text:
        raise ValueError(f"{text[:40]!r}: a line break would begin another header")
    return text
