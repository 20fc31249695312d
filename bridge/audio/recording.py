"""Recording a call: a stereo WAV, the caller left and the agent right, written off the media clock.

The two sinks only put frames in memory; once a second what has gathered goes to the one writer thread of all calls.
The file is a valid WAV after every write, under its name with `.part` behind it until it is finished. A recorder that
can't write says why, once, and the call goes on; what was written before is kept.
"""

import asyncio
import contextlib
import errno
import fcntl
import math
import os
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import structlog

from bridge.audio.frames import BYTES_PER_SAMPLE, FRAME_S, duration_ms, frame_bytes

log = structlog.get_logger(__name__)

FLUSH_FRAMES = 50
"""Audio (20 ms frames) gathered before it is written: a crash loses a second."""

MAX_PENDING_FRAMES = 500
"""Audio held while the disk is slow: 10 s, 320 kB a call at 8 kHz. What is beyond is lost, silence in its place."""

MOVED_FRAMES = 0.9
"""By which ticks may move, all in all, until their frames move as well. What is missing is a frame at least."""

CLOSE_TIMEOUT_S = 10.0
"""How long a call's end waits for a disk that hangs; the file is then repaired at the next start."""

PART_SUFFIX = ".part"
FILE_MODE = 0o640
DIRECTORY_MODE = 0o750

HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")
CHANNELS = 2
STEREO_BYTES = CHANNELS * BYTES_PER_SAMPLE
MAX_DATA_BYTES = 0xFFFFFFFF - HEADER.size
"""A WAV's sizes are 32 bits: 37 hours at 8 kHz."""


@dataclass(frozen=True, slots=True)
class RecordingResult:
    """What became of a recording."""

    path: Path | None
    """The finished file; with a `failure` beside it, it holds only the part before that."""
    duration_ms: float
    """Of the file, silence for lost audio included."""
    lost_ms: float
    """Audio of the call that is not in the file: the writer was behind, or had failed."""
    failure: str | None
    """Why there is no recording or only a part of it."""


