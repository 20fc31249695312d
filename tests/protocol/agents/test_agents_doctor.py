"""`offhook doctor` beside stand-ins of vendors, carriers and a running bridge."""

import asyncio
import sys
from collections.abc import AsyncIterator
from datetime import date
from pathlib import Path

import pytest
from app_carrier import Carrier
from failures_call import KEY_ENV, no_key
from failures_vendors import EARS, KEY, MODELS, VOICES, Vendor
from free_ports import free_port
from remote_bot import Bot
from standin import Standin

from bridge.app import Bridge
from bridge.check import check, warnings
from bridge.config import Config
from bridge.doctor import examine
from bridge.providers.models_table import DEFAULTS, SHUTDOWNS, default_model, ending
from bridge.providers.registry import KINDS
from bridge.view import Api

TODAY = date(2026, 11, 21)


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_ENV, KEY)
    monkeypatch.setenv("CARRIER_PASSWORD", "open sesame")


@pytest.fixture
async def carrier() -> AsyncIterator[Carrier]:
    carrier = await Carrier().start()
    yield carrier
    carrier.close()


def configuration(folder: Path, **parts: object) -> Config:
    return Config(
        **{
            "data_dir": folder,
            "sip": {"listen": "127.0.0.1", "port": 5060},
            "agents": {"echo": {"kind": "echo"}},
            "routes": [{"agent": "echo"}],
            **parts,
        }
    )


async def doctor(config: Config, api: str = "http://127.0.0.1:1") -> tuple[int, list[str]]:
    said: list[str] = []
    code = await examine(config, Api(api, config.data_dir), said.append)
    no_key("\n".join(said))
    return code, said


def line(said: list[str], what: str) -> str:
    (found,) = [line for line in said if f"  {what}: " in line]
    return found


def with_vendor(folder: Path, vendor: Vendor, server: Standin) -> Config:
    agent = {"kind": "conversation", **{role: ["local"] for role in ("stt", "llm", "tts")}}
    agent[vendor.role] = [vendor.kind]
    return configuration(
        folder,
        providers={vendor.kind: vendor.entry(server, KEY_ENV)},
        agents={"a": agent},
        routes=[{"agent": "a"}],
    )


@pytest.mark.parametrize("vendor", [*MODELS, *EARS, *VOICES], ids=lambda vendor: vendor.label)
async def test_each_vendor_is_tried_and_what_is_wrong_is_said(vendor: Vendor, tmp_path: Path) -> None:
    what = f"{vendor.kind} ({vendor.role})"
    async with vendor.server(KEY) as server:
        config = with_vendor(tmp_path, vendor, server)
        code, said = await doctor(config)
        assert code == 0 and line(said, what).startswith("ok "), said
        assert " ms)" in line(said, what) and said[-1] == "nothing is wrong"
        server.misbehave(status=401, body=f'{{"error": {{"message": "no: {KEY}"}}}}')
        code, said = await doctor(config)
        assert code == 1 and line(said, what).startswith("wrong ") and said[-1] == "1 thing is wrong", said
        assert KEY_ENV in line(said, what), "it says which key to look after"
        server.behave()
        await server.all_closed()
        await server.down()
        code, said = await doctor(config)
        assert code == 1 and "base_url" in line(said, what), said


async def test_what_no_agent_uses_is_tried_too(tmp_path: Path) -> None:
    async with MODELS[0].server(KEY) as server:
        config = configuration(tmp_path, providers={"mine": MODELS[0].entry(server, KEY_ENV), "groq": {}})
        code, said = await doctor(config)
        assert line(said, "mine (llm)").startswith("ok ")
        assert any("GROQ_API_KEY" in line and line.startswith("note ") for line in said)
        assert code == 0


async def test_trunks_are_asked_where_no_bridge_runs(tmp_path: Path, carrier: Carrier) -> None:
    good = {"host": "127.0.0.1", "port": carrier.port, "username": "alice", "register": True}
    config = configuration(
        tmp_path,
        trunks=[
            {"name": "good", **good, "password_env": "CARRIER_PASSWORD"},
            {"name": "wrong", **good, "password_env": KEY_ENV},
            {"name": "asked", "host": "127.0.0.1", "port": carrier.port, "options_s": 0},
            {"name": "gone", "host": "127.0.0.1", "port": 9},
            {"name": "calls", "networks": ["10.0.0.0/8"]},
        ],
    )
    code, said = await doctor(config)
    assert code == 1
    assert line(said, "trunk good").startswith("ok ") and "registers" in line(said, "trunk good")
    assert line(said, "trunk wrong").startswith("wrong ") and "password" in line(said, "trunk wrong")
    assert line(said, "trunk asked").startswith("ok ")
    assert line(said, "trunk gone").startswith("wrong ") and "host" in line(said, "trunk gone")
    assert line(said, "trunk calls").startswith("note ")
    registers = [request.headers.get("Expires") for request in carrier.of("REGISTER")]
    assert registers[-1] == "0", "the registration is taken back"
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_running_bridge_is_asked_for_its_trunks(tmp_path: Path, carrier: Carrier) -> None:
    config = configuration(
        tmp_path,
        sip={"listen": "127.0.0.1", "port": free_port()},
        http={"port": free_port()},
        trunks=[
            {"name": "good", "host": "127.0.0.1", "port": carrier.port},
            {"name": "calls", "networks": ["10.0.0.0/8"]},
        ],
    )
    async with Bridge.run(config, lambda text: None) as bridge:
        await carrier.until(lambda: bridge.trunk_status()[0].state == "up")
        asked = len(carrier.requests)
        code, said = await doctor(config, f"http://127.0.0.1:{config.http.port}")
        assert (code, line(said, "trunk good")[:3], line(said, "trunk calls")[:4]) == (0, "ok ", "note"), said
        assert len(carrier.requests) == asked, "the bridge's own watch is enough"
        code, said = await doctor(config, "http://127.0.0.1:9")
        assert code == 1 and "can't be asked" in line(said, "trunks")


