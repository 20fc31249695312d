"""A bot of Pipecat's, as its generator writes them, run by its own runner, answers SIP calls through the bridge."""

import asyncio
import os
import re
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import deepgram_server
import elevenlabs_server
import own_group
import pytest
from bridge_process import BridgeProcess
from free_ports import free_port
from openai_server import ChatStandin
from pipecat_env import pipecat_python
from raw_caller import RawCaller
from standin_llm import Call, Says

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
AUDIO = HERE.parent / "data/audio"
BOT = ROOT / "bench/peers/pipecat_bot.py"
LONG = "We are open from noon to eleven at night on every day but Monday, and the kitchen closes at ten. " * 3
START_S = 200
"""Its imports take ten seconds on an idle machine."""


@dataclass
class Bot:
    protocol: str
    port: int
    log: Path
    chat: ChatStandin


@pytest.fixture(scope="module")
def python() -> Path:
    return pipecat_python()


@asynccontextmanager
async def running_bot(python: Path, protocol: str, folder: Path) -> AsyncIterator[Bot]:
    """Pipecat's runner with the bot, on vendors that are stand-ins."""
    async with AsyncExitStack() as stack:
        ear = await stack.enter_async_context(
            deepgram_server.DeepgramServer(["When are you open?", "That is all, goodbye."])
        )
        chat = await stack.enter_async_context(ChatStandin())
        voice = await stack.enter_async_context(elevenlabs_server.ElevenLabs())
        chat.on("the call begins", Says("Hello, this is Pipecat speaking."))
        chat.on("open", Says(LONG))
        chat.on("goodbye", Says(calls=[Call("end_call")]))
        port = free_port()
        environment = os.environ | {
            "DEEPGRAM_URL": ear.ws_url,
            "DEEPGRAM_API_KEY": deepgram_server.KEY,
            "OPENAI_URL": chat.base_url,
            "OPENAI_API_KEY": "sk-test",
            "ELEVENLABS_URL": voice.ws_url,
            "ELEVENLABS_API_KEY": elevenlabs_server.KEY,
            "ELEVENLABS_VOICE": elevenlabs_server.VOICE,
            "TWILIO_ACCOUNT_SID": "AC1",
            "TWILIO_AUTH_TOKEN": "token",
            "TELNYX_API_KEY": "key",
        }
        log = folder / "bot.log"
        with log.open("wb") as output:
            process = own_group.start(
                [python, BOT, "-t", protocol, "-x", "bot.invalid", "--host", "127.0.0.1", "--port", str(port)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=folder,
            )
        try:
            async with asyncio.timeout(START_S):
                while "Uvicorn running" not in log.read_text(errors="replace"):
                    assert process.poll() is None, log.read_text(errors="replace")
                    await asyncio.sleep(0.2)
            yield Bot(protocol, port, log, chat)
        finally:
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(process.wait, 20)
            own_group.kill(process.pid)


@asynccontextmanager
async def caller() -> AsyncIterator[RawCaller]:
    caller = RawCaller()
    await caller.open()
    try:
        yield caller
    finally:
        if not caller.ended.is_set():
            await caller.hang_up()
        await caller.close()


@pytest.mark.timeout(400)
@pytest.mark.parametrize("protocol", ["twilio", "telnyx"])
async def test_pipecat_bot_greets_answers_is_interrupted_and_hangs_up(
    python: Path, protocol: str, tmp_path: Path
) -> None:
    async with running_bot(python, protocol, tmp_path) as bot:
        remote = f"{{kind: remote, protocol: {protocol}, url: 'ws://127.0.0.1:{bot.port}/ws'}}"
        bridge = await asyncio.to_thread(BridgeProcess, tmp_path / "bridge", agents={"bot": remote})
        try:
            async with caller() as phone:
                leg_id = await phone.dial("bot", bridge.sip_port)
                # It greets.
                await phone.agent_speaks(0)
                quiet = await phone.agent_finishes()
                # It answers.
                phone.speak(AUDIO / "kokoro_hours_clean8k.wav")
                await phone.spoken()
                answer = await phone.agent_speaks(quiet)
                assert "open" in bot.chat.asked[-1].last
                await phone.packets_come(100)
                # It is interrupted: of its fifteen seconds most are never sent.
                phone.speak(AUDIO / "kokoro_human_clean8k.wav")
                await phone.spoken()
                await phone.agent_finishes()
                spoken = sum(packet.loud for packet in phone.packets[answer:])
                assert 50 < spoken < 430
                # It hangs up, as the caller said goodbye.
                async with asyncio.timeout(60):
                    await phone.ended.wait()
            (call,) = await asyncio.to_thread(bridge.calls, leg_id=leg_id)
            call = await asyncio.to_thread(bridge.wait_until_ended, call["id"])
            assert call["cause"] == "agent-hung-up"
            turns = [turn["speaker"] for turn in call["turns"]]
            assert turns[:3] == ["agent", "caller", "agent"]
            assert [turn["interrupted"] for turn in call["turns"] if turn["speaker"] == "agent"][:2] == [False, True]
            assert not re.search("Traceback", bot.log.read_text(errors="replace"))
        finally:
            await asyncio.to_thread(bridge.stop)
