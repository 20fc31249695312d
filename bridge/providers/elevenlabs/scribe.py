"""Scribe's realtime socket, without I/O: transcripts to segments, pauses to commits (`protocols/stt.md` 6).

The server hears one segment after another; a commit ends one, and is answered by its text. Messages carry no ids: a
partial text, and the next committed one, are of the first segment that has not been answered yet.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

from bridge.providers.base import (
    ProviderBusyError,
    ProviderError,
    ProviderUnavailableError,
    SttEndpoint,
    SttFailed,
)
from bridge.providers.elevenlabs.failures import failure
from bridge.providers.scrub import scrubbed
from bridge.providers.stt_turn import Act, Said, Settled, Sign

COMMIT = "commit"
SILENCE = "silence"

LEAST_COMMIT_S = 0.3
"""A commit of less audio is ignored (`commit_throttled`)."""

THROTTLED = "commit_throttled"

ERRORS = frozenset(
    {
        "error",
        "auth_error",
        "quota_exceeded",
        "rate_limited",
        "queue_overflow",
        "resource_exhausted",
        "session_time_limit_exceeded",
        "input_error",
        "invalid_request",
        "chunk_size_exceeded",
        "insufficient_audio_activity",
        "transcriber_error",
        "unaccepted_terms",
    }
)


BUSY = frozenset({"rate_limited", "queue_overflow", "resource_exhausted"})


class ScribeDialect:
    """Implements `stt_turn.Dialect`. `detects`: the server finds pauses, and commits, itself. `tells_language`: each
    committed text comes a second time, with the language that was detected."""

    def __init__(self, provider: str, *, key_from: str, key: str, detects: bool, tells_language: bool) -> None:
        self._provider = provider
        self._key_from = key_from
        self._key = key
        self._detects = detects
        self._tells_language = tells_language
        self._segment = 0
        """The first one that has not been answered."""
        self._texts: dict[int, str] = {}
        """Of the present turn's segments whose language is yet to be told."""
        self._first = 0
        """The first one of the present turn."""
        self._asked: deque[int] = deque()
        """For each commit that has not been answered, the pause that it settles; 0: none."""
        self._committed_s = 0.0
        self._pause = 0
        """With `detects`: the pause that waits for the server to find it; 0: none."""
        self._partial = False
        """There is text of the present segment."""
        self._done_since_start = False

    # -- what our voice activity says ---------------------------------------------------------------------------

    def started(self, at_s: float) -> Sequence[Act]:
        self._done_since_start = False
        return ()

    def paused(self, pause: int, at_s: float) -> Sequence[Act]:
        if self._detects:
            if self._done_since_start and not self._partial:
                return (Settled(pause),)
            self._pause = pause
            return ()
        if at_s - self._committed_s >= LEAST_COMMIT_S:
            return self._commit(pause, at_s)
        if not self._asked:
            return (Settled(pause),)
        self._asked[-1] = pause
        return ()

    def committed(self, at_s: float, speaking: bool) -> Sequence[Act]:
        self._pause = 0
        self._texts.clear()
        acts: Sequence[Act] = ()
        if self._detects:
            self._first = self._segment + self._partial
            self._partial = False
            return acts
        if (speaking or self._partial) and at_s - self._committed_s >= LEAST_COMMIT_S:
            # So that what was said by now is not in one text with what comes.
            acts = self._commit(0, at_s)
        self._asked = deque(0 for _ in self._asked)
        self._first = self._segment + len(self._asked)
        self._partial = False
        return acts

    def idle(self) -> Sequence[Act]:
        return (SILENCE,)

    def overdue(self, pause: int) -> Sequence[Act]:
        return (Settled(pause),) if self._detects else ()

    def _commit(self, pause: int, at_s: float) -> Sequence[Act]:
        self._asked.append(pause)
        self._committed_s = at_s
        return (COMMIT,)

    # -- what the server says -----------------------------------------------------------------------------------

    def take(self, message: Any) -> Iterable[Sign]:
        if not isinstance(message, dict):
            return ()
        kind, text = str(message.get("message_type")), message.get("text")
        if kind == THROTTLED:
            return self._throttled()
        if kind in ERRORS:
            return (SttFailed(str(refused(self._provider, message, key_from=self._key_from, key=self._key)), True),)
        if not isinstance(text, str):
            return ()
        match kind:
            case "partial_transcript":
                return self._partially(text.strip())
            case "committed_transcript":
                return self._finally(text.strip())
            case "committed_transcript_with_timestamps" if self._tells_language:
                return self._detected(text.strip(), message.get("language_code"))
        return ()

    def _partially(self, text: str) -> Iterable[Sign]:
        if self._segment < self._first:
            return ()
        self._partial = bool(text) and not self._asked
        return (Said(self._segment, text),)

    def _finally(self, text: str) -> Iterable[Sign]:
        segment, self._segment = self._segment, self._segment + 1
        pause = self._asked.popleft() if self._asked else 0
        self._partial = False
        if segment < self._first:
            return (Settled(pause),) if pause else ()
        self._done_since_start = True
        if self._tells_language:
            self._texts[segment] = text
        signs: list[Sign] = [Said(segment, text)]
        if self._detects:
            if text:
                signs.append(SttEndpoint("end"))
            pause, self._pause = self._pause, 0
        if pause:
            signs.append(Settled(pause))
        return signs

    def _detected(self, text: str, language: object) -> Iterable[Sign]:
        # It may have been sent late, or not at all for a text before.
        segment = next((segment for segment, known in self._texts.items() if known == text), None)
        if segment is None or not isinstance(language, str):
            return ()
        del self._texts[segment]
        return (Said(segment, text, language),)

    def _throttled(self) -> Iterable[Sign]:
        """The last commit was ignored: its audio is the beginning of the next segment's."""
        if not self._asked:
            return ()
        pause = self._asked.pop()
        self._first = min(self._first, self._segment + len(self._asked))
        if not pause:
            return ()
        if self._asked:
            self._asked[-1] = pause
            return ()
        return (Settled(pause),)


def refused(provider: str, message: dict[str, Any], *, key_from: str, key: str) -> ProviderError:
    """The error for one of `ERRORS`, without the key."""
    kind = str(message.get("message_type"))
    told = message.get("error")
    said = told if isinstance(told, str) else ""
    if kind in BUSY:
        return ProviderBusyError(provider, scrubbed(f"takes no more at present: {kind}: {said}", key))
    if kind == "unaccepted_terms":
        return ProviderUnavailableError(provider, scrubbed(f"accept its terms first: {kind}: {said}", key))
    # The voices' word for the same.
    code = "unauthorized" if kind == "auth_error" else kind
    return failure(provider, 0, code, said, key_from=key_from, key=key)
