"""The manager interface of one Asterisk (AMI): one connection, kept up, for what ARI lacks."""

import asyncio
import os
import random
import time
from collections.abc import Callable, Mapping

import structlog

from bridge.asterisk.ami_events import AmiDown, AmiEvent, AmiUp, event_of
from bridge.asterisk.ami_link import (
    AmiError,
    AmiLink,
    AmiRefusedError,
    AmiTimeoutError,
    AmiUnauthorizedError,
    AmiUnavailableError,
    Value,
)
from bridge.asterisk.queues import DeviceState, Fields, QueueStatus, device_state, queues_of
from bridge.asterisk.settings import AmiSettings
from bridge.asterisk.status import AMI_STATES, AmiState
from bridge.asterisk.tls import what_failed
from bridge.settings import PasswordError

__all__ = ["Ami", "AmiError", "AmiRefusedError", "AmiTimeoutError", "AmiUnauthorizedError", "AmiUnavailableError"]

EVENTS = "agent,call,user"
"""Classes of events that we ask for: queues, devices and channels, UserEvent. `dialplan` alone would be a dozen for
each call and more."""

FIRST_PAUSE_S = 0.1
UNAUTHORIZED_PAUSE_S = 60.0
"""At least so long between attempts with credentials that are not taken: Asterisk logs each for fail2ban to count."""

QUIET_S = 10.0
"""After so long without a byte of its, the far side is pinged."""

Handler = Callable[[AmiEvent], None]

log = structlog.stdlib.get_logger(__name__)

_DEVICE_FORBIDDEN = frozenset("(){}$,;\"'\\")


