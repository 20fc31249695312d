"""`offhook check` says what a start would say, as far as no network is needed for it."""

import asyncio
from pathlib import Path

import pytest

from bridge.agents.tool_settings import AgentToolSettings
from bridge.agents.tools_agent import AgentTools
from bridge.check import check
from bridge.config import Config
from bridge.talkers import AgentError, Talkers

TOOL = {
    "name": "look_up",
    "description": "Looks an order up. It is not ${env:MENTIONED}.",
    "url": "http://127.0.0.1:9/orders",
    "headers": {"Authorization": "Bearer ${env:OFFHOOK_TEST_TOKEN}"},
}
SERVER = {"name": "crm", "url": "http://127.0.0.1:9/mcp", "headers": {"X-Key": "${env:OFFHOOK_TEST_TOKEN}"}}
BOT = {"kind": "remote", "url": "ws://127.0.0.1:9", "password_env": "OFFHOOK_TEST_TOKEN"}
KEYED = {"openai": {"api_key_env": "OFFHOOK_TEST_KEY", "base_url": "http://127.0.0.1:9/v1"}}
SPEAKING = {"kind": "conversation", "stt": "openai", "llm": "openai", "tts": "openai"}


def configuration(folder: Path, agent: dict[str, object], **parts: object) -> Config:
    return Config(data_dir=folder, agents={"a": agent}, routes=[{"agent": "a"}], **parts)


@pytest.mark.parametrize(
    ("agent", "says"),
    [
        ({**SPEAKING, "tools": [TOOL]}, "agent 'a': tool 'look_up': the environment variable OFFHOOK_TEST_TOKEN"),
        ({**SPEAKING, "mcp": [SERVER]}, "agent 'a': MCP server 'crm': the environment variable OFFHOOK_TEST_TOKEN"),
        (BOT, "agent 'a': the environment variable OFFHOOK_TEST_TOKEN is not set"),
    ],
    ids=("an HTTP tool", "an MCP server", "a bot"),
)
async def test_a_secret_that_keeps_a_bridge_from_starting_is_told(
    agent: dict[str, object], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OFFHOOK_TEST_KEY", "key-of-a-test")
    monkeypatch.delenv("OFFHOOK_TEST_TOKEN", raising=False)
    config = configuration(tmp_path, agent, providers=KEYED)
    (problem,) = await asyncio.to_thread(check, config)
    assert problem.startswith(says)
    talkers = Talkers(tmp_path)
    try:
        with pytest.raises(AgentError, match="OFFHOOK_TEST_TOKEN is not set"):
            await talkers.start(config, lambda line: None)
    finally:
        await talkers.aclose()
    monkeypatch.setenv("OFFHOOK_TEST_TOKEN", "secret-of-a-test")
    assert await asyncio.to_thread(check, config) == []


def test_what_a_provider_would_say_at_its_start_is_told(tmp_path: Path) -> None:
    config = configuration(
        tmp_path,
        {"kind": "conversation", "stt": "mine", "llm": "mine", "tts": "local"},
        providers={"mine": {"kind": "vllm", "base_url": "http://127.0.0.1:9/v1", "llm": {"model": "m"}}},
    )
    assert any("set providers.mine.stt.model" in problem for problem in check(config))


def test_secrets_have_another_digest_once_one_changed() -> None:
    settings = AgentToolSettings(tools=[TOOL], mcp=[SERVER])
    first, again, other = (
        AgentTools(settings, environ={"OFFHOOK_TEST_TOKEN": value}).read_secrets() for value in ("a1", "a1", "b2")
    )
    assert first == again != other


@pytest.mark.parametrize("rotated", ["key", "token", "bot"])
async def test_a_reload_takes_up_a_rotated_secret_though_the_configuration_is_the_same(
    rotated: str, tmp_path: Path
) -> None:
    files = {name: tmp_path / name for name in ("key", "token", "bot")}
    for file in files.values():
        file.write_text("first-secret")
    tool = {**TOOL, "headers": {"Authorization": f"Bearer ${{file:{files['token']}}}"}}
    config = Config(
        data_dir=tmp_path,
        providers={"openai": {"api_key_file": files["key"], "base_url": "http://127.0.0.1:9/v1"}},
        agents={
            "a": {**SPEAKING, "tools": [tool]},
            "b": {"kind": "remote", "url": "ws://127.0.0.1:9", "password_file": files["bot"]},
        },
        routes=[{"agent": "a"}],
    )
    talkers = Talkers(tmp_path)
    try:
        await talkers.start(config, lambda line: None)
        before = {name: talkers[name] for name in talkers.names}
        talkers.apply(config, await talkers.prepare(config, lambda line: None))
        assert all(talkers[name] is talker for name, talker in before.items())
        files[rotated].write_text("second-secret")
        talkers.apply(config, await talkers.prepare(config, lambda line: None))
        kept = {name for name, talker in before.items() if talkers[name] is talker}
        assert kept == ({"a"} if rotated == "bot" else {"b"})
    finally:
        await talkers.aclose()
