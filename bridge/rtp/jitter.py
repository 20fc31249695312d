"""The jitter buffer: packets go in as they come, one 20 ms frame comes out each tick.

The playout position is a place in the sender's own timeline. How long after the fastest packet's arrival a frame is
played is the *delay*; it follows what the late packets of the last seconds needed. A delay out of bounds, for
whatever reason (jitter that went, a sender's clock that drifts), is corrected by removing or doubling quiet frames,
or a pitch period of speech.
"""

from bridge.audio.codec import Decode
from bridge.audio.frames import FRAME_MS, frame_bytes
from bridge.rtp.filling import Filler
from bridge.rtp.pace import Change, Pace
from bridge.rtp.sequence import Sequences
from bridge.rtp.timeline import MISFIT, Timeline

MIN_DELAY_MS = 10
"""Where no jitter was seen: half a frame for the first there is. What it costs when more comes is 20 ms or two of
invented sound, until the delay has followed."""

MAX_DELAY_MS = 200

BURST_MS = 100
"""Audio ahead of the longest delay that is kept, e.g. the burst after a stall; more is skipped, to bound latency."""

BEHIND_LIMIT = 3
"""So many packets in a row that are newer than what was played, yet stamped before it: the sender stepped back."""

IDLE, FILLING, PLAYING = range(3)

Packet = tuple[bytes, Decode, int]
"""Payload, its decoder, sequence number (unwrapped)."""


