"""The dead man's limit: a caller's channel may stay with us for so long, and while we live that is put off again and
again. If we die it runs out: Asterisk takes the channel on in its dialplan, at the extension `T`.

It is the channel's `TIMEOUT(absolute)`. The dialplan's own, set before, is never passed, and the channel has it again
when it is given back. What that was stands in a variable of the channel, for the process that may come after us.
Set by ARI it holds in Stasis, alone and in a bridge, before and after the answer (16.28, 22.10: docs/decisions.md).
"""

import asyncio
import math
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any

import structlog

from bridge.asterisk.ari import Ari
from bridge.asterisk.ari_errors import AriError, AriRefusedError
from bridge.asterisk.settings import AsteriskSettings
from bridge.legs.asterisk.release import set_all

log = structlog.get_logger(__name__)

LIMIT = "TIMEOUT(absolute)"
"""Function of the dialplan: seconds that the channel has left; 0: no limit."""
OWN_UNTIL = "OFFHOOK_OWN_LIMIT"
"""Variable of a channel whose limit is ours: when the dialplan's own ends (s since 1970); 0: it has none."""

START_S = 1.0
"""A call's first limit is set within about this: Asterisk carries the requests of an event socket out one by one, and
when many calls come at once their answers are not to wait for it."""

AT_ONCE = 2
"""So many first limits are asked for at a time, for the same reason. Those that are set have no time to wait."""

CUT_S = 1.0
"""While the event socket is cut, how long until a call's limit is thought of again."""

SHORTEST_S = 0.1
"""What a limit that is over already is given back as: 0 would be none."""

Spawn = Callable[[Coroutine[Any, Any, None], str], "asyncio.Task[None]"]


# -- sans-IO ------------------------------------------------------------------------------------------------


def left_of(until: float | None, now: float) -> float:
    """What is left of a limit, as `TIMEOUT(absolute)` takes it: 0 for none."""
    return 0.0 if until is None else max(until - now, SHORTEST_S)


def next_limit(own_until: float | None, now: float, limit_s: float) -> tuple[float, bool]:
    """What to set now, and whether that is the dialplan's own limit, which is not put off. `limit_s`: 0 for none of
    ours, as after a change of the settings."""
    left = left_of(own_until, now)
    return (left, True) if not limit_s or (own_until is not None and left <= limit_s) else (limit_s, False)


def seconds(text: str | None) -> float:
    """Of a limit as Asterisk tells it; 0 for none."""
    try:
        return max(float(text or 0), 0.0)
    except ValueError:
        return 0.0


# -- carrying it out ----------------------------------------------------------------------------------------


class DeadMan:
    """What the limits of one Asterisk's channels have in common."""

    def __init__(
        self,
        ari: Ari,
        settings: AsteriskSettings,
        now: Callable[[], float],
        spawn: Spawn,
        *,
        wall: Callable[[], float] = time.time,
        spread: Callable[[], float] = random.random,
        start_s: float = START_S,
    ) -> None:
        """`now`: monotonic time (s); `wall`: of the clock on the wall. `spread`: 0 to 1, at random: calls that begin
        together are not to be put off together. `start_s`: see `START_S`."""
        self.ari = ari
        self.settings = settings
        self.now = now
        self.spawn = spawn
        self.wall = wall
        self.spread = spread
        self.start_s = start_s
        self.turn = asyncio.Semaphore(AT_ONCE)
        """Of those who want their first limit."""
        self._failing = False
        self._lacking = False
        self._contexts: set[str] = set()

    def done(self) -> None:
        """A limit was set."""
        if self._failing:
            log.info("callers' dead man's limits are put off again", asterisk=self.settings.name)
        self._failing = False

    def failed(self, error: AriError) -> None:
        """One could not be; said once, until it can again."""
        if not self._failing:
            log.warning("callers' dead man's limits can't be put off", asterisk=self.settings.name, error=str(error))
        self._failing = True

    def lacking(self, error: AriError) -> None:
        """Asterisk does not know limits of time; said once."""
        if not self._lacking and self.settings.dead_man_s:
            log.warning(
                "no dead man's limit: if this process dies its callers hear silence. Load func_timeout.so there",
                asterisk=self.settings.name,
                error=str(error),
            )
        self._lacking = True

    async def look_for_fallback(self, channel_id: str, context: str) -> None:
        """Say it, once, where the dialplan has no place for callers whose limit ran out."""
        if not context or context in self._contexts:
            return
        self._contexts.add(context)
        try:
            for extension in ("T", "e"):
                if await self.ari.get_variable(channel_id, f"DIALPLAN_EXISTS({context},{extension},1)") != "0":
                    return
        except AriError:
            return
        log.warning(
            "the dialplan has no extension T there: if this process dies its callers are hung up on",
            asterisk=self.settings.name,
            context=context,
            after_s=self.settings.dead_man_s,
        )


