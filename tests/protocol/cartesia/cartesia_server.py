"""A stand-in for Cartesia's voices: the socket with its contexts, voices and their cloning.

Wire format: `protocols/tts.md` 5, the vendor's guides on contexts and flushing, and the SDK's types. Texts become
tones (`standin_voice`).
"""

import asyncio
import base64
import json
import re
from dataclasses import dataclass, field
from typing import Any

import standin_voice
from standin import Exchange, Reply, Socket, Standin, until_gone

KEY = "sk_car_0123456789abcdefghijkl"
VOICE = "6ccbfb76-1fc6-48f7-b71d-91ac6298247b"


@dataclass(eq=False)
class Context:
    """One on a socket, as the server saw it."""

    id: str
    how: dict[str, Any]
    """All fields that must stay the same."""
    spoken: list[str] = field(default_factory=list)
    cancelled: bool = False
    over: bool = False
    audio_ms: int = 0
    flushes: int = 0
    todo: asyncio.Queue[dict[str, Any]] = field(default_factory=asyncio.Queue)


class Cartesia(Standin):
    """`key` is the one that it takes."""

    def __init__(
        self, *, key: str = KEY, chunk_chars: int = 6, pace: float = 0.0, expire_s: float = 1.0, most_texts: int = 500
    ) -> None:
        """A message of audio has `chunk_chars` characters and takes `pace` of its own length to make; a context on
        which nothing is said for `expire_s` after its audio is forgotten; beyond `most_texts` at once: 429."""
        super().__init__()
        self.key = key
        self.chunk_chars = chunk_chars
        self.pace = pace
        self.expire_s = expire_s
        self.most_texts = most_texts
        self.times_of_text = False
        """Word times count from the start of the text, not of the context."""
        self.contexts: list[Context] = []
        """All that there were."""
        self.voices: list[dict[str, Any]] = [_voice(VOICE, "Tessa", False)]
        self._speaking = 0
        self.socket("/tts/websocket", self._talk)
        self.route("GET", "/voices", self._list)
        self.route("POST", "/voices/clone", self._clone)

    # -- socket -------------------------------------------------------------------------------------------------

    async def _talk(self, exchange: Exchange, socket: Socket) -> None:
        given = exchange.headers.get("authorization", "")
        if given != f"Bearer {self.key}":
            await socket.json({"type": "error", "done": True, "status_code": 401, "title": f"Wrong key {given}"})
            return
        contexts: dict[str, Context] = {}
        tasks: set[asyncio.Task[None]] = set()
        try:
            async for raw in socket:
                message = json.loads(raw)
                name = message.pop("context_id")
                context = contexts.get(name)
                if message.get("cancel"):
                    if context is not None:
                        context.cancelled = True
                    continue
                how = {key: value for key, value in message.items() if key not in ("transcript", "continue", "flush")}
                if (context is not None and context.over) or (context is None and how != self._checked(how)):
                    await _error(socket, name, 400, "Context has closed")
                    continue
                if context is None:
                    if how["voice"]["id"] not in [voice["id"] for voice in self.voices]:
                        await _error(socket, name, 404, "Voice not found")
                        continue
                    if self._speaking >= self.most_texts:
                        await _error(socket, name, 429, "Too many concurrent requests")
                        continue
                    context = contexts[name] = Context(name, how)
                    self.contexts.append(context)
                    task = asyncio.create_task(self._speak(socket, context))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
                assert how == context.how, "what a context's texts have in common was changed"
                context.todo.put_nowait(message)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _checked(self, how: dict[str, Any]) -> dict[str, Any]:
        assert how["output_format"]["container"] == "raw"
        return how

    @until_gone
    async def _speak(self, socket: Socket, context: Context) -> None:
        self._speaking += 1
        try:
            while True:
                try:
                    async with asyncio.timeout(self.expire_s):
                        message = await context.todo.get()
                except TimeoutError:
                    break
                if context.cancelled:
                    break
                if text := message["transcript"].strip():
                    context.spoken.append(text)
                    await self._audio(socket, context, text)
                if message.get("flush"):
                    context.flushes += 1
                    await socket.json(
                        {**_head("flush_done", context), "flush_id": context.flushes, "flush_done": True}
                    )
                if not message.get("continue"):
                    break
            context.over = True
            await socket.json({**_head("done", context), "done": True, "status_code": 200})
        finally:
            context.over = True
            self._speaking -= 1

    async def _audio(self, socket: Socket, context: Context, text: str) -> None:
        wanted = context.how["output_format"]
        encoding, rate = wanted["encoding"].removeprefix("pcm_"), wanted["sample_rate"]
        data = standin_voice.on_wire(text, encoding, rate)
        per_char = rate * standin_voice.CHAR_MS // 1000 * (1 if encoding == "mulaw" else 2)
        base_ms = 0 if self.times_of_text else context.audio_ms
        flush_id = context.flushes + 1
        for at, part in standin_voice.pieces(text, self.chunk_chars):
            await asyncio.sleep(self.pace * standin_voice.spoken_ms(part) / 1000)
            words = _words(text, at, at + len(part))
            if words and context.how.get("add_timestamps"):
                timing = {
                    "words": [word for word, _, _ in words],
                    "start": [(base_ms + first * standin_voice.CHAR_MS) / 1000 for _, first, _ in words],
                    "end": [(base_ms + last * standin_voice.CHAR_MS) / 1000 for _, _, last in words],
                }
                await socket.json({**_head("timestamps", context), "word_timestamps": timing})
            piece = base64.b64encode(data[at * per_char : (at + len(part)) * per_char]).decode()
            await socket.json({**_head("chunk", context), "data": piece, "step_time": 12.3, "flush_id": flush_id})
        context.audio_ms += standin_voice.spoken_ms(text)

    # -- HTTP ---------------------------------------------------------------------------------------------------

    async def _list(self, exchange: Exchange, reply: Reply) -> None:
        if not await self._known(exchange, reply):
            return
        first, size = 0, int(exchange.asked("limit") or 10)
        if after := exchange.asked("starting_after"):
            first = [voice["id"] for voice in self.voices].index(after) + 1
        more = first + size < len(self.voices)
        found = self.voices[first : first + size]
        await reply.json({"data": found, "has_more": more, "next_page": found[-1]["id"] if more else None})

    async def _clone(self, exchange: Exchange, reply: Reply) -> None:
        if not await self._known(exchange, reply):
            return
        name = re.search(rb'name="name"\r\n\r\n(.*?)\r\n', exchange.body)
        language = re.search(rb'name="language"\r\n\r\n(.*?)\r\n', exchange.body)
        assert name is not None
        assert language is not None
        assert b'name="clip"; filename=' in exchange.body
        voice = _voice(f"cloned-{len(self.voices)}", name[1].decode(), True)
        self.voices.append(voice)
        await reply.json({**voice, "user_id": "user_1"})

    async def _known(self, exchange: Exchange, reply: Reply) -> bool:
        given = exchange.headers.get("authorization", "")
        if given == f"Bearer {self.key}":
            return True
        await reply.json({"error_code": "unauthorized", "title": "Unauthorized", "message": f"No key {given}"}, 401)
        return False


def _head(kind: str, context: Context) -> dict[str, Any]:
    return {"type": kind, "context_id": context.id, "done": False, "status_code": 206}


def _words(text: str, first: int, last: int) -> list[tuple[str, int, int]]:
    """The words of `text` that end in this part of it, with their places."""
    found = [(match[0], match.start(), match.end()) for match in re.finditer(r"\S+", text)]
    return [word for word in found if first < word[2] <= last]


async def _error(socket: Socket, context_id: str, status: int, title: str) -> None:
    await socket.json(
        {
            "type": "error",
            "context_id": context_id,
            "done": True,
            "status_code": status,
            "title": title,
            "message": f"{title}.",
        }
    )


def _voice(voice: str, name: str, own: bool) -> dict[str, Any]:
    return {
        "id": voice,
        "name": name,
        "language": "en",
        "description": "",
        "tagline": "Warm",
        "is_owner": own,
        "access": "private" if own else "public",
        "visibility": "owner" if own else "all",
        "created_at": "2026-01-01T00:00:00Z",
        "locales": [],
    }
