"""A real bridge, call and collector: where each turn's time went arrives there, in the log and in the API."""

import asyncio
import json
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path += [str(Path(__file__).parents[1] / "protocol" / vendor) for vendor in ("cartesia",)]

from bridge_process import WAIT_S, BridgeProcess
from cartesia_server import KEY as CARTESIA_KEY
from cartesia_server import Cartesia
from deepgram_server import KEY as DEEPGRAM_KEY
from deepgram_server import DeepgramServer
from free_ports import free_port
from openai_server import ChatStandin
from otlp_collector import Collector, attributes, collecting
from raw_caller import RawCaller
from standin_llm import Says

AUDIO = Path(__file__).parents[1] / "data" / "audio"
QUESTION = "when are you open tomorrow"
ANSWER = "We open at nine in the morning."
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
KEYS = {
    "DEEPGRAM_API_KEY": DEEPGRAM_KEY,
    "OPENAI_API_KEY": "sk-stand-in-0123456789",
    "CARTESIA_API_KEY": CARTESIA_KEY,
}
STEPS = ("endpoint", "stt", "llm", "tts", "playout")


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as running:
        yield running


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., BridgeProcess]]:
    started: list[BridgeProcess] = []

    def begin(tracing: str, more: str = "", **settings: Any) -> BridgeProcess:
        variables = {"NO_PROXY": "127.0.0.1", "OFFHOOK_LOG_FORMAT": "json", **settings.pop("variables", {})}
        started.append(
            BridgeProcess(
                tmp_path / f"box{len(started)}", more=f"tracing: {tracing}\n{more}", variables=variables, **settings
            )
        )
        return started[-1]

    yield begin
    for process in started:
        process.kill()


@asynccontextmanager
async def caller() -> AsyncIterator[RawCaller]:
    phone = RawCaller()
    await phone.open()
    try:
        yield phone
    finally:
        await phone.close()


async def conversation(start: Callable[..., BridgeProcess], tracing: str) -> tuple[BridgeProcess, dict[str, Any]]:
    """A question and its answer; the bridge and the call's record."""
    async with AsyncExitStack() as stack:
        ear = await stack.enter_async_context(DeepgramServer([QUESTION]))
        model = ChatStandin()
        model.on("open", Says(ANSWER, first_s=0.3, per_token_s=0.01))
        await stack.enter_async_context(model)
        voice = await stack.enter_async_context(Cartesia())
        providers = (
            "providers:\n"
            f"  deepgram: {{base_url: '{ear.http_url}'}}\n"
            f"  openai: {{base_url: '{model.http_url}/v1', llm: {{model: m}}}}\n"
            f"  cartesia: {{base_url: '{voice.http_url}'}}\n"
        )
        agent = "{kind: conversation, greeting: Hello there., stt: deepgram, llm: openai, tts: cartesia}"
        bridge = await asyncio.to_thread(
            start, tracing, providers, agents={"front": agent}, variables={**KEYS, "COLLECTOR": "x-key=sec%20ret1234"}
        )
        async with caller() as phone:
            header = ("traceparent", f"00-{TRACE}-00f067aa0ba902b7-01")
            leg_id = await phone.dial("front", bridge.sip_port, headers=[header])
            await phone.agent_speaks(0)
            greeted = await phone.agent_finishes()
            phone.speak(AUDIO / "kokoro_hours_clean8k.wav")
            await phone.spoken()
            await phone.agent_speaks(greeted)
            await phone.agent_finishes()
            await phone.hang_up()
        call_id = (await asyncio.to_thread(bridge.calls, leg_id=leg_id))[0]["id"]
        return bridge, await asyncio.to_thread(bridge.wait_until_ended, call_id)