class DeadManLimit:
    """Of one leg's channel."""

    def __init__(self, shared: DeadMan) -> None:
        self.own_until: float | None = None
        """When (s, monotonic) the dialplan's own limit ends the channel; None: it has none, or it is not known."""
        self._shared = shared
        self._channel_id = ""
        self._context = ""
        self._watching = False
        self._begun = False
        self._learned = False
        """The dialplan's own limit is known: before, none of ours may take its place."""
        self._ours = False
        """The channel's limit is, or may be, one of ours."""
        self._marked = False
        """The channel says what the dialplan's own was."""
        self._until = math.inf
        """When (s, monotonic) ours runs out."""
        self._urgent = False
        """A limit may be running already that we have not set."""
        self._queued = False
        """It waits for its turn, and nothing is asked."""
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, channel_id: str, context: str = "", *, found: bool = False) -> None:
        """Watch over this channel, and no longer over another. `context`: where in the dialplan it is, empty for one
        that has none. `found`: a process before us may have set a limit there."""
        self.stop()
        self._channel_id, self._context = channel_id, context
        self._watching, self._begun, self._urgent = True, found, found
        self._learned = self._ours = self._marked = False
        self._until = math.inf
        if found:
            self._do(self._begin(found))
        else:
            self._timer = asyncio.get_running_loop().call_later(self._shared.start_s, self.learn)

    def learn(self) -> None:
        """The call is answered: from now on its end is to be known for the dialplan's own limit, if it was that."""
        if self._watching and not self._begun:
            self._begun = True
            if self._timer is not None:
                self._timer.cancel()
            self._do(self._begin())

    def stop(self) -> None:
        """The channel is to be left, or gone: put off no more. Idempotent."""
        self._watching = False
        if self._timer is not None:
            self._timer.cancel()
        if self._queued and self._task is not None:
            self._task.cancel()

    async def lift(self) -> Mapping[str, str]:
        """`stop`; and what is to be set at the channel for it to have the dialplan's own limit again."""
        await self._settled()
        if not self._ours:
            return {}
        self._marked = False
        return {LIMIT: _value(left_of(self.own_until, self._shared.now())), OWN_UNTIL: ""}

    async def wait(self, longest_s: float) -> None:
        """Something that may take so long keeps the limit from being put off: it is that much longer, until
        `resume`."""
        await self._settled()
        if self._ours:
            await self._set(longest_s + self._shared.settings.dead_man_s)

    def resume(self) -> None:
        """After `lift` or `wait`: it stays with us."""
        if self._channel_id and self._shared.settings.dead_man_s:
            self._watching = self._begun = True
            self._do(self._put_off() if self._learned else self._begin())

    def ran_out(self, now: float) -> bool:
        """Ours has: it could not be put off in time."""
        return self._ours and now >= self._until

    # -- inside ---------------------------------------------------------------------------------------------

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        self._task = self._shared.spawn(work, f"dead man's limit of {self._channel_id}")

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """One's turn to ask for a first limit."""
        if self._urgent:
            yield
            return
        self._queued = True
        try:
            await self._shared.turn.acquire()
        finally:
            self._queued = False
        try:
            yield
        finally:
            self._shared.turn.release()

    async def _settled(self) -> None:
        """Stopped, and no request is under way that might be carried out after the next one."""
        self.stop()
        if self._task is not None:
            await asyncio.wait({self._task})

    async def _begin(self, found: bool = False) -> None:
        shared, channel_id = self._shared, self._channel_id
        if shared.ari.state in ("connecting", "down"):
            # Those who are being set up need the connections of HTTP now; it will be up again in a moment.
            self._later(lambda: self._begin(found), CUT_S)
            return
        try:
            async with self._turn():
                left_s = seconds(await shared.ari.get_variable(channel_id, LIMIT))
                before = await shared.ari.get_variable(channel_id, OWN_UNTIL) if found else None
        except AriError as error:
            if isinstance(error, AriRefusedError) and "function" in str(error):
                shared.lacking(error)
            elif not isinstance(error, AriRefusedError) or error.status >= 500:
                shared.failed(error)
                self._later(lambda: self._begin(found), shared.settings.dead_man_refresh_s)
            return
        now = shared.now()
        if before:
            # The limit that is there is the one of a process before us.
            until = seconds(before)
            self.own_until = now + until - shared.wall() if until else None
        else:
            self.own_until = now + left_s if left_s else None
        self._learned = True
        self._later(self._put_off, 0.0 if found else shared.start_s * shared.spread())

    async def _put_off(self) -> None:
        """Now, and again and again, but not beyond the dialplan's own limit."""
        first = not self._marked
        if not first:
            if not await self._set(self._shared.settings.dead_man_s):
                self._later(self._put_off, self._shared.settings.dead_man_refresh_s)
            return
        async with self._turn():
            if not await self._set(self._shared.settings.dead_man_s):
                part = 0.3 + 0.7 * self._shared.spread()
                self._later(self._put_off, part * self._shared.settings.dead_man_refresh_s)
            await self._shared.look_for_fallback(self._channel_id, self._context)

    async def _set(self, limit_s: float) -> bool:
        """Whether there is no more to do: it is the dialplan's own from now on, or the channel is gone."""
        shared = self._shared
        now = shared.now()
        value, own = next_limit(self.own_until, now, limit_s)
        said = {LIMIT: _value(value)}
        if not self._marked:
            said[OWN_UNTIL] = "0" if self.own_until is None else f"{shared.wall() + self.own_until - now:.0f}"
        # A request without an answer may have been carried out.
        self._ours = True
        try:
            await set_all(shared.ari, self._channel_id, said)
        except AriRefusedError as error:
            if error.status < 500:
                # It has hung up, or is out of the application: its leg hears of that by itself.
                return True
            shared.failed(error)
        except AriError as error:
            shared.failed(error)
        else:
            shared.done()
            self._marked = True
            self._until = now + value
            return own
        return False

    def _later(self, work: Callable[[], Coroutine[Any, Any, None]], pause_s: float) -> None:
        # Where there is to be none any more, the one that is set is still to be lifted.
        if self._watching and (self._ours or self._shared.settings.dead_man_s):
            self._timer = asyncio.get_running_loop().call_later(pause_s, lambda: self._do(work()))


def _value(limit_s: float) -> str:
    return f"{limit_s:.3f}"
