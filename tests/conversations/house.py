"""Where conversations take place: one bridge, and for each situation an agent with stand-ins of its own.

Stand-ins of its own, as each hears and says what its situation wants, and may die without harm to others.
"""

import asyncio
import copy
import json
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from importlib import resources
from pathlib import Path
from typing import Any

import deepgram_server
import elevenlabs_server
import yaml
from bridge_process import BridgeProcess
from openai_server import ChatStandin
from situation import Engines, Role, Situation
from standin import Exchange, Reply, Standin
from standin_llm import Asked, Call, Says

START_S = 240.0
"""Only a limit: on a fresh data directory the phrases are synthesised first."""
FRIDAY = 4
FIRST_TOKEN_S = 0.15
TOKEN_S = 0.015

LOCAL = {"stt": "local", "llm": "local", "tts": "local"}
VARIABLES = {
    "DEEPGRAM_API_KEY": deepgram_server.KEY,
    "OPENAI_API_KEY": "sk-test",
    "ELEVENLABS_API_KEY": elevenlabs_server.KEY,
    "OFFHOOK_LIMITS_CONVERSATIONS": "100",
}
ENGINES = """\
engines:
  {overload_wait_s: 60, workers: 2, niceness: 0, stt_deadline_s: 15, tts_deadline_s: 15, embed_deadline_s: 15}
"""
PATIENCE = {"turns": {"stt_wait_ms": 10_000}, "limits": {"tts_chunk_ms": 15_000, "transfer_ms": 60_000}}
"""This is about what is said, on machines that may be busy: no caller is refused, and engines may be late."""


