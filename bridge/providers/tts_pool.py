"""The connections to one voice provider, shared by all calls: opened ahead, filled one by one, closed when idle."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from bridge.providers.base import ProviderBusyError, ProviderError, ProviderUnavailableError

WARM_KINDS = 4
"""How many of the lately used kinds of connection (voice, rate, language) `warm` keeps open."""

LOOK_AGAIN_S = 0.5
"""How often who waits for room looks for it, besides being told."""

TRIES = 2
"""How many sockets may turn out to be dead as soon as they are open."""


class VoiceSocket(Protocol):
    """An open connection that speaks texts."""

    @property
    def alive(self) -> bool:
        """It can still be used, as far as is known."""
        ...

    @property
    def problem(self) -> ProviderError | None:
        """Why the vendor ended it, if it said so: another one would not fare better."""
        ...

    def ready(self, now: float) -> bool:
        """The vendor's rules let it take another text."""
        ...

    async def aclose(self) -> None:
        """Close it, and whatever runs for it. Never raises."""
        ...


K = TypeVar("K", bound=Hashable)
S = TypeVar("S", bound=VoiceSocket)


@dataclass(slots=True, eq=False)
class _Entry(Generic[K, S]):
    key: K
    opening: asyncio.Task[S]
    claims: int = 0
    retired: bool = False
    idle_at: float = 0.0

    @property
    def socket(self) -> S | None:
        """None until it is open."""
        done = self.opening.done() and not self.opening.cancelled() and self.opening.exception() is None
        return self.opening.result() if done else None

    def room(self, most_claims: int, now: float) -> bool:
        if self.retired or self.claims >= most_claims:
            return False
        socket = self.socket
        return socket is None or (socket.alive and socket.ready(now))


class Lease(Generic[K, S]):
    """The right to one text on a socket."""

    __slots__ = ("_entry", "_over", "_pool", "socket")

    def __init__(self, pool: "SocketPool[K, S]", entry: _Entry[K, S], socket: S) -> None:
        self._pool = pool
        self._entry = entry
        self._over = False
        self.socket = socket

    def release(self) -> None:
        """The text is done with; calling it again does nothing."""
        if not self._over:
            self._over = True
            self._pool._release(self._entry)

    def retire(self) -> None:
        """Release, and have the socket closed once the others on it are done: something is wrong with it."""
        self._entry.retired = True
        self.release()

    def another(self) -> "Lease[K, S] | None":
        """A further lease of the same socket, as a context goes on there; None if it can't be used any more."""
        if self._entry.retired or not self.socket.alive:
            return None
        self._entry.claims += 1
        return Lease(self._pool, self._entry, self.socket)


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """How many connections there may be, and for how long."""

    texts: int
    """At once on one connection."""
    sockets: int
    """Open at once; beyond that an idle one of another kind is closed, or a text has to wait."""
    idle_s: float
    """One that is not used for so long is closed, before the vendor does it."""
    room_s: float
    """Longest wait while all are full."""