class Recordings:
    """The directory of recordings and the thread that writes them. One per process."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="recording")
        self._open: set[StereoRecorder] = set()

    def start(self) -> None:
        """Make the directory (0750) and repair what a crash left. A directory that can't be made is logged: every
        recording will then say so."""
        try:
            self.directory.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
            repaired = repair_recordings(self.directory)
        except OSError as error:
            log.error("recordings can't be written", directory=str(self.directory), reason=error.strerror)
            return
        if repaired:
            log.info("recordings of a former run repaired", files=[path.name for path in repaired])

    def open(
        self,
        name: str,
        sample_rate: int,
        on_failure: Callable[[str], None],
        *,
        started_at: float | None = None,
    ) -> "StereoRecorder":
        """Record `name`.wav at `sample_rate` (Hz). `started_at` (s, clock time) is the answer, the zero of the file;
        without it the first frame's tick is. `on_failure` is told once, on the event loop, why the recording stopped.

        Raises ValueError if `name` is not a plain file name."""
        if not name or Path(name).name != name or name.startswith("."):
            raise ValueError(f"not a file name: {name!r}")
        recorder = StereoRecorder(
            WavFile(self.directory / f"{name}.wav", sample_rate),
            self._executor,
            on_failure,
            started_at=started_at,
            on_closed=self._open.discard,
        )
        self._open.add(recorder)
        return recorder

    async def aclose(self) -> None:
        """Finish every recording that is still open and end the thread. Idempotent."""
        await asyncio.gather(*(recorder.close() for recorder in list(self._open)))
        self._executor.shutdown(wait=False)


class StereoRecorder:
    """One call's recording. Give `caller` and `agent` to the leg and its playout as sinks; then `close`."""

    def __init__(
        self,
        file: "WavFile",
        executor: ThreadPoolExecutor,
        on_failure: Callable[[str], None],
        *,
        started_at: float | None = None,
        on_closed: Callable[["StereoRecorder"], None] = lambda recorder: None,
    ) -> None:
        """The event loop must be running."""
        self._file = file
        self._executor = executor
        self._on_failure = on_failure
        self._on_closed = on_closed
        self._loop = asyncio.get_running_loop()
        self._frame_bytes = frame_bytes(file.sample_rate)
        self._zero = started_at
        self._base = 0
        """Position (20 ms frames since the zero) of the first frame in memory."""
        self._grids = [math.inf, math.inf]
        """By how much (frames) each side's ticks are behind the places of their frames; infinite before the first."""
        self._left = bytearray()
        self._right = bytearray()
        self._silence = 0
        """Frames of silence to be written before what is in memory."""
        self._lost = 0
        """Ticks whose audio will not be in the file."""
        self._stopped = False
        self._failure: str | None = None
        self._result: RecordingResult | None = None
        self._writing: asyncio.Future[None] | None = None
        self._run(file.create)

    @property
    def failure(self) -> str | None:
        """Why the recording stopped; None while all is well."""
        return self._failure

    def caller(self, pcm: bytes, now: float) -> None:
        """One received frame (20 ms int16 mono) and its clock time; a `FrameSink`."""
        if self._stopped:
            self._lost += self._result is None
        else:
            self._take(self._left, pcm, now)

    def agent(self, pcm: bytes, now: float) -> None:
        """One frame as sent; a `FrameSink`."""
        if not self._stopped:
            self._take(self._right, pcm, now)

    async def close(self) -> RecordingResult:
        """Write what is left and finish the file. Never raises; waits at most 10 s for the disk. Idempotent."""
        if self._result is not None:
            return self._result
        self._stopped = True
        if await self._settled() and self._failure is None:
            self._flush(max(len(self._left), len(self._right)) // self._frame_bytes)
            await self._settled()
        path = None
        if self._writing is None:
            finishing = self._loop.run_in_executor(self._executor, self._file.finish)
            done, _ = await asyncio.wait([finishing], timeout=CLOSE_TIMEOUT_S)
            if not done:
                self._failure = self._failure or f"the disk did not answer within {CLOSE_TIMEOUT_S:.0f} s"
            elif (error := finishing.exception()) is not None:
                self._failure = self._failure or _reason(error)
            else:
                path = finishing.result()
                if path is None and self._failure is None:
                    self._failure = "the call ended before there was any audio"
        else:
            self._failure = self._failure or f"the disk did not answer within {CLOSE_TIMEOUT_S:.0f} s"
        if self._result is None:
            self._result = RecordingResult(
                path,
                duration_ms(self._file.data_bytes // CHANNELS, self._file.sample_rate) if path else 0.0,
                self._lost * FRAME_S * 1000,
                self._failure,
            )
            self._on_closed(self)
        return self._result

    def _take(self, channel: bytearray, pcm: bytes, now: float) -> None:
        if self._zero is None:
            self._zero = now
        # Ticks lie on a 20 ms grid but for rounding; the zero may lie anywhere.
        place = (now - self._zero) / FRAME_S + 1e-3 - self._base
        held = len(channel) // self._frame_bytes
        # A grid that is moved (`MediaClock.shift`) by less than a frame leaves no gap, and nothing out.
        side = channel is self._right
        if abs(place - held - self._grids[side]) < MOVED_FRAMES:
            index = held
        else:
            index = int(place)
            self._grids[side] = place - index
        if index >= MAX_PENDING_FRAMES:
            self._give_up_pending(index)
            index = 0
        at = index * self._frame_bytes
        if len(pcm) != self._frame_bytes:
            pcm = pcm[: self._frame_bytes].ljust(self._frame_bytes, b"\0")
        if at == len(channel):
            channel += pcm
        elif at < 0:
            self._lost += channel is self._left
        else:
            channel.extend(bytes(max(0, at - len(channel))))
            channel[at : at + self._frame_bytes] = pcm
        if index >= FLUSH_FRAMES and self._writing is None:
            self._flush(index)

    def _give_up_pending(self, index: int) -> None:
        """The frame at `index` is too far ahead of what is in memory: the writer is behind, or the clock stood."""
        held = max(len(self._left), len(self._right)) // self._frame_bytes
        if self._writing is None:
            self._flush(held)
        else:
            self._lost += held
            self._left.clear()
            self._right.clear()
            held = 0
        self._silence += index - held
        self._base += index - held

    def _flush(self, frames: int) -> None:
        """Hand the first `frames` frames in memory to the writer, both channels to the same length."""
        if not frames:
            return
        size = frames * self._frame_bytes
        left, right = bytes(self._left[:size]).ljust(size, b"\0"), bytes(self._right[:size]).ljust(size, b"\0")
        del self._left[:size], self._right[:size]
        self._base += frames
        silence, self._silence = self._silence * self._frame_bytes, 0
        self._run(lambda: self._file.write(silence, left, right), frames)

    def _run(self, job: Callable[[], None], frames: int = 0) -> None:
        self._writing = self._loop.run_in_executor(self._executor, job)
        self._writing.add_done_callback(lambda future: self._done(future, frames))

    def _done(self, future: "asyncio.Future[None]", frames: int) -> None:
        self._writing = None
        error = None if future.cancelled() else future.exception()
        if error is None:
            return
        self._failure = _reason(error)
        self._stopped = True
        self._lost += frames + max(len(self._left), len(self._right)) // self._frame_bytes
        self._left.clear()
        self._right.clear()
        self._on_failure(self._failure)

    async def _settled(self) -> bool:
        """Wait for the write under way; False if the disk hangs."""
        if self._writing is not None:
            await asyncio.wait([self._writing], timeout=CLOSE_TIMEOUT_S)
            # The write's own callback runs before or right after we are woken.
            await asyncio.sleep(0)
        return self._writing is None


class WavFile:
    """A stereo WAV under way. Every method blocks: they run in the writer thread alone, one at a time."""

    def __init__(self, path: Path, sample_rate: int) -> None:
        self.path = path
        self.part = path.with_name(path.name + PART_SUFFIX)
        self.sample_rate = sample_rate
        self.data_bytes = 0
        """Audio in the file, which its header tells."""
        self._fd = -1

    def create(self) -> None:
        """Create the file (0640) with an empty WAV in it. Raises OSError."""
        if self.path.exists():
            raise FileExistsError(errno.EEXIST, "a recording of this name exists", str(self.path))
        self.attach(os.open(self.part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE))
        # The umask may have taken the group's right to read, which the operator's tools need.
        os.fchmod(self._fd, FILE_MODE)
        # Tells another process that starts meanwhile to leave this one alone (`repair_recordings`).
        fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.fstat(self._fd).st_nlink:
            raise FileNotFoundError(errno.ENOENT, "removed by another process that starts", str(self.part))
        self._write_at(wav_header(0, self.sample_rate), 0)

    def attach(self, fd: int) -> None:
        """Write to `fd`, which is closed at the end."""
        self._fd = fd

    def write(self, silence_bytes: int, left: bytes, right: bytes) -> None:
        """Append so much silence (bytes a channel), then both channels' audio. Raises OSError; the file is then as
        it was before."""
        stereo = np.empty((len(left) // BYTES_PER_SAMPLE, CHANNELS), np.int16)
        stereo[:, 0] = np.frombuffer(left, np.int16)
        stereo[:, 1] = np.frombuffer(right, np.int16)
        start = self.data_bytes + silence_bytes * CHANNELS
        end = start + stereo.nbytes
        try:
            if end > MAX_DATA_BYTES:
                raise OSError(errno.EFBIG, "a WAV file can hold no more", str(self.part))
            # Silence is a hole in the file: it reads as zeros and takes no disk.
            self._write_at(stereo.tobytes(), HEADER.size + start)
            self._write_at(wav_header(end, self.sample_rate), 0)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, HEADER.size + self.data_bytes)
            raise
        self.data_bytes = end

    def finish(self) -> Path | None:
        """Close the file and give it its name; None if it holds no audio, and then it is removed. Raises OSError."""
        if self._fd < 0:
            return None
        fd, self._fd = self._fd, -1
        try:
            if not self.data_bytes:
                self.part.unlink()
                return None
            self.part.rename(self.path)
            return self.path
        finally:
            os.close(fd)

    def _write_at(self, content: bytes, offset: int) -> None:
        try:
            while content:
                written = os.pwrite(self._fd, content, offset)
                content, offset = content[written:], offset + written
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.part)) from error


def wav_header(data_bytes: int, sample_rate: int) -> bytes:
    """The 44 bytes before `data_bytes` of 16-bit stereo PCM."""
    return HEADER.pack(
        b"RIFF",
        HEADER.size - 8 + data_bytes,
        b"WAVE",
        b"fmt ",
        16,
        1,
        CHANNELS,
        sample_rate,
        sample_rate * STEREO_BYTES,
        STEREO_BYTES,
        8 * BYTES_PER_SAMPLE,
        b"data",
        data_bytes,
    )


def repair_recordings(directory: Path) -> list[Path]:
    """Finish the `.part` files that a crash left in `directory`: their headers tell all audio that is there, and they
    get their names. Returns them. One that another process is writing, that is not ours, or whose name is taken is
    left alone; one without audio is removed. Raises OSError if the directory can't be read."""
    repaired = []
    for part in sorted(directory.glob(f"*.wav{PART_SUFFIX}")):
        path = part.with_name(part.name.removesuffix(PART_SUFFIX))
        try:
            if _repair(part, path):
                repaired.append(path)
        except OSError as error:
            log.warning("recording of a former run can't be repaired", file=part.name, reason=_reason(error))
    return repaired


def _repair(part: Path, path: Path) -> bool:
    with part.open("r+b") as file:
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        header = file.read(HEADER.size)
        size = os.fstat(file.fileno()).st_size
        data_bytes = min((size - HEADER.size) // STEREO_BYTES * STEREO_BYTES, MAX_DATA_BYTES)
        if data_bytes <= 0 and (not header or header.startswith(b"RIFF")):
            part.unlink()
            return False
        if len(header) < HEADER.size or path.exists():
            return False
        fields = HEADER.unpack(header)
        if (fields[0], fields[2], fields[6], fields[11]) != (b"RIFF", b"WAVE", CHANNELS, b"data"):
            return False
        file.truncate(HEADER.size + data_bytes)
        file.seek(0)
        file.write(wav_header(data_bytes, fields[7]))
        file.flush()
        part.rename(path)
        return True


def _reason(error: BaseException) -> str:
    """For people: what went wrong, with which file."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return repr(error)
