"""The steps of one reply by the clock, and what of them the caller waited for: the critical path."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class _Step:
    began_at: float
    ended_at: float | None = None
    """None: it goes on."""


@dataclass(frozen=True, slots=True)
class Waits:
    """What was waited for, one thing after another, in ms; None where the step did not happen."""

    llm_ms: float | None
    tools_ms: float | None
    clause_ms: float | None
    tts_ms: float | None
    playout_ms: float | None
    ahead_ms: float | None
    """How long before the decision the model was asked, if it was."""


@dataclass(slots=True)
class Steps:
    """When the steps of a reply began and ended (s)."""

    decided_at: float | None = None
    """When the caller's turn was over, or the agent wanted to speak: nothing before is waited for."""
    _llm: list[_Step] = field(default_factory=list)
    _tools: list[_Step] = field(default_factory=list)
    _text_at: float | None = None

    def asked(self, now: float) -> None:
        """The model was asked."""
        self._llm.append(_Step(now))

    def answered(self, now: float) -> None:
        """It gave its first sign, or failed. Calling it again changes nothing."""
        _end(self._llm, now)

    def text(self, now: float) -> None:
        """It gave text; only the first time counts."""
        if self._text_at is None:
            self._text_at = now

    def tool_began(self, now: float) -> None:
        self._tools.append(_Step(now))

    def tool_ended(self, now: float) -> None:
        _end(self._tools, now)

    def waits(self, voice_asked_at: float | None, voiced_at: float | None, started_at: float | None) -> Waits:
        """`voice_asked_at`: when the first clause went to the voice, `voiced_at`: when its first audio came,
        `started_at`: when that was sent.

        The path goes back from the first packet: it waited for the audio since `voiced_at`, for the voice since
        `voice_asked_at`, and before that for what the clause was made of. What lies before `decided_at` was not
        waited for. So words that bridge a wait (a filler) end the path where they are spoken: the model's first text
        comes after it."""
        from_at = self.decided_at
        if from_at is None or voice_asked_at is None or voiced_at is None or started_at is None:
            return Waits(None, None, None, None, None, None)

        def waited(steps: list[_Step], until: float) -> float | None:
            if not steps:
                return None
            return 1000 * sum(_overlap(step, from_at, until) for step in steps)

        clause = [] if self._text_at is None else [_Step(self._text_at)]
        ahead_s = from_at - self._llm[0].began_at if self._llm else 0.0
        return Waits(
            llm_ms=waited(self._llm, voice_asked_at),
            tools_ms=waited(self._tools, voice_asked_at),
            clause_ms=waited(clause, voice_asked_at),
            tts_ms=waited([_Step(voice_asked_at, voiced_at)], started_at),
            playout_ms=max(0.0, started_at - max(from_at, voiced_at)) * 1000,
            ahead_ms=ahead_s * 1000 if ahead_s > 0 else None,
        )


def _end(steps: list[_Step], now: float) -> None:
    if steps and steps[-1].ended_at is None:
        steps[-1].ended_at = now


def _overlap(step: _Step, from_at: float, until: float) -> float:
    """How long the step lasted within a time (s)."""
    ended_at = until if step.ended_at is None else min(step.ended_at, until)
    return max(0.0, ended_at - max(step.began_at, from_at))
