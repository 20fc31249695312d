"""What a model of the voice's sound says of a conversation's pauses: one call's part of `SmartTurn`."""

from collections.abc import Callable
from dataclasses import dataclass

from bridge.agents.record import Record
from bridge.agents.smart_turn import SmartTurn, TurnSound
from bridge.audio.frames import Unsubscribe
from bridge.legs.base import Leg


@dataclass(frozen=True, slots=True)
class SemanticVerdict:
    """The semantic model's, on the pause of this number."""

    pause: int
    probability: float


class SemanticSign:
    """One call's; does nothing where there is no model."""

    def __init__(
        self, model: SmartTurn | None, leg: Leg, record: Record, told: Callable[[SemanticVerdict], None]
    ) -> None:
        self._model = model
        self._leg = leg
        self._record = record
        self._told = told
        self._sound = TurnSound(leg.sample_rate) if model is not None else None
        self._missed = False

    def listen(self) -> list[Unsubscribe]:
        """Hear the caller from now on."""
        return [] if self._sound is None else [self._leg.listen(self._sound.push)]

    def speech_started(self) -> None:
        if self._sound is not None:
            self._sound.speech_started()

    def commit(self, *, speaking: bool) -> None:
        """The caller's turn is over. `speaking`: its voice goes on, into the next one."""
        if self._sound is not None:
            self._sound.commit(speaking=speaking)

    def ask(self, pause: int) -> None:
        """Have the model judge what was said up to this pause."""
        if self._model is None or self._sound is None:
            return
        if self._model.problem:
            if not self._missed:
                self._missed = True
                self._record.note("semantic-model", self._model.problem)
            return
        self._model.ask(
            self._sound.pcm(),
            self._sound.sample_rate,
            lambda probability: self._told(SemanticVerdict(pause, probability)),
        )
