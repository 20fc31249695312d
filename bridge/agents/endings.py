"""How a call ends by the agent's will: last words, an apology or a tone, a person put through. No I/O, no clock."""

from dataclasses import dataclass

from bridge.agents.base import AgentDone
from bridge.agents.settings import LimitSettings, PhraseSettings


@dataclass(frozen=True, slots=True)
class HandedOver:
    """The agent tried to put the caller through, since it can't go on."""


class LastWords:
    """One call's. Times in seconds, monotonic."""

    def __init__(self, limits: LimitSettings) -> None:
        self._closing_s = limits.closing_s
        self._transfer_s = limits.transfer_ms / 1000
        self._tail_s = limits.goodbye_tail_ms / 1000
        self._by = 0.0
        self._at: float | None = None
        """They were played out: when to hang up."""
        self._hands_over = False
        """After them the caller is put through, where that works."""
        self.ends: AgentDone | None = None
        """The agent speaks its last words, before the call ends with this; the caller is not listened to any more."""
        self.tone: int | None = None
        """The playout's generation of the tone that stands for them."""

    @property
    def begun(self) -> bool:
        return self.ends is not None

    @property
    def over(self) -> bool:
        """They were played out, and nothing is to come but the end."""
        return self._at is not None

    def begin(self, now: float, ends: AgentDone) -> None:
        """They are to be spoken, whatever else is under way; the call ends in any case within `closing_s`."""
        self.ends, self._by = ends, now + self._closing_s

    def apologise(self, phrases: PhraseSettings, *, can_hand_over: bool) -> str:
        """What to say where an engine failed for good; afterwards the caller is put through if that is possible."""
        self._hands_over = can_hand_over
        return phrases.apology_handover if can_hand_over else phrases.apology

    def spoken(self, ends: AgentDone, at: float, far_buffer_ms: float) -> bool:
        """The words after which the call ends were sent by `at`, and the far side plays what it still has of them:
        hang up then. True: put the caller through instead (`HandedOver`)."""
        self.ends = ends
        return self.sounded(at + self._tail_s + far_buffer_ms / 1000)

    def sounded(self, at: float) -> bool:
        """They, or the tone, were heard by `at`; returns as `spoken` does."""
        if not self._hands_over:
            self._at = at
            return False
        self._hands_over = False
        self._by = at + self._transfer_s + self._closing_s
        return True

    def deadline(self) -> float:
        """When to hang up, once they have begun, as things are."""
        return self._by if self._at is None else self._at

    def tick(self, now: float) -> AgentDone | None:
        """What the call is to end with now."""
        return self.ends if now >= self.deadline() else None