async def test_the_command_prints_findings_and_no_key(tmp_path: Path) -> None:
    async with MODELS[0].server(KEY) as server:
        file = tmp_path / "offhook.yaml"
        base_url = MODELS[0].entry(server, KEY_ENV)["base_url"]
        file.write_text(
            f"data_dir: {tmp_path}\n"
            f"providers: {{openai: {{base_url: '{base_url}', api_key_env: {KEY_ENV}}}}}\n"
            "agents: {a: {llm: openai}}\nroutes: [{agent: a}]\n"
        )
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bridge.cli", "doctor", "-c", str(file)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output = (await process.communicate())[0].decode()
        assert process.returncode == 0, output
        assert "ok     openai (llm)" in output and "nothing is wrong" in output
        no_key(output)


# -- bots and MCP servers ------------------------------------------------------------------------------------


async def test_bots_are_dialled_and_left_at_once(tmp_path: Path) -> None:
    async with Bot("twilio").running() as bot:
        gone = f"ws://127.0.0.1:{free_port()}"
        remote = {"kind": "remote", "url": [bot.url, gone], "password_env": KEY_ENV}
        config = configuration(tmp_path, agents={"b": remote}, routes=[{"agent": "b"}])
        code, said = await doctor(config)
        assert code == 1 and line(said, f"bot of b at {bot.url}").startswith("ok "), said
        assert line(said, f"bot of b at {gone}").startswith("wrong ")
        await bot.all_closed()
        assert bot.told == [] and bot.headers[0]["x-twilio-signature"]


async def test_mcp_servers_are_started_asked_for_their_tools_and_ended(tmp_path: Path) -> None:
    program = str(Path(__file__).parents[1] / "tools" / "mcp_program.py")
    works = {"command": sys.executable, "args": (program, str(tmp_path / "pids"))}
    config = configuration(
        tmp_path,
        providers={"openai": {"api_key_env": KEY_ENV, "base_url": "http://127.0.0.1:9/v1"}},
        agents={
            "a": {
                "kind": "conversation",
                **dict.fromkeys(("stt", "llm", "tts"), "openai"),
                "mcp": [
                    {"name": "good", **works},
                    {"name": "poor", **works, "tools": ["add", "subtract"]},
                    {"name": "gone", "command": str(tmp_path / "no-such-program")},
                ],
            }
        },
        routes=[{"agent": "a"}],
    )
    code, said = await doctor(config)
    assert code == 1
    good = line(said, "MCP server good of a")
    assert good.startswith("ok ") and "add" in good
    assert "does not have subtract" in line(said, "MCP server poor of a")
    assert line(said, "MCP server gone of a").startswith("wrong ")
    assert asyncio.all_tasks() == {asyncio.current_task()}


# -- models whose end is announced ---------------------------------------------------------------------------


def using(model: str, kind: str = "openai") -> Config:
    return Config(
        providers={kind: {"llm": {"model": model}, "api_key_env": KEY_ENV}},
        agents={"a": {"kind": "conversation", "llm": kind}},
        routes=[{"agent": "a"}],
    )


def test_a_model_that_was_shut_down_is_wrong_and_one_that_will_be_is_told() -> None:
    assert any("gpt-4 was shut down on 2026-10-23" in problem for problem in check(using("gpt-4"), TODAY))
    assert warnings(using("gpt-4"), TODAY) == []
    assert not any("gpt-5" in problem for problem in check(using("gpt-5"), TODAY))
    (soon,) = warnings(using("gpt-5"), TODAY)
    assert "gpt-5 will be shut down on 2026-12-11" in soon and "set providers.openai.llm.model to" in soon
    assert warnings(using("gpt-5.4-mini"), TODAY) == warnings(using("something-else"), TODAY) == []


def test_every_kind_that_has_models_has_a_default_and_none_is_shut_down() -> None:
    own = {"vllm", "ollama", "llamacpp"}
    for (kind, role), default in DEFAULTS.items():
        assert role in KINDS[kind].roles and default.source
        end = ending(kind, kind, role, default_model(kind, role), TODAY)
        assert end is None or not end.past
    named = {kind for kind, _ in DEFAULTS} | own
    assert named == set(KINDS) and set(SHUTDOWNS) <= set(KINDS)
