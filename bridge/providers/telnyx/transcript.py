"""Telnyx's transcription socket, without I/O: transcripts to segments, pauses to Finalize (`protocols/telnyx.md` 5).

Transcripts carry neither times nor ids. So what they are about is told by their order alone, and by what was asked.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from bridge.providers.base import SttEndpoint, SttFailed
from bridge.providers.scrub import scrubbed
from bridge.providers.stt_turn import Act, Said, Settled, Sign

FINALIZE = "Finalize"
KEEP_ALIVE = "KeepAlive"

LATE_S = 0.5
"""Words of a turn that is over do not come later than this much further on in the audio, if no more come at all."""


class TelnyxDialect:
    """Implements `stt_turn.Dialect`. `finalises`: the engine can be asked for its text (Deepgram's can)."""

    def __init__(self, provider: str, key: str, *, finalises: bool) -> None:
        self._provider = provider
        self._key = key
        self._finalises = finalises
        self._segment = 0
        self._interim = False
        """Words of the present segment are not final yet."""
        self._ended = False
        """The engine has found an end itself since voice began, and no words after it."""
        self._told_end = False
        """...which was passed on."""
        self._waiting = 0
        """The pause that is yet to be answered; 0: none is."""
        self._old = False
        """What comes up to the next final transcript is of a turn that is over."""
        self._old_from_s = 0.0

    def started(self, at_s: float) -> Sequence[Act]:
        self._ended = False
        if self._old and at_s - self._old_from_s >= LATE_S:
            self._old = False
        return ()

    def paused(self, pause: int, at_s: float) -> Sequence[Act]:
        self._old = False
        done = self._ended and not self._interim
        self._waiting = 0 if done else pause
        asked: Sequence[Act] = (FINALIZE,) if self._finalises else ()
        # An engine that found the pause first may have nothing more to say; if it has, that is told all the same.
        return (*asked, Settled(pause)) if done else asked

    def committed(self, at_s: float, speaking: bool) -> Sequence[Act]:
        self._old = self._interim or bool(self._waiting) or speaking
        self._old_from_s = at_s
        unasked = (self._interim or speaking) and not self._waiting
        self._waiting = 0
        self._ended = self._interim = False
        self._segment += 1
        # So that what was said by now is not in one transcript with what comes.
        return (FINALIZE,) if unasked and self._finalises else ()

    def idle(self) -> Sequence[Act]:
        return (KEEP_ALIVE,) if self._finalises else ()

    def overdue(self, pause: int) -> Sequence[Act]:
        if self._finalises:
            # One with little audio behind it may have been ignored; by now there is more.
            return (FINALIZE,)
        # It may have ended the segment before we found the pause: what is known must do.
        self._waiting = 0
        return (Settled(pause),)

    def take(self, message: Any) -> Iterable[Sign]:
        if not isinstance(message, dict):
            return ()
        wrong = message.get("errors") or message.get("error")
        if wrong:
            return (SttFailed(f"{self._provider}: {scrubbed(_detail(wrong), self._key)}", fatal=True),)
        text, final = message.get("transcript"), message.get("is_final") is True
        if not isinstance(text, str):
            return ()
        if self._old:
            if final:
                self._old = False
            return ()
        return self._transcript(text.strip(), final, message)

    def _transcript(self, text: str, final: bool, message: dict[str, Any]) -> Iterable[Sign]:
        if message.get("utterance_end") is True:
            return self._end()
        signs: list[Sign] = [Said(self._segment, text)]
        if text:
            self._ended = self._told_end = False
        self._interim = bool(text) and not final
        if final:
            self._segment += 1
            waiting, self._waiting = self._waiting, 0
            if waiting:
                signs.append(Settled(waiting))
            elif message.get("speech_final") is True or not self._finalises:
                # A final transcript of an engine that can't be asked means that it has found a pause.
                self._ended = True
                if text:
                    signs += self._end()
        return signs

    def _end(self) -> Iterable[Sign]:
        if self._told_end:
            return ()
        self._told_end = True
        return (SttEndpoint("end"),)


def _detail(wrong: object) -> str:
    """Of `{"errors": [{"code", "title", "detail", "source"}]}`, or the text of `{"error"}`."""
    first = wrong[0] if isinstance(wrong, list) else wrong
    if not isinstance(first, dict):
        return str(first)
    source = first.get("source")
    parameter = source.get("parameter") if isinstance(source, dict) else None
    parts = (first.get("code"), first.get("title"), first.get("detail"), parameter)
    return ": ".join(str(part) for part in parts if part)
