"""When every vendor is out of reach, the embedded engines at the end of each chain hold the conversation."""

from pathlib import Path

import pytest
from failures_call import KEY_ENV, ROLES, FailingCall
from failures_vendors import KEY, SPARES

from bridge.configfile import parse
from bridge.phone import read_speech
from bridge.talkers import Talkers

CONFIG = """
data_dir: {folder}
providers:
{providers}
fallback: {{breaker: {{fatal_cool_down_s: 5}}}}
agents:
  a:
    greeting: Hello there.
    brief: {{facts: [{{id: hours, ask: [what are your opening hours, what are your hours], say: We open at noon.}}]}}
    stt: [stt, local]
    llm: [llm, local]
    tts: [tts, local]
"""


async def test_the_embedded_engines_take_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_ENV, KEY)
    lines = []
    for role in ROLES:
        async with SPARES[role].server(KEY) as server:
            entry = SPARES[role].entry(server, KEY_ENV)
        lines.append(f"  {role}: {{kind: {entry['kind']}, base_url: '{entry['base_url']}', api_key_env: {KEY_ENV}}}")
    talkers = Talkers(tmp_path)
    config = parse(CONFIG.format(folder=tmp_path, providers="\n".join(lines)), "x.yaml", Path())
    try:
        await talkers.start(config, lambda line: None)
        async with FailingCall(talkers).up() as call:
            assert await call.turn(0, 15) == "Hello there."
            sample = Path(__file__).parents[3] / "bridge" / "sample" / "hours.wav"
            call.leg.hear(read_speech(sample, 8000))
            answer = await call.turn(1, 30)
            assert "We open at noon." in answer
        left = {(failure.role, failure.provider, failure.went_on) for failure in call.failures}
        assert left == {(role, role, "local") for role in ROLES}
    finally:
        await talkers.aclose()
