"""The audio of an Asterisk leg as others see it: who listens before there is any, and who is shown its packets."""

from collections.abc import Callable
from dataclasses import dataclass

from bridge.audio.frames import FrameSink, Unsubscribe
from bridge.audio.playout import Playout
from bridge.legs.asterisk.media import LegMedia
from bridge.legs.base import LegStateError, MediaQuality, PacketTap
from bridge.legs.media import MediaStream
from bridge.sip.flow import Address


class LegAudio:
    """Before `attach` there is none."""

    def __init__(self, sample_rate: int, local_address: Callable[[], str]) -> None:
        """`sample_rate`: Hz of the media that is to come. `local_address`: ours, towards Asterisk."""
        self.media: LegMedia | None = None
        self._sample_rate = sample_rate
        self._local_address = local_address
        self._waiting: list[_Sink] = []
        self._taps: list[PacketTap] = []

    @property
    def sample_rate(self) -> int:
        return self._sample_rate if self.media is None else self.media.sample_rate

    @property
    def playout(self) -> Playout:
        """Raises LegStateError before there is audio."""
        if self.media is None:
            raise LegStateError("there is no audio before the answer")
        return self.media.playout

    @property
    def quality(self) -> MediaQuality:
        return MediaQuality() if self.media is None else self.media.quality

    def attach(self, media: LegMedia) -> None:
        self.media = media
        for waiting in self._waiting:
            waiting.unsubscribe = media.listen(waiting.sink)
        self._waiting.clear()
        if self._taps:
            self._tap()

    def listen(self, sink: FrameSink) -> Unsubscribe:
        if self.media is not None:
            return self.media.listen(sink)
        waiting = _Sink(sink)
        self._waiting.append(waiting)

        def unsubscribe() -> None:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
            waiting.unsubscribe()

        return unsubscribe

    def tap_packets(self, tap: PacketTap) -> Unsubscribe:
        """See `PacketSource`: what comes and goes by RTP; media over a stream has no packets."""
        self._taps = [*self._taps, tap]
        self._tap()

        def untap() -> None:
            self._taps = [t for t in self._taps if t is not tap]
            self._tap()

        return untap

    def _tap(self) -> None:
        if isinstance(self.media, MediaStream):
            self.media.tap(self._show if self._taps else None)

    def _show(self, received: bool, packet: bytes, far: Address, at: float) -> None:
        assert isinstance(self.media, MediaStream)
        local = (self._local_address(), self.media.port)
        for tap in self._taps:
            tap(received, local, far, packet)


@dataclass(slots=True, eq=False)
class _Sink:
    """A listener that was there before the audio."""

    sink: FrameSink
    unsubscribe: Unsubscribe = lambda: None
