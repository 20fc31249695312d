"""A caller announced in words: a bridge on its own engines, two SIP phones, and what is heard on each."""

import asyncio
import audioop
import sys
from pathlib import Path

import httpx
import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "legs"))

from free_ports import free_port, free_ports
from hearing import share_of_words, transcribe
from sip_calls import CALLER_HZ, HOLD_HZ, THIRD_HZ, Party, heard, until
from sip_line import line, taken

from bridge.app import Bridge
from bridge.config import Config
from bridge.events import Cause, LegEnded
from bridge.providers.local.engines import LocalEngines
from bridge.providers.local.settings import EngineSettings

SUMMARY = "Somebody wants to book a table for four people tonight."
WORDS = "wants book table four people tonight"
RATE_HZ = 8000
RTP_PORTS = 40
JOINED = 15
"""Frames in which the two hear each other by then."""


@pytest.mark.timeout(300)
async def test_who_answers_hears_the_summary_in_words_and_the_caller_hears_none_of_it(tmp_path: Path) -> None:
    rtp_port = free_ports(RTP_PORTS, rtp=True)
    settings = Config(
        data_dir=tmp_path / "data",
        sip={"listen": "127.0.0.1", "port": free_port()},
        http={"port": free_port()},
        rtp={"port_min": rtp_port, "port_max": rtp_port + RTP_PORTS - 1},
        engines={"workers": 1, "overload_wait_s": 60, "tts_deadline_s": 20, "stt_deadline_s": 20},
        agents={"desk": {"kind": "conversation", "greeting": "Hello there, how can I help you?"}},
        routes=[{"agent": "desk"}],
        limits={"clock_lateness_ms": 1000},
    )
    async with Bridge.run(settings, lambda text: None) as bridge, line() as phones:
        host, port = phones.third.address
        leg = await phones.far.dial(f"sip:desk@127.0.0.1:{settings.sip.port}", from_user="caller")
        caller = Party(leg, CALLER_HZ)
        await until(lambda: any(audioop.rms(frame, 2) > 500 for frame in caller.frames))
        await until(lambda: all(audioop.rms(frame, 2) < 100 for frame in caller.frames[-50:]))
        key = (tmp_path / "data" / "api-key").read_text().strip()
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{settings.http.port}", headers={"Authorization": f"Bearer {key}"}, timeout=30
        ) as http:
            (call,) = (await http.get("/api/calls", params={"live": "true"})).json()["calls"]
            wanted = {"target": f"sip:desk@{host}:{port}", "mode": "attended", "announce": SUMMARY}
            response = await http.post(f"/api/calls/{call['id']}/transfer", json=wanted)
            assert response.status_code == 202, response.text
        desk = Party(await taken(phones.at_third), THIRD_HZ)
        await caller.hears_our_tone(HOLD_HZ)
        answered = len(caller.frames)
        await desk.sip.answer()
        caller.hum()
        # The summary is over when the caller is heard.
        async with asyncio.timeout(60):
            while heard(desk.frames, RATE_HZ) != {CALLER_HZ}:
                await asyncio.sleep(0.02)
        told, meanwhile = b"".join(desk.frames[:-JOINED]), b"".join(caller.frames[answered:-JOINED])
        desk.hum()
        await caller.hears(THIRD_HZ)
        await desk.hears(CALLER_HZ)
        await desk.sip.hangup(Cause.AGENT_HUNG_UP)
        await caller.event(LegEnded)
        await until(lambda: not bridge.live_calls())
        bridge.stop()
    assert bridge.media.ports.in_use == 0
    engines = LocalEngines(EngineSettings(workers=1, stt_deadline_s=30), tmp_path, roles=("stt",))
    await engines.start()
    try:
        summary, waiting = await transcribe(engines, told), await transcribe(engines, meanwhile)
    finally:
        await engines.aclose()
    assert share_of_words(summary, WORDS) >= 0.8, summary
    assert share_of_words(waiting, WORDS) == 0.0, waiting
