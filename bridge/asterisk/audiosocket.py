"""The AudioSocket protocol, without I/O: bytes of a connection in, what Asterisk said out, and when its time is up.

A message is kind (1 byte), length of the payload (2, big-endian), payload. Asterisk connects, says which call it is
(a UUID), and from then on audio goes both ways as int16 little-endian mono. It takes nothing but audio and the end
from us. Asterisk has the protocol from 18.0 on; digits come since 20.14, 21.9 and 22.4, other rates than 8 kHz since
20.17 and 22.7.

Until spring 2026 it read the 3 bytes of a header as if they always came at once: write each message whole.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal
from uuid import UUID

from bridge.audio.frames import BYTES_PER_SAMPLE

KIND_END = 0x00
KIND_UUID = 0x01
KIND_DIGIT = 0x03
KIND_ERROR = 0xFF

RATES_HZ = {
    0x10: 8000,
    0x11: 12000,
    0x12: 16000,
    0x13: 24000,
    0x14: 32000,
    0x15: 44100,
    0x16: 48000,
    0x17: 96000,
    0x18: 192000,
}
"""Kinds of audio, by the rate."""

KIND_OF_RATE = {rate_hz: kind for kind, rate_hz in RATES_HZ.items()}

HEADER_BYTES = 3
UUID_BYTES = 16

END = bytes(HEADER_BYTES)
"""The message that asks Asterisk to end."""

MAX_MESSAGE_MS = 400
"""Audio in one message: Asterisk's own frames are 300 ms at most."""
MAX_ERROR_BYTES = 64
MAX_AHEAD_MS = 10_000
"""Audio beyond real time: a network that stalled catches up; more is no telephone call."""
HELLO_S = 2.0
"""From the connection to the UUID, which Asterisk sends without being asked."""

SUSPICIOUS_BYTES = 160
SUSPICIOUS_MESSAGES = 100
"""So many messages of that size, one each 20 ms, are G.711 under the name of slin: what the driver sends of a channel
that was dialled as `AudioSocket/HOST:PORT/UUID` without `/c(slin)`."""

DIGITS = "0123456789*#ABCD"

_ERRORS = {1: "the calling party hung up", 2: "audio could not be passed on", 4: "out of memory"}


class Violation(StrEnum):
    """Why a connection is closed by us: it does not speak the protocol. Words for counters."""

    LATE = "no-uuid-in-time"
    UNIDENTIFIED = "no-uuid-first"
    SECOND_UUID = "second-uuid"
    LENGTH = "bad-length"
    OVERSIZE = "oversize"
    KIND = "unknown-kind"
    RATE = "wrong-rate"
    """Audio at another rate than the call's."""
    CODEC = "wrong-codec"
    """Bytes that are no int16."""
    DIGIT = "bad-digit"
    FLOOD = "too-much-audio"


@dataclass(frozen=True, slots=True)
class Identified:
    """The first message: which call this connection is for."""

    uuid: UUID


@dataclass(frozen=True, slots=True)
class AudioReceived:
    pcm: bytes
    """int16 little-endian mono, whole samples, of any length up to 400 ms."""
    rate_hz: int


@dataclass(frozen=True, slots=True)
class DigitPressed:
    digit: str
    """One of 0-9 * # A-D."""


@dataclass(frozen=True, slots=True)
class ConnectionOver:
    """The last event; whatever comes behind it is not read."""

    by: Literal["far", "us"]
    """`us`: the far side broke the protocol."""
    violation: Violation | None
    detail: str
    far_hung_up: bool = True
    """The call ended as calls do; else Asterisk reported an error."""


AudioSocketEvent = Identified | AudioReceived | DigitPressed | ConnectionOver


