"""`offhook call`: a SIP phone that talks to an agent from recordings, shows what happens, and judges it.

It is built on our own user agent, RTP and voice activity, and measures on the wire what a caller would hear.
"""

import asyncio
import contextlib
import wave
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

import numpy as np

from bridge.audio.clock import MediaClock
from bridge.audio.recording import Recordings, StereoRecorder
from bridge.audio.resample import Resampler
from bridge.audio.vad import VoiceActivity
from bridge.audio.voice import SpeechStarted, SpeechStopped, VoiceDetector, VoiceEvent
from bridge.events import Answered, Cause, LegEnded, LegEvent, Progress
from bridge.legs.base import LegError, LegState
from bridge.legs.media import MediaPlane
from bridge.legs.sip import SipLeg
from bridge.legs.sip_endpoint import SipEndpoint, SipEndpointSettings
from bridge.rtp.settings import RtpSettings
from bridge.transcript import Transcript, follow_transcript

AGENT_DONE_S = 0.9
"""Silence after which the agent is taken to have finished: longer than its pauses between sentences."""

INTERRUPT_AFTER_S = 1.0
"""How long the agent has been speaking when it is interrupted."""

STOP_WITHIN_S = 2.0
"""An interrupted agent that speaks on for longer has not reacted."""

HANG_UP_WITHIN_S = 1.5
"""After the agent's last words: an agent that said goodbye hangs up within it."""

MONOLOGUE_S = 60.0
"""The longest that an agent is listened to in one go."""

SILENCE_S = 0.25
"""Silence after which an interrupted agent has stopped."""

LOUD = 300
"""Peak of a frame (of 32767) above which it is no silence."""

PHONE_PORTS = RtpSettings(port_min=30000, port_max=31999)

Say = Callable[[str], None]


class PhoneError(Exception):
    """The call did not do what it should; the message says what happened."""


@dataclass(frozen=True, slots=True)
class Utterance:
    path: Path
    interrupt: bool = False
    """Say it while the agent is speaking, instead of after."""


@dataclass(frozen=True, slots=True)
class PhoneOptions:
    target: str
    script: tuple[Utterance, ...]
    out: Path | None
    """Stereo WAV: we left, the agent right."""
    wait_s: float
    """How long the agent may take to answer, to greet, and to reply."""
    api_url: str
    """Of the bridge, for the transcript as it understood the call."""
    data_dir: Path
    """Holds the bridge's API key, where the bridge is on this machine."""
    from_user: str = "phone"


@dataclass(slots=True)
class PhoneReport:
    """What was measured, in ms."""

    setup_ms: float | None = None
    greeting_ms: float | None = None
    """Answer to the agent's first speech."""
    reply_ms: list[float] = field(default_factory=list)
    """End of our speech to the agent's, each time."""
    stop_ms: list[float] = field(default_factory=list)
    """Onset of our speech to the agent's silence, each time it was interrupted."""
    packets_received: int = 0
    packets_lost: int = 0
    jitter_ms: float = 0.0
    ended: str = ""


def sample_conversation() -> list[tuple[str, bool]]:
    """The conversation that ships with Offhook, as (file, interrupts)."""
    script = (("hours", False), ("book", True), ("name", False), ("yes2", False), ("no1", False))
    return [(str(resources.files("bridge").joinpath("sample", f"{name}.wav")), cut) for name, cut in script]


def read_speech(path: Path, sample_rate: int) -> bytes:
    """A WAV file as int16 mono at `sample_rate` (Hz), its silent edges cut off so that delays can be measured.

    Raises PhoneError."""
    try:
        with wave.open(str(path), "rb") as file:
            channels, width, rate = file.getnchannels(), file.getsampwidth(), file.getframerate()
            frames = file.readframes(file.getnframes())
    except (OSError, EOFError, wave.Error) as error:
        raise PhoneError(f"{path} can't be read as a WAV file: {error}") from error
    if width != 2:
        raise PhoneError(f"{path} has {8 * width}-bit samples: 16-bit PCM is needed")
    samples = np.frombuffer(frames, np.int16).reshape(-1, channels)[:, 0]
    loud = np.flatnonzero(np.abs(samples.astype(np.int32)) > 200)
    if not len(loud):
        raise PhoneError(f"{path} holds nothing but silence")
    samples = samples[loud[0] : loud[-1] + 1]
    if rate == sample_rate:
        return samples.tobytes()
    resampler = Resampler(rate, sample_rate)
    return resampler.process(samples.tobytes()) + resampler.flush()


async def open_phone(
    stack: contextlib.AsyncExitStack, user_agent: str
) -> tuple[MediaClock, VoiceActivity, SipEndpoint]:
    """What calls are made with: a running clock, voice activity on it, a SIP endpoint on a free port. `stack` closes
    them."""
    clock = MediaClock()
    stack.push_async_callback(clock.aclose)
    voice = VoiceActivity()
    stack.push_async_callback(voice.aclose)
    media = MediaPlane(clock, PHONE_PORTS)
    stack.callback(media.close)
    endpoint = SipEndpoint(SipEndpointSettings(port=0, user_agent=user_agent), media)
    await endpoint.start()
    stack.push_async_callback(endpoint.aclose)
    clock.after_tick(voice.after_tick)
    clock.start()
    return clock, voice, endpoint


