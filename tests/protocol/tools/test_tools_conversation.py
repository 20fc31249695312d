"""Whole conversations in real time: a model behind its HTTP interface calls tools behind theirs."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from agents_call import Call
from openai_server import MODEL, ChatStandin
from standin import Exchange, Reply, Standin
from standin_llm import Call as ModelCall
from standin_llm import Says

from bridge.events import Note, ToolCalled
from bridge.providers.openai.llm import OpenAiLlm
from bridge.providers.openai.settings import OpenAiLlmSettings, OpenAiSettings

SECRET = "crm-secret-0815"
FIND = ModelCall("find_customer", {"customer_id": "4711"})
ORDER = ModelCall("order", {"item": "tea"})
SCHEMA = {"type": "object", "properties": {"customer_id": {"type": "string"}}, "required": ["customer_id"]}


class Crm(Standin):
    def __init__(self) -> None:
        super().__init__()
        self.takes_s = 0.0
        self.finished = 0
        self.route("GET", "/customers/{id}", self._reply)
        self.route("POST", "/orders", self._reply)

    async def _reply(self, exchange: Exchange, reply: Reply) -> None:
        await asyncio.sleep(self.takes_s)
        self.finished += 1
        await reply.json({"name": "Ada Lovelace", "you": exchange.headers.get("authorization")})


@asynccontextmanager
async def conversation(
    server: ChatStandin, crm: Crm, monkeypatch: pytest.MonkeyPatch, **settings: Any
) -> AsyncIterator[Call]:
    monkeypatch.setenv("CRM_TOKEN", SECRET)
    llm_settings = OpenAiLlmSettings(model=MODEL, api="chat")
    whole = OpenAiSettings(base_url=server.base_url, llm=llm_settings)
    llm = OpenAiLlm("openai", whole, environ={"OPENAI_API_KEY": "sk-test-0123456789"})
    tools = [
        {
            "name": "find_customer",
            "description": "Find a customer",
            "parameters": SCHEMA,
            "url": crm.http_url + "/customers/{customer_id}",
            "headers": {"Authorization": "Bearer ${env:CRM_TOKEN}"},
            "say": "I am looking.",
            "timeout_s": 6,
        },
        {
            "name": "order",
            "description": "Order something",
            "parameters": {"type": "object", "properties": {"item": {"type": "string"}}},
            "method": "POST",
            "url": crm.http_url + "/orders",
        },
    ]
    call = Call(tools=tools, limits={"tool_filler_again_ms": 1000}, **settings)
    call.agent.llm = llm
    await llm.start()
    try:
        await call.agent.tools.start()
        async with call:
            await call.agent_silent()
            yield call
    finally:
        await call.agent.tools.aclose()
        await llm.aclose()
    await crm.all_closed()
    await server.all_closed()


@pytest.fixture
async def server() -> AsyncIterator[ChatStandin]:
    async with ChatStandin() as server:
        yield server


@pytest.fixture
async def crm() -> AsyncIterator[Crm]:
    async with Crm() as crm:
        yield crm


async def test_quick_tool_is_used_without_a_word(
    server: ChatStandin, crm: Crm, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.on("who am I", Says(calls=[FIND]), Says("You are Ada."))
    async with conversation(server, crm, monkeypatch) as call:
        await call.say("who am I")
        await call.agent_silent()
        assert call.heard() == "Hello there. You are Ada."
        (tool,) = call.of(ToolCalled)
        assert tool.ok and "Ada Lovelace" in tool.result
        assert SECRET not in str(call.events) and SECRET not in str(server.asked[-1].body)
        assert crm.exchanges[0].headers["authorization"] == f"Bearer {SECRET}"
        assert server.asked[-1].messages[-1][0] == "tool"


async def test_caller_hears_that_a_slow_tool_works_and_hears_it_again(
    server: ChatStandin, crm: Crm, monkeypatch: pytest.MonkeyPatch
) -> None:
    crm.takes_s = 4.0
    server.on("who am I", Says(calls=[FIND]), Says("You are Ada."))
    async with conversation(server, crm, monkeypatch) as call:
        await call.say("who am I")
        await call.until(lambda: crm.exchanges)
        asked_at = call.now
        await call.agent_silent()
        assert call.heard(since=asked_at) == "I am looking. I am still working on it. You are Ada."


async def test_caller_who_speaks_stops_a_tool_that_reads(
    server: ChatStandin, crm: Crm, monkeypatch: pytest.MonkeyPatch
) -> None:
    crm.takes_s = 5.0
    server.on("never mind", Says("As you like."))
    server.on("who am I", Says("Let me see. ", calls=[FIND]))
    async with conversation(server, crm, monkeypatch) as call:
        await call.say("who am I")
        await call.until(lambda: crm.exchanges)
        await call.wait(1.2)
        await call.say("oh wait never mind this now")
        await call.until(lambda: call.heard().endswith("As you like."))
        assert crm.finished == 0 and crm.exchanges[0].over.is_set()
        (tool,) = call.of(ToolCalled)
        assert not tool.ok and "stopped" in tool.result
        roles = [role for role, _ in server.asked[-1].messages]
        assert roles[-3:] == ["assistant", "tool", "user"]


async def test_caller_who_speaks_does_not_stop_an_order(
    server: ChatStandin, crm: Crm, monkeypatch: pytest.MonkeyPatch
) -> None:
    crm.takes_s = 2.5
    server.on("some tea", Says(calls=[ORDER]), Says("It is on its way."))
    server.on("and milk", Says("Milk too."))
    async with conversation(server, crm, monkeypatch) as call:
        await call.say("some tea please")
        await call.until(lambda: crm.exchanges)
        await call.say("oh wait and milk please for me")
        await call.until(lambda: call.heard().endswith("Milk too."))
        assert crm.finished == 1 and len(crm.exchanges) == 1
        assert [tool.ok for tool in call.of(ToolCalled)] == [True]
        assert "It is on its way." in call.heard()


async def test_caller_who_hangs_up_leaves_no_request_behind(
    server: ChatStandin, crm: Crm, monkeypatch: pytest.MonkeyPatch
) -> None:
    crm.takes_s = 30.0
    server.on("who am I", Says(calls=[FIND]))
    async with conversation(server, crm, monkeypatch) as call:
        await call.say("who am I")
        await call.until(lambda: crm.exchanges)
        assert await call.hang_up() < 0.5
        await call.agent.tools.aclose()
        await crm.all_closed()


async def test_tool_that_does_not_work_is_told_to_the_model_and_the_call_goes_on(
    server: ChatStandin, crm: Crm, monkeypatch: pytest.MonkeyPatch
) -> None:
    crm.misbehave(status=500, body="Traceback (most recent call last)")
    server.on("who am I", Says(calls=[FIND]), Says("Sorry, not today."))
    async with conversation(server, crm, monkeypatch) as call:
        await call.say("who am I")
        await call.agent_silent()
        assert call.heard() == "Hello there. Sorry, not today."
        assert '"ok": false' in server.asked[-1].messages[-1][1]
        assert not call.task.done()


async def test_mcp_servers_tools_are_called_and_a_server_that_is_down_is_noted(
    server: ChatStandin, crm: Crm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = str(Path(__file__).with_name("mcp_program.py"))
    up = {"name": "notes", "command": sys.executable, "args": (program, str(tmp_path / "pids")), "tools": ("add",)}
    down = {"name": "wiki", "command": "/no/such/program"}
    server.on("two and two", Says(calls=[ModelCall("add", {"a": 2, "b": 2})]), Says("Four."))
    async with conversation(server, crm, monkeypatch, mcp=[up, down]) as call:
        await call.say("how much is two and two")
        await call.agent_silent()
        assert call.heard() == "Hello there. Four."
        assert server.asked[0].tools[-3:] == ["find_customer", "order", "add"]
        assert [(tool.name, tool.result) for tool in call.of(ToolCalled)] == [("add", '{"ok": true, "result": "4"}')]
        (note,) = [note for note in call.of(Note) if note.name == "tools-missing"]
        assert note.detail.startswith("MCP server wiki: ") and "/no/such/program" in note.detail