class AudioSocketProtocol:
    """One connection, from Asterisk's connecting on. What it holds of a message that is not whole yet is bounded."""

    def __init__(self, now: float, *, hello_s: float = HELLO_S) -> None:
        """`now`: when Asterisk connected (s, monotonic)."""
        self.uuid: UUID | None = None
        self.received: Counter[str] = Counter()
        """Messages by kind: `audio`, `digit`, ..."""
        self._hello_until = now + hello_s
        self._buffer = bytearray()
        self._over = False
        self._rate_hz: int | None = None
        self._identified_at = now
        self._audio_ms = 0.0
        self._suspicious = 0
        self._suspicious_since = 0.0

    @property
    def over(self) -> bool:
        return self._over

    def expect_rate(self, rate_hz: int) -> None:
        """Audio is to be of this rate from now on; any other ends the connection."""
        self._rate_hz = rate_hz

    def next_deadline(self) -> float | None:
        """When `handle_timer` is to be called, if nothing comes before."""
        return None if self._over or self.uuid is not None else self._hello_until

    def handle_timer(self, now: float) -> Sequence[AudioSocketEvent]:
        if (deadline := self.next_deadline()) is None or now < deadline:
            return ()
        return (self._break(Violation.LATE, "it connected, and never said which call it is for"),)

    def receive(self, data: bytes, now: float) -> Sequence[AudioSocketEvent]:
        """What the bytes say that came at `now`, split as they may be."""
        if self._over:
            return ()
        events: list[AudioSocketEvent] = []
        buffer = self._buffer
        buffer += data
        at = 0
        while not self._over and len(buffer) - at >= HEADER_BYTES:
            kind = buffer[at]
            length = buffer[at + 1] << 8 | buffer[at + 2]
            # Judged by its header: nothing is kept of a message that is refused.
            if problem := self._problem(kind, length):
                events.append(problem)
                break
            end = at + HEADER_BYTES + length
            if len(buffer) < end:
                break
            payload = bytes(buffer[at + HEADER_BYTES : end])
            at = end
            if event := self._take(kind, payload, now):
                events.append(event)
        if self._over:
            buffer.clear()
        else:
            del buffer[:at]
        return events

    def receive_eof(self) -> Sequence[AudioSocketEvent]:
        """The far side closed the connection: how a call ends."""
        if self._over:
            return ()
        self._over = True
        self._buffer.clear()
        return (ConnectionOver("far", None, "Asterisk closed the connection"),)

    # -- inside ---------------------------------------------------------------------------------------------

    def _problem(self, kind: int, length: int) -> ConnectionOver | None:
        """Why a message with this header is not read."""
        if kind in (KIND_END, KIND_ERROR):
            allowed = 0 if kind == KIND_END else MAX_ERROR_BYTES
            return None if length <= allowed else self._wrong_length(kind, length)
        if kind == KIND_UUID:
            if self.uuid is not None:
                return self._break(Violation.SECOND_UUID, "it said for a second time which call it is for")
            return None if length == UUID_BYTES else self._wrong_length(kind, length)
        if self.uuid is None:
            return self._break(
                Violation.UNIDENTIFIED, f"it began with a message of kind {kind:#04x}, not with a UUID"
            )
        if kind == KIND_DIGIT:
            return None if length == 1 else self._wrong_length(kind, length)
        rate_hz = RATES_HZ.get(kind)
        if rate_hz is None:
            return self._break(Violation.KIND, f"a message of kind {kind:#04x} has no meaning")
        if rate_hz != (self._rate_hz or rate_hz):
            return self._break(Violation.RATE, f"audio of {rate_hz} Hz came in a call of {self._rate_hz} Hz")
        if length % BYTES_PER_SAMPLE:
            return self._wrong_length(kind, length)
        if length * 1000 > MAX_MESSAGE_MS * BYTES_PER_SAMPLE * rate_hz:
            return self._break(Violation.OVERSIZE, f"a message has {length} bytes of audio at {rate_hz} Hz")
        return None

    def _take(self, kind: int, payload: bytes, now: float) -> AudioSocketEvent | None:
        if (rate_hz := RATES_HZ.get(kind)) is not None:
            return self._take_audio(payload, rate_hz, now)
        if kind == KIND_UUID:
            self.received["uuid"] += 1
            self.uuid = UUID(bytes=payload)
            self._identified_at = now
            return Identified(self.uuid)
        if kind == KIND_DIGIT:
            digit = chr(payload[0]).upper()
            if digit not in DIGITS:
                return self._break(Violation.DIGIT, f"{payload[0]:#04x} is no digit")
            self.received["digit"] += 1
            return DigitPressed(digit)
        self._over = True
        if kind == KIND_END:
            return ConnectionOver("far", None, "Asterisk ended the call")
        code = payload[0] if payload else 0
        what = [text for bit, text in _ERRORS.items() if code & bit] or ["no reason given"]
        return ConnectionOver("far", None, f"error {code}: {', '.join(what)}", far_hung_up=code == 1)

    def _take_audio(self, pcm: bytes, rate_hz: int, now: float) -> AudioSocketEvent | None:
        self.received["audio"] += 1
        if not pcm:
            return None
        self._audio_ms += len(pcm) * 1000 / (BYTES_PER_SAMPLE * rate_hz)
        if self._audio_ms - (now - self._identified_at) * 1000 > MAX_AHEAD_MS:
            return self._break(Violation.FLOOD, f"more than {MAX_AHEAD_MS / 1000:.0f} s of audio came ahead of time")
        if self._suspicious < SUSPICIOUS_MESSAGES and self._is_g711(len(pcm), now):
            return self._break(Violation.CODEC, "the audio is not slin: dial AudioSocket/HOST:PORT/UUID/c(slin)")
        return AudioReceived(pcm, rate_hz)

    def _is_g711(self, size: int, now: float) -> bool:
        """Of the first messages alone: whether they hold half of the audio that there should be."""
        if size != SUSPICIOUS_BYTES:
            self._suspicious = SUSPICIOUS_MESSAGES
            return False
        if not self._suspicious:
            self._suspicious_since = now
        self._suspicious += 1
        took_s = now - self._suspicious_since
        return self._suspicious == SUSPICIOUS_MESSAGES and 0.9 < took_s / (SUSPICIOUS_MESSAGES * 0.02) < 1.2

    def _wrong_length(self, kind: int, length: int) -> ConnectionOver:
        return self._break(Violation.LENGTH, f"a message of kind {kind:#04x} can't have {length} bytes")

    def _break(self, violation: Violation, detail: str) -> ConnectionOver:
        self._over = True
        return ConnectionOver("us", violation, detail, far_hung_up=False)


