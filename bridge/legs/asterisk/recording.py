"""Asterisk's own recording of a call (`recording: asterisk`), into its spool.

What is recorded is a snoop channel on the caller's channel. To record the call's bridge would make a third party of
the recording: the bridge would mix (softmix), and each word would come 11 to 17 ms later (protocols/asterisk.md).
"""

import itertools
from typing import TYPE_CHECKING

import structlog

from bridge.asterisk.ari_errors import AriError
from bridge.asterisk.ari_events import AriEvent, ChannelDestroyed, RecordingFailed, RecordingFinished, StasisEnd
from bridge.events import Answered, LegEnded, LegEvent, LegNote
from bridge.legs.asterisk.names import PREFIX, recording_of
from bridge.legs.asterisk.snoop import SnoopSide, hung_up
from bridge.legs.base import LegState

if TYPE_CHECKING:
    from bridge.legs.asterisk.leg import AsteriskLeg

log = structlog.get_logger(__name__)

NOTE, FAILED_NOTE = "asterisk-recording", "asterisk-recording-failed"
FOLDER = "offhook"
"""Below `recording` of Asterisk's spool."""
FORMAT = "wav"
UNTOLD = "Asterisk's log says why (full disk, permissions)"


class SpoolRecording:
    """Of one leg, from its answer to its end; it needs no owner. A failure is on record, and nothing else happens."""

    def __init__(self, leg: "AsteriskLeg", side: SnoopSide) -> None:
        self._leg = leg
        self._side = side
        self._parts = itertools.count(1)
        self._snoop_id = ""
        self._recorded_id = ""
        """The caller's channel at the time."""
        self._failing = False
        """This part could not be recorded, which has been told."""
        leg.subscribe(self._on_leg_event)

    def _on_leg_event(self, event: LegEvent) -> None:
        if isinstance(event, Answered):
            self._side.spawn(self._begin(), f"recording of {self._leg.channel_id}")
        elif isinstance(event, LegEnded) and self._snoop_id:
            # The caller may go on in the dialplan: that is no longer our call.
            self._side.spawn(self._end(), f"end of {self._snoop_id}")

    async def _begin(self) -> None:
        leg, ari = self._leg, self._side.ari
        part = next(self._parts)
        snoop_id = self._snoop_id = recording_of(leg.line.stem, part)
        self._recorded_id, self._failing = leg.channel_id, False
        name = f"{FOLDER}/{leg.line.stem.removeprefix(PREFIX)}{'' if part == 1 else f'-{part}'}"
        self._side.watch(snoop_id, self._on_event)
        try:
            with ari.entering(snoop_id) as entering:
                await ari.snoop(leg.channel_id, snoop_id, spy="both")
                await entering.wait(self._side.settings.request_s)
            await ari.record_channel(snoop_id, name, format=FORMAT)
        except AriError as error:
            self._failed(str(error))
        if leg.state is LegState.ENDED:
            await self._end()
        elif not self._failing:
            leg.tell(LegNote(NOTE, f"{name}.{FORMAT}"))

    def _on_event(self, event: AriEvent) -> None:
        if isinstance(event, RecordingFailed):
            self._failed(event.cause or UNTOLD)
        elif isinstance(event, RecordingFinished) and self._leg.channel_id == self._recorded_id:
            # Not by us. A file that can't be written ends so as well.
            self._failed(f"it ended after {event.duration_s} s: {UNTOLD}")
        elif isinstance(event, StasisEnd | ChannelDestroyed):
            self._side.unwatch(self._snoop_id)
            if self._leg.state is not LegState.UP:
                return
            if self._leg.channel_id != self._recorded_id:
                # Another channel has taken the caller's place: another file.
                self._side.spawn(self._begin(), f"recording of {self._leg.channel_id}")
            else:
                self._failed("the recorded channel was hung up")

    def _failed(self, why: str) -> None:
        if self._failing or self._leg.state is not LegState.UP:
            return
        self._failing = True
        log.warning("Asterisk does not record", channel=self._recorded_id, reason=why)
        self._leg.tell(LegNote(FAILED_NOTE, why))
        self._side.spawn(self._end(), f"end of {self._snoop_id}")

    async def _end(self) -> None:
        """With its channel the recording ends: Asterisk completes the file."""
        self._side.unwatch(self._snoop_id)
        await hung_up(self._side.ari, self._snoop_id)