class Ami:
    """`start`, then `aclose`; in between it is connected again whenever that is possible."""

    def __init__(
        self,
        settings: AmiSettings,
        name: str,
        *,
        environ: Mapping[str, str] = os.environ,
        reconnect_s: float = 10.0,
        events: str = EVENTS,
    ) -> None:
        """`name` is the Asterisk's. `reconnect_s` is the longest pause between attempts. The password is read anew
        for each."""
        self.name = name
        self.state: AmiState = "connecting"
        self.since: float | None = None
        """Unix time (s) at which `state` was entered; None before the start."""
        self.last_error = ""
        """Stays after a recovery."""
        self.last_error_at: float | None = None
        """Unix time (s)."""
        self.connects = 0
        self.actions = 0
        self.failed = 0
        """Actions that were refused or got no answer."""
        self.events = 0
        self._settings = settings
        self._environ = environ
        self._reconnect_s = reconnect_s
        self._mask = events
        self._link: AmiLink | None = None
        self._task: asyncio.Task[None] | None = None
        self._again = asyncio.Event()
        self._handlers: list[Handler] = []

    def start(self) -> None:
        """Begin to connect, and return."""
        if self._task is None:
            self.since = time.time()
            if self._settings.tls and not self._settings.verify:
                log.warning(
                    "the manager interface's certificate is not checked: whoever is in between can be it (verify)",
                    asterisk=self.name,
                )
            self._task = asyncio.create_task(self._keep(), name=f"ami {self.name}")

    async def aclose(self) -> None:
        """For good; what waits for an answer fails."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        self._enter("closed")

    def reconnect(self) -> None:
        """Don't wait for the next attempt: the password is new, or the network is back. Nothing while it is up."""
        self._again.set()

    def subscribe(self, handler: Handler) -> Callable[[], None]:
        """`handler` gets every event, on the loop, in order, until what is returned is called; it must not block. An
        exception of its is logged."""
        self._handlers.append(handler)

        def unsubscribe() -> None:
            if handler in self._handlers:
                self._handlers.remove(handler)

        return unsubscribe

    def readings(self) -> Mapping[str, float]:
        """For the metrics."""
        now = {
            "up": self.state == "up",
            "connects_total": self.connects,
            "actions_total": self.actions,
            "actions_failed_total": self.failed,
            "events_total": self.events,
        }
        return {f'asterisk_ami_{what}{{asterisk="{self.name}"}}': float(value) for what, value in now.items()} | {
            f'asterisk_ami_state{{asterisk="{self.name}",state="{state}"}}': float(state == self.state)
            for state in AMI_STATES
        }

    # -- actions --------------------------------------------------------------------------------------------

    async def action(self, name: str, **fields: Value) -> list[Fields]:
        """Carry out any action, e.g. `action("Redirect", Channel=..., Context=..., Exten=..., Priority=1)`.

        Returns the rows of a list (none, if it is empty), or the one response. A field that is a sequence is sent as
        a header for each. Originate is `Async` unless said otherwise: without, Asterisk answers nothing else on this
        connection until the far end does, no ping either. How it ended comes as the event OriginateResponse, with the
        same ActionID.

        Raises AmiError, ValueError for a value with a line break."""
        if name.lower() == "originate" and not any(field.lower() == "async" for field in fields):
            fields["Async"] = True
        self.actions += 1
        try:
            link = self._link
            if link is None or self.state != "up":
                raise AmiUnavailableError(f"{name}: the manager interface is {self.state} {self.last_error}".rstrip())
            return await link.send(name, fields, self._settings.request_s)
        except AmiError:
            self.failed += 1
            raise

    async def queues(self, queue: str = "") -> list[QueueStatus]:
        """All queues with their members and callers, or one; none, if there is no such. Raises AmiError."""
        return queues_of(await self.action("QueueStatus", **({"Queue": queue} if queue else {})))

    async def device_state(self, device: str) -> DeviceState:
        """The state of a device that may or may not be in use, e.g. `PJSIP/1001`, `Custom:lamp`: INVALID for one that
        there is not. Raises AmiError; ValueError for what can be no device."""
        if not device or not device.isprintable() or len(device) > 100 or _DEVICE_FORBIDDEN & set(device):
            raise ValueError(f"{device[:40]!r} is no device: they look like PJSIP/1001")
        rows = await self.action("Getvar", Variable=f"DEVICE_STATE({device})")
        said = rows[0].get("Value", "") if rows else ""
        state = device_state(said)
        if state is None:
            raise AmiRefusedError("Getvar", f"DEVICE_STATE says {said!r}: is func_devstate.so loaded?")
        return state

    async def device_states(self) -> dict[str, str]:
        """The states of all devices that something watches. Raises AmiError."""
        rows = await self.action("DeviceStateList")
        return {row["Device"]: row.get("State", "") for row in rows if "Device" in row}

    async def variable(self, expression: str, channel: str = "") -> str:
        """A global variable, or what a dialplan function gives (`DIALPLAN_EXISTS(context)`); of a channel, if one is
        named. Empty for what is not set, and for an unknown function. Raises AmiError."""
        fields = {"Channel": channel} if channel else {}
        rows = await self.action("Getvar", Variable=expression, **fields)
        return rows[0].get("Value", "") if rows else ""

    # -- the connection -------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        pause_s = FIRST_PAUSE_S
        while True:
            link = AmiLink(self._heard)
            try:
                await self._connect(link)
                up_at = link.loop.time()
                try:
                    await self._watch(link)
                finally:
                    if link.loop.time() - up_at > QUIET_S:
                        # One that breaks at once, each time, is not to be opened ten times a second.
                        pause_s = FIRST_PAUSE_S
            except (AmiUnauthorizedError, PasswordError) as error:
                self._enter("unauthorized", str(error))
                pause_s = max(self._reconnect_s, UNAUTHORIZED_PAUSE_S)
            except (AmiError, OSError) as error:
                self._enter("down", self._reason(link.reason, error))
            finally:
                self._link = None
                link.close("closed")
            await self._pause(pause_s)
            pause_s = min(pause_s * 2, self._reconnect_s) if self.state == "down" else FIRST_PAUSE_S

    async def _connect(self, link: AmiLink) -> None:
        """Raises AmiError, PasswordError, OSError."""
        settings = self._settings
        secret = settings.password(self._environ)
        limit_s = settings.request_s
        try:
            async with asyncio.timeout(limit_s):
                tls = settings.trust.context() if settings.tls else None
                await link.connect(settings.host, settings.port, tls)
        except TimeoutError as error:
            raise AmiUnavailableError(f"no connection within {limit_s:g} s") from error
        await link.login(settings.username, secret, self._mask, limit_s)
        self._link = link
        self.connects += 1
        self._enter("up")
        self._tell(AmiUp(first=self.connects == 1))

    async def _watch(self, link: AmiLink) -> None:
        """Until the connection is gone; raises AmiUnavailableError then."""
        reason = "closed"
        try:
            while not link.closed.is_set():
                rest_s = link.heard_at + QUIET_S - link.loop.time()
                try:
                    async with asyncio.timeout(max(rest_s, 0.0)):
                        await link.closed.wait()
                except TimeoutError:
                    if link.loop.time() >= link.heard_at + QUIET_S:
                        await link.send("Ping", {}, self._settings.request_s)
            reason = link.reason
        except AmiError as error:
            reason = str(error)
        finally:
            self._link = None
            self._tell(AmiDown(reason))
        raise AmiUnavailableError(reason)

    async def _pause(self, pause_s: float) -> None:
        self._again.clear()
        # Many bridges must not come back to a restarted Asterisk in step.
        with_jitter_s = pause_s * random.uniform(0.8, 1.0)
        try:
            async with asyncio.timeout(with_jitter_s):
                await self._again.wait()
        except TimeoutError:
            return

    def _reason(self, lost: str, error: Exception) -> str:
        """`lost`: why the connection is closed, if it was opened."""
        said = lost or what_failed(error, self._settings.host, "host")
        said = said or (error.strerror if isinstance(error, OSError) else "") or str(error)
        return f"{self._settings.host}:{self._settings.port}: {said}"

    def _enter(self, state: AmiState, error: str = "") -> None:
        """Told in the log when it changes, not at every attempt."""
        changed = state != self.state or (bool(error) and error != self.last_error)
        if error:
            self.last_error, self.last_error_at = error, time.time()
        if state != self.state:
            self.state, self.since = state, time.time()
        if not changed:
            return
        if state == "up":
            log.info("manager interface up", asterisk=self.name)
        elif state == "unauthorized":
            log.error("manager interface refuses us", asterisk=self.name, reason=error)
        elif state == "down":
            log.warning("manager interface down", asterisk=self.name, reason=error)

    def _heard(self, fields: Fields) -> None:
        self.events += 1
        if self._handlers and self.state == "up":
            self._tell(event_of(fields))

    def _tell(self, event: AmiEvent) -> None:
        for handler in tuple(self._handlers):
            try:
                handler(event)
            except Exception:
                # A listener's mistake must not cost the connection, nor the other listeners.
                log.exception("a listener for manager events failed", asterisk=self.name, kind=type(event).__name__)
