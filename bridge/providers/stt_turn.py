"""What streaming recognisers have in common, without I/O: a turn's text from its segments, and pauses answered.

A vendor's `Dialect` turns its messages into `Sign`s; `SttTurn` turns those, and what our own voice activity says,
into the events of the contract. Times are seconds of any monotonic clock, passed in.
"""

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeGuard

from bridge.providers.base import Heard, SttEndpoint, SttEvent, SttFailed

STALE_KEYS = 64
"""Segments of turns that are over, remembered so that late words for them are known as such."""

LONGEST_S = 1e6
"""Longer than any call."""

MOST_SEGMENTS = 1000
LONGEST_TEXT = 50_000
"""Characters of a segment. Who speaks for an hour says as much; a recogniser that has gone wrong says more."""

Item = bytes | str
"""Something to send: a chunk of audio as it goes on the wire, or the name of a vendor's own command."""


@dataclass(frozen=True, slots=True)
class Said:
    """The text of one segment, in place of what was said of it before. Segments stand in the order in which they were
    first said something of; a turn's text is theirs, joined."""

    key: Hashable
    """Which segment: a vendor's turn, item or result. A key seen before a `commit` is of the old turn for ever."""
    text: str
    language: str = ""
    """BCP 47, where it is detected."""


@dataclass(frozen=True, slots=True)
class Settled:
    """All audio up to a pause has been said what there is to say of."""

    pause: int
    """As `Dialect.paused` was told."""


Sign = Said | Settled | SttEndpoint | SttFailed

Act = Item | Sign
"""What a dialect answers with: items are sent in order, after the audio up to now; signs hold at once."""


class Dialect(Protocol):
    """A vendor's protocol on one stream, without I/O. `at_s` is a position: seconds of audio pushed so far."""

    def started(self, at_s: float) -> Sequence[Act]:
        """Voice began."""
        ...

    def paused(self, pause: int, at_s: float) -> Sequence[Act]:
        """Voice stopped for the `pause`-th time: ask for what has been said to be made final."""
        ...

    def committed(self, at_s: float, speaking: bool) -> Sequence[Act]:
        """The turn is over; `speaking`: with its voice still going on."""
        ...

    def idle(self) -> Sequence[Act]:
        """Nothing was sent for a while: what keeps the connection open."""
        ...

    def overdue(self, pause: int) -> Sequence[Act]:
        """Half of the time for an answer to `paused` is over: what may still bring it; most have nothing."""
        ...

    def take(self, message: Any) -> Iterable[Sign]:
        """A message of the vendor. Never raises for one that makes no sense: that is no sign."""
        ...


def is_position(value: object) -> TypeGuard[float]:
    """Whether it can be a position in a call's audio (s), or a length of it: infinity would be after all to come."""
    return isinstance(value, int | float) and 0 <= value <= LONGEST_S


class SttTurn:
    """The caller's present turn. Everything is told to `emit` at once."""

    def __init__(self, emit: Callable[[SttEvent], None], *, settle_s: float) -> None:
        """`settle_s`: longest wait for the answer to a pause. A recogniser that has said nothing at all by then is
        dead; what a living one has said must do."""
        self._emit = emit
        self._settle_s = settle_s
        self._segments: dict[Hashable, Said] = {}
        self._stale: deque[Hashable] = deque(maxlen=STALE_KEYS)
        self._told: Heard | None = None
        self._asked_at: float | None = None
        self._backlog_s = 0.0
        self._last_message_at: float | None = None
        self._settled = False
        """The last pause has been answered, and voice has not begun since."""
        self.pauses = 0
        self.speaking = False
        self.failed = False

    @property
    def text(self) -> str:
        """Of the turn so far."""
        return " ".join(said.text for said in self._segments.values() if said.text)

    @property
    def language(self) -> str:
        """The last one that was detected in the turn; empty: none."""
        return next((said.language for said in reversed(self._segments.values()) if said.language), "")

    @property
    def waiting(self) -> bool:
        """A pause is yet to be answered."""
        return self._asked_at is not None

    @property
    def deadline(self) -> float | None:
        """When `expire` is due; None: never, as things stand."""
        if self._asked_at is None or self.failed:
            return None
        return self._asked_at + self._settle_s + self._backlog_s

    def speech_started(self) -> None:
        self.speaking = True
        self._settled = False

    def speech_paused(self, now: float, backlog_s: float = 0.0) -> int:
        """Returns the pause's number. `backlog_s`: how long the audio before it has yet to wait to be sent."""
        self._backlog_s = backlog_s
        self.speaking = self._settled = False
        self.pauses += 1
        self._asked_at = now
        self._last_message_at = None
        return self.pauses

    def commit(self) -> None:
        """The turn is over. What comes late for its segments is dropped."""
        self._stale.extend(self._segments)
        self._segments.clear()
        self._told = self._asked_at = None
        self._settled = False

    def discard(self, key: Hashable) -> None:
        """Whatever comes for this segment is of a turn that is over."""
        self._stale.append(key)
        self._segments.pop(key, None)

    def heard_from(self, now: float) -> None:
        """The recogniser has sent something, whatever it is."""
        self._last_message_at = now

    def apply(self, sign: Sign, now: float) -> None:
        """One sign of the recogniser's."""
        if self.failed:
            return
        match sign:
            case Said():
                self._said(sign, now)
            case Settled():
                if sign.pause >= self.pauses and self._asked_at is not None:
                    self._settle(now)
            case SttFailed():
                self.failed = sign.fatal
                self._emit(sign)
            case SttEndpoint():
                self._emit(sign)

    def expire(self, now: float) -> bool:
        """The deadline has passed: settle for what there is, or fail. Returns whether it has failed."""
        if self.deadline is None or now < self.deadline:
            return False
        if self._last_message_at is not None:
            self._settle(now)
            return False
        self.failed = True
        self._emit(SttFailed(f"silent: no answer within {self._settle_s:g} s of a pause", fatal=True))
        return True

    def _said(self, said: Said, now: float) -> None:
        if said.key in self._stale or (not said.text and said.key not in self._segments):
            return
        self._segments[said.key] = said
        if len(self._segments) > MOST_SEGMENTS or len(said.text) > LONGEST_TEXT:
            self.failed = True
            self._emit(SttFailed("it tells more text than a turn can have", fatal=True))
            return
        if self._settled:
            self._tell(Heard(self.text, True, self.pauses, language=self.language))
        else:
            self._tell(Heard(self.text, False, 0, language=self.language))

    def _settle(self, now: float) -> None:
        assert self._asked_at is not None
        took_ms = (now - self._asked_at) * 1000
        self._asked_at = None
        self._settled = not self.speaking
        self._tell(Heard(self.text, True, self.pauses, took_ms, self.language))

    def _tell(self, heard: Heard) -> None:
        """Each text once: recognisers repeat themselves."""
        if self._told is not None and replace(self._told, took_ms=heard.took_ms) == heard:
            return
        self._told = heard
        self._emit(heard)
