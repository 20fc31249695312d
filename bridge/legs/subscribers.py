"""Whom a leg tells its events: everybody who subscribed, in that order, and the end to those who come after it."""

from collections.abc import Callable, Iterable

from bridge.audio.frames import Unsubscribe
from bridge.events import LegEnded, LegEvent

Handler = Callable[[LegEvent], None]


class Subscribers:
    """Of one leg."""

    __slots__ = ("_handlers", "ended")

    def __init__(self) -> None:
        self.ended: LegEnded | None = None
        """Set from the end on."""
        self._handlers: list[Handler] = []

    def subscribe(self, handler: Handler, missed: Iterable[LegEvent] = ()) -> Unsubscribe:
        """Tell `handler` everything from now on; before that what it has `missed`, or that the leg has ended."""
        if self.ended is not None:
            handler(self.ended)
            return _nothing
        # A new list: the present one may be gone through.
        self._handlers = [*self._handlers, handler]
        for event in missed:
            handler(event)

        def unsubscribe() -> None:
            self._handlers = [h for h in self._handlers if h is not handler]

        return unsubscribe

    def tell(self, event: LegEvent) -> None:
        for handler in self._handlers:
            handler(event)

    def end(self, ended: LegEnded) -> None:
        """Tell the end; nobody is told anything after it."""
        self.ended = ended
        handlers, self._handlers = self._handlers, []
        for handler in handlers:
            handler(ended)

    def clear(self) -> None:
        """Nobody is told anything any more, not even the end."""
        self._handlers = []


def _nothing() -> None:
    """Ends a subscription that never began."""