@pytest.mark.parametrize("content", [False, True])
async def test_collector_gets_the_spans_of_a_call(
    start: Callable[..., BridgeProcess], collector: Collector, content: bool
) -> None:
    tracing = f"{{otlp_endpoint: '{collector.url}', headers_env: COLLECTOR, service_name: box, content: {content}}}"
    bridge, call = await conversation(start, tracing)
    await asyncio.to_thread(collector.wait_for, lambda: collector.named("call"))

    path, headers = collector.requests[0]
    assert path == "/v1/traces" and headers["x-key"] == "sec ret1234"
    assert collector.resource()["service.name"] == "box"
    assert {span.trace_id.hex() for span in collector.spans} == {TRACE}
    (root,) = collector.named("call")
    shown = attributes(root)
    assert shown["offhook.call.id"] == call["id"] and shown["offhook.call.cause"] == "caller-hung-up"
    assert shown["offhook.agent"] == "front" and shown["offhook.media.codec"] == "PCMU"

    greeting, reply = sorted(collector.named("agent turn"), key=lambda span: span.start_time_unix_nano)
    (question,) = collector.named("caller turn")
    steps = {span.name: span for span in collector.spans if span.parent_span_id == reply.span_id}
    assert set(steps) >= {*STEPS, "speech"}
    assert greeting.end_time_unix_nano <= question.start_time_unix_nano
    assert abs(reply.start_time_unix_nano - question.end_time_unix_nano) < 1_000_000
    ends = [steps[name].end_time_unix_nano for name in STEPS]
    assert ends == sorted(ends) and abs(ends[-1] - steps["speech"].start_time_unix_nano) < 1000
    assert attributes(steps["llm"])["gen_ai.request.model"] == "m"
    assert [attributes(steps[name])["offhook.provider"] for name in ("stt", "llm", "tts")] == [
        "deepgram",
        "openai",
        "cartesia",
    ]

    raw = b"".join(request.SerializeToString() for request in collector.received)
    assert (ANSWER.encode() in raw) is content and (QUESTION.encode() in raw) is content

    # The same in the API, where the parts add up to what the caller waited, and in the log.
    delays = next(turn for turn in call["turns"] if turn["speaker"] == "agent" and turn["text"] == ANSWER)["delays"]
    parts = [delays[f"{name}_ms"] or 0 for name in (*STEPS, "tools", "clause")]
    # But for the bridge's own, which is a little of it even where the machine is busy.
    assert 0 <= delays["reply_ms"] - sum(parts) < delays["reply_ms"] / 2, delays
    assert (delays["stt"], delays["llm"], delays["tts"]) == ("deepgram", "openai/m", "cartesia")
    assert attributes(reply)["offhook.reply_ms"] == delays["reply_ms"]
    lines = [json.loads(line) for line in bridge.said if line.startswith("{")]
    (line,) = [entry for entry in lines if entry["event"] == "turn" and "reply_ms" in entry]
    assert (line["call"], line["reply_ms"], line["level"]) == (call["id"], round(delays["reply_ms"]), "info")
    assert ANSWER not in "\n".join(bridge.said) and "ret1234" not in "\n".join(bridge.said)

    told = await asyncio.to_thread(bridge.command, "turns", call["id"])
    assert told.returncode == 0, told.stderr
    assert f"{delays['reply_ms']:.0f}" in told.stdout and "cartesia" in told.stdout


async def echo_call(bridge: BridgeProcess) -> None:
    async with caller() as phone:
        await phone.dial("echo", bridge.sip_port)
        await phone.packets_come(25)
        await phone.hang_up()


async def test_collector_that_is_gone_costs_spans_and_a_line_of_the_log_alone(
    start: Callable[..., BridgeProcess],
) -> None:
    bridge = await asyncio.to_thread(start, f"{{otlp_endpoint: 'http://127.0.0.1:{free_port()}'}}")
    for _ in range(2):
        # Before the call: its spans may have failed by the time that it is over.
        failed = bridge.metrics()["offhook_spans_failed_total"]
        await echo_call(bridge)
        await asyncio.to_thread(
            bridge.wait_for,
            lambda failed=failed: bridge.metrics()["offhook_spans_failed_total"] > failed,
            WAIT_S,
            "failure",
        )
    bridge.terminate()
    assert await asyncio.to_thread(bridge.wait_for_exit) == 0
    assert len([line for line in bridge.said if "trouble sending spans" in line]) == 1
    assert not [line for line in bridge.said if "Traceback" in line]


async def test_collector_that_does_not_answer_delays_the_stop_by_two_seconds_at_most(
    start: Callable[..., BridgeProcess], collector: Collector
) -> None:
    collector.stalls.set()
    bridge = await asyncio.to_thread(start, f"{{otlp_endpoint: '{collector.url}'}}")
    await echo_call(bridge)
    await asyncio.to_thread(collector.wait_for, lambda: collector.requests)
    await echo_call(bridge)
    bridge.terminate()
    began = time.monotonic()
    assert await asyncio.to_thread(bridge.wait_for_exit) == 0
    # The span export's own limit is two seconds; the collector's silence is thirty.
    assert time.monotonic() - began < 20
    assert [line for line in bridge.said if "spans lost at the stop" in line]


async def test_last_spans_are_sent_at_the_stop(start: Callable[..., BridgeProcess], collector: Collector) -> None:
    bridge = await asyncio.to_thread(start, f"{{otlp_endpoint: '{collector.url}/custom/path'}}")
    async with caller() as phone:
        await phone.dial("echo", bridge.sip_port)
        await phone.packets_come(25)
        await phone.hang_up()
        bridge.terminate()
    assert await asyncio.to_thread(bridge.wait_for_exit) == 0
    assert [attributes(span)["offhook.agent"] for span in collector.named("call")] == ["echo"]
    assert {path for path, _ in collector.requests} == {"/custom/path"}


async def test_missing_headers_are_said_at_the_start(start: Callable[..., BridgeProcess]) -> None:
    with pytest.raises(AssertionError, match=re.escape("the environment variable NOT_THERE is not set")):
        await asyncio.to_thread(start, "{otlp_endpoint: 'http://127.0.0.1:1', headers_env: NOT_THERE}")


def test_nothing_of_it_is_imported_unless_it_is_configured() -> None:
    ours = ("opentelemetry.sdk", "opentelemetry.exporter", "bridge.span")
    code = f"import sys, bridge.app, bridge.serve; print([name for name in sys.modules if name.startswith({ours})])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert said.stdout.strip() == "[]"
