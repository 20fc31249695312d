"""What carries the audio of an Asterisk call to us: contracts of a leg's media, and of what sets it up."""

from collections.abc import Callable
from typing import Protocol

from bridge.asterisk.ari import Ari
from bridge.asterisk.settings import MediaKind
from bridge.audio.frames import FrameSink, Unsubscribe
from bridge.audio.playout import Playout
from bridge.legs.base import MediaQuality
from bridge.legs.media import StreamEvent


class LegMedia(Protocol):
    """A leg's audio, both ways, on the media clock. `bridge.legs.media.MediaStream` and
    `bridge.legs.frame_stream.FrameStream` are."""

    on_event: Callable[[StreamEvent], None]
    """Told what happens to the audio, on the loop's thread. Its owner sets it as soon as it has the media."""

    @property
    def sample_rate(self) -> int:
        """Hz of the frames given to listeners and taken from the playout; never changes."""
        ...

    @property
    def playout(self) -> Playout: ...

    @property
    def quality(self) -> MediaQuality: ...

    def listen(self, sink: FrameSink) -> Unsubscribe:
        """Give `sink` each 20 ms frame (int16 little-endian mono), silent or concealed where none came."""
        ...

    def await_media(self) -> None:
        """The call was answered: from now on silence of the far side counts (`MediaLost`, `MediaExpired`)."""
        ...

    def hold(self, on: bool) -> None:
        """The far party holds us, or has come back: expect nothing meanwhile. Frames go on, silent."""
        ...

    def close(self) -> None:
        """Off the clock, sockets closed. Idempotent."""
        ...


class MediaTransport(Protocol):
    """One way to connect a leg's audio with an Asterisk; one serves all the calls of an `AsteriskSettings`."""

    @property
    def kind(self) -> MediaKind: ...

    @property
    def codec(self) -> str:
        """As Asterisk names it, e.g. `ulaw`, `slin16`."""
        ...

    @property
    def sample_rate(self) -> int:
        """Hz of the media that `open` makes: what a leg's playout and listeners have before it is open."""
        ...

    async def open(self, ari: Ari, channel_id: str) -> LegMedia:
        """Create the external media channel with this id in the application, wait for its StasisStart, connect; the
        media runs.

        Raises LegError (MediaUnavailableError where no port is free), or is cancelled: then nothing is left on our
        side, and nothing on Asterisk's that a DELETE of the channel would not end."""
        ...
