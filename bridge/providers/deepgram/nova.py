"""Nova's side of a stream (`/v1/listen`), without I/O: results to segments, pauses to Finalize.

protocols/stt.md 2.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bridge.providers.base import SttEndpoint, SttFailed
from bridge.providers.stt_turn import Act, Said, Settled, Sign, is_position

FINALIZE = "finalize"
KEEP_ALIVE = "keep alive"

LEAD_S = 0.3
"""Audio before a turn's end that may be the next one's: a voice is told up to 300 ms after its onset."""

SLACK_S = 0.1
"""A final result that ends so little before a pause answers it: what is missing is silence."""

FINALIZE_SLACK_S = 0.25
"""The same for one that says that it answers a Finalize; less than there is from a turn's end to the next pause."""


class NovaDialect:
    """Implements `stt_turn.Dialect`.

    A result is a segment: interim ones cover the same audio as the final one that follows. Words have times, which
    show that they are of a turn that is over, however late they come. Messages are objects of JSON, as they came."""

    def __init__(self) -> None:
        self._segment = 0
        self._interim = False
        """Words of the present segment are not final yet."""
        self._asked: deque[tuple[int, float]] = deque()
        """Pauses that are yet to be answered, and where they are."""
        self._cut_s = 0.0
        """Words before here are of a turn that is over."""
        self._turn_from_s = 0.0
        self._told_to_s = 0.0
        """End of the last word that was told."""

    def started(self, at_s: float) -> Sequence[Act]:
        return ()

    def paused(self, pause: int, at_s: float) -> Sequence[Act]:
        self._asked.append((pause, at_s))
        return (FINALIZE,)

    def committed(self, at_s: float, speaking: bool) -> Sequence[Act]:
        self._turn_from_s = at_s
        self._cut_s = max(self._cut_s, self._told_to_s, at_s - LEAD_S)
        self._segment += 1
        interim, self._interim = self._interim, False
        # So that what was said by now is not in one result with what comes.
        return (FINALIZE,) if interim else ()

    def idle(self) -> Sequence[Act]:
        return (KEEP_ALIVE,)

    def overdue(self, pause: int) -> Sequence[Act]:
        # A Finalize with little audio behind it may have been ignored; by now there is more.
        return (FINALIZE,)

    def take(self, message: Any) -> Iterable[Sign]:
        match message.get("type"):
            case "Results":
                return self._result(message)
            case "UtteranceEnd":
                end_s = message.get("last_word_end")
                return [SttEndpoint("end")] if is_position(end_s) and end_s > self._turn_from_s else []
            case "Error":
                # It did not understand something that we sent; the stream goes on.
                return [SttFailed(f"{message.get('variant')}: {message.get('description')}", fatal=False)]
            case _:
                return []

    def _result(self, result: Mapping[str, Any]) -> list[Sign]:
        best, start_s, duration_s = _best(result), result.get("start"), result.get("duration")
        if best is None or not is_position(start_s) or not is_position(duration_s):
            return []
        end_s = start_s + duration_s
        text, told_to_s = self._text(best, end_s)
        languages = best.get("languages")
        language = str(languages[0]) if isinstance(languages, list) and languages else ""
        signs: list[Sign] = [Said(self._segment, text, language)]
        if text:
            self._told_to_s = max(self._told_to_s, told_to_s)
        final, asked_for = bool(result.get("is_final")), bool(result.get("from_finalize"))
        self._interim = bool(text) and not final
        if final:
            self._segment += 1
            signs += self._answered(end_s, asked_for)
        if result.get("speech_final") and not asked_for and (text or end_s > self._turn_from_s):
            signs.append(SttEndpoint("end"))
        return signs

    def _text(self, best: Mapping[str, Any], end_s: float) -> tuple[str, float]:
        """The words of this turn in a result that ends at `end_s`, and where the last of them ends."""
        transcript, words = best.get("transcript"), best.get("words")
        if not isinstance(transcript, str) or end_s <= self._cut_s:
            return "", 0.0
        if not isinstance(words, list) or not words or not all(map(_is_timed, words)):
            return transcript.strip(), end_s
        kept = [word for word in words if (word["start"] + word["end"]) / 2 > self._cut_s]
        if len(kept) == len(words):
            return transcript.strip(), words[-1]["end"]
        text = " ".join(str(word.get("punctuated_word") or word.get("word") or "") for word in kept)
        return text, kept[-1]["end"] if kept else 0.0

    def _answered(self, end_s: float, asked_for: bool) -> list[Sign]:
        # An answer to Finalize is not promised, so any final result that reaches a pause answers it.
        reach_s = end_s + (FINALIZE_SLACK_S if asked_for else SLACK_S)
        signs: list[Sign] = []
        while self._asked and self._asked[0][1] <= reach_s:
            signs.append(Settled(self._asked.popleft()[0]))
        return signs


def _best(result: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The likeliest reading."""
    channel = result.get("channel")
    alternatives = channel.get("alternatives") if isinstance(channel, dict) else None
    if not isinstance(alternatives, list) or not alternatives or not isinstance(alternatives[0], dict):
        return None
    best: Mapping[str, Any] = alternatives[0]
    return best


def _is_timed(word: object) -> bool:
    return isinstance(word, dict) and is_position(word.get("start")) and is_position(word.get("end"))
