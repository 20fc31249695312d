"""Speech to text with the embedded engines: each pause of the caller's turn is recognised in the worker pool."""

from collections.abc import Callable
from typing import Any

from bridge.providers.base import ProviderUnavailableError, ProviderUnfitError, SttEvent, SttStream
from bridge.providers.local.jobs import Priority
from bridge.providers.local.pool import PROVIDER, EnginePool
from bridge.providers.local.settings import EngineSettings
from bridge.providers.local.transcript import SILENCE_DBFS, loudest_dbfs
from bridge.providers.stt_windows import Purpose, WindowStream

SAMPLE_RATES = (8000, 16000)

Emit = Callable[[SttEvent], None]


class LocalStt:
    """Implements `Stt`. The pool is started and closed by its owner."""

    def __init__(self, pool: EnginePool, settings: EngineSettings) -> None:
        self._pool = pool
        self._settings = settings

    @property
    def name(self) -> str:
        return PROVIDER

    async def start(self) -> None:
        """Nothing to do: the pool is warm."""

    async def probe(self) -> str:
        return "the embedded recogniser"

    async def warm(self) -> None:
        """Nothing to open."""

    async def aclose(self) -> None:
        """Nothing to do: streams are closed by whom they were opened for."""

    async def open(self, *, sample_rate: int, language: str, emit: Emit) -> SttStream:
        """Raises ProviderUnfitError for a rate or a language that the engine does not know."""
        if sample_rate not in SAMPLE_RATES:
            raise ProviderUnfitError(PROVIDER, f"{sample_rate} Hz; known: {SAMPLE_RATES}")
        engine = self._pool.engines.get("stt")
        if engine == "moonshine" and language.partition("-")[0].lower() != "en":
            raise ProviderUnfitError(
                PROVIDER, f"Moonshine hears English only, not {language!r}; pip install 'offhook[whisper]' hears more"
            )
        fields: dict[str, Any] = {"sample_rate": sample_rate, "language": language}

        async def recognise(pcm: bytes, purpose: Purpose) -> str:
            return await self._recognise(fields, pcm, purpose)

        return WindowStream(
            recognise,
            sample_rate=sample_rate,
            turn_max_s=self._settings.turn_max_s,
            emit=emit,
            fatal=lambda error: isinstance(error, ProviderUnavailableError),
        )

    async def _recognise(self, fields: dict[str, Any], pcm: bytes, purpose: Purpose) -> str:
        if loudest_dbfs(pcm, fields["sample_rate"]) <= SILENCE_DBFS:
            return ""
        settings = self._settings
        deadline_s = settings.partial_deadline_s if purpose == "partial" else settings.stt_deadline_s
        priority = Priority.REPLY if purpose == "reply" else Priority.PARTIAL
        reply = await self._pool.run("stt", fields, pcm, priority=priority, deadline_s=deadline_s)
        return str(reply.fields["text"])
