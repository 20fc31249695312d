"""The embedded engines as one thing that is started and closed: ears, voice, embeddings and the pool under them."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from bridge.providers.base import ProviderUnavailableError
from bridge.providers.local.embed import Embedder
from bridge.providers.local.models import ROLES, ModelError, Role, check_models, find_model
from bridge.providers.local.pool import PROVIDER, EnginePool, Progress
from bridge.providers.local.settings import EngineSettings
from bridge.providers.local.stt import LocalStt
from bridge.providers.local.tts import LocalTts


class LocalEngines:
    """`start`, use `stt`, `tts`, `embedder`, ask `pool` for room; `aclose` in the end."""

    stt: LocalStt
    tts: LocalTts
    embedder: Embedder

    def __init__(self, settings: EngineSettings, data_dir: Path, roles: Sequence[Role] = ROLES) -> None:
        """Engines of `roles` are loaded; the others must not be used. Phrases are kept in `data_dir`."""
        self._settings = settings
        self._data_dir = data_dir
        self._roles = tuple(roles)
        self.pool = EnginePool(settings, roles)
        self.stt = LocalStt(self.pool, settings)
        self.embedder = Embedder(self.pool, settings)

    async def start(self, progress: Progress = lambda line: None) -> None:
        """Check the models and load them; `progress` gets a line a step.

        Raises ProviderUnavailableError with every problem there is and what to do."""
        progress("checking the model files")
        if problems := await asyncio.to_thread(check_models, self._settings, self._roles):
            raise ProviderUnavailableError(PROVIDER, "; ".join(problems))
        if "tts" in self._roles:
            await self._open_voice()
        await self.pool.start(progress)

    async def aclose(self) -> None:
        """End the workers. May be called at any time, more than once."""
        await self.pool.aclose()

    async def _open_voice(self) -> None:
        try:
            model = find_model("tts", self._settings)
            fingerprint = await asyncio.to_thread(model.fingerprint)
        except (ModelError, OSError) as error:
            raise ProviderUnavailableError(PROVIDER, str(error)) from error
        self.tts = LocalTts(
            self.pool,
            self._settings,
            voice=model["voice.onnx"].stem,
            fingerprint=fingerprint,
            directory=self._data_dir / "phrases",
        )