class JitterBuffer:
    """One stream's buffer. Sans-IO: arrival times and ticks (s, monotonic) are passed in."""

    __slots__ = (
        "_behind",
        "_candidate",
        "_concealer",
        "_cursor",
        "_delay",
        "_filler",
        "_frame",
        "_frame_bytes",
        "_max_wait",
        "_pace",
        "_packet",
        "_packets",
        "_played",
        "_rest",
        "_sample_rate",
        "_sequences",
        "_span",
        "_state",
        "_suspect_ms",
        "_unit_bytes",
        "_waited",
        "concealed_ms",
        "late",
        "recovered_ms",
        "restarts",
        "timeline",
    )

    def __init__(
        self,
        clock_rate: int,
        sample_rate: int,
        *,
        min_delay_ms: int = MIN_DELAY_MS,
        max_delay_ms: int = MAX_DELAY_MS,
        sequences: Sequences | None = None,
    ) -> None:
        """`clock_rate` is that of the RTP timestamp (Hz), `sample_rate` that of the PCM: one is a multiple of the
        other, else ValueError. `sequences` counts on what another buffer has counted."""
        if sample_rate % clock_rate and clock_rate % sample_rate:
            raise ValueError(f"neither of {sample_rate} Hz and the RTP clock's {clock_rate} Hz is a multiple")
        self.late = 0
        """Packets that came after their time of play, or were skipped to bound the latency."""
        self.concealed_ms = 0.0
        """Lost audio that was played as invented sound or as silence."""
        self.recovered_ms = 0.0
        """Lost audio that was played from the redundancy in the packet after it."""
        self.restarts = 0
        """Times the stream began anew: another SSRC, or a jump of its sequence numbers or timestamps."""
        self.timeline = Timeline(clock_rate, min_delay_ms, max_delay_ms, max(1, clock_rate // sample_rate), sequences)
        self._sequences = self.timeline.sequences
        # From here on times are in units: ticks of the RTP clock, or samples where those are fewer.
        clock_rate = self.timeline.clock_rate
        self._sample_rate = sample_rate
        self._frame = clock_rate * FRAME_MS // 1000
        self._frame_bytes = frame_bytes(sample_rate)
        self._unit_bytes = self._frame_bytes // self._frame
        self._max_wait = clock_rate * max_delay_ms // 1000
        self._span = self._max_wait + clock_rate * BURST_MS // 1000
        self._state = IDLE
        self._packets: dict[int, Packet] = {}
        """By unwrapped timestamp."""
        self._cursor = 0
        """Timestamp of the next sample to play."""
        self._rest = b""
        """Decoded audio at the cursor."""
        self._played = -1
        """Sequence number (unwrapped) of the last packet played."""
        self._packet = self._frame
        """Units that it held."""
        self._delay = 0.0
        self._waited = 0
        """Units invented for audio that has not come while nothing newer has either; the cursor stood still."""
        self._suspect_ms = 0.0
        """Invented while waiting: lost audio, or only a pause of the sender's; the next packet tells."""
        self._behind = 0
        self._candidate: tuple[int, int, int, bytes, Decode, float] | None = None
        """First packet of what may be a new stream; the second one proves it."""
        self._filler = Filler(sample_rate)
        self._concealer = self._filler.concealer
        self._pace = Pace(sample_rate, self._unit_bytes)

    @property
    def delay_ms(self) -> float:
        """Present delay of playout after the fastest packet's arrival; 0 while nothing plays. What is invented while
        nothing comes is no part of it: a stream that has ended would else seem to wait longer and longer."""
        if self._state != PLAYING:
            return 0.0
        return max(0.0, self._delay - self._waited) * 1000 / self.timeline.clock_rate

    @property
    def target_ms(self) -> float:
        """The delay aimed for."""
        return self.timeline.target * 1000 / self.timeline.clock_rate

    @property
    def spare_ms(self) -> float | None:
        """By how much the last frame was played later than aimed for; None while nothing plays."""
        if self._state != PLAYING:
            return None
        timeline = self.timeline
        aim = max(timeline.target, self._pace.there(timeline, self._packet))
        return (self._delay - self._waited - aim) * 1000 / timeline.clock_rate

    def reset(self) -> None:
        """Forget the stream, its counters excepted: the next packet starts a new one."""
        self._flush()
        self.timeline.forget()

    def restamp(self, later: int) -> None:
        """All that came so far was sent by so many units later than its timestamps say (negative: earlier), and so is
        what will come, in which the caller sees to that. Nothing is left out or invented; but a gap before what has
        not been played is closed by what is earlier."""
        self.timeline.restamp(later)
        ahead = min(self._packets, default=0) - self._cursor - len(self._rest) // self._unit_bytes
        if not 0 < -later <= ahead:
            self._cursor += later
            self._delay -= later
        self._packets = {stamp + later: packet for stamp, packet in self._packets.items()}

    # -- packets in -----------------------------------------------------------------------------------------

    def push(self, sequence: int, timestamp: int, ssrc: int, payload: bytes, decode: Decode, arrival: float) -> None:
        """One audio packet, arrived at `arrival`. Duplicates and late ones are dropped; nothing raises."""
        timeline = self.timeline
        stamp = timeline.accept(sequence, timestamp, ssrc, arrival)
        if stamp < 0:
            if stamp == MISFIT:
                self._misfit(sequence, timestamp, ssrc, payload, decode, arrival)
            return
        self._candidate = None
        if self._state == PLAYING:
            if stamp < self._cursor:
                self._came_late(sequence, timestamp, ssrc, payload, decode, arrival)
                return
            self._behind = 0
            if stamp - self._cursor - self._waited > self._span:
                self._skip(stamp)
        elif not self._place_first(stamp, sequence, arrival):
            return
        known = self._packets.get(stamp)
        if known is None or not known[0] or known[1] == self._filler.noise.hear:
            self._packets[stamp] = (payload, decode, self._sequences.counted)

    def push_pause(self, sequence: int, timestamp: int, ssrc: int) -> None:
        """An event in the place of audio: silence until the next packet that has any."""
        self._push_silence(sequence, timestamp, ssrc, b"", bytes)

    def push_noise(self, sequence: int, timestamp: int, ssrc: int, payload: bytes) -> None:
        """Comfort noise (RFC 3389): noise of this level until the next packet with audio."""
        self._push_silence(sequence, timestamp, ssrc, payload, self._filler.noise.hear)

    def _push_silence(self, sequence: int, timestamp: int, ssrc: int, payload: bytes, decode: Decode) -> None:
        stamp = self.timeline.accept_untimed(sequence, timestamp, ssrc)
        if stamp < 0:
            return
        if self._state == IDLE:
            decode(payload)
            self._filler.quiet = True
        elif 0 <= stamp - self._cursor <= self._span:
            self._packets.setdefault(stamp, (payload, decode, self._sequences.extend(sequence)))

    def push_untimed(self, sequence: int, ssrc: int) -> None:
        """As `push_pause`, for a packet whose timestamp is by another clock: it follows the newest one."""
        timeline = self.timeline
        if timeline.note(sequence, ssrc) and self._state != IDLE:
            self._packets.setdefault(
                timeline.newest_stamp + self._packet, (b"", bytes, self._sequences.extend(sequence))
            )

    def _place_first(self, stamp: int, sequence: int, arrival: float) -> bool:
        """Prepare to start (again) at this packet; False if it is older than what was played."""
        if self._state == FILLING:
            if stamp < self._cursor:
                if self._sequences.extend(sequence) <= self._played:
                    self.late += 1
                    return False
                self._cursor = stamp
            elif stamp - self._cursor > self._span:
                self._skip(stamp)
            return True
        if stamp < self._cursor and self._sequences.extend(sequence) <= self._played:
            self.late += 1
            return False
        self._settle_suspects(lost=self._sequences.extend(sequence) != self._played + 1)
        if arrival * self.timeline.clock_rate - stamp - self.timeline.base > self._span:
            # The path has become longer than any delay that would make up for it.
            self.timeline.rebase(stamp, arrival)
        self._cursor = stamp
        self._state = FILLING
        return True

    def _came_late(
        self, sequence: int, timestamp: int, ssrc: int, payload: bytes, decode: Decode, arrival: float
    ) -> None:
        self.late += 1
        if self._sequences.extend(sequence) > self._played:
            self._behind += 1
            if self._behind >= BEHIND_LIMIT and not self._packets:
                self._start(sequence, timestamp, ssrc, payload, decode, arrival)

    def _misfit(
        self, sequence: int, timestamp: int, ssrc: int, payload: bytes, decode: Decode, arrival: float
    ) -> None:
        """A packet of another timeline: believed at once where nothing plays, else when a second one follows it."""
        if self._state == IDLE:
            self._start(sequence, timestamp, ssrc, payload, decode, arrival)
            return
        first = self._candidate
        if first and first[2] == ssrc and (first[0] + 1) & 0xFFFF == sequence:
            self._candidate = None
            self._start(*first)
            self.push(sequence, timestamp, ssrc, payload, decode, arrival)
        else:
            self._candidate = (sequence, timestamp, ssrc, payload, decode, arrival)

    def _start(
        self, sequence: int, timestamp: int, ssrc: int, payload: bytes, decode: Decode, arrival: float
    ) -> None:
        self.restarts += self.timeline.started
        self._flush()
        stamp = self.timeline.start(sequence, timestamp, ssrc, arrival)
        self._cursor = stamp
        self._played = -1
        self._state = FILLING
        self._packets[stamp] = (payload, decode, self._sequences.extend(sequence))

    def _flush(self) -> None:
        if self._state == PLAYING:
            self._filler.begin()
        self._settle_suspects(lost=False)
        self._packets.clear()
        self._rest = b""
        self._state = IDLE
        self._waited = self._behind = 0
        self._filler.quiet = False

    def _skip(self, stamp: int) -> None:
        """Give up the oldest audio: what will be at `stamp` is then played after the delay aimed for."""
        self._cursor = stamp - int(self.timeline.target)
        for old in [old for old in self._packets if old < self._cursor]:
            del self._packets[old]
            self.late += 1
        self._rest = b""
        self._waited = 0
        self._settle_suspects(lost=True)
        if self._state == PLAYING:
            self._filler.begin()

    # -- frames out -----------------------------------------------------------------------------------------

    def take(self, now: float) -> bytes:
        """The next 20 ms of PCM. Called once a tick, with the tick's own time."""
        timeline = self.timeline
        delay = now * timeline.clock_rate - timeline.base - self._cursor
        if self._state == PLAYING:
            self._delay = delay
            if not self._rest and timeline.low <= delay <= timeline.high and not self._concealer.active:
                packet = self._packets.pop(self._cursor, None)
                if packet is not None:
                    payload, decode, self._played = packet
                    frame = decode(payload)
                    if len(frame) == self._frame_bytes:
                        self._cursor += self._frame
                        filler = self._filler
                        filler.before = filler.last
                        filler.last = frame
                        return frame
                    self._hold(frame)
                    frame = self._assemble(delay)
                else:
                    frame = self._assemble(delay)
            else:
                frame = self._assemble(delay)
        elif self._state == FILLING and delay >= timeline.target:
            self._state = PLAYING
            self._delay = delay
            frame = self._assemble(delay)
        else:
            frame = self._filler.idle()
        self._filler.played(frame)
        return frame

    def _assemble(self, delay: float) -> bytes:
        """A frame from whatever there is: packets of any length, gaps, nothing."""
        if delay > self._span + self._frame and self._packets:
            # The fastest path has become faster, or this stream began with a packet that was late.
            self._skip(self._cursor + int(delay))
            self._delay = self.timeline.target
        else:
            self._keep_delay(delay)
        need = self._frame_bytes
        parts = self._filler.parts = []
        while need:
            if self._rest or self._next():
                part = self._rest[:need]
                self._rest = self._rest[need:]
                self._cursor += len(part) // self._unit_bytes
            elif self._packets:
                part = self._bridge_gap(need)
            else:
                part = self._wait(need)
            parts.append(part)
            need -= len(part)
        return b"".join(parts)

    def _next(self) -> bool:
        """Decode the packet at the cursor, if it is there."""
        packet = self._packets.pop(self._cursor, None)
        if packet is None:
            return False
        payload, decode, self._played = packet
        self._hold(decode(payload))
        return bool(self._rest)

    def _hold(self, pcm: bytes) -> None:
        """Put what a packet held at the cursor, where nothing is left of the one before."""
        pcm = pcm[: len(pcm) - len(pcm) % self._unit_bytes]
        self._filler.quiet = not pcm
        if pcm:
            self._packet = len(pcm) // self._unit_bytes
        if pcm and self._waited:
            # It came late and is played late: from now on the delay is longer by the wait.
            self._waited = 0
            self._settle_suspects(lost=True)
        self._rest = self._filler.join(pcm) if pcm else pcm

    def _bridge_gap(self, need: int) -> bytes:
        """Fill the way to the next packet, or part of it."""
        first = min(self._packets)
        if first < self._cursor:
            # It overlaps what was played: a sender that repeats itself, or whose payloads are longer than its steps.
            del self._packets[first]
            self.late += 1
            return b""
        gap = first - self._cursor
        lost = self._packets[first][2] != self._played + 1 and not self._filler.quiet
        if self._waited:
            # What was invented while waiting stands for what is missing now.
            credit = min(gap, self._waited)
            self._cursor += credit
            self._delay -= credit
            self._waited = 0
            self._settle_suspects(lost=lost)
            return b""
        too_long = int(self._delay - self.timeline.target) // self._frame * self._frame
        if self._delay > self.timeline.high and too_long <= gap:
            # What is missing anyway is the best place to save time.
            skipped = too_long
            self._cursor += skipped
            self._delay -= skipped
            self.concealed_ms += skipped * 1000 / self.timeline.clock_rate if lost else 0
            return b""
        if lost and self._recover(first, gap):
            return b""
        units = min(gap, need // self._unit_bytes)
        self._cursor += units
        if lost:
            self.concealed_ms += units * 1000 / self.timeline.clock_rate
        return self._filler.more(units * self._unit_bytes)

    def _recover(self, first: int, gap: int) -> bool:
        """Put the packet that is missing before the one at `first` into its place, if that one brings it along."""
        payload, decode, sequence = self._packets[first]
        recover = getattr(decode, "recover", None)
        if recover is None:
            return False
        pcm: bytes = recover(payload, gap * self._unit_bytes // 2)
        units = len(pcm) // self._unit_bytes
        if not 0 < units <= gap:
            return False
        self._packets[first - units] = (pcm, bytes, sequence - 1)
        self.recovered_ms += units * 1000 / self.timeline.clock_rate
        return True

    def _wait(self, need: int) -> bytes:
        """Nothing has come: invent, and stand still in the sender's timeline."""
        units = need // self._unit_bytes
        if self._delay >= self._span:
            # Waiting on would make the delay longer than it may be: let it be lost.
            self._cursor += units
        else:
            self._delay += units
        self._waited += units
        if not self._filler.quiet:
            self._suspect_ms += units * 1000 / self.timeline.clock_rate
        if self._waited > self._max_wait:
            self._state = IDLE
            self._waited = 0
        return self._filler.more(units * self._unit_bytes)

    def _settle_suspects(self, *, lost: bool) -> None:
        if lost:
            self.concealed_ms += self._suspect_ms
        self._suspect_ms = 0.0

    # -- speed ----------------------------------------------------------------------------------------------

    def _keep_delay(self, delay: float) -> None:
        """Bring a delay that is out of bounds nearer to its target, if that can be done unheard."""
        pace, size = self._pace, self._frame_bytes
        left = len(self._rest) // self._unit_bytes
        lag = 0
        match pace.judge(delay, self.timeline, left, self._packet):
            case Change.SLOWER if self._look_ahead(size // 4):
                self._rest, lag = pace.slower(self._filler.past(), self._rest, left % self._frame)
                lag = -lag
            case Change.FASTER if self._look_ahead(2 * size):
                self._rest, lag = pace.faster(self._rest, left % self._frame)
        self._cursor += 2 * lag // self._unit_bytes

    def _look_ahead(self, size: int) -> bool:
        """Decode on until `size` bytes lie at the cursor; False if that much has not come in one piece."""
        if self._concealer.active:
            return False
        while len(self._rest) < size:
            packet = self._packets.pop(self._cursor + len(self._rest) // self._unit_bytes, None)
            if packet is None:
                return False
            payload, decode, self._played = packet
            pcm = decode(payload)
            if not pcm:
                self._filler.quiet = True
                return False
            self._filler.quiet = False
            self._rest += pcm[: len(pcm) - len(pcm) % self._unit_bytes]
        return True
