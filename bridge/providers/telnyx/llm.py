"""A language model at Telnyx, by its OpenAI-compatible interface (`protocols/llm.md` 7)."""

import os
from collections.abc import Mapping

from bridge.providers.openai.llm import OpenAiLlm
from bridge.providers.openai.settings import OpenAiSettings
from bridge.providers.telnyx.settings import BASE_URL, TelnyxSettings


class TelnyxLlm(OpenAiLlm):
    """An `Llm` at `/v2/ai/openai`."""

    def __init__(self, name: str, settings: TelnyxSettings, *, environ: Mapping[str, str] = os.environ) -> None:
        """Raises ProviderUnavailableError when there is no key."""
        as_openai = OpenAiSettings(
            kind="telnyx",
            api_key_env=settings.api_key_env,
            api_key_file=settings.api_key_file,
            base_url=f"{settings.base_url or BASE_URL}/ai/openai",
            connect_s=settings.connect_s,
            llm=settings.llm,
        )
        super().__init__(name, as_openai, environ=environ)
