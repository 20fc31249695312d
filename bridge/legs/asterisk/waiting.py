"""A caller who waits: on hold by us, with Asterisk's music, or because it holds us."""

from collections.abc import Callable

from bridge.asterisk.ari import Ari
from bridge.asterisk.settings import AsteriskSettings
from bridge.legs.asterisk.media import LegMedia


class Waiting:
    """Of one leg. Verbs raise AriError."""

    def __init__(self, ari: Ari, settings: AsteriskSettings, media: Callable[[], LegMedia | None]) -> None:
        self.music = False
        """Asterisk plays music on the channel."""
        self.holding = False
        """We hold the caller."""
        self.held = False
        """The caller holds us."""
        self._apart = False
        self._ari = ari
        self._settings = settings
        self._media = media

    @property
    def is_heard(self) -> bool:
        """The caller's audio comes to us, and ours to it unless there is music."""
        return not (self.held or self.holding or self._apart)

    async def hold(self, channel_id: str, on: bool) -> None:
        if on == self.holding:
            return
        # By default Asterisk's channel drivers play music; with `moh_passthrough` PJSIP tells the phone.
        await (self._ari.hold(channel_id) if on else self._ari.unhold(channel_id))
        self.holding = on
        self._apply()

    async def play_music(self, channel_id: str, on: bool) -> None:
        """On the channel, not on its bridge: the caller hears it in place of us, and we hear the caller alone."""
        if on == self.music:
            return
        if on:
            await self._ari.start_music(channel_id, self._settings.music)
        else:
            await self._ari.stop_music(channel_id)
        self.music = on

    async def stop(self, channel_id: str) -> None:
        """End what would outlast our part in the call."""
        await self.play_music(channel_id, False)
        await self.hold(channel_id, False)

    def be_held(self, on: bool) -> None:
        self.held = on
        self._apply()

    def set_apart(self, on: bool) -> None:
        """The channel is out of its bridge for a while: nothing is sent or expected."""
        self._apart = on
        self._apply()

    def forget(self) -> None:
        """Another far party, for whom nothing of this holds."""
        self.music = self.holding = self.held = self._apart = False
        self._apply()

    def _apply(self) -> None:
        if (media := self._media()) is not None:
            media.hold(not self.is_heard)
