"""The keys a caller presses for a model that hears by itself: gathered until a pause or "#". No I/O, no clock."""


class Keys:
    """Those pressed since they were last taken. Times in seconds, monotonic."""

    def __init__(self, pause_ms: int) -> None:
        """`pause_ms` without another key ends them."""
        self._pause_s = pause_ms / 1000
        self._digits = ""
        self.began_at = 0.0
        """When the first was pressed."""
        self.ended_at = 0.0
        """When the last was pressed."""

    def __bool__(self) -> bool:
        return bool(self._digits)

    def press(self, now: float, digit: str) -> bool:
        """One of 0-9 * # A-D was pressed. True: "#", which ends those before it, and is none of them."""
        if digit == "#":
            return bool(self._digits)
        if not self._digits:
            self.began_at = now
        self._digits += digit
        self.ended_at = now
        return False

    def deadline(self) -> float | None:
        """When a pause has ended them."""
        return self.ended_at + self._pause_s if self._digits else None

    def take(self) -> str:
        """All of them; those that follow are others."""
        digits, self._digits = self._digits, ""
        return digits
