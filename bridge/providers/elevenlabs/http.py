"""ElevenLabs over HTTP: a request for each text, streamed with timestamps, through the SDK."""

import binascii
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import httpx
from elevenlabs.core import ApiError
from elevenlabs.types import StreamingAudioChunkWithTimestampsResponse as Timed

from bridge.providers.base import ProviderError, SpeechChunk
from bridge.providers.elevenlabs.failures import detail, failure
from bridge.providers.scrub import scrubbed
from bridge.providers.tts_source import Leave, SocketLostError, Utterance

REMEMBERED_TURNS = 1000
PREVIOUS_CHARS = 500
"""How much of the text before it a text is told."""


class HttpText:
    """A `Source`: one request's answer."""

    def __init__(
        self, provider: str, answer: AsyncIterator[Timed], utterance: Utterance, *, key_from: str, key: str
    ) -> None:
        self._provider = provider
        self._utterance = utterance
        self._key_from = key_from
        self._key = key
        self._chunks = self._read(answer)

    async def next(self) -> SpeechChunk | None:
        return await anext(self._chunks, None)

    async def leave(self, how: Leave) -> None:
        await self._chunks.aclose()

    async def _read(self, answer: AsyncIterator[Timed]) -> AsyncGenerator[SpeechChunk, None]:
        try:
            # The SDK's iterator is a generator: closing it closes the response.
            async with aclosing(answer) as pieces:  # type: ignore[type-var]
                async for piece in pieces:
                    if (chunk := _chunk(self._utterance, piece)) is not None:
                        yield chunk
        except ApiError as error:
            code, said = detail(error.body)
            raise failure(
                self._provider, error.status_code or 0, code, said, key_from=self._key_from, key=self._key
            ) from None
        except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError, httpx.CloseError) as error:
            said = scrubbed(error, self._key) or type(error).__name__
            raise SocketLostError(f"the connection broke off: {said}") from None
        except httpx.HTTPError as error:
            said = scrubbed(error, self._key) or type(error).__name__
            raise ProviderError(self._provider, f"can't be reached: {said}") from None
        if (last := self._utterance.last()) is not None:
            yield last


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


def _chunk(utterance: Utterance, piece: Timed) -> SpeechChunk | None:
    # The SDK does not check what it has read.
    content: Any = piece
    try:
        data = binascii.a2b_base64(content.audio_base_64)
        if (alignment := content.alignment) is not None:
            starts = [round(second * 1000, 3) for second in alignment.character_start_times_seconds]
            ends = [round(second * 1000, 3) for second in alignment.character_end_times_seconds]
            utterance.align_characters(alignment.characters, starts, ends)
    except (ValueError, TypeError, AttributeError):
        return None
    return utterance.chunk(data)
