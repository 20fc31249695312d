"""What Asterisk has against what we know: lost legs, orphans, callers whom nobody attends to.

Events get lost (a cut socket), processes die: so all channels and bridges are looked through after each connect and
now and then. What another process made for the same application may be live there (it drains, while we have taken the
application): a process that has lost the application, but not its calls, counts on in a global variable of
Asterisk's, one whose count stands is dead.
"""

import asyncio
import contextlib
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog

from bridge.asterisk.ari import Ari
from bridge.asterisk.ari_errors import AriError, AriNotFoundError, AriRefusedError, AriUnavailableError
from bridge.asterisk.ari_events import Bridge, Channel
from bridge.legs.asterisk.joined import JoinedPairs, Pair
from bridge.legs.asterisk.leg import AsteriskLeg
from bridge.legs.asterisk.names import Names, instance_of, is_made, stem_of

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Waits:
    """In seconds."""

    look_s: float = 30.0
    """Between two looks while all is well."""
    watch_s: float = 2.0
    """Between two looks at our legs while no events come."""
    silent_s: float = 5.0
    """Asterisk can't be asked, and no audio of a call came from it for so long: it is gone, and the call with it."""
    beat_s: float = 1.0
    """Between two signs of life."""
    second_look_s: float = 3.5
    """What seems to be nobody's must seem so for this long: a live process gives three signs meanwhile."""


DEFAULT_WAITS = Waits()


# -- sans-IO ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Known:
    """What is ours, as we know it."""

    channels: frozenset[str]
    """Of legs and joined pairs."""
    stems: frozenset[str]
    """Of calls that are not quite over."""
    pairs: frozenset[str]
    """Bridges of joined pairs."""


@dataclass(slots=True)
class Stranger:
    """What another process left, or attends to."""

    channels: list[str] = field(default_factory=list)
    """Media channels and the like."""
    bridges: list[str] = field(default_factory=list)
    callers: list[Channel] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)


@dataclass(slots=True)
class Findings:
    present: frozenset[str] = frozenset()
    """Ids of all channels."""
    outside: frozenset[str] = frozenset()
    """Ids of those that are in no application, or in another one."""
    orphan_channels: list[str] = field(default_factory=list)
    """Made by us, for a call that is over."""
    orphan_bridges: list[str] = field(default_factory=list)
    strangers: dict[str, Stranger] = field(default_factory=dict)
    """By instance."""
    callers: list[Channel] = field(default_factory=list)
    """In our application, attended to by nobody."""


def look_through(channels: Sequence[Channel], bridges: Sequence[Bridge], names: Names, known: Known) -> Findings:
    """Channels of other applications, and bridges of anybody else, are not even looked at."""
    outside = frozenset(channel.id for channel in channels if not _is_inside(channel, names.app))
    found = Findings(frozenset(channel.id for channel in channels), outside)
    holder: dict[str, str] = {}
    in_pair: set[str] = set()
    for bridge in bridges:
        if not is_made(bridge.id) or bridge.name not in (names.bridge, names.joined):
            continue
        instance = instance_of(bridge.id)
        if bridge.name == names.joined:
            in_pair |= set(bridge.channels)
            if bridge.id not in known.pairs:
                pair = Pair(bridge.id, bridge.channels)
                found.strangers.setdefault(instance, Stranger()).pairs.append(pair)
            continue
        holder |= dict.fromkeys(bridge.channels, instance)
        if not names.is_own(bridge.id):
            found.strangers.setdefault(instance, Stranger()).bridges.append(bridge.id)
        elif stem_of(bridge.id) not in known.stems:
            found.orphan_bridges.append(bridge.id)
    for channel in channels:
        if channel.id in outside:
            continue
        if channel.id in known.channels or channel.id in in_pair:
            continue
        if is_made(channel.id):
            if not names.is_own(channel.id):
                found.strangers.setdefault(instance_of(channel.id), Stranger()).channels.append(channel.id)
            elif stem_of(channel.id) not in known.stems:
                found.orphan_channels.append(channel.id)
        elif (instance := holder.get(channel.id, names.instance)) != names.instance:
            found.strangers.setdefault(instance, Stranger()).callers.append(channel)
        else:
            found.callers.append(channel)
    return found


def _is_inside(channel: Channel, app: str) -> bool:
    return channel.app_name == "Stasis" and channel.app_data.partition(",")[0] == app


