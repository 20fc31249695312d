"""What is played where nothing came: the caller's own sound going on, the noise that it told of, or silence."""

from bridge.audio.frames import frame_bytes
from bridge.rtp.comfort_noise import ComfortNoise
from bridge.rtp.conceal import Concealer


class Filler:
    """One stream's. It knows what was played last; sizes are in bytes of int16 mono."""

    __slots__ = ("_frame_bytes", "_silence", "before", "concealer", "last", "noise", "parts", "quiet")

    def __init__(self, sample_rate: int) -> None:
        self.quiet = False
        """The sender said (comfort noise, an event) that no audio follows."""
        self.noise = ComfortNoise(sample_rate)
        self.parts: list[bytes] = []
        """Of the frame that is being put together."""
        self._frame_bytes = frame_bytes(sample_rate)
        self._silence = bytes(self._frame_bytes)
        self.concealer = Concealer(sample_rate)
        """While it is active, real audio is to `join` what was invented."""
        self.last = self.before = self._silence
        """The last whole frame that went out, and the one before it."""

    def played(self, frame: bytes) -> None:
        """This whole frame goes out."""
        self.before = self.last
        self.last = frame
        if self.parts:
            self.parts = []

    def past(self) -> bytes:
        """The last two frames' length of what was played, up to where the frame under way has come."""
        past = b"".join((self.before, self.last, *self.parts))
        return past[-2 * self._frame_bytes :]

    def begin(self) -> None:
        """Go on from here in what was played last."""
        if not self.concealer.active:
            self.concealer.begin(self.past())

    def more(self, size: int) -> bytes:
        """Audio for a gap within the stream."""
        self.begin()
        if self.quiet:
            self.concealer.mute()
            if self.noise.known:
                return self.noise.more(size)
        return self.concealer.more(size // 2)

    def idle(self) -> bytes:
        """A frame while nothing plays."""
        if self.quiet and self.noise.known:
            return self.noise.more(self._frame_bytes)
        return self.concealer.more(self._frame_bytes // 2) if self.concealer.active else self._silence

    def join(self, pcm: bytes) -> bytes:
        """Real audio is back."""
        return self.concealer.join(pcm) if self.concealer.active else pcm
