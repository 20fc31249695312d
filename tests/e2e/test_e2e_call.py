"""A caller dials a real bridge on its real engines, talks, interrupts; checked on the wire and on the record."""

import asyncio
import audioop
import itertools
import json
import os
import re
import signal
import sys
import wave
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import own_group
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from free_ports import free_port, free_ports
from hearing import share_of_words, transcribe
from raw_caller import RawCaller

from bridge.providers.local.engines import LocalEngines
from bridge.providers.local.settings import EngineSettings

AUDIO = Path(__file__).parents[1] / "data" / "audio"
GREETING = "hello la lanterna restaurant how can i help you"
START_S = 240
"""On a fresh data directory the phrases are synthesised first."""
RTP_PORTS = 100
PATIENT = {
    "OFFHOOK_LIMITS_CLOCK_LATENESS_MS": "1000",
    "OFFHOOK_ENGINES_OVERLOAD_WAIT_S": "60",
    "OFFHOOK_ENGINES_STT_DEADLINE_S": "20",
    "OFFHOOK_ENGINES_TTS_DEADLINE_S": "20",
    "OFFHOOK_ENGINES_EMBED_DEADLINE_S": "20",
}
"""These tests are about what is said, on machines that may be busy: nobody is refused, and engines may be late."""


@dataclass
class RunningBridge:
    sip_port: int
    http: httpx.AsyncClient
    data: Path
    process: asyncio.subprocess.Process


@asynccontextmanager
async def running_bridge(
    data: Path, config: Path | None = None, environ: Mapping[str, str] | None = None
) -> AsyncIterator[RunningBridge]:
    sip_port, http_port, rtp_port = free_port(), free_port(), free_ports(RTP_PORTS, rtp=True)
    environment = os.environ | {
        **PATIENT,
        "OFFHOOK_DATA_DIR": str(data),
        "OFFHOOK_SIP_LISTEN": "127.0.0.1",
        "OFFHOOK_SIP_PORT": str(sip_port),
        "OFFHOOK_HTTP_PORT": str(http_port),
        "OFFHOOK_RTP_PORT_MIN": str(rtp_port),
        "OFFHOOK_RTP_PORT_MAX": str(rtp_port + RTP_PORTS - 1),
        **(environ or {}),
    }
    arguments = [] if config is None else ["--config", str(config)]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bridge.cli", "serve", *arguments),
        env=environment,
        stderr=asyncio.subprocess.PIPE,
        **own_group.SESSION,
    )
    own_group.belongs_to_us(process.pid)
    assert process.stderr is not None
    lines: list[str] = []
    try:
        async with asyncio.timeout(START_S):
            while not any("ready for calls" in line for line in lines):
                line = await process.stderr.readline()
                assert line, f"the bridge did not start: {lines}"
                lines.append(line.decode())
        draining = asyncio.create_task(process.stderr.read())
        key = (data / "api-key").read_text().strip()
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{http_port}", headers={"Authorization": f"Bearer {key}"}, timeout=30
        ) as http:
            yield RunningBridge(sip_port, http, data, process)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(30):
            code = await process.wait()
        output = (await draining).decode()
        assert code == 0, output
        assert "Traceback" not in output, output
    finally:
        own_group.kill(process.pid)
        await process.wait()


async def until_recorded(http: httpx.AsyncClient, leg_id: str, done: Callable[[dict], bool]) -> dict:
    async with asyncio.timeout(30):
        while True:
            calls = (await http.get("/api/calls", params={"leg_id": leg_id})).json()["calls"]
            if calls:
                detail = (await http.get(f"/api/calls/{calls[0]['id']}")).json()
                if done(detail):
                    return detail
            await asyncio.sleep(0.1)


@pytest.mark.timeout(400)
async def test_a_caller_is_greeted_answered_and_may_interrupt(tmp_path: Path) -> None:
    async with running_bridge(tmp_path / "data") as bridge:
        caller = RawCaller()
        await caller.open()
        try:
            leg_id = await caller.dial("agent", bridge.sip_port)
            greeting = await caller.agent_speaks(0)
            greeted = await caller.agent_finishes()

            caller.speak(AUDIO / "kokoro_hours_clean8k.wav")
            await caller.spoken()
            answer = await caller.agent_speaks(greeted)
            await caller.packets_come(40)
            caller.speak(AUDIO / "kokoro_book_clean8k.wav")
            await caller.spoken()
            booking = await caller.agent_speaks(len(caller.packets))
            await caller.agent_finishes()
            booked_to = len(caller.packets)
            await caller.hang_up()
            detail = await until_recorded(bridge.http, leg_id, lambda call: call["ended_at"] is not None)
            recording = await bridge.http.get(f"/api/calls/{detail['id']}/recording")
            metrics = (await bridge.http.get("/metrics")).text
        finally:
            await caller.close()

    # On the wire: one stream without a gap, from the first packet to the last, silence included.
    packets = caller.packets
    assert {packet.payload_type for packet in packets} == {0}
    assert {len(packet.payload) for packet in packets} == {160}
    assert len({packet.ssrc for packet in packets}) == 1
    steps = list(itertools.pairwise(packets))
    assert {(b.sequence - a.sequence) & 0xFFFF for a, b in steps} == {1}
    assert {(b.timestamp - a.timestamp) & 0xFFFFFFFF for a, b in steps} == {160}

    # In the ear.
    engines = LocalEngines(EngineSettings(workers=1, stt_deadline_s=30), tmp_path, roles=("stt",))
    await engines.start()
    try:
        greeting_text = await transcribe(engines, caller.pcm(max(0, greeting - 5), greeted))
        booking_text = await transcribe(engines, caller.pcm(booking - 5, booked_to))
        with wave.open(str(write(tmp_path / "recording.wav", recording.content)), "rb") as file:
            assert (file.getnchannels(), file.getframerate()) == (2, 8000)
            frames = file.readframes(file.getnframes())
        left, right = audioop.tomono(frames, 2, 1, 0), audioop.tomono(frames, 2, 0, 1)
        # The caller's question stands in the left channel where the greeting is over in the right.
        asked = await transcribe(engines, left[greeted * 320 - 16000 : answer * 320])
        said = await transcribe(engines, right[: greeted * 320])
    finally:
        await engines.aclose()
    assert share_of_words(greeting_text, GREETING) >= 0.6, greeting_text
    assert re.search(r"people|party|name|friday|table|book", booking_text)
    assert "sunday" in asked
    assert share_of_words(said, GREETING) >= 0.6, said

    # On the record.
    assert detail["cause"] == "caller-hung-up"
    assert detail["agent"] == "receptionist"
    turns = detail["turns"]
    assert [turn["speaker"] for turn in turns[:4]] == ["agent", "caller", "agent", "caller"]
    assert "sunday" in turns[1]["text"].lower()
    cut = turns[2]
    assert cut["interrupted"]
    assert cut["text"] != cut["heard_text"]
    assert len(cut["heard_text"]) < len(cut["text"])
    assert re.search("friday", turns[3]["text"].lower())
    assert cut["delays"]["reply_ms"] > 0
    assert turns[4]["delays"]["reply_ms"] > 0, turns
    barge_ins = [event["data"] for event in detail["events"] if event["name"] == "barge_in"]
    assert any(event["confirmed"] for event in barge_ins)
    assert detail["quality"]["packets_lost"] == 0
    assert "offhook_rtp_streams 0.0" in metrics
    assert json.dumps(detail)


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path