async def place_call(options: PhoneOptions, say: Say) -> int:
    """Make the call, tell `say` what happens. Returns 0; raises PhoneError if the agent did not do its part."""
    for utterance in options.script:
        # A file that can't be read is known before anybody's phone rings.
        read_speech(utterance.path, 8000)
    report = PhoneReport()
    async with contextlib.AsyncExitStack() as stack:
        clock, voice, endpoint = await open_phone(stack, "Offhook phone")
        say(f"calling {options.target} ...")
        begun = clock.time()
        try:
            leg = await endpoint.dial(options.target, from_user=options.from_user, timeout_s=options.wait_s)
        except LegError as error:
            raise PhoneError(str(error)) from error
        talk = Talk(leg, clock, options, report, say)
        try:
            answered_at = await talk.reach_answer(begun)
            recorder = _record(stack, options, leg, answered_at)
            talk.attend(voice)
            transcript = asyncio.create_task(
                follow_transcript(
                    Transcript(options.api_url, options.data_dir, leg.info.id), lambda line: say(f"    {line}")
                )
            )
            try:
                await talk.hold_conversation()
            finally:
                await leg.hangup(Cause.AGENT_HUNG_UP)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(transcript, 3.0)
                if recorder is not None:
                    await _keep(recorder, options.out, say)
        finally:
            talk.close()
            quality = leg.quality
            report.packets_received = quality.packets_received
            report.packets_lost = quality.packets_lost
            report.jitter_ms = quality.jitter_ms
            for line in summary(report):
                say(line)
    return 0


def _record(
    stack: contextlib.AsyncExitStack, options: PhoneOptions, leg: SipLeg, answered_at: float
) -> StereoRecorder | None:
    if options.out is None:
        return None
    recordings = Recordings(options.out.resolve().parent)
    recordings.start()
    stack.push_async_callback(recordings.aclose)
    recorder = recordings.open(
        f".{options.out.stem}-{leg.info.id[:8]}".lstrip("."),
        leg.sample_rate,
        lambda reason: None,
        started_at=answered_at,
    )
    leg.playout.listen(recorder.caller)
    leg.listen(recorder.agent)
    return recorder


async def _keep(recorder: StereoRecorder, out: Path | None, say: Say) -> None:
    """The recorder never overwrites a file; the phone's user asked for exactly this one."""
    result = await recorder.close()
    if result.path is None or out is None:
        say(f"no recording: {result.failure}")
        return
    result.path.replace(out)
    say(f"recorded: {out} ({result.duration_ms / 1000:.1f} s, left: phone, right: agent)")


def summary(report: PhoneReport) -> list[str]:
    """The report for people."""

    def listed(values: Sequence[float]) -> str:
        return ", ".join(f"{value:.0f}" for value in values) or "none"

    lines = []
    if report.setup_ms is not None:
        lines.append(f"set-up {report.setup_ms:.0f} ms")
    if report.greeting_ms is not None:
        lines.append(f"answer to greeting: {report.greeting_ms:.0f} ms")
    if report.reply_ms:
        lines.append(f"our last word to the reply: {listed(report.reply_ms)} ms")
    if report.stop_ms:
        lines.append(f"our interruption to the agent's silence: {listed(report.stop_ms)} ms")
    lines.append(
        f"RTP: {report.packets_received} packets received, {report.packets_lost} lost, "
        f"jitter {report.jitter_ms:.1f} ms"
    )
    if report.ended:
        lines.append(f"the call ended: {report.ended}")
    return lines


