"""However late a recogniser answers: no word of a turn that is over gets into the next, and none of a pause is lost.

The recognisers are models that work through what they are sent at their own pace, and whose messages take their time.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

from deepgram.listen.v1.types import ListenV1Results
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.providers.base import Heard, SttEvent, SttFailed
from bridge.providers.deepgram.nova import FINALIZE, NovaDialect
from bridge.providers.elevenlabs.scribe import COMMIT as SCRIBE_COMMIT
from bridge.providers.elevenlabs.scribe import ScribeDialect
from bridge.providers.openai.stt_session import BEGIN, CLEAR, COMMIT, TranscriptionDialect
from bridge.providers.stt_turn import Dialect, SttTurn

WORD_S = 0.4
PAUSE_S = 0.2

SILENT, ENDPOINT = "silent ", "endpoint"
"""Of the audio: so many seconds of silence; something that makes a recogniser end an utterance itself."""

Message = dict[str, Any]


class OpenAiModel:
    """A transcription session: what it is sent, and what it says."""

    def __init__(self, *, streams: bool) -> None:
        self._streams = streams
        self._words: list[str] = []
        self._item = 0

    def take(self, sent: str, say: Callable[[Message], None]) -> None:
        kind = "conversation.item.input_audio_transcription."
        item = {"item_id": f"item{self._item}"}
        if sent in (BEGIN, ENDPOINT) or sent.startswith(SILENT):
            return
        if sent == CLEAR:
            self._words.clear()
            self._item += 1
            say({"type": "input_audio_buffer.cleared"})
        elif sent.startswith(COMMIT):
            if not self._words:
                event_id = f"pause-{sent.removeprefix(COMMIT)}"
                say({"type": "error", "error": {"code": "input_audio_buffer_commit_empty", "event_id": event_id}})
                return
            say({"type": "input_audio_buffer.committed", **item})
            if not self._streams:
                say({"type": f"{kind}delta", "delta": self._words[0], **item})
            say({"type": f"{kind}completed", "transcript": " ".join(self._words), **item})
            self._words = []
            self._item += 1
        else:
            self._words.append(sent)
            if self._streams:
                say({"type": f"{kind}delta", "delta": f" {sent}", **item})


class ScribeModel:
    """Scribe, which ignores commits of too little audio."""

    def __init__(self, *, streams: bool) -> None:
        self._streams = streams
        self._words: list[str] = []

    def take(self, sent: str, say: Callable[[Message], None]) -> None:
        if sent == ENDPOINT or sent.startswith(SILENT):
            return
        if sent == SCRIBE_COMMIT:
            say({"message_type": "committed_transcript", "text": " ".join(self._words)})
            self._words = []
            return
        self._words.append(sent)
        if self._streams:
            say({"message_type": "partial_transcript", "text": " ".join(self._words)})


class NovaModel:
    """Deepgram's Nova: results with times, final ones when it is asked for them, or finds a pause itself."""

    def __init__(self, *, streams: bool) -> None:
        self._streams = streams
        self._words: list[tuple[str, float]] = []
        """Since the last final result, with their starts."""
        self._from_s = self._at_s = 0.0

    def take(self, sent: str, say: Callable[[Any], None]) -> None:
        if sent == FINALIZE:
            if self._at_s > self._from_s:
                self._result(say, final=True, from_finalize=True)
        elif sent == ENDPOINT:
            self._result(say, final=True, speech_final=True)
        elif sent.startswith(SILENT):
            self._at_s += float(sent.removeprefix(SILENT))
        else:
            self._words.append((sent, self._at_s))
            self._at_s += WORD_S
            if self._streams:
                self._result(say)

    def _result(self, say: Callable[[Any], None], *, final: bool = False, **more: bool) -> None:
        words = [
            {"word": word, "start": start_s, "end": start_s + WORD_S, "confidence": 1.0}
            for word, start_s in self._words
        ]
        best = {"transcript": " ".join(word for word, _ in self._words), "confidence": 1.0, "words": words}
        content = {
            "type": "Results",
            "channel_index": [0, 1],
            "start": self._from_s,
            "duration": self._at_s - self._from_s,
            "is_final": final,
            "channel": {"alternatives": [best]},
            "metadata": {"request_id": "r", "model_uuid": "u", "model_info": {"name": "", "version": "", "arch": ""}},
        }
        ListenV1Results.model_validate(content | more)
        say(content | more)
        if final:
            self._words = []
            self._from_s = self._at_s


