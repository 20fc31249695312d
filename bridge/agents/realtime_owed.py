"""The reply that a model which speaks by itself owes: since when, for how long, and to what. No I/O, no clock."""

from bridge.agents.agent_turn import Timing


class OwedReply:
    """One call's; at most one at a time. Times in seconds, monotonic."""

    def __init__(self, first_ms: int) -> None:
        """The model may take `first_ms` to begin."""
        self._first_s = first_ms / 1000
        self.since: float | None = None
        """The model is to begin a reply, since then."""
        self.timing = Timing()
        """Of what it replies to."""
        self.ask_at: float | None = None
        """When the model, which tells nothing about the caller's voice, is asked to answer."""
        self.unwanted = False
        """The reply to come answers a noise."""

    def expect(self, now: float, timing: Timing | None = None) -> None:
        """The model is to begin a reply."""
        self.since, self.timing = now, timing or Timing()
        self.ask_at = None

    def begun(self, now: float) -> tuple[float, Timing]:
        """It began one: since when it knew that it was to, and what it replies to."""
        since, timing = now if self.since is None else self.since, self.timing
        self.since, self.timing, self.ask_at = None, Timing(), None
        return since, timing

    def forget(self) -> None:
        """It need not begin one."""
        self.since = None

    def refuse(self) -> None:
        """What it was to answer was noise: no answer to it is to be heard."""
        if self.since is not None:
            self.since, self.unwanted = None, True

    def until(self) -> float | None:
        """When it has taken too long."""
        return None if self.since is None else self.since + self._first_s
