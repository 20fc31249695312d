"""Two parties whom an attended transfer left talking with each other: one bridge, watched until one of them goes."""

from collections.abc import Callable
from dataclasses import dataclass

import structlog

from bridge.asterisk.ari import Ari
from bridge.asterisk.ari_errors import AriError
from bridge.asterisk.settings import AsteriskSettings
from bridge.causes import NORMAL_CLEARING
from bridge.events import Cause
from bridge.legs.asterisk.names import Names, is_made, joined_of
from bridge.legs.asterisk.release import Release, outcome_variables

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Pair:
    bridge_id: str
    channels: tuple[str, ...]


class JoinedPairs:
    """Those of one Asterisk. The pair's bridge tells by its name what it is, so that another process finds it."""

    def __init__(
        self,
        ari: Ari,
        settings: AsteriskSettings,
        names: Names,
        release: Callable[[Release], object],
        delete_bridge: Callable[[str], object],
    ) -> None:
        """`release` gives a channel back to Asterisk, `delete_bridge` deletes one; both see to it themselves."""
        self._ari = ari
        self.settings = settings
        self._names = names
        self._release = release
        self._delete_bridge = delete_bridge
        self._pairs: dict[str, Pair] = {}
        """By bridge."""
        self._of: dict[str, Pair] = {}
        """By channel."""
        self._forming: set[str] = set()
        """Bridges of pairs that are being brought together."""

    def __len__(self) -> int:
        return len(self._pairs)

    @property
    def bridges(self) -> frozenset[str]:
        return frozenset(self._pairs) | self._forming

    def has_channel(self, channel_id: str) -> bool:
        return channel_id in self._of

    @property
    def channels(self) -> frozenset[str]:
        return frozenset(self._of)

    async def join(self, first: str, second: str) -> None:
        """Bring two channels into a bridge of their own, out of those that they are in. Raises AriError: then they
        are in no bridge, or in their own still. Until it returns who leaves is the business of who asked for it."""
        pair = Pair(joined_of(self._names.new_leg()), (first, second))
        self._forming.add(pair.bridge_id)
        try:
            await self._ari.create_bridge(pair.bridge_id, name=self._names.joined)
            await self._ari.add_to_bridge(pair.bridge_id, first, second)
        except BaseException:
            self._delete_bridge(pair.bridge_id)
            raise
        finally:
            self._forming.discard(pair.bridge_id)
        self.watch(pair)

    def watch(self, pair: Pair) -> None:
        """From now on, what becomes of this pair is our business."""
        self._pairs[pair.bridge_id] = pair
        for channel_id in pair.channels:
            self._of[channel_id] = pair
        if len(pair.channels) < 2:
            self._part(pair, ())

    def left(self, channel_id: str) -> None:
        """A channel has hung up, or gone elsewhere: the other has nobody to talk to."""
        if (pair := self._of.get(channel_id)) is not None:
            self._part(pair, (channel_id,))

    def dissolve(self, channel_id: str) -> None:
        """This channel's pair is none any more; what becomes of its channels is others' business."""
        if (pair := self._of.get(channel_id)) is not None:
            self._forget(pair)
            self._delete_bridge(pair.bridge_id)

    def replaced(self, former_id: str, channel_id: str) -> None:
        """Another channel has taken the place of one in its bridge."""
        pair = self._of[former_id]
        self._forget(pair)
        channels = tuple(channel_id if one == former_id else one for one in pair.channels)
        self.watch(Pair(pair.bridge_id, channels))

    def _part(self, pair: Pair, gone: tuple[str, ...]) -> None:
        self._forget(pair)
        self._delete_bridge(pair.bridge_id)
        log.info("joined parties are through", bridge=pair.bridge_id)
        for channel_id in pair.channels:
            if channel_id in gone:
                continue
            if is_made(channel_id) or self.settings.after == "hangup":
                self._release(Release(channel_id, hang_up=NORMAL_CLEARING))
            else:
                said = outcome_variables("TRANSFER", Cause.TRANSFERRED, "the other party has left")
                self._release(Release(channel_id, said))

    def _forget(self, pair: Pair) -> None:
        self._pairs.pop(pair.bridge_id, None)
        for channel_id in pair.channels:
            self._of.pop(channel_id, None)


async def delete_bridge(ari: Ari, bridge_id: str) -> None:
    """Never raises: what is left of ours is found later."""
    try:
        await ari.delete_bridge(bridge_id)
    except AriError as error:
        log.debug("bridge not deleted", bridge=bridge_id, error=str(error))
