"""The media of legs whose far side sends audio over a stream (a WebSocket, AudioSocket): PCM in, a frame a tick out.

A stream has no timestamps, so its audio is stamped as it comes and goes through the same jitter buffer as RTP: what
the caller's network did to it before it got on the stream is no less for that. On the stream itself nothing is lost
or overtaken, so the buffer need not be deep; and the stream's step is moved on the clock to where frames wait least.
"""

from collections.abc import Callable
from functools import partial

from bridge.audio.clock import MediaClock
from bridge.audio.frames import BYTES_PER_SAMPLE, FRAME_MS, FRAME_S, FrameSink, Unsubscribe, frame_bytes
from bridge.audio.phase import PhaseFinder
from bridge.audio.playout import Playout
from bridge.events import MediaLost, OneWay, OneWayAudio
from bridge.legs.base import LegStateError, MediaQuality
from bridge.legs.media import MediaCrashed, MediaExpired, StreamEvent
from bridge.legs.media_quality import DIGITAL_SILENCE_S
from bridge.legs.stream_holes import HoleFinder
from bridge.rtp.emodel import impairment_of, mos, rating
from bridge.rtp.format import RtpLimits
from bridge.rtp.jitter import JitterBuffer
from bridge.rtp.timeline import HIGH_FRAMES

PAUSE_S = 0.1
"""Without audio for longer, the far side made none, until what comes next shows that it was a stall."""

LOOK_TICKS = 25
"""Between two looks for digital silence, and for a better phase of the clock."""

MIN_DELAY_MS = 6
"""Least depth of the jitter buffer, for what is late for once: with 3 a busy machine had one frame in a thousand
bridged by invented sound. More is measured."""

SOON_TICKS = 5
"""The same while one is being found."""

CUT_FRAMES = 2.1
"""Above the delay aimed for, until audio is left out. One frame that came late has made it longer by a frame, which
the stream's step makes up for as it is moved."""

FOUND_S = 3.0
"""Within so long of a stream's start, or the answer, its steps are where they are to be."""

SHORT_S = 0.002
"""By so much less than aimed for a frame that came may wait before the step is moved."""
HAIR_S = 0.0005
"""By so much a frame may wait too short or too long at the far side: it is measured no better."""


