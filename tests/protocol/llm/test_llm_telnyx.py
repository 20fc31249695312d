"""Telnyx's language models: OpenAI's interface at another path."""

import pytest
from llm_vendors import KEY, collect, request
from openai_server import ChatStandin

from bridge.providers.base import ProviderUnavailableError
from bridge.providers.openai.settings import OpenAiLlmSettings
from bridge.providers.telnyx.llm import TelnyxLlm
from bridge.providers.telnyx.settings import TelnyxSettings


class TelnyxModels(ChatStandin):
    def __init__(self) -> None:
        super().__init__()
        self.route("POST", "/v2/ai/openai/chat/completions", self.reply)


async def test_telnyx_is_asked_at_its_own_path_with_its_own_key() -> None:
    async with TelnyxModels() as server:
        settings = TelnyxSettings(base_url=f"{server.http_url}/v2", llm=OpenAiLlmSettings(model="some/model"))
        llm = TelnyxLlm("telnyx", settings, environ={"TELNYX_API_KEY": KEY})
        assert await collect(llm, request()) == ("All right.", ())
        await llm.aclose()
        (exchange,) = server.exchanges
        assert exchange.headers["authorization"] == f"Bearer {KEY}"
        assert server.asked[0].model == "some/model"
        await server.all_closed()


def test_telnyx_wants_its_key() -> None:
    with pytest.raises(ProviderUnavailableError, match="set TELNYX_API_KEY"):
        TelnyxLlm("telnyx", TelnyxSettings(), environ={})
