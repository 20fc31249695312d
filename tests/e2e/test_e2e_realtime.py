"""A caller dials a real bridge whose agent is a speech-to-speech model, over its SDK and a stand-in of its server."""

import asyncio
import audioop
import io
import sys
import wave
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.append(str(Path(__file__).parents[1] / "protocol"))
sys.path.append(str(Path(__file__).parents[1] / "protocol" / "openai"))

from openai_realtime_server import KEY, RealtimeServer
from raw_caller import RawCaller
from realtime_standin import WORD_MS, Turn
from test_e2e_call import AUDIO, running_bridge, until_recorded, write

CONFIG = """
providers:
  openai:
    websocket_url: {url}
agents:
  front:
    kind: realtime
    realtime: openai
    greeting: Good evening and welcome.
    brief_file: receptionist
routes:
  - agent: front
"""
REPLY = " ".join(["seven"] * 30)


@pytest.mark.timeout(180)
async def test_model_greets_answers_is_interrupted_and_hangs_up(tmp_path: Path) -> None:
    script = [Turn("when are you open", REPLY), Turn("stop it please", "Bye then.", tools=[("hang_up", {})])]
    async with RealtimeServer(script) as server:
        config = tmp_path / "offhook.yaml"
        write(config, CONFIG.format(url=server.url).encode())
        async with running_bridge(tmp_path / "data", config, {"OPENAI_API_KEY": KEY}) as bridge:
            caller = RawCaller()
            await caller.open()
            try:
                leg_id = await caller.dial("front", bridge.sip_port)
                await caller.agent_speaks(0)
                greeted = await caller.agent_finishes()
                caller.speak(AUDIO / "kokoro_hours_clean8k.wav")
                await caller.spoken()
                await caller.agent_speaks(greeted)
                await caller.packets_come(100)
                caller.speak(AUDIO / "kokoro_book_clean8k.wav")
                await caller.spoken()
                async with asyncio.timeout(60):
                    await caller.ended.wait()
                detail = await until_recorded(bridge.http, leg_id, lambda call: call["ended_at"] is not None)
                recording = await bridge.http.get(f"/api/calls/{detail['id']}/recording")
            finally:
                await caller.close()
            await server.all_closed()

    assert detail["cause"] == "agent-hung-up"
    turns = detail["turns"]
    assert [turn["speaker"] for turn in turns] == ["agent", "caller", "agent", "caller", "agent"]
    assert [turn["text"] for turn in turns] == [
        "Good evening and welcome.",
        "when are you open",
        REPLY,
        "stop it please",
        "Bye then.",
    ]
    assert turns[0]["heard_ms"] == 4 * WORD_MS
    cut = turns[2]
    assert cut["interrupted"] and 1500 < cut["heard_ms"] < 4500
    assert cut["delays"]["reply_ms"] > 400
    assert list(server.talk.truncated.values()) == [int(cut["heard_ms"])], "the model remembers what was heard"
    assert [event["data"]["confirmed"] for event in detail["events"] if event["name"] == "barge_in"] == [True]
    assert not turns[4]["interrupted"]

    with wave.open(io.BytesIO(recording.content), "rb") as file:
        assert (file.getnchannels(), file.getframerate()) == (2, 8000)
        frames = file.readframes(file.getnframes())
    agent = audioop.tomono(frames, 2, 0, 1)
    begins, ends = (int(turns[2][key] * 16) // 2 * 2 for key in ("started_ms", "ended_ms"))
    assert audioop.rms(agent[begins:ends], 2) > 1000
    assert audioop.rms(agent[ends + 3200 : ends + 6400], 2) < 100, "nothing after the interruption"
