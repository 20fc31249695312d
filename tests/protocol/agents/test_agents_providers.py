"""The providers behind agents: made once, shared, tried in the background, and closed when nobody needs them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import structlog
from failures_call import KEY_ENV, ROLES, SPARE_ENV, FailingCall, configuration, no_key
from failures_vendors import ANSWERS, EARS, KEY, MODELS, SCRIPT, SPARE_KEY, SPARES, VOICES
from standin import Standin
from standin_llm import LlmStandin

from bridge.config import Config
from bridge.providers.base import Role
from bridge.talkers import AgentError, Talkers


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_ENV, KEY)
    monkeypatch.setenv(SPARE_ENV, SPARE_KEY)


@pytest.fixture
async def spares() -> AsyncIterator[dict[Role, Standin]]:
    async with AsyncExitStack() as stack:
        yield {role: await stack.enter_async_context(SPARES[role].server(SPARE_KEY)) for role in ROLES}


@pytest.fixture
async def talkers(tmp_path: Path) -> AsyncIterator[Talkers]:
    talkers = Talkers(tmp_path)
    yield talkers
    await talkers.aclose()


def quietly(line: str) -> None:
    pass


def with_agents(config: Config, **agents: dict[str, object]) -> Config:
    own = config.agents["a"].model_dump(exclude_unset=True)
    # Again through the constructor, which checks and types the agents.
    return Config(
        data_dir=config.data_dir,
        providers=dict(config.providers),
        fallback=config.fallback,
        agents={"a": own, **{name: {**own, **changes} for name, changes in agents.items()}},
    )


async def test_agents_share_their_providers(spares: dict[Role, Standin], talkers: Talkers, tmp_path: Path) -> None:
    config = with_agents(configuration(None, None, spares, tmp_path), b={"greeting": "Good day."})
    await talkers.start(config, quietly)
    # Both agents' phrases were asked of one voice: its connections are few, and each text was spoken once.
    texts = [
        message["transcript"]
        for exchange in spares["tts"].at("/tts/websocket")
        for message in exchange.texts
        if message.get("transcript")
    ]
    assert "Hello there." in texts and "Good day." in texts
    assert texts.count("One moment, please.") == 1
    await talkers.aclose()
    await spares["tts"].all_closed()


async def test_a_key_that_is_missing_is_said_with_the_agent_and_the_variable(
    spares: dict[Role, Standin], talkers: Talkers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(SPARE_ENV)
    with pytest.raises(AgentError, match=rf"agent 'a': spare-stt: no API key: set {SPARE_ENV} in the environment"):
        await talkers.start(configuration(None, None, spares, tmp_path), quietly)
    await talkers.aclose()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_network_that_is_down_does_not_keep_the_bridge_from_starting(
    spares: dict[Role, Standin], talkers: Talkers, tmp_path: Path
) -> None:
    for spare in spares.values():
        await spare.down()
    with structlog.testing.capture_logs() as logs:
        async with asyncio.timeout(30):
            await talkers.start(configuration(None, None, spares, tmp_path), quietly)
            while sum("provider does not work" in line["event"] for line in logs) < 3:
                await asyncio.sleep(0.05)
    warned = {(line["role"], line["provider"]) for line in logs if "does not work" in line["event"]}
    assert warned == {(role, f"spare-{role}") for role in ROLES}
    assert any("phrases can't be synthesised" in line["event"] for line in logs)
    no_key(repr(logs))


async def test_phrases_that_are_on_disk_need_no_network(
    spares: dict[Role, Standin], talkers: Talkers, tmp_path: Path
) -> None:
    config = configuration(None, None, spares, tmp_path)
    await talkers.start(config, quietly)
    await talkers.aclose()
    await spares["tts"].down()
    again = Talkers(tmp_path)
    await again.start(config, quietly)
    async with FailingCall(again).up() as call:
        assert await call.turn(0, 5) == "Hello there."
        after = call.sound_since(call.answered_at)
        assert after is not None and after < 0.5
    await again.aclose()


async def test_a_replaced_provider_is_closed_after_its_last_call(
    spares: dict[Role, Standin], talkers: Talkers, tmp_path: Path
) -> None:
    async with MODELS[0].server(KEY) as server, MODELS[0].server(KEY) as other:
        assert isinstance(other, LlmStandin)
        config = configuration(MODELS[0], server, spares, tmp_path)
        await talkers.start(config, quietly)
        async with FailingCall(talkers).up() as call:
            await call.turn(0, 5)
            await call.says()
            assert ANSWERS[0] in await call.turn(1, 10)
            changed = configuration(MODELS[0], other, spares, tmp_path)
            talkers.apply(changed, await talkers.prepare(changed, quietly))
            await call.quiet()
            await call.says()
            assert ANSWERS[1] in await call.turn(2, 10), "the call keeps what it began with"
            assert [asked.last for asked in other.asked if asked.last in SCRIPT] == [] and call.failures == []
        await server.all_closed()
        async with FailingCall(talkers).up() as call:
            await call.turn(0, 5)
            await call.says()
            assert ANSWERS[0] in await call.turn(1, 10)
        assert SCRIPT[0] in [asked.last for asked in other.asked]
        await talkers.aclose()


async def test_agents_that_did_not_change_keep_their_providers(
    spares: dict[Role, Standin], talkers: Talkers, tmp_path: Path
) -> None:
    config = configuration(None, None, spares, tmp_path)
    await talkers.start(config, quietly)
    present = talkers["a"]
    more = with_agents(config, b={"greeting": "Good day."})
    talkers.apply(more, await talkers.prepare(more, quietly))
    assert talkers["a"] is present and talkers.names == ("a", "b")


async def test_a_configuration_that_can_t_be_taken_up_leaves_everything_as_it_was(
    spares: dict[Role, Standin], talkers: Talkers, tmp_path: Path
) -> None:
    config = configuration(None, None, spares, tmp_path)
    await talkers.start(config, quietly)
    wrong = with_agents(config, b={"llm": ["groq"]})
    with pytest.raises(AgentError, match="GROQ_API_KEY"):
        await talkers.prepare(wrong, quietly)
    async with FailingCall(talkers).up() as call:
        await call.turn(0, 5)
        await call.says()
        assert ANSWERS[0] in await call.turn(1, 10)


async def test_each_voice_of_a_chain_speaks_as_it_is_told(
    spares: dict[Role, Standin], talkers: Talkers, tmp_path: Path
) -> None:
    async with VOICES[0].server(KEY) as server:
        config = configuration(VOICES[0], server, spares, tmp_path, voice="anna", voices={"spare-tts": "bert"})
        await talkers.start(config, quietly)
        first = {exchange.params["voice"] for exchange in server.at("/v1/text-to-speech")}
        second = {
            message["voice"]["id"]
            for exchange in spares["tts"].at("/tts/websocket")
            for message in exchange.texts
            if message.get("voice")
        }
        assert (first, second) == ({"anna"}, {"bert"})
        await talkers.aclose()


async def test_warming_opens_the_connection_of_the_first_that_works(
    spares: dict[Role, Standin], talkers: Talkers, tmp_path: Path
) -> None:
    async with EARS[0].server(KEY) as server:
        await talkers.start(configuration(EARS[0], server, spares, tmp_path), quietly)
        await talkers["a"].agent.warm()
        await talkers.aclose()
        await server.all_closed()
