"""Sentence embeddings through the worker pool, remembered: a conversation is replayed at each turn."""

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bridge.providers.local.jobs import Priority
from bridge.providers.local.pool import EnginePool
from bridge.providers.local.settings import EngineSettings

DIMENSIONS = 384

BATCH = 16
"""Texts a job has at most: 40 ms of work, so that a long list keeps nobody waiting."""


class Embedder:
    def __init__(self, pool: EnginePool, settings: EngineSettings) -> None:
        self._pool = pool
        self._settings = settings
        self._known: OrderedDict[str, NDArray[np.float32]] = OrderedDict()

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """[len(texts), 384] float32, each row of length 1: the dot product of two is how alike they are (-1 to 1).

        Raises ProviderError. A text that was asked for lately costs nothing."""
        found: dict[str, NDArray[np.float32]] = {}
        for text in texts:
            if text in self._known:
                self._known.move_to_end(text)
                found[text] = self._known[text]
        missing = [text for text in dict.fromkeys(texts) if text not in found]
        for start in range(0, len(missing), BATCH):
            batch = missing[start : start + BATCH]
            # A long list is the preparation of a brief, not the sentence of a caller.
            priority = Priority.BACKGROUND if len(missing) > BATCH else Priority.REPLY
            reply = await self._pool.run(
                "embed", {"texts": batch}, priority=priority, deadline_s=self._settings.embed_deadline_s
            )
            rows = np.frombuffer(reply.payload, np.float32).reshape(len(batch), DIMENSIONS)
            found.update(zip(batch, rows, strict=True))
            self._remember(batch, rows)
        return np.stack([found[text] for text in texts]) if texts else np.empty((0, DIMENSIONS), np.float32)

    def _remember(self, texts: Sequence[str], rows: NDArray[np.float32]) -> None:
        self._known.update(zip(texts, rows, strict=True))
        while len(self._known) > self._settings.embed_cache:
            self._known.popitem(last=False)
