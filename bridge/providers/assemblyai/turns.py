"""AssemblyAI's side of a stream (v3), without I/O: its turns to segments, pauses to ForceEndpoint.

protocols/stt.md 5.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

from assemblyai.streaming.v3.models import ErrorEvent, TurnEvent

from bridge.providers.base import SttEndpoint, SttFailed
from bridge.providers.stt_turn import Act, Said, Settled, Sign, is_position

FORCE_ENDPOINT = "force endpoint"
KEEP_ALIVE = "keep alive"

REACH_S = 0.6
"""From a turn's last word to a pause that its end answers: our hangover, and words that are cut short."""

FORGET_S = 4.0
"""Of audio: an endpoint that was forced so long ago without an answer had no turn to end."""


class AssemblyAiDialect:
    """Implements `stt_turn.Dialect`. A turn of AssemblyAI's is a segment.

    An end that we forced is no sign of the caller's, so none is told of it."""

    def __init__(self, *, formatted: bool) -> None:
        """`formatted`: turns end twice, as they were heard and then with punctuation."""
        self._formatted = formatted
        self._turn = -1
        """The last one heard of."""
        self._over = -1
        """The last one that is of a turn of ours that is over."""
        self._open = False
        self._forced = False
        """An end was forced upon the open turn."""
        self._ended = -1
        """The last one whose end was told."""
        self._ended_at_s = 0.0
        self._asked: deque[tuple[int, float]] = deque()

    def started(self, at_s: float) -> Sequence[Act]:
        return ()

    def paused(self, pause: int, at_s: float) -> Sequence[Act]:
        if not self._open and self._turn >= 0 and self._ended_at_s + REACH_S >= at_s:
            return (Settled(pause),)
        while self._asked and self._asked[0][1] < at_s - FORGET_S:
            self._asked.popleft()
        self._asked.append((pause, at_s))
        self._forced = True
        return (FORCE_ENDPOINT,)

    def committed(self, at_s: float, speaking: bool) -> Sequence[Act]:
        self._asked.clear()
        if not self._open:
            return ()
        self._over = self._turn
        self._forced = True
        return (FORCE_ENDPOINT,)

    def idle(self) -> Sequence[Act]:
        return (KEEP_ALIVE,)

    def overdue(self, pause: int) -> Sequence[Act]:
        self._forced = True
        return (FORCE_ENDPOINT,)

    def take(self, message: Any) -> Iterable[Sign]:
        match message:
            case TurnEvent():
                return self._turn_event(message)
            case ErrorEvent():
                code = f"{message.error_code} " if message.error_code else ""
                return [SttFailed(f"{code}{message.error}", fatal=True)]
            case _:
                return []

    def _turn_event(self, event: TurnEvent) -> list[Sign]:
        turn = event.turn_order
        self._turn = max(self._turn, turn)
        self._open = not event.end_of_turn if turn == self._turn else self._open
        of_this_turn = turn > self._over
        signs: list[Sign] = []
        if of_this_turn:
            signs.append(Said(turn, _text(event), event.language_code or ""))
        if not event.end_of_turn:
            return signs
        if event.words and is_position(event.words[-1].end):
            self._ended_at_s = event.words[-1].end / 1000
        if of_this_turn and (event.turn_is_formatted or not self._formatted):
            signs += self._answered()
        if turn != self._ended:
            self._ended = turn
            if of_this_turn and not self._forced and event.transcript:
                signs.append(SttEndpoint("end", event.end_of_turn_confidence))
            self._forced = False
        return signs

    def _answered(self) -> list[Sign]:
        """The oldest question, and what else this end reaches."""
        signs: list[Sign] = []
        while self._asked and (not signs or self._asked[0][1] <= self._ended_at_s + REACH_S):
            signs.append(Settled(self._asked.popleft()[0]))
        return signs


def _text(event: TurnEvent) -> str:
    """While a turn goes on, its transcript lacks the words that are not final yet."""
    if event.end_of_turn or not event.words or all(word.word_is_final for word in event.words):
        return event.transcript.strip()
    return " ".join(word.text for word in event.words)
