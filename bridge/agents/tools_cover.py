"""What the caller hears while a tool works: words, before the silence gets long, and then perhaps music."""

import asyncio

from bridge.agents.hold_music import HoldMusic
from bridge.agents.settings import ConversationSettings
from bridge.agents.speech import Speech
from bridge.agents.tools import Manner

LOOK_S = 0.1
"""How often it is looked whether the caller hears something."""


class Cover:
    """Speaks up in a turn whenever the caller has heard nothing for a while, until it is cancelled."""

    def __init__(
        self,
        speech: Speech,
        confirmed: asyncio.Event,
        settings: ConversationSettings,
        manner: Manner,
        music: HoldMusic | None = None,
    ) -> None:
        """`speech` is the turn's, which the caller hears once it is `confirmed`. `music` takes the place of the words
        once the tool has worked for long enough."""
        self._speech = speech
        self._confirmed = confirmed
        self._music = music if manner.music else None
        self._phrases = settings.phrases
        self._say = manner.say or settings.phrases.filler
        self._patience_s = settings.limits.tool_filler_ms / 1000
        self._again_s = settings.limits.tool_filler_again_ms / 1000
        self._loop = asyncio.get_running_loop()
        self._began_at = self._quiet_since = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        if manner.covered:
            self._timer = self._loop.call_later(min(LOOK_S, self._patience_s), self._look)

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._music is not None:
            self._music.want(False)

    def _look(self) -> None:
        now = self._loop.time()
        speech, music = self._speech, self._music
        heard = speech.waiting or speech.queued_ms > 0 or (music is not None and music.playing)
        if heard or not self._confirmed.is_set():
            self._quiet_since = now
        elif music is not None and music.possible and now - self._began_at >= music.after_s:
            music.want(True)
        elif now - self._quiet_since >= self._patience_s:
            speech.say(self._say)
            self._say, self._patience_s = self._phrases.still_working, self._again_s
        self._timer = self._loop.call_later(LOOK_S, self._look)