class SocketPool(Generic[K, S]):
    """Sockets by key: those of one key are interchangeable. Used by one event loop."""

    def __init__(self, provider: str, connect: Callable[[K], Awaitable[S]], limits: PoolLimits) -> None:
        """`connect` opens a socket within a deadline of its own, or raises ProviderError."""
        self._provider = provider
        self._connect = connect
        self._limits = limits
        self._entries: list[_Entry[K, S]] = []
        self._recent: OrderedDict[K, None] = OrderedDict()
        self._waiting: set[asyncio.Future[None]] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._sweep: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def sockets(self) -> int:
        """Open, or being opened."""
        return len(self._entries)

    async def take(self, key: K, *, fresh: bool = False) -> Lease[K, S]:
        """A socket with room for a text; `fresh`: one that is opened now. Waits while there may be no more of
        them. Raises ProviderError; ProviderBusyError when all stay full."""
        self._recent[key] = None
        self._recent.move_to_end(key)
        if len(self._recent) > WARM_KINDS:
            self._recent.popitem(last=False)
        tries = 0
        full_until = asyncio.get_running_loop().time() + self._limits.room_s
        while True:
            entry = self._find(key, fresh)
            if entry is None:
                await self._room(full_until)
                continue
            entry.claims += 1
            try:
                # Others wait for the same socket: who gives up does not take it from them.
                socket = await asyncio.shield(entry.opening)
            except asyncio.CancelledError:
                self._release(entry)
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                raise self._shut_down() from None
            except BaseException:
                self._release(entry)
                raise
            if socket.alive:
                return Lease(self, entry, socket)
            self._release(entry)
            if socket.problem is not None:
                raise socket.problem
            tries += 1
            if tries == TRIES:
                raise ProviderUnavailableError(self._provider, "connections are closed as soon as they are open")

    def warm(self, *default: K) -> None:
        """Have a socket of each lately used key, or of `default`, opened."""
        for key in list(self._recent) or default:
            if not self._closed:
                self._find(key, fresh=False)

    async def aclose(self) -> None:
        """Close everything. Texts under way fail; `take` raises from now on."""
        self._closed = True
        if self._sweep is not None:
            self._sweep.cancel()
        self._wake()
        while self._entries:
            self._drop(self._entries[0])
        while self._closing:
            await asyncio.wait(self._closing)

    def _find(self, key: K, fresh: bool) -> _Entry[K, S] | None:
        if self._closed:
            raise self._shut_down()
        now = asyncio.get_running_loop().time()
        for entry in [entry for entry in self._entries if (socket := entry.socket) and not socket.alive]:
            self._drop(entry)
        if not fresh:
            for entry in self._entries:
                if entry.key == key and entry.room(self._limits.texts, now):
                    return entry
        if len(self._entries) >= self._limits.sockets:
            idle = next((entry for entry in self._entries if not entry.claims and entry.socket), None)
            if idle is None:
                return None
            self._drop(idle)
        entry = _Entry(key, asyncio.create_task(self._open(key)), idle_at=now)
        self._entries.append(entry)
        entry.opening.add_done_callback(lambda _: self._opened(entry))
        return entry

    def _shut_down(self) -> ProviderError:
        return ProviderUnavailableError(self._provider, "it is being shut down")

    async def _open(self, key: K) -> S:
        return await self._connect(key)

    def _opened(self, entry: _Entry[K, S]) -> None:
        # Asking for the exception marks it as seen: nobody may wait for a socket that was opened ahead.
        if entry.opening.cancelled() or entry.opening.exception() is not None:
            if entry in self._entries:
                self._entries.remove(entry)
            self._wake()
        elif not self._closed:
            self._watch_idle()

    async def _room(self, until: float) -> None:
        """Wait until there may be room. Raises ProviderBusyError at `until`."""
        loop = asyncio.get_running_loop()
        left_s = until - loop.time()
        if left_s <= 0:
            raise ProviderBusyError(self._provider, f"all of {self._limits.sockets} connections are in use")
        future = loop.create_future()
        self._waiting.add(future)
        try:
            # A vendor's rules may let a socket speak again without anybody telling.
            await asyncio.wait([future], timeout=min(left_s, LOOK_AGAIN_S))
        finally:
            self._waiting.discard(future)

    def _wake(self) -> None:
        for future in self._waiting:
            if not future.done():
                future.set_result(None)

    def _release(self, entry: _Entry[K, S]) -> None:
        entry.claims -= 1
        if not entry.claims:
            entry.idle_at = asyncio.get_running_loop().time()
            if entry.retired and entry in self._entries:
                self._drop(entry)
            elif not self._closed:
                self._watch_idle()
        self._wake()

    def _watch_idle(self) -> None:
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(self._limits.idle_s, self._close_idle)

    def _close_idle(self) -> None:
        self._sweep = None
        now = asyncio.get_running_loop().time()
        unused = [entry for entry in self._entries if not entry.claims and entry.socket is not None]
        old = [entry for entry in unused if now - entry.idle_at >= self._limits.idle_s]
        for entry in old:
            self._drop(entry)
        young = [entry.idle_at for entry in unused if entry not in old]
        if young:
            wait_s = min(young) + self._limits.idle_s - now
            self._sweep = asyncio.get_running_loop().call_later(wait_s, self._close_idle)

    def _drop(self, entry: _Entry[K, S]) -> None:
        self._entries.remove(entry)
        entry.retired = True
        task = asyncio.create_task(_close(entry))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


async def _close(entry: _Entry[K, S]) -> None:
    if not entry.opening.done():
        entry.opening.cancel()
        await asyncio.wait([entry.opening])
    if entry.socket is not None:
        await entry.socket.aclose()