def audio_message(pcm: bytes, rate_hz: int) -> bytes:
    """`pcm` (int16 little-endian mono, at most 65,535 bytes) for the wire. Raises ValueError for a rate that the
    protocol has no kind for, or for half a sample."""
    kind = KIND_OF_RATE.get(rate_hz)
    if kind is None or len(pcm) % BYTES_PER_SAMPLE:
        raise ValueError(f"no AudioSocket message: {len(pcm)} bytes at {rate_hz} Hz")
    return audio_header(len(pcm), rate_hz) + pcm


def audio_header(length: int, rate_hz: int) -> bytes:
    """What stands before `length` bytes of audio."""
    return bytes((KIND_OF_RATE[rate_hz], length >> 8, length & 0xFF))


def sends_digits(version: str) -> bool:
    """Whether an Asterisk of this version (`22.10.1`, as VERSION() has it) sends digits. False for what is none."""
    return _is_at_least(version, {20: 14, 21: 9, 22: 4})


def _is_at_least(version: str, first: dict[int, int]) -> bool:
    """`first`: by major version, the minor one from which on. Later major versions do, earlier ones don't."""
    numbers = version.removeprefix("Asterisk ").removeprefix("certified/").split(".")
    if len(numbers) < 2 or not all(number.isdecimal() for number in numbers[:1]):
        return False
    digits = "".join(char for char in numbers[1][:4] if char.isdecimal())
    major, minor = int(numbers[0]), int(digits or "0")
    return major > max(first) or (major in first and minor >= first[major])
