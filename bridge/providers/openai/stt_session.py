"""OpenAI's realtime transcription session: what its events mean, and its socket.

The caller's audio becomes items, one for each time that it is committed: by our voice activity at each pause, or by
the server's where that is asked for. Text comes for an item, while it is spoken or afterwards.
"""

import base64
import json
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bridge.providers.base import SttEndpoint, SttFailed
from bridge.providers.openai.settings import OpenAiSttSettings
from bridge.providers.scrub import scrubbed
from bridge.providers.sdk_sockets import SdkSocket
from bridge.providers.stt_turn import Act, Item, Said, Settled, Sign

CHUNK_MS = 80
"""Audio sent at a time; a pause sends at once what there is."""

LEAD_CHUNKS = 5
"""At least 300 ms before voice was noticed belong to it (`SttStream.speech_started`)."""

SETUP_ID = "setup"

BEGIN, CLEAR, COMMIT = "begin", "clear", "commit "

_EMPTY = "input_audio_buffer_commit_empty"

_TRANSCRIPTION = "conversation.item.input_audio_transcription."


def session_update(settings: OpenAiSttSettings, model: str, language: str, sample_rate: int) -> dict[str, Any]:
    """The message that sets a session up; `language` is ISO 639-1, empty: to be detected."""
    transcription: dict[str, Any] = {"model": model}
    given: Mapping[str, Any] = {
        "language": language,
        "prompt": settings.prompt,
        "keywords": list(settings.keywords),
        "delay": settings.delay,
    }
    transcription |= {name: value for name, value in given.items() if value}
    sound: dict[str, Any] = {
        "format": {"type": "audio/pcmu"} if sample_rate == 8000 else {"type": "audio/pcm", "rate": 24000},
        "transcription": transcription,
        "turn_detection": None if settings.turn_detection == "none" else {"type": settings.turn_detection},
    }
    if settings.noise_reduction:
        sound["noise_reduction"] = {"type": settings.noise_reduction}
    session = {"type": "transcription", "audio": {"input": sound}}
    return {"type": "session.update", "event_id": SETUP_ID, "session": session}


@dataclass(slots=True)
class _Item:
    turn: int
    pause: int
    """The pause at which we committed it; 0: the server did."""
    text: str = ""
    done: bool = False


