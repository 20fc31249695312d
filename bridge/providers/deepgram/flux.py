"""Flux's side of a stream (`/v2/listen`), without I/O: its turns to segments and signs (protocols/stt.md 3).

Flux says itself where turns begin and end, and sends the text of its present turn at least every 0.25 s of audio. So
a pause of ours asks for nothing: the first message that reaches it settles it. Only the end of our turn is imposed.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

from deepgram.listen.v2.types import ListenV2FatalError, ListenV2TurnInfo

from bridge.providers.base import SttEndpoint, SttFailed
from bridge.providers.stt_turn import Act, Said, Settled, Sign, is_position

FORCE_END = "force end"
SILENCE = "silence"
"""A chunk of silence: Flux has no other keep-alive."""

SILENCE_S = 0.08

UPDATE_SLACK_S = 0.1
"""A message about audio up to so little before a pause covers it: what is missing is silence."""

END_SLACK_S = 0.4
"""The same for one that says that the turn is over: our own sign of that comes later in the audio."""


class FluxDialect:
    """Implements `stt_turn.Dialect`. A turn of Flux's is a segment."""

    def __init__(self) -> None:
        self._turn = -1
        """Of Flux's, the last one heard of."""
        self._over = -1
        """The last of Flux's turns that is of a turn of ours that is over."""
        self._open = False
        """Flux's turn has begun, and has not ended."""
        self._forced: set[int] = set()
        self._ended_at_s = 0.0
        """Where the last of Flux's turns ended."""
        self._asked: deque[tuple[int, float]] = deque()
        self._added_s = 0.0
        """Silence sent beside the caller's audio."""

    def started(self, at_s: float) -> Sequence[Act]:
        return ()

    def paused(self, pause: int, at_s: float) -> Sequence[Act]:
        if not self._open and self._turn >= 0 and self._ended_at_s + END_SLACK_S >= at_s:
            return (Settled(pause),)
        self._asked.append((pause, at_s))
        return ()

    def committed(self, at_s: float, speaking: bool) -> Sequence[Act]:
        self._asked.clear()
        if not self._open:
            return ()
        self._over = self._turn
        return self._force()

    def idle(self) -> Sequence[Act]:
        self._added_s += SILENCE_S
        return (SILENCE,)

    def overdue(self, pause: int) -> Sequence[Act]:
        return self._force()

    def take(self, message: Any) -> Iterable[Sign]:
        match message:
            case ListenV2TurnInfo():
                return self._turn_info(message)
            case ListenV2FatalError():
                return [SttFailed(f"{message.code}: {message.description}", fatal=True)]
            case _:
                return []

    def _force(self) -> Sequence[Act]:
        self._forced.add(self._turn)
        return (FORCE_END,)

    def _turn_info(self, info: ListenV2TurnInfo) -> list[Sign]:
        turn, end_s = info.turn_index, info.audio_window_end
        if not isinstance(turn, int) or not is_position(end_s) or not isinstance(info.transcript, str):
            return []
        end_s -= self._added_s
        event = info.event
        self._turn = max(self._turn, turn)
        self._open = event != "EndOfTurn" and (self._open or event == "StartOfTurn" or bool(info.transcript))
        if event == "EndOfTurn":
            self._ended_at_s = end_s
        signs: list[Sign] = []
        of_this_turn = turn > self._over
        if of_this_turn:
            language = str(info.languages[0]) if info.languages else ""
            signs.append(Said(turn, info.transcript.strip(), language))
        is_end = event in ("EagerEndOfTurn", "EndOfTurn")
        signs += self._answered(end_s + (END_SLACK_S if is_end else UPDATE_SLACK_S))
        if of_this_turn and turn not in self._forced:
            signs += _endpoint(event, info.end_of_turn_confidence)
        if event == "EndOfTurn":
            self._forced.discard(turn)
        return signs

    def _answered(self, reach_s: float) -> list[Sign]:
        signs: list[Sign] = []
        while self._asked and self._asked[0][1] <= reach_s:
            signs.append(Settled(self._asked.popleft()[0]))
        return signs


def _endpoint(event: Any, confidence: Any) -> list[Sign]:
    sure = float(confidence) if isinstance(confidence, int | float) and 0 <= confidence <= 1 else None
    match event:
        case "EagerEndOfTurn":
            return [SttEndpoint("eager", sure)]
        case "TurnResumed":
            return [SttEndpoint("resumed", sure)]
        case "EndOfTurn":
            return [SttEndpoint("end", sure)]
        case _:
            return []