class FrameStream:
    """One leg's media (`LegMedia`): a ticker of the media clock between a stream's transport and the leg.

    The transport gives it what came (`push`) and is called with what is to be sent, each tick. `on_event` is set by
    the leg, `on_close` by the transport, before `start`. The event loop's thread only."""

    def __init__(
        self, clock: MediaClock, *, sample_rate: int, codec: str, send: Callable[[bytes], None], limits: RtpLimits
    ) -> None:
        """`send` takes one frame (20 ms, int16 at `sample_rate`) on each tick, silence where there is nothing to say;
        it returns at once, whatever the far side does. `codec` is what the quality is told for."""
        self.on_event: Callable[[StreamEvent], None] = _ignore
        self.on_close: Callable[[], None] = _nothing
        """Called once by `close`: the transport gives its connection up."""
        self.poll: Callable[[float], None] | None = None
        """Called at the beginning of each tick with its time, for a transport that reads its socket then."""
        self.stalled = False
        """Set by the transport while the far side takes nothing: the playout waits meanwhile."""
        self.sending_at = 0.0
        """When the frame that `send` is given is due (s, monotonic)."""
        self.far_spare: Callable[[], float | None] | None = None
        """Set by a transport whose far side takes frames from a queue by a timer of its own: by how much (s) they
        wait there longer than they need to; None: not known now. What is sent has a step of its own then."""
        self.on_shift: Callable[[float], None] = _nothing_of_time
        """Told by how much (s) that step comes earlier than before (negative: later)."""
        self.sample_rate = sample_rate
        self.playout = Playout(sample_rate)
        self._clock = clock
        self._codec = codec
        self._send = send
        self._limits = limits
        self._frame_bytes = frame_bytes(sample_rate)
        self._frame_samples = self._frame_bytes // BYTES_PER_SAMPLE
        self._jitter = JitterBuffer(
            sample_rate,
            sample_rate,
            min_delay_ms=min(MIN_DELAY_MS, limits.min_delay_ms),
            max_delay_ms=limits.max_delay_ms,
        )
        self._jitter.timeline.high_frames = CUT_FRAMES
        self._take = self._jitter.take
        self._holes = HoleFinder(self._jitter)
        self._look_for_hole = self._holes.look
        self._sender = _Sender(self._send_frame)
        self._shifting_s = 0.0
        """By how much it is about to come earlier."""
        self._sinks: list[FrameSink] = []
        self._running = self._closed = self._held = self._answered = False
        self._sequence = 0
        self._stamp = 0
        self._odd = b""
        """Half a sample at the end of what came."""
        self._received = self._sent = 0
        self._ever_heard = False
        self._came_at = float("-inf")
        """When audio came last."""
        self._heard_at = 0.0
        """The same, or since when it is expected."""
        self._wait = float("inf")
        """Silence (s) at which the next thing is to be told; infinite while none is expected."""
        self._noticed = False
        self._phase = PhaseFinder(partial(clock.shift, self), clock.time())
        self._looks_in = LOOK_TICKS
        self._found_by = 0.0
        self._zero_since = 0.0
        self._told_silence = False
        self._one_way = ""

    # -- the leg's side -------------------------------------------------------------------------------------

    def listen(self, sink: FrameSink) -> Unsubscribe:
        """Give `sink` each tick's frame, concealed or silent where nothing came."""
        # Another list each time: a tick may be going through the present one.
        self._sinks = [*self._sinks, sink]

        def unsubscribe() -> None:
            self._sinks = [s for s in self._sinks if s is not sink]

        return unsubscribe

    def start(self) -> None:
        """Send and receive from the next tick on. Raises LegStateError if it runs already, or is over."""
        if self._running or self._closed:
            raise LegStateError("the media is running already, or over")
        self._running = True
        self._clock.add(self, self.crashed)
        now = self._clock.time()
        self._phase = PhaseFinder(partial(self._clock.shift, self), now)
        self._found_by = now + FOUND_S
        if self.far_spare is not None:
            self._clock.add(self._sender, self.crashed)

    def await_media(self) -> None:
        """The call was answered: from now on audio is expected. What came before was early."""
        now = self._clock.time()
        self._answered = True
        self._ever_heard = False
        self._found_by = now + FOUND_S
        self._expect(now)

    def hold(self, on: bool) -> None:
        """While the far party holds us nothing is sent, what is queued stays, and no audio is expected. What comes
        all the same (its music) is heard."""
        if on != self._held:
            self._held = on
            self._expect(self._clock.time())

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def quality(self) -> MediaQuality:
        """Of the call so far. The rating is of what came over the stream, and of what it had to wait for."""
        jitter = self._jitter
        concealed_ms = round(jitter.concealed_ms)
        played_ms = self._received * FRAME_MS + concealed_ms
        missed = (concealed_ms + jitter.late * FRAME_MS) / played_ms if played_ms else 0.0
        rated = rating(impairment_of(self._codec), loss=missed, delay_ms=jitter.delay_ms + FRAME_MS)
        return MediaQuality(
            packets_received=self._received,
            packets_sent=self._sent,
            packets_late=jitter.late,
            concealed_ms=concealed_ms,
            jitter_ms=jitter.timeline.jitter_ms,
            buffer_ms=jitter.delay_ms,
            loss_percent=min(100.0, 100 * missed),
            mos=mos(rated) if self._received else None,
            one_way=self._one_way,
            codec=self._codec,
        )

    def close(self) -> None:
        """Off the clock; the transport closes its connection. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._sinks = []
        self._leave_clock()
        self.on_close()

    # -- the transport's side -------------------------------------------------------------------------------

    def push(self, pcm: bytes, arrival: float) -> None:
        """PCM that came at `arrival` (s, monotonic), of any length; dropped before `start` and after `close`."""
        if not self._running or self._closed or not pcm:
            return
        silent_s = arrival - self._came_at
        self._came_at = self._heard_at = arrival
        if silent_s > PAUSE_S or not self._ever_heard:
            self._heard_again(silent_s)
        size = len(pcm)
        if size == self._frame_bytes and not self._odd:
            self._received += 1
            self._stamp += self._look_for_hole(self._stamp, arrival)
            self._jitter.push(self._sequence, self._stamp & 0xFFFFFFFF, 0, pcm, bytes, arrival)
            self._sequence = (self._sequence + 1) & 0xFFFF
            self._stamp = (self._stamp + self._frame_samples) & 0xFFFFFFFF
        else:
            self._push_pieces(pcm, arrival)

    def _push_pieces(self, pcm: bytes, arrival: float) -> None:
        pcm = self._odd + pcm
        whole = len(pcm) & ~1
        self._odd = pcm[whole:]
        for at in range(0, whole, self._frame_bytes):
            piece = pcm[at : min(at + self._frame_bytes, whole)]
            self._received += 1
            self._stamp += self._look_for_hole(self._stamp, arrival)
            self._jitter.push(self._sequence, self._stamp & 0xFFFFFFFF, 0, piece, bytes, arrival)
            self._sequence = (self._sequence + 1) & 0xFFFF
            self._stamp = (self._stamp + len(piece) // BYTES_PER_SAMPLE) & 0xFFFFFFFF

    def crashed(self, error: Exception) -> None:
        """This leg's code failed, on the clock or while the transport received: it is told, the others go on."""
        self._leave_clock()
        self.on_event(MediaCrashed(f"{type(error).__name__}: {error}"))

    def _leave_clock(self) -> None:
        self._clock.remove(self)
        self._clock.remove(self._sender)

    # -- the clock's side -----------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """One step of 20 ms: listeners get a frame; the playout gives one, which is sent, if that has no step of its
        own."""
        if self.poll is not None:
            self.poll(now)
        frame = self._take(now)
        for sink in self._sinks:
            sink(frame, now)
        if now - self._heard_at > self._wait:
            self._tell_silence(now)
        self._looks_in -= 1
        if not self._looks_in:
            self._look(now, frame)
        if self.far_spare is None:
            self._send_frame(now)

    def _send_frame(self, now: float) -> None:
        # A listener may have ended the leg in the same step.
        if self._closed:
            return
        if self._shifting_s:
            self._see_shift(now)
        self.sending_at = now
        if self._held or self.stalled:
            self.playout.withhold(now)
        else:
            self._send(self.playout.take(now))
            self._sent += 1

    def _see_shift(self, now: float) -> None:
        """A step that is to be moved may come once more at its old time."""
        frames = (self.sending_at - self._shifting_s - now) / FRAME_S
        if abs(frames - round(frames)) < 0.01:
            self.on_shift(self._shifting_s)
            self._shifting_s = 0.0

    def _look(self, now: float, frame: bytes) -> None:
        """Twice a second: audio that is nothing but zeros is no caller, however quiet."""
        self._looks_in = SOON_TICKS if self._seek_phase(now) else LOOK_TICKS
        expected = self._answered and not self._held
        if not expected or now - self._heard_at > self._limits.notice_s or frame.count(0) != len(frame):
            self._zero_since = now
            if not self._noticed:
                self._one_way = ""
        elif now - self._zero_since >= DIGITAL_SILENCE_S:
            self._tell_one_way(f"audio comes, with nothing but digital silence for {now - self._zero_since:.0f} s")

    def _seek_phase(self, now: float) -> bool:
        """Step at another time, if frames wait less then; whether they soon may again."""
        spare_ms = self._jitter.spare_ms
        spare_s = None if spare_ms is None else spare_ms / 1000
        # Steps that another leg's frames go by stay where they were found (`PhaseFinder.look`).
        joined = self.playout.blend is not None and now > self._found_by
        self._jitter.timeline.high_frames = HIGH_FRAMES if joined else CUT_FRAMES
        if self.far_spare is None:
            drift_ppm = self._jitter.timeline.drift.ppm
            self._phase.look(now, spare_s, speaking=self.playout.speaking, joined=joined, drift_ppm=drift_ppm)
            return False
        if joined:
            return False
        # Here nobody hears it: what was sent waits in a queue, what came in the buffer. So nothing need be left out
        # or invented to put either right.
        clock, spacing_s = self._clock, self._clock.spacing_s
        latest_s = spacing_s - FRAME_S  # By which a step can be moved at once.
        moved = 0.0
        if spare_s is not None and not -SHORT_S < spare_s < spacing_s:
            moved = clock.shift(self, max(spare_s, latest_s))
        far_s = None if self._shifting_s else self.far_spare()
        if far_s is None:
            return moved > 0
        earlier_s = 0.0
        if far_s > spacing_s + HAIR_S:
            # Later by more, and the queue would be empty when the frame is wanted.
            earlier_s = clock.shift(self._sender, max(-far_s, latest_s), no_more=True)
        elif far_s < -HAIR_S:
            earlier_s = clock.shift(self._sender, spacing_s - far_s)
        if earlier_s:
            self._shifting_s = earlier_s
        return moved > 0 or earlier_s != 0

    def _tell_silence(self, now: float) -> None:
        silent_s = now - self._heard_at
        what = f"no audio for {silent_s:.0f} s" if self._ever_heard else "no audio ever came"
        if self._noticed:
            self._wait = float("inf")
            self.on_event(MediaExpired(what))
            return
        self._noticed = True
        self._next_wait()
        self.on_event(MediaLost(round(silent_s * 1000)))
        self._tell_one_way(what)

    def _tell_one_way(self, what: str) -> None:
        self._one_way = OneWay.NOT_HEARD
        if not self._told_silence:
            self._told_silence = True
            self.on_event(OneWayAudio(OneWay.NOT_HEARD, what))

    def _heard_again(self, silent_s: float) -> None:
        """Audio comes again, or for the first time."""
        if self._received and silent_s > PAUSE_S:
            frames = round(silent_s / FRAME_S - 1)
            self._stamp = (self._stamp + frames * self._frame_samples) & 0xFFFFFFFF
            self._holes.pause(frames, self._came_at)
        self._ever_heard = True
        self._noticed = False
        self._one_way = ""
        self._next_wait()

    def _expect(self, now: float) -> None:
        """Count silence from now on, if audio is expected at all."""
        self._heard_at = self._zero_since = now
        self._noticed = False
        self._next_wait()

    def _next_wait(self) -> None:
        if self._held or not self._answered:
            self._wait = float("inf")
            return
        limits = self._limits
        limit = limits.media_s if self._ever_heard else limits.first_media_s
        self._wait = limit if self._noticed else min(limits.notice_s, limit)


class _Sender:
    """The way out as a ticker of its own."""

    __slots__ = ("tick",)

    def __init__(self, tick: Callable[[float], None]) -> None:
        self.tick = tick


def _ignore(event: StreamEvent) -> None:
    """Until an owner listens."""


def _nothing() -> None:
    """Until there is a transport."""


def _nothing_of_time(earlier_s: float) -> None:
    """Where it makes no difference."""