class TranscriptionDialect:
    """Implements `Dialect`. `detects`: the server finds pauses too."""

    def __init__(self, provider: str, key: str, *, detects: bool) -> None:
        self._provider = provider
        self._key = key
        self._detects = detects
        self._turn = 0
        self._asked: deque[tuple[int, int]] = deque()
        """Turn and pause of each commit that the server has yet to take."""
        self._items: dict[str, _Item] = {}
        """By id, in the order of their commits; those of old turns until their text has come."""
        self._early: dict[str, str] = {}
        """Text of items that are yet to be committed."""
        self._dead: deque[str] = deque(maxlen=64)
        """Items that were cleared away."""
        self._clearing = 0
        """Clearings that the server has yet to confirm: until then, what it has is of a turn that is over."""
        self._pause = 0
        """The pause that waits for its text; 0: none does."""
        self._server_hears = False
        self._done_since_start = False

    # -- what our voice activity says ---------------------------------------------------------------------------

    def started(self, at_s: float) -> Sequence[Act]:
        self._done_since_start = False
        return () if self._detects else (BEGIN,)

    def paused(self, pause: int, at_s: float) -> Sequence[Act]:
        self._pause = pause
        if not self._detects:
            return self._commit(pause)
        # The server may have found this pause before us; else its own commit is to come.
        return tuple(self._settled()) if self._done_since_start else ()

    def committed(self, at_s: float, speaking: bool) -> Sequence[Act]:
        unheard = self._detects and (self._pause > 0 or self._server_hears)
        self._turn += 1
        self._pause = 0
        self._items = {key: item for key, item in self._items.items() if not item.done}
        if not (speaking or unheard):
            return ()
        # What was said without a pause that the server has found is of the old turn.
        self._clearing += 1
        self._dead.extend(self._early)
        self._early.clear()
        self._server_hears = False
        return (CLEAR,)

    def idle(self) -> Sequence[Act]:
        return ()

    def overdue(self, pause: int) -> Sequence[Act]:
        return self._commit(pause) if self._detects and not self._asked else ()

    def _commit(self, pause: int) -> Sequence[Act]:
        self._asked.append((self._turn, pause))
        return (f"{COMMIT}{pause}",)

    # -- what the server says -----------------------------------------------------------------------------------

    def take(self, message: Any) -> Iterable[Sign]:
        if not isinstance(message, dict):
            return ()
        kind, item_id = message.get("type"), message.get("item_id")
        if kind == "error":
            return self._error(message.get("error"))
        if kind == "input_audio_buffer.cleared":
            self._clearing = max(0, self._clearing - 1)
        if not isinstance(item_id, str):
            return ()
        match kind:
            case "input_audio_buffer.speech_started":
                self._server_hears = not self._clearing
            case "input_audio_buffer.committed":
                self._take_commit(item_id)
            case _ if isinstance(kind, str) and kind.startswith(_TRANSCRIPTION):
                return self._transcription(kind.removeprefix(_TRANSCRIPTION), item_id, message)
        return ()

    def _take_commit(self, item_id: str) -> None:
        self._server_hears = False
        if self._asked:
            turn, pause = self._asked.popleft()
        else:
            # Before our clearing reached it, the server committed what was of the old turn.
            turn, pause = (self._turn - 1 if self._clearing else self._turn), 0
        self._items[item_id] = _Item(turn, pause, self._early.pop(item_id, ""))

    def _transcription(self, what: str, item_id: str, message: Mapping[str, Any]) -> Iterable[Sign]:
        item = self._items.get(item_id)
        match what:
            case "delta":
                delta = message.get("delta")
                return self._delta(item_id, item, delta) if isinstance(delta, str) else ()
            case "completed":
                text = message.get("transcript")
                return self._completed(item_id, item, text, message) if isinstance(text, str) else ()
            case "failed" if item is not None:
                del self._items[item_id]
                if item.turn == self._turn:
                    error = message.get("error")
                    said = error.get("message") if isinstance(error, dict) else ""
                    return (self._failed(f"could not transcribe: {said or 'it does not say why'}"),)
        return ()

    def _delta(self, item_id: str, item: _Item | None, delta: str) -> Iterable[Sign]:
        if item is not None:
            item.text += delta
            return self._said(item_id, item) if item.turn == self._turn else ()
        if item_id in self._dead:
            return ()
        # Of the first commit that is yet to be taken, else of what is being said.
        if (self._asked[0][0] if self._asked else self._turn) != self._turn:
            return ()
        if self._clearing:
            self._dead.append(item_id)
            return ()
        self._early[item_id] = self._early.get(item_id, "") + delta
        return (Said(item_id, self._early[item_id].strip()),)

    def _completed(self, item_id: str, item: _Item | None, text: str, message: Mapping[str, Any]) -> Iterable[Sign]:
        if item is None:
            return ()
        item.text, item.done = text, True
        if item.turn != self._turn:
            del self._items[item_id]
            return ()
        self._done_since_start = True
        signs: list[Sign] = [*self._said(item_id, item, _language(message))]
        if self._detects and not item.pause:
            signs.append(SttEndpoint("end"))
        return [*signs, *self._settled()]

    def _said(self, item_id: str, item: _Item, language: str = "") -> Iterable[Sign]:
        return (Said(item_id, item.text.strip(), language),)

    def _settled(self) -> Iterable[Sign]:
        """Everything up to the last pause is transcribed."""
        waits = self._server_hears or any(turn == self._turn for turn, _ in self._asked)
        if not self._pause or waits or not all(item.done for item in self._items.values() if item.turn == self._turn):
            return ()
        pause, self._pause = self._pause, 0
        return (Settled(pause),)

    def _error(self, error: Any) -> Iterable[Sign]:
        if not isinstance(error, dict):
            return ()
        if error.get("code") == _EMPTY:
            # Nothing to transcribe since the last commit, so what is known is all.
            asked = error.get("event_id")
            found = [entry for entry in self._asked if asked == _event_id(entry[1])] or list(self._asked)[:1]
            for entry in found:
                self._asked.remove(entry)
            return self._settled()
        said = error.get("message") or error.get("code") or "failed"
        return (self._failed(str(said)),)

    def _failed(self, said: str) -> SttFailed:
        # A new session may do better, or another provider.
        return SttFailed(f"{self._provider}: {scrubbed(said, self._key)}", fatal=True)


def _event_id(pause: int) -> str:
    return f"pause-{pause}"


def _language(message: Mapping[str, Any]) -> str:
    languages = message.get("languages")
    first = languages[0] if isinstance(languages, list) and languages else None
    code = first.get("code") if isinstance(first, dict) else None
    return code if isinstance(code, str) else ""


class TranscriptionWire:
    """Implements `Wire`. `gated`: audio goes out only from `BEGIN` to the next commit, with a little from before:
    what is silent is not paid for, and nothing is invented from it."""

    def __init__(self, socket: SdkSocket, *, gated: bool) -> None:
        self._socket = socket
        self._gated = gated
        self._speaking = False
        self._lead: deque[bytes] = deque(maxlen=LEAD_CHUNKS)

    async def send(self, item: Item) -> None:
        if isinstance(item, bytes):
            if self._gated and not self._speaking:
                self._lead.append(item)
            else:
                await self._audio(item)
        elif item == BEGIN:
            self._speaking = True
            if self._lead:
                await self._audio(b"".join(self._lead))
                self._lead.clear()
        elif item == CLEAR:
            await self._send({"type": "input_audio_buffer.clear"})
        else:
            self._speaking = False
            pause = int(item.removeprefix(COMMIT))
            await self._send({"type": "input_audio_buffer.commit", "event_id": _event_id(pause)})

    async def _audio(self, audio: bytes) -> None:
        await self._send({"type": "input_audio_buffer.append", "audio": base64.b64encode(audio).decode()})

    async def _send(self, message: Mapping[str, Any]) -> None:
        await self._socket.send(json.dumps(message))

    def messages(self) -> AsyncIterator[Any]:
        return self._socket.objects()

    async def aclose(self) -> None:
        await self._socket.close()
