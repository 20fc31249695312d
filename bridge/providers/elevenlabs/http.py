"""ElevenLabs over HTTP: a request for each text, streamed with timestamps.

Not through the SDK: its client (httpx 0.28) loses connections when a request is cancelled as it connects or ends, as
every interruption may do, and it passes over whatever goes wrong in the stream.
"""

import binascii
import json
from collections import OrderedDict
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import httpx2

from bridge.providers.base import ProviderError, SpeechChunk
from bridge.providers.elevenlabs.failures import detail, failure
from bridge.providers.scrub import scrubbed
from bridge.providers.tts_source import Leave, SocketLostError, Utterance
from bridge.providers.tts_words import times_ms

REMEMBERED_TURNS = 1000

PREVIOUS_CHARS = 500
"""How much of the text before it a text is told."""


class HttpText:
    """A `Source`: one request's answer."""

    def __init__(
        self,
        provider: str,
        client: httpx2.AsyncClient,
        request: httpx2.Request,
        utterance: Utterance,
        *,
        key_from: str,
    ) -> None:
        self._provider = provider
        self._client = client
        self._request = request
        self._utterance = utterance
        self._key_from = key_from
        self._key = request.headers["xi-api-key"]
        self._chunks = self._read()

    async def next(self) -> SpeechChunk | None:
        return await anext(self._chunks, None)

    async def leave(self, how: Leave) -> None:
        await self._chunks.aclose()

    async def _read(self) -> AsyncGenerator[SpeechChunk, None]:
        try:
            answer = await self._client.send(self._request, stream=True)
            try:
                if not answer.is_success:
                    raise self._refused(answer.status_code, await answer.aread())
                async for line in answer.aiter_lines():
                    if (chunk := _chunk(self._utterance, line)) is not None:
                        yield chunk
            finally:
                await answer.aclose()
        except (httpx2.RemoteProtocolError, httpx2.ReadError, httpx2.WriteError, httpx2.CloseError) as error:
            said = scrubbed(error, self._key) or type(error).__name__
            raise SocketLostError(f"the connection broke off: {said}") from None
        except httpx2.HTTPError as error:
            said = scrubbed(error, self._key) or type(error).__name__
            raise ProviderError(self._provider, f"can't be reached: {said}") from None
        if (last := self._utterance.last()) is not None:
            yield last

    def _refused(self, status: int, body: bytes) -> ProviderError:
        try:
            code, said = detail(json.loads(body))
        except ValueError:
            code, said = "", body.decode("utf-8", "replace")
        return failure(self._provider, status, code, said, key_from=self._key_from, key=self._key)


class SpokenBefore:
    """What was said in each turn so far."""

    def __init__(self) -> None:
        self._turns: OrderedDict[str, str] = OrderedDict()

    def get(self, turn: str) -> str:
        return self._turns.get(turn, "")

    def add(self, turn: str, text: str) -> None:
        if turn:
            self._turns[turn] = f"{self._turns.pop(turn, '')} {text}".strip()[-PREVIOUS_CHARS:]
            if len(self._turns) > REMEMBERED_TURNS:
                self._turns.popitem(last=False)


def _chunk(utterance: Utterance, line: str) -> SpeechChunk | None:
    """The audio of a line. None where it can't be read."""
    try:
        content: Any = json.loads(line)
        data = binascii.a2b_base64(content["audio_base64"])
    except (ValueError, TypeError, LookupError):
        return None
    alignment = content.get("alignment")
    if isinstance(alignment, Mapping):
        found = alignment.get("characters")
        characters = [str(char) for char in found] if isinstance(found, list) else []
        starts = times_ms(alignment.get("character_start_times_seconds"), 1000)
        ends = times_ms(alignment.get("character_end_times_seconds"), 1000)
        utterance.align_characters(characters, starts, ends)
    return utterance.chunk(data)