class World:
    """A caller, an ear, and a recogniser far away."""

    def __init__(self, dialect: Dialect, model: OpenAiModel | ScribeModel | NovaModel) -> None:
        self.events: list[SttEvent] = []
        self.turn = SttTurn(self._heard, settle_s=1e9)
        self.dialect = dialect
        self.model = model
        self.going: deque[str] = deque()
        self.coming: deque[Any] = deque()
        self.at_s = 0.0
        self.number = 0
        self.words: list[str] = []
        """Of the present turn, up to the last pause."""
        self.spoken: list[str] = []
        """Since then."""

    def _heard(self, event: SttEvent) -> None:
        assert not isinstance(event, SttFailed), event
        self.events.append(event)
        if isinstance(event, Heard):
            known = self.words + self.spoken
            assert event.text.split() == known[: len(event.text.split())], (event, known)

    def _do(self, acts: Any) -> None:
        for act in acts:
            if isinstance(act, str):
                self.going.append(act)
            else:
                self.turn.apply(act, 0.0)

    def silence(self) -> None:
        self.at_s += PAUSE_S
        self.going.append(f"{SILENT}{PAUSE_S}")

    def endpoint(self) -> None:
        """The recogniser may find a pause of its own."""
        self.going.append(ENDPOINT)

    def start(self) -> None:
        if not self.turn.speaking:
            self.silence()
            self.turn.speech_started()
            self._do(self.dialect.started(self.at_s))

    def word(self) -> None:
        if self.turn.speaking:
            self.number += 1
            self.at_s += WORD_S
            self.spoken.append(f"w{self.number}")
            self.going.append(self.spoken[-1])

    def pause(self) -> None:
        if self.turn.speaking:
            self.silence()
            pause = self.turn.speech_paused(0.0)
            self.words += self.spoken
            self.spoken = []
            self._do(self.dialect.paused(pause, self.at_s))

    def commit(self) -> None:
        speaking = self.turn.speaking
        if speaking:
            self.silence()
        self.words, self.spoken = [], []
        self.turn.commit()
        self._do(self.dialect.committed(self.at_s, speaking))

    def work(self) -> None:
        if self.going:
            self.model.take(self.going.popleft(), self.coming.append)

    def deliver(self) -> None:
        if self.coming:
            for sign in self.dialect.take(self.coming.popleft()):
                self.turn.apply(sign, 0.0)

    def drain(self) -> None:
        while self.going or self.coming:
            self.work()
            self.deliver()


MOVE_NAMES = ["start", "word", "word", "pause", "commit", "endpoint", "work", "work", "deliver", "deliver"]
MOVES = st.lists(st.sampled_from(MOVE_NAMES), max_size=60)


def play(world: World, moves: list[str]) -> None:
    for move in moves:
        getattr(world, move)()
    # The caller says a last word and pauses, and everything arrives.
    for move in ("start", "word", "pause", "drain"):
        getattr(world, move)()
    last = [event for event in world.events if isinstance(event, Heard) and event.settled][-1]
    assert (last.text.split(), last.pause) == (world.words, world.turn.pauses)


@settings(max_examples=300, deadline=None)
@given(MOVES, st.booleans())
def test_openai_sessions_keep_turns_apart_and_lose_nothing(moves: list[str], streams: bool) -> None:
    dialect = TranscriptionDialect("openai", "sk-key", detects=False)
    play(World(dialect, OpenAiModel(streams=streams)), moves)


@settings(max_examples=300, deadline=None)
@given(MOVES, st.booleans())
def test_scribe_keeps_turns_apart_and_loses_nothing(moves: list[str], streams: bool) -> None:
    dialect = ScribeDialect("elevenlabs", key_from="K", key="sk_key", detects=False, tells_language=False)
    play(World(dialect, ScribeModel(streams=streams)), moves)


@settings(max_examples=300, deadline=None)
@given(MOVES, st.booleans())
def test_nova_keeps_turns_apart_and_loses_nothing(moves: list[str], streams: bool) -> None:
    play(World(NovaDialect(), NovaModel(streams=streams)), moves)
