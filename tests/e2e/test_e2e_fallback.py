"""A real bridge whose vendors all fail at once: what the caller hears over RTP, and what is on record."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path += [str(Path(__file__).parents[1] / "protocol" / vendor) for vendor in ("cartesia",)]

from bridge_process import BridgeProcess
from cartesia_server import Cartesia
from deepgram_server import DeepgramServer
from openai_server import ChatStandin
from raw_caller import RawCaller
from standin_llm import Says

AUDIO = Path(__file__).parents[1] / "data" / "audio"
QUESTION = "when are you open tomorrow"
ANSWER = "We open at nine in the morning."
KEY = "sk-end-to-end-0123456789abcdef"

PROVIDERS = """\
providers:
  ear: {{kind: deepgram, base_url: '{ear}', api_key_env: THE_KEY}}
  model: {{kind: openai, base_url: '{model}/v1', api_key_env: THE_KEY, llm: {{model: m}}}}
  voice: {{kind: cartesia, base_url: '{voice}', api_key_env: THE_KEY}}
  ear2: {{kind: deepgram, base_url: '{ear2}', api_key_env: THE_KEY}}
  model2: {{kind: openai, base_url: '{model2}/v1', api_key_env: THE_KEY, llm: {{model: m}}}}
  voice2: {{kind: cartesia, base_url: '{voice2}', api_key_env: THE_KEY}}
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., BridgeProcess]]:
    started: list[BridgeProcess] = []

    def begin(**settings: Any) -> BridgeProcess:
        variables = {"NO_PROXY": "127.0.0.1", "THE_KEY": KEY}
        started.append(BridgeProcess(tmp_path / f"box{len(started)}", variables=variables, **settings))
        return started[-1]

    yield begin
    for process in started:
        process.kill()


@asynccontextmanager
async def vendors() -> AsyncIterator[dict[str, Any]]:
    """Two of each role, by the names of the configuration."""
    async with AsyncExitStack() as stack:
        running: dict[str, Any] = {}
        for number in ("", "2"):
            running[f"ear{number}"] = await stack.enter_async_context(DeepgramServer([QUESTION], key=KEY))
            model = ChatStandin()
            model.on("open", Says(ANSWER, per_token_s=0.01))
            running[f"model{number}"] = await stack.enter_async_context(model)
            running[f"voice{number}"] = await stack.enter_async_context(Cartesia(key=KEY))
        yield running


@asynccontextmanager
async def caller() -> AsyncIterator[RawCaller]:
    phone = RawCaller()
    await phone.open()
    try:
        yield phone
    finally:
        await phone.close()


def providers(running: dict[str, Any]) -> str:
    return PROVIDERS.format(**{name: server.http_url for name, server in running.items()})


async def test_the_caller_is_answered_though_every_first_vendor_fails(start: Callable[..., BridgeProcess]) -> None:
    async with vendors() as running:
        chains = "stt: [ear, ear2], llm: [model, model2], tts: [voice, voice2]"
        agent = f"{{kind: conversation, greeting: Hello there., {chains}}}"
        bridge = await asyncio.to_thread(start, more=providers(running), agents={"front": agent})
        running["ear"].misbehave(stall="middle", after=1)
        running["model"].misbehave(status=401, body=f'{{"error": {{"message": "bad key {KEY}"}}}}')
        running["voice"].misbehave(status=500)
        running["voice"].drop_all()
        async with caller() as phone:
            leg_id = await phone.dial("front", bridge.sip_port)
            await phone.agent_speaks(0)
            greeted = await phone.agent_finishes()
            phone.speak(AUDIO / "kokoro_hours_clean8k.wav")
            await phone.spoken()
            await phone.agent_speaks(greeted)
            await phone.agent_finishes()
            await phone.hang_up()
        call_id = (await asyncio.to_thread(bridge.calls, leg_id=leg_id))[0]["id"]
        call = await asyncio.to_thread(bridge.wait_until_ended, call_id)
        metrics = await asyncio.to_thread(bridge.metrics_text)
    failures = [event["data"] for event in call["events"] if event["name"] == "provider_failed"]
    assert {(failure["role"], failure["provider"], failure["went_on"]) for failure in failures} == {
        ("stt", "ear", "ear2"),
        ("llm", "model", "model2"),
        ("tts", "voice", "voice2"),
    }
    turns = [(turn["speaker"], turn["heard_text"]) for turn in call["turns"]]
    assert turns == [("agent", "Hello there."), ("caller", QUESTION), ("agent", ANSWER)]
    assert call["cause"] == "caller-hung-up"
    for role, left in (("stt", "ear"), ("llm", "model"), ("tts", "voice")):
        assert f'offhook_provider_switches_total{{provider="{left}",role="{role}"}} 1.0' in metrics
    # A recogniser's text may come before it is owed: how long that takes is timed in the tests of its chain.
    for role, right in (("llm", "model2"), ("tts", "voice2")):
        assert f'offhook_provider_seconds_count{{provider="{right}",role="{role}"}}' in metrics
    for told in (repr(call), metrics, repr(bridge.said)):
        assert KEY not in told


async def test_with_nobody_left_the_caller_hears_the_apology_and_the_bridge_hangs_up(
    start: Callable[..., BridgeProcess],
) -> None:
    async with vendors() as running:
        agent = "{kind: conversation, greeting: Hello there., stt: ear, llm: model, tts: voice}"
        bridge = await asyncio.to_thread(start, more=providers(running), agents={"front": agent})
        running["model"].misbehave(status=500)
        # What is said by rote was prepared at the start.
        await running["voice"].down()
        async with caller() as phone:
            leg_id = await phone.dial("front", bridge.sip_port)
            await phone.agent_speaks(0)
            greeted = await phone.agent_finishes()
            phone.speak(AUDIO / "kokoro_hours_clean8k.wav")
            await phone.spoken()
            await phone.agent_speaks(greeted)
            call_id = (await asyncio.to_thread(bridge.calls, leg_id=leg_id))[0]["id"]
            call = await asyncio.to_thread(bridge.wait_until_ended, call_id)
    assert call["cause"] == "engine-failed"
    said = [turn["heard_text"] for turn in call["turns"] if turn["speaker"] == "agent"]
    assert said == ["Hello there.", "I am sorry, we have a technical problem. Please call again later."]
