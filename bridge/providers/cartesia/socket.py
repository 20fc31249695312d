"""Cartesia's socket, which speaks many texts at once, each in a context (`protocols/tts.md` 5), under the SDK's."""

import asyncio
import binascii
import contextlib
import itertools
from collections.abc import Mapping
from typing import Any

from bridge.providers.base import ProviderError
from bridge.providers.cartesia.failures import failure
from bridge.providers.scrub import scrubbed
from bridge.providers.sdk_sockets import SdkSocket
from bridge.providers.tts_source import SAME_CLOCK_MS, Delivery, SocketLostError, Utterance
from bridge.providers.tts_words import times_ms
from bridge.providers.voice_link import VoiceLink

CANCEL_S = 0.5
"""Longest wait for a peer that reads nothing to be told that a text is not wanted."""


class Context:
    """One on a socket: texts that follow each other, with one melody."""

    __slots__ = ("audio_ms", "base_ms", "id", "spoken_at", "text")

    def __init__(self, context_id: str) -> None:
        self.id = context_id
        self.text: SpokenText | None = None
        """That is being spoken."""
        self.audio_ms = 0.0
        """Of all its texts."""
        self.base_ms = 0.0
        """Of the texts before the present one."""
        self.spoken_at = 0.0
        """When its last audio came (s)."""


class SpokenText:
    """One text in a context."""

    __slots__ = ("context", "continues", "delivery", "utterance")

    def __init__(self, context: Context, utterance: Utterance) -> None:
        self.context = context
        self.continues = context.audio_ms > 0
        self.utterance = utterance
        self.delivery = Delivery()


class CartesiaSocket:
    """A `VoiceSocket` for all voices and formats.

    Of the SDK the connection is used, not its contexts: who waits on one of those when the connection is lost waits
    for ever."""

    def __init__(self, socket: SdkSocket, provider: str, *, key_from: str, key: str) -> None:
        self._provider = provider
        self._key_from = key_from
        self._key = key
        self._numbers = itertools.count(1)
        self._contexts: dict[str, Context] = {}
        self._problem: ProviderError | None = None
        self._link = VoiceLink(socket, socket.objects(), take=self._take, lost=self._lost)

    @property
    def alive(self) -> bool:
        return self._link.alive

    @property
    def problem(self) -> ProviderError | None:
        return self._problem

    def ready(self, now: float) -> bool:
        return True

    def goes_on(self, context: Context) -> bool:
        """Its last text is complete, and another one may follow."""
        return self._link.alive and context.text is None and self._contexts.get(context.id) is context

    async def begin(
        self, utterance: Utterance, text: str, how: Mapping[str, Any], *, context: Context | None, more: bool
    ) -> SpokenText:
        """Have `text` spoken, in `context` (None: a new one); `more`: another one may follow there. `how` is the same
        for all texts of a context. Raises SocketLostError."""
        if context is None:
            context = Context(f"c{next(self._numbers)}")
            self._contexts[context.id] = context
        spoken = SpokenText(context, utterance)
        context.text, context.base_ms = spoken, context.audio_ms
        request = {**how, "context_id": context.id}
        try:
            if more:
                # Texts are joined as they are, so a space stands between them.
                await self._link.send({**request, "transcript": f"{text.strip()} ", "continue": True})
                await self._link.send({**request, "transcript": "", "continue": True, "flush": True})
            else:
                await self._link.send({**request, "transcript": text.strip(), "continue": False})
        except BaseException:
            self.forget(spoken)
            raise
        return spoken

    def forget(self, spoken: SpokenText) -> None:
        """Drop whatever still comes of it, and of its context if it was not complete."""
        if spoken.context.text is spoken:
            self._contexts.pop(spoken.context.id, None)
            spoken.context.text = None
        spoken.delivery.finish()

    async def cancel(self, spoken: SpokenText) -> None:
        """Stop speaking it, as far as the server can."""
        complete = spoken.delivery.over
        self.forget(spoken)
        if not complete and self._link.alive:
            with contextlib.suppress(SocketLostError, TimeoutError):
                async with asyncio.timeout(CANCEL_S):
                    await self._link.send({"context_id": spoken.context.id, "cancel": True})

    async def aclose(self) -> None:
        await self._link.aclose()

    def _lost(self, why: str) -> None:
        for context in self._contexts.values():
            if context.text is not None:
                context.text.delivery.fail(SocketLostError(why))
        self._contexts.clear()

    def _take(self, message: Mapping[str, Any]) -> None:
        context = self._contexts.get(str(message.get("context_id")))
        spoken = None if context is None else context.text
        match message.get("type"):
            case "chunk" if context is not None and spoken is not None:
                self._chunk(context, spoken, message)
            case "timestamps" if context is not None and spoken is not None:
                _align(context, spoken, message)
            case "flush_done" if spoken is not None:
                self._complete(spoken)
            case "done" if context is not None:
                del self._contexts[context.id]
                if spoken is not None and spoken.continues and not spoken.utterance.audio_ms:
                    spoken.delivery.fail(SocketLostError("the context expired"))
                elif spoken is not None:
                    self._complete(spoken)
            case "error":
                self._refused(message, spoken)

    def _chunk(self, context: Context, spoken: SpokenText, message: Mapping[str, Any]) -> None:
        try:
            data = binascii.a2b_base64(message["data"])
        except (KeyError, ValueError, TypeError):
            return
        before_ms = spoken.utterance.audio_ms
        spoken.delivery.sound(spoken.utterance, data)
        context.audio_ms += spoken.utterance.audio_ms - before_ms
        context.spoken_at = asyncio.get_running_loop().time()

    def _complete(self, spoken: SpokenText) -> None:
        spoken.context.text = None
        spoken.delivery.complete(spoken.utterance)

    def _refused(self, message: Mapping[str, Any], spoken: SpokenText | None) -> None:
        status = message.get("status_code")
        parts = [str(message[name]) for name in ("title", "message") if message.get(name)]
        said = scrubbed(": ".join(parts) or message.get("error_code") or message.get("error") or "", self._key)
        error = failure(self._provider, status if isinstance(status, int) else 0, said, key_from=self._key_from)
        if spoken is not None:
            if spoken.continues and not spoken.utterance.audio_ms:
                # The context may just have expired: the text can be spoken in another one.
                spoken.delivery.fail(SocketLostError(said))
            else:
                spoken.delivery.fail(error)
        elif message.get("context_id") is None:
            self._link.alive, self._problem = False, error
            for context in self._contexts.values():
                if context.text is not None:
                    context.text.delivery.fail(error)


def _align(context: Context, spoken: SpokenText, message: Mapping[str, Any]) -> None:
    timing = message.get("word_timestamps")
    if not isinstance(timing, dict):
        return
    words, starts, ends = timing.get("words"), times_ms(timing.get("start"), 1000), times_ms(timing.get("end"), 1000)
    if not isinstance(words, list):
        return
    if starts and starts[0] >= context.base_ms - SAME_CLOCK_MS:
        # They count from the start of the context.
        starts = [ms - context.base_ms for ms in starts]
        ends = [ms - context.base_ms for ms in ends]
    spoken.utterance.align_words([str(word) for word in words], starts, ends)