def arguments_of(channel: Channel) -> tuple[str, ...]:
    """Of the `Stasis` that it is in, the application's name left out."""
    return tuple(channel.app_data.split(",")[1:])


def sign_of(instance: str) -> str:
    """The global variable by which a process shows that it lives."""
    return f"OFFHOOK_ALIVE_{instance}"


# -- carrying it out ----------------------------------------------------------------------------------------


class ReconcileSide(Protocol):
    """What it needs of its endpoint."""

    ari: Ari
    names: Names

    @property
    def joined(self) -> JoinedPairs: ...

    @property
    def legs(self) -> Sequence[AsteriskLeg]: ...

    def known(self) -> Known: ...

    def now(self) -> float:
        """Monotonic time (s)."""
        ...

    def take(self, channel: Channel, args: tuple[str, ...], *, found: bool = False) -> None:
        """A call that comes in; `found`: that was in the application already."""
        ...


class Reconciler:
    """Looks, as long as it lives."""

    def __init__(self, side: ReconcileSide, waits: Waits = DEFAULT_WAITS) -> None:
        self.orphans_cleaned = 0
        self.callers_found = 0
        """Who was in our application, and nobody attended to."""
        self._side = side
        self._ari = side.ari
        self._waits = waits
        self._wanted = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._beats = 0
        self._began = ""
        """When Asterisk was started, as it tells it."""

    def start(self) -> None:
        for work, name in ((self._look_on(), "look"), (self._beat_on(), "beat"), (self._watch_on(), "watch")):
            self._tasks.append(asyncio.create_task(work, name=f"{name} at {self._side.names.app}"))

    async def aclose(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._beats:
            with contextlib.suppress(AriError):
                await self._ari.set_global(sign_of(self._side.names.instance), "")

    def look_soon(self) -> None:
        """Events may have been lost."""
        self._wanted.set()

    async def _look_on(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._waits.look_s):
                    await self._wanted.wait()
            except TimeoutError:
                if self._ari.state != "up":
                    continue
            self._wanted.clear()
            await self._quietly(self.look())

    async def _watch_on(self) -> None:
        heard: dict[AsteriskLeg, tuple[int, float]] = {}
        while True:
            await asyncio.sleep(self._waits.watch_s)
            if self._ari.state in ("up", "closed") or not (self._side.legs or len(self._side.joined)):
                heard.clear()
                continue
            try:
                channels = await self._ari.channels()
                heard.clear()
                await self._end_lost(frozenset(channel.id for channel in channels))
            except AriUnavailableError:
                heard = self._end_silent(heard)
            except AriError:
                # What refuses is alive.
                heard.clear()

    def _end_silent(self, heard: Mapping[AsteriskLeg, tuple[int, float]]) -> dict[AsteriskLeg, tuple[int, float]]:
        """End legs whose Asterisk is gone. `heard`: by leg, how many packets had come, and since when no more did;
        returns the same as it is now."""
        now = self._side.now()
        found: dict[AsteriskLeg, tuple[int, float]] = {}
        for leg in self._side.legs:
            packets = leg.quality.packets_received
            before, since = heard.get(leg, (-1, now))
            if packets != before or not leg.expects_audio:
                since = now
            if now - since >= self._waits.silent_s:
                leg.lost("Asterisk can't be reached, and no audio comes from it")
            else:
                found[leg] = (packets, since)
        return found

    async def _beat_on(self) -> None:
        while True:
            await self._beat()
            await asyncio.sleep(self._waits.beat_s)

    async def look(self) -> None:
        """Once. Raises AriError."""
        if not self._began:
            self._began = await self._start_of_asterisk()
        found = await self._snapshot()
        # What changes nothing but what is known: legs that came or ended meanwhile are left alone.
        await self._end_lost(found.present)
        await asyncio.gather(
            *(self._end_if_astray(leg) for leg in self._side.legs if leg.stays and leg.channel_id in found.outside)
        )
        await self._clean(found.orphan_channels, found.orphan_bridges)
        if not found.strangers and not found.callers:
            return
        before = await self._signs(found)
        await asyncio.sleep(self._waits.second_look_s)
        again = await self._snapshot()
        after = await self._signs(again)
        own = self._side.names.instance
        another = False
        for instance, stranger in again.strangers.items():
            if instance != own and (instance not in before or after[instance] != before[instance]):
                log.info("another process attends to calls of our application", instance=instance)
                another = True
                continue
            await self._clean(stranger.channels, stranger.bridges)
            for pair in stranger.pairs:
                self._side.joined.watch(pair)
            self._take(stranger.callers)
        if not another:
            # Else it may be about to answer them.
            seen = {channel.id for channel in found.callers}
            self._take([channel for channel in again.callers if channel.id in seen])

    def _take(self, callers: Sequence[Channel]) -> None:
        known = self._side.known().channels
        for channel in callers:
            if channel.id not in known:
                log.warning("a caller whom nobody attends to: taken up", channel=channel.id, name=channel.name)
                self.callers_found += 1
                self._side.take(channel, arguments_of(channel), found=True)

    async def _snapshot(self) -> Findings:
        # What is made between the two requests is in one of them and known; what ends is known before or gone after.
        before = self._side.known()
        channels, bridges = await asyncio.gather(self._ari.channels(), self._ari.bridges())
        after = self._side.known()
        known = Known(before.channels | after.channels, before.stems | after.stems, before.pairs | after.pairs)
        return look_through(channels, bridges, self._side.names, known)

    async def _end_lost(self, present: frozenset[str]) -> None:
        missing = [leg for leg in self._side.legs if leg.channel_id not in present]
        # They may have come after the list was made.
        exist = await asyncio.gather(*(self._exists(leg.channel_id) for leg in missing))
        lost = [leg for leg, exists in zip(missing, exist, strict=True) if not exists]
        if lost:
            same = await self._is_the_same()
            for leg in lost:
                if same:
                    leg.missed("hung up while no events came from Asterisk")
                else:
                    leg.lost("Asterisk does not know the channel any more")
        gone = [channel_id for channel_id in self._side.joined.channels if channel_id not in present]
        for channel_id, exists in zip(gone, await asyncio.gather(*map(self._exists, gone)), strict=True):
            if not exists:
                self._side.joined.left(channel_id)

    async def _is_the_same(self) -> bool:
        """Whether Asterisk has run since the last look: then its channels ended one by one."""
        try:
            began = await self._start_of_asterisk()
        except AriError:
            return False
        before, self._began = self._began, began
        return bool(before) and before == began

    async def _start_of_asterisk(self) -> str:
        """Raises AriError. Empty: it does not tell."""
        told = await self._ari.request("GET", "asterisk/info", query={"only": "status"})
        status = told.get("status") if isinstance(told, dict) else None
        return str(status.get("startup_time", "")) if isinstance(status, dict) else ""

    async def _end_if_astray(self, leg: AsteriskLeg) -> None:
        try:
            channel = await self._ari.channel(leg.channel_id)
        except AriError:
            return
        if not _is_inside(channel, self._side.names.app):
            await leg.astray()

    async def _exists(self, channel_id: str) -> bool:
        try:
            await self._ari.channel(channel_id)
        except AriNotFoundError:
            return False
        except AriError:
            pass
        return True

    async def _clean(self, channels: Sequence[str], bridges: Sequence[str]) -> None:
        for ids, delete in ((channels, self._ari.hangup), (bridges, self._ari.delete_bridge)):
            for id in ids:
                try:
                    await delete(id)
                except AriNotFoundError:
                    continue
                except AriRefusedError as error:
                    # The others are not to stay for its sake.
                    log.info("orphan not deleted yet", what=id, error=str(error))
                    continue
                self.orphans_cleaned += 1
                log.warning("orphan deleted on Asterisk", what=id)

    async def _signs(self, found: Findings) -> dict[str, str]:
        """By instance: how far its count is."""
        instances = tuple(found.strangers)
        counts = await asyncio.gather(*(self._ari.get_global(sign_of(instance)) for instance in instances))
        return dict(zip(instances, counts, strict=True))

    async def _beat(self) -> None:
        """One sign of life, where another process may ask for it: while the application is ours nobody does, and
        Asterisk shows each setting of a global variable on its console."""
        wanted = self._ari.state != "up" and (bool(self._side.legs) or len(self._side.joined) > 0)
        if not wanted and not self._beats:
            return
        self._beats = self._beats + 1 if wanted else 0
        try:
            await self._ari.set_global(sign_of(self._side.names.instance), str(self._beats) if wanted else "")
        except AriError as error:
            log.debug("no sign of life given", app=self._side.names.app, error=str(error))

    async def _quietly(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except AriError as error:
            log.info("Asterisk not looked through", app=self._side.names.app, error=str(error))
        except Exception:
            # A task's outermost edge: one bad look must not be the last.
            log.exception("looking through Asterisk crashed", app=self._side.names.app)
