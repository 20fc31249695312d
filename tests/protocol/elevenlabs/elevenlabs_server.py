"""A stand-in for ElevenLabs' voices: the multi-context socket, HTTP with timestamps, voices and their cloning.

Wire format: `protocols/tts.md` 2 to 4 and the SDK's types. Texts become tones (`standin_voice`).
"""

import asyncio
import base64
import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import standin_voice
from standin import Exchange, Reply, Socket, Standin, until_gone

KEY = "sk_0123456789abcdef0123456789abcdef"
VOICE = "JBFqnCBsd6RMkjVDRZzb"

_FORMAT = re.compile(r"(ulaw|pcm)_(\d+)")


@dataclass
class Context:
    """One on a socket, as the server saw it."""

    id: str
    text: str = ""
    """Not spoken yet."""
    spoken: list[str] = field(default_factory=list)
    closed: bool = False
    settings: Any = None


class ElevenLabs(Standin):
    """`key` is the one that it takes."""

    def __init__(
        self, *, key: str = KEY, chunk_chars: int = 6, pace: float = 0.0, most_contexts: int = 5, idle_s: float = 20.0
    ) -> None:
        """A message of audio has `chunk_chars` characters and takes `pace` of its own length to make; a socket on
        which nothing is said for `idle_s` is closed."""
        super().__init__()
        self.key = key
        self.chunk_chars = chunk_chars
        self.pace = pace
        self.most_contexts = most_contexts
        self.idle_s = idle_s
        self.absolute_times = False
        """Alignment counts from the start of the text, as some models do."""
        self.voices: dict[str, dict[str, Any]] = {VOICE: _voice(VOICE, "George", "premade")}
        self.contexts: list[Context] = []
        """All that there were."""
        self.most_open = 0
        """Contexts open at once on any socket."""
        self._numbers = itertools.count(1)
        self.socket("/v1/text-to-speech/{voice}/multi-stream-input", self._talk)
        self.route("POST", "/v1/text-to-speech/{voice}/stream/with-timestamps", self._stream)
        self.route("GET", "/v2/voices", self._list)
        self.route("POST", "/v1/voices/add", self._add)
        self.route("GET", "/v1/models", self._models)

    # -- socket -------------------------------------------------------------------------------------------------

    async def _talk(self, exchange: Exchange, socket: Socket) -> None:
        if exchange.headers.get("xi-api-key") != self.key:
            await _refuse(socket, "invalid_api_key", f"Invalid API key {exchange.headers.get('xi-api-key')}")
            return
        if exchange.params["voice"] not in self.voices:
            await _refuse(socket, "voice_id_does_not_exist", "A voice with that id does not exist.")
            return
        wire = _FORMAT.fullmatch(exchange.asked("output_format"))
        assert wire is not None
        contexts: dict[str, Context] = {}
        speaking: set[asyncio.Task[None]] = set()
        try:
            while True:
                try:
                    async with asyncio.timeout(self.idle_s):
                        raw = await socket.receive()
                except TimeoutError:
                    await _refuse(socket, "input_timeout_exceeded", "No input was received for a while.")
                    return
                if raw is None:
                    return
                message = json.loads(raw)
                if message.get("close_socket"):
                    return
                name = message.get("context_id", "default")
                context = contexts.get(name)
                if context is None and not message.get("text"):
                    continue  # A closing, a flush or a sign of life for one that is over: other clients send these.
                if context is None:
                    assert message.get("text") == " ", "a context begins with a space"
                    if len(contexts) >= self.most_contexts:
                        await _refuse(socket, "max_active_contexts", "Too many contexts on this connection.")
                        return
                    context = contexts[name] = Context(name, settings=message.get("voice_settings"))
                    self.contexts.append(context)
                    self.most_open = max(self.most_open, len(contexts))
                    continue
                context.text += message.get("text") or ""
                context.closed = context.closed or bool(message.get("close_context"))
                if (message.get("flush") or context.closed) and (context.text or context.closed):
                    text, context.text = context.text.strip(), ""
                    if text:
                        context.spoken.append(text)
                    last = context if context.closed else None
                    # A context speaks what it is given in order; several speak at once.
                    before = [task for task in speaking if task.get_name() == name]
                    task = asyncio.create_task(
                        self._speak(socket, name, text, wire, last, contexts, before), name=name
                    )
                    speaking.add(task)
                    task.add_done_callback(speaking.discard)
        finally:
            for task in speaking:
                task.cancel()
            await asyncio.gather(*speaking, return_exceptions=True)

    @until_gone
    async def _speak(
        self,
        socket: Socket,
        name: str,
        text: str,
        wire: re.Match[str],
        last: Context | None,
        contexts: dict[str, Context],
        before: list[asyncio.Task[None]],
    ) -> None:
        if before:
            await asyncio.wait(before)
        for content in self._chunks(text, wire):
            await asyncio.sleep(self.pace * standin_voice.spoken_ms("".join(content["alignment"]["chars"])) / 1000)
            await socket.json({**content, "contextId": name, "isFinal": None})
        if last is not None:
            contexts.pop(name, None)
            await socket.json({"isFinal": True, "audio": None, "contextId": name})

    def _chunks(self, text: str, wire: re.Match[str]) -> Iterator[dict[str, Any]]:
        for at, part, data in self._pieces(text, wire):
            first = at if self.absolute_times else 0
            starts = [(first + place) * standin_voice.CHAR_MS for place in range(len(part))]
            alignment = {
                "chars": list(part),
                "charStartTimesMs": starts,
                "charDurationsMs": [standin_voice.CHAR_MS] * len(part),
            }
            yield {"audio": data, "alignment": alignment, "normalizedAlignment": alignment}

    def _pieces(self, text: str, wire: re.Match[str]) -> Iterator[tuple[int, str, str]]:
        encoding, rate = ("mulaw" if wire[1] == "ulaw" else "linear16"), int(wire[2])
        data = standin_voice.on_wire(text, encoding, rate)
        per_char = rate * standin_voice.CHAR_MS // 1000 * (1 if encoding == "mulaw" else 2)
        for at, part in standin_voice.pieces(text, self.chunk_chars):
            piece = data[at * per_char : (at + len(part)) * per_char]
            yield at, part, base64.b64encode(piece).decode()

    # -- HTTP ---------------------------------------------------------------------------------------------------

    async def _stream(self, exchange: Exchange, reply: Reply) -> None:
        if not await self._known(exchange, reply):
            return
        if exchange.params["voice"] not in self.voices:
            await _problem(reply, 404, "voice_not_found", "A voice with that id was not found.")
            return
        wire = _FORMAT.fullmatch(exchange.asked("output_format"))
        assert wire is not None
        await reply.begin("application/json")
        for at, part, data in self._pieces(exchange.json()["text"], wire):
            await asyncio.sleep(self.pace * standin_voice.spoken_ms(part) / 1000)
            char_s = standin_voice.CHAR_MS / 1000
            alignment = {
                "characters": list(part),
                "character_start_times_seconds": [(at + place) * char_s for place in range(len(part))],
                "character_end_times_seconds": [(at + place + 1) * char_s for place in range(len(part))],
            }
            line = {"audio_base64": data, "alignment": alignment, "normalized_alignment": alignment}
            await reply.piece(json.dumps(line).encode() + b"\n")
        await reply.end()

    async def _list(self, exchange: Exchange, reply: Reply) -> None:
        if not await self._known(exchange, reply):
            return
        found = list(self.voices.values())
        first = int(exchange.asked("next_page_token") or 0)
        after = first + int(exchange.asked("page_size") or 10)
        more = after < len(found)
        await reply.json(
            {
                "voices": found[first:after],
                "has_more": more,
                "total_count": len(found),
                "next_page_token": str(after) if more else None,
            }
        )

    async def _add(self, exchange: Exchange, reply: Reply) -> None:
        if not await self._known(exchange, reply):
            return
        name = re.search(rb'name="name"\r\n\r\n(.*?)\r\n', exchange.body)
        assert name is not None
        voice = f"cloned{next(self._numbers)}"
        self.voices[voice] = _voice(voice, name[1].decode(), "cloned")
        await reply.json({"voice_id": voice, "requires_verification": False})

    async def _models(self, exchange: Exchange, reply: Reply) -> None:
        if await self._known(exchange, reply):
            await reply.json([])

    async def _known(self, exchange: Exchange, reply: Reply) -> bool:
        given = exchange.headers.get("xi-api-key")
        if given == self.key:
            return True
        await _problem(reply, 401, "invalid_api_key", f"Invalid API key: {given}")
        return False


async def _problem(reply: Reply, status: int, word: str, message: str) -> None:
    await reply.json({"detail": {"status": word, "message": message}}, status)


async def _refuse(socket: Socket, word: str, message: str) -> None:
    await socket.json({"message": message, "error": word, "code": 1008})
    await socket.close(1008, message[:100])


def _voice(voice: str, name: str, category: str) -> dict[str, Any]:
    return {"voice_id": voice, "name": name, "category": category, "labels": {"language": "en"}, "description": ""}
