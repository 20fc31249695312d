"""What an operator sees of a call from outside: its SIP messages from memory, and a capture of its packets."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from bridge.audio.frames import Unsubscribe
from bridge.capture import Capture
from bridge.legs.base import PacketSource, PacketTap
from bridge.sip.flow import Address
from bridge.sip.trace import SipTrace, TracedMessage


class CallPackets:
    """The packets of one call: those of all its legs, also of legs that join later."""

    def __init__(self) -> None:
        self.leg_ids: list[str] = []
        """What the other sides call its legs, present and past: the SIP Call-IDs."""
        self._sources: list[PacketSource] = []
        self._taps: dict[PacketTap, ExitStack] = {}
        self._on_over: list[Callable[[], None]] = []
        self._over = False

    def join(self, leg_id: str, leg: object) -> None:
        """A leg belongs to the call from now on."""
        self.leg_ids.append(leg_id)
        if isinstance(leg, PacketSource):
            self._sources.append(leg)
            for tap, taps in self._taps.items():
                taps.callback(leg.tap_packets(tap))

    def tap(self, tap: PacketTap, on_over: Callable[[], None]) -> Unsubscribe:
        """Show `tap` the packets of all legs until the result is called; `on_over` is called when the call ends, at
        once where it has ended."""
        taps = self._taps[tap] = ExitStack()
        for source in self._sources:
            taps.callback(source.tap_packets(tap))
        self._on_over.append(on_over)
        if self._over:
            on_over()

        def untap() -> None:
            self._taps.pop(tap, taps).close()
            if on_over in self._on_over:
                self._on_over.remove(on_over)

        return untap

    def over(self) -> None:
        """The call has ended."""
        self._over = True
        for told in self._on_over:
            told()


class Tracing:
    """The trace of one bridge, and the captures that are being taken."""

    def __init__(self, trace: SipTrace) -> None:
        self.trace = trace
        self.captures = 0
        """Captures that are being taken now."""

    def messages(self, leg_ids: Sequence[str]) -> list[TracedMessage]:
        """The SIP messages kept of these Call-IDs, oldest first; none when they are too long ago."""
        return self.trace.of_calls(leg_ids)

    @contextmanager
    def capture(self, call: CallPackets) -> Iterator[Capture]:
        """The packets of a live call: the SIP messages kept of it, then everything until it ends or the context is
        left."""
        capture = Capture()
        for message in self.messages(call.leg_ids):
            capture.sip(message)

        def on_message(message: TracedMessage) -> None:
            if message.call_id in call.leg_ids:
                capture.sip(message)

        def on_packet(received: bool, local: Address, remote: Address, packet: bytes) -> None:
            capture.rtp(time.time(), received, local, remote, packet)

        self.captures += 1
        with ExitStack() as stack:
            stack.callback(self._captured)
            stack.callback(self.trace.follow(on_message))
            stack.callback(call.tap(on_packet, capture.finish))
            yield capture

    def _captured(self) -> None:
        self.captures -= 1