class Talk:
    """The course of the call: what the agent does, and what is said to it when."""

    def __init__(self, leg: SipLeg, clock: MediaClock, options: PhoneOptions, report: PhoneReport, say: Say) -> None:
        self._leg = leg
        self._clock = clock
        self._options = options
        self._report = report
        self._say = say
        self._changed = asyncio.Event()
        """Set by every frame and every event: conditions are looked at again."""
        self._answered_at: float | None = None
        self._end: LegEnded | None = None
        self._speaking = False
        self._started_at = 0.0
        """Clock time of the agent's last onset."""
        self._stopped_at = 0.0
        """Clock time of the agent's last voice."""
        self._loud_at = 0.0
        """Clock time of the last frame that was no silence."""
        self._detector: VoiceDetector | None = None
        self._unsubscribe = leg.subscribe(self._on_leg_event)

    def close(self) -> None:
        self._unsubscribe()
        if self._detector is not None:
            self._detector.close()

    async def reach_answer(self, begun: float) -> float:
        """Returns the clock time of the answer."""
        await self._until(lambda: self._answered_at is not None, self._options.wait_s + 1)
        if self._answered_at is None:
            raise PhoneError(f"no answer: {self._end_text()}")
        self._report.setup_ms = (self._answered_at - begun) * 1000
        self._say(f"answered after {self._report.setup_ms:.0f} ms")
        return self._answered_at

    def attend(self, voice: VoiceActivity) -> None:
        """Listen to the agent."""
        self._detector = voice.open(self._leg.sample_rate, self._on_voice)
        self._leg.listen(self._detector.push)
        self._leg.listen(self._on_frame)

    async def hold_conversation(self) -> None:
        """Greeting, then each utterance and the reply to it."""
        assert self._answered_at is not None
        await self._agent_speaks(self._answered_at, "did not speak after it answered")
        self._report.greeting_ms = max(0.0, (self._started_at - self._answered_at) * 1000)
        self._say(f"agent speaks, {self._report.greeting_ms:.0f} ms after the answer")
        for utterance in self._options.script:
            if utterance.interrupt:
                our_end = await self._interrupt(utterance)
            else:
                await self._agent_finishes()
                our_end = await self._speak(utterance)
            await self._agent_speaks(our_end, f"did not react to {utterance.path.name}")
            delay = (self._started_at - our_end) * 1000
            self._report.reply_ms.append(delay)
            self._say(f"agent replies, {delay:.0f} ms after our last word")
        await self._agent_finishes()
        # An agent that said goodbye hangs up by itself.
        await self._until(lambda: self._end is not None, HANG_UP_WITHIN_S)

    # -- steps ----------------------------------------------------------------------------------------------

    async def _speak(self, utterance: Utterance) -> float:
        """Say it; returns the clock time of its end."""
        if self._leg.state is not LegState.UP:
            raise PhoneError(f"the agent hung up before {utterance.path.name} was said: {self._end_text()}")
        playout = self._leg.playout
        pcm = read_speech(utterance.path, self._leg.sample_rate)
        self._say(f"saying {utterance.path.name}")
        generation = playout.begin()
        playout.write(generation, pcm)
        playout.end(generation)
        await self._until(lambda: not playout.speaking, playout.queued_ms / 1000 + 5)
        return self._clock.time()

    async def _interrupt(self, utterance: Utterance) -> float:
        """Say it while the agent speaks; returns the clock time of its end."""
        if not self._speaking:
            raise PhoneError(f"there was nothing to interrupt with {utterance.path.name}: the agent was silent")
        due = self._started_at + INTERRUPT_AFTER_S
        await self._until(lambda: self._clock.time() >= due, INTERRUPT_AFTER_S)
        onset = self._clock.time()
        limit = onset + STOP_WITHIN_S
        speaking = asyncio.create_task(self._speak(utterance))
        try:
            await self._until(lambda: self._clock.time() > self._loud_at + SILENCE_S, STOP_WITHIN_S)
            if self._loud_at > limit - SILENCE_S:
                raise PhoneError(f"the agent talked on when {utterance.path.name} interrupted it")
            delay = max(0.0, (self._loud_at - onset) * 1000)
            self._report.stop_ms.append(delay)
            self._say(f"agent fell silent {delay:.0f} ms after we spoke up")
            return await speaking
        finally:
            speaking.cancel()

    async def _agent_speaks(self, after: float, failure: str) -> None:
        """Wait for an onset of the agent's voice after the clock time `after`."""
        # An onset is told as an estimate, which may lie a little before the end of our own words.
        await self._until(lambda: self._started_at > after - 0.05, self._options.wait_s)
        if self._started_at <= after - 0.05:
            why = f"within {self._options.wait_s:.0f} s" if self._end is None else self._end_text()
            raise PhoneError(f"the agent {failure}: {why}")

    async def _agent_finishes(self) -> None:
        def finished() -> bool:
            return not self._speaking and self._clock.time() - self._stopped_at >= AGENT_DONE_S

        await self._until(lambda: self._end is not None or finished(), MONOLOGUE_S)

    async def _until(self, condition: Callable[[], bool], timeout_s: float) -> None:
        """Return when `condition` holds, the call has ended, or the time is up."""
        until = self._clock.time() + timeout_s
        while not condition() and self._end is None and (left := until - self._clock.time()) > 0:
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), left)

    # -- what comes in --------------------------------------------------------------------------------------

    def _on_voice(self, event: VoiceEvent) -> None:
        match event:
            case SpeechStarted(at=at):
                self._speaking, self._started_at = True, at
            case SpeechStopped(at=at):
                self._speaking, self._stopped_at = False, at
        self._changed.set()

    def _on_frame(self, pcm: bytes, now: float) -> None:
        if any(pcm) and np.abs(np.frombuffer(pcm, np.int16).astype(np.int32)).max() > LOUD:
            self._loud_at = now
        self._changed.set()

    def _on_leg_event(self, event: LegEvent) -> None:
        match event:
            case Progress(status=status):
                self._say("ringing" if status == 180 else f"progress: {status}")
            case Answered():
                self._answered_at = self._clock.time()
            case LegEnded():
                self._end = event
                self._report.ended = self._end_text()
        self._changed.set()

    def _end_text(self) -> str:
        if self._end is None:
            return f"nobody answered within {self._options.wait_s:.0f} s"
        if self._end.cause is Cause.CALLER_HUNG_UP:
            # In a leg's words the far party is the caller, which here is the agent.
            return "the agent hung up"
        return f"{self._end.cause.value} {self._end.detail}".strip()