class ToolDesk(Standin):
    """What the agents' HTTP tools call. `/tables?after_s=2` answers after two seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.route("GET", "/tables", self._tables)

    async def _tables(self, exchange: Exchange, reply: Reply) -> None:
        await asyncio.sleep(float(exchange.asked("after_s") or 0))
        await reply.json({"free": ["seven", "half past eight"]})


class ScriptedModel(ChatStandin):
    """Tells a request with tools' results from one without: how often it is asked says nothing, as replies may be
    prepared and thrown away."""

    def __init__(self) -> None:
        super().__init__()
        self._after_tools: list[tuple[re.Pattern[str], Says]] = []

    def then(self, pattern: str, says: Says) -> None:
        """Say so to the results of the tools that were called for these words."""
        self._after_tools.append((re.compile(pattern, re.IGNORECASE), says))

    def _pick(self, asked: Asked) -> Says:
        if asked.messages[-1][0] == "tool":
            for pattern, says in self._after_tools:
                if pattern.search(asked.last):
                    return says
        return super()._pick(asked)


@dataclass
class Vendors:
    """The stand-ins of one situation, the second of each being what is fallen back on."""

    stt: list[Standin] = field(default_factory=list)
    llm: list[Standin] = field(default_factory=list)
    tts: list[Standin] = field(default_factory=list)


class House:
    def __init__(self, bridge: BridgeProcess, vendors: dict[str, Vendors], names: dict[str, str]) -> None:
        self.bridge = bridge
        self._vendors = vendors
        self._names = names

    def agent_name(self, situation: Situation) -> str:
        return self._names[situation.name]

    async def kill(self, situation: Situation, role: Role) -> None:
        await getattr(self._vendors[situation.name], role)[0].down()

    def record_of(self, leg_id: str) -> dict[str, Any]:
        """The record of a call that has ended, or ends soon."""
        call = self.bridge.wait_for(lambda: self.bridge.calls(leg_id=leg_id), 10, f"call {leg_id}")[0]
        return self.bridge.wait_until_ended(call["id"], 30)


@asynccontextmanager
async def open_house(situations: Sequence[Situation], engines: Engines, folder: Path) -> AsyncIterator[House]:
    """A running bridge with an agent for each of the situations."""
    async with AsyncExitStack() as stack:
        tools = await stack.enter_async_context(ToolDesk())
        vendors: dict[str, Vendors] = {}
        providers: dict[str, Any] = {}
        agents: dict[str, str] = {}
        names: dict[str, str] = {}
        for situation in situations:
            chains: dict[str, Any] = dict(LOCAL)
            if engines == "standins":
                vendors[situation.name] = made = await _vendors(situation, stack)
                chains = _chains(situation.name, made, providers)
            settings = json.dumps(_agent(situation, chains, tools.http_url, brief_of(engines)), ensure_ascii=False)
            # One agent for all situations that want the same: each takes its time to make ready.
            name = next((name for name, known in agents.items() if known == settings), f"a-{situation.name}")
            agents[name] = settings
            names[situation.name] = name
        more = f"{ENGINES}\nproviders: {json.dumps(providers)}"
        bridge = await asyncio.to_thread(
            BridgeProcess,
            folder / "bridge",
            agents=agents,
            variables=VARIABLES,
            more=more,
            start_s=START_S,
        )
        try:
            yield House(bridge, vendors, names)
        except BaseException:
            bridge.kill()
            raise
        await asyncio.to_thread(bridge.stop)


async def _vendors(situation: Situation, stack: AsyncExitStack) -> Vendors:
    dying = {step.dies for step in situation.script if step.dies}
    made = Vendors()
    for number in range(2):
        for role, standins in (("stt", made.stt), ("llm", made.llm), ("tts", made.tts)):
            if number and role not in dying:
                continue
            standins.append(await stack.enter_async_context(_standin(role, situation, number)))
    return made


def _standin(role: str, situation: Situation, number: int) -> Standin:
    if role == "stt":
        # A recogniser that comes in when another died hears from there on.
        heard = situation.utterances()
        return deepgram_server.DeepgramServer(heard[_heard_before_death(situation) :] if number else heard)
    if role == "tts":
        return elevenlabs_server.ElevenLabs()
    chat = ScriptedModel()
    chat.pace(first_s=FIRST_TOKEN_S, per_token_s=TOKEN_S)
    friday = json.dumps(_next_friday())
    for reply in situation.replies:
        wanted = [(call.name, json.dumps(call.arguments).replace('"{friday}"', friday)) for call in reply.calls]
        calls = [Call(name, json.loads(arguments)) for name, arguments in wanted]
        chat.on(reply.to, Says(reply.say, calls, first_s=reply.first_s))
        if reply.then:
            chat.then(reply.to, Says(reply.then))
    return chat


def _next_friday() -> str:
    today = datetime.now().astimezone().date()
    return (today + timedelta((FRIDAY - today.weekday()) % 7 or 7)).isoformat()


def _heard_before_death(situation: Situation) -> int:
    died = next(i for i, step in enumerate(situation.script) if step.dies == "stt")
    before = situation.model_copy(update={"script": situation.script[:died]})
    return len(before.utterances())


def _chains(name: str, made: Vendors, providers: dict[str, Any]) -> dict[str, list[str]]:
    """The agent's providers; they are added to `providers`."""
    chains: dict[str, list[str]] = {"stt": [], "llm": [], "tts": []}
    for role, standins in (("stt", made.stt), ("llm", made.llm), ("tts", made.tts)):
        for number, standin in enumerate(standins):
            entry = f"{name}-{role}{number}"
            settings: dict[str, Any] = {
                "stt": {"kind": "deepgram", "base_url": standin.http_url, "websocket_url": standin.ws_url},
                "llm": {"kind": "openai", "base_url": f"{standin.http_url}/v1", "llm": {"model": "test-model"}},
                "tts": {"kind": "elevenlabs", "base_url": standin.http_url, "websocket_url": standin.ws_url},
            }[role]
            providers[entry] = settings
            chains[role].append(entry)
    return chains


def _agent(situation: Situation, chains: dict[str, Any], tools: str, brief: dict[str, Any]) -> dict[str, Any]:
    laid_over = json.loads(json.dumps(situation.agent).replace("{tools}", tools))
    base = {"kind": "conversation", "record": False, **chains}
    if chains == LOCAL:
        base |= copy.deepcopy(PATIENCE)
    if chains == LOCAL and "brief" not in laid_over and "greeting" not in laid_over:
        base["brief_file"] = "receptionist"
    else:
        base |= copy.deepcopy(brief)
    return _merged(base, laid_over)


def brief_of(engines: Engines) -> dict[str, Any]:
    """The receptionist's greeting and brief; a scripted model needs no facts."""
    text = resources.files("bridge").joinpath("receptionist.yaml").read_text()
    found: dict[str, Any] = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    if engines == "standins":
        found["brief"] = {**found["brief"], "facts": [], "beyond": []}
    return found


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    both = dict(base)
    for key, value in over.items():
        below = both.get(key)
        both[key] = _merged(below, value) if isinstance(value, dict) and isinstance(below, dict) else value
    return both
