"""`offhook turns`: a call's turns as a table, with where the time of each reply went."""

import asyncio

import pytest

from bridge.events import CallAnswered, CallEnded, CallStarted, Cause, TurnDelays, TurnEnded
from bridge.view import Api as Address
from bridge.view_turns import show_turns

T0 = 1_790_000_000.0


async def shown(address: Address, call: str) -> tuple[int, list[str]]:
    lines: list[str] = []
    return await asyncio.to_thread(show_turns, address, call, lines.append), lines


async def test_every_part_of_a_reply_is_in_the_table_and_the_slowest_is_pointed_out(api, address: Address) -> None:
    api.bridge.begin("c1")
    quick = TurnDelays(300.0, 0.0, 200.0, 140.0, 660.0, "openai/m", playout_ms=15.0, stt="deepgram", tts="cartesia")
    slow = TurnDelays(
        400.0, 0.0, 900.0, 140.0, 1600.0, "openai/m", tools_ms=120.0, playout_ms=15.0, stt="deepgram", tts="aura"
    )
    for event in (
        CallAnswered(T0 + 1, 250.0),
        TurnEnded(0, "caller", "when are you open", 100.0, 1900.0, "", 1800.0, why="500 ms of silence: complete"),
        TurnEnded(1, "agent", "We open at nine.", 2560.0, 4000.0, "We open at nine.", 1440.0, delays=quick),
        TurnEnded(2, "agent", "Let me see \x1b[31mhere", 9000.0, 9500.0, "Let me \x1b[31m", 500.0, True, delays=slow),
    ):
        api.bridge.log.record("c1", event)
    code, lines = await shown(address, "c1")
    assert code == 0
    # The step that never happened has no column.
    assert lines[0].split() == [
        "AT",
        "WHO",
        "REPLY",
        "ENDPOINT",
        "STT",
        "LLM",
        "TOOLS",
        "TTS",
        "PLAYOUT",
        "REST",
        "SAID",
    ]
    assert " ".join(lines[1].split()) == "0.1 s caller when are you open (500 ms of silence: complete)"
    assert lines[2].split()[:9] == ["2.6", "s", "agent", "660", "300", "0", "200", "140", "15"]
    assert lines[2].split()[9] == "5"
    assert lines[3].split()[3:11] == ["1600", "400", "0", "900", "120", "140", "15", "25"]
    assert lines[3].endswith("Let me  [31m [cut off]")
    assert lines[5:9] == [
        "stt: deepgram",
        "llm: openai/m",
        "tts: cartesia, aura",
        "slowest reply: 1600 ms, at 9.0 s; most of it llm (900 ms)",
    ]


async def test_call_is_found_by_its_sip_call_id_too(api, address: Address) -> None:
    api.bridge.whole_call("c1")
    code, lines = await shown(address, "c1@pbx")
    assert code == 0 and lines[1].split()[2:4] == ["agent", "560"]


async def test_unknown_call_and_one_without_a_word_are_said(api, address: Address) -> None:
    assert await shown(address, "c9") == (1, ["there is no call 'c9' on the record"])
    api.bridge.begin("c2")
    assert await shown(address, "c2") == (0, ["nobody has said anything in this call"])


@pytest.mark.parametrize(
    ("kind", "quality", "said"),
    [
        (
            "sip",
            {
                "packets_received": 500.0,
                "loss_percent": 1.26,
                "jitter_ms": 2.14,
                "mos": 4.21,
                "mos_remote": 4.4,
                "round_trip_ms": 40.4,
            },
            ["caller's line: MOS 4.2 (4.4 at the far end), 1.3 % lost, jitter 2.1 ms, round trip 40 ms"],
        ),
        (
            "asterisk",
            {
                "packets_received": 500.0,
                "loss_percent": 0.0,
                "jitter_ms": 0.3,
                "mos": 4.41,
                "caller_packets_received": 450.0,
                "caller_loss_percent": 10.0,
                "caller_jitter_ms": 21.0,
                "caller_mos": 3.4,
            },
            [
                "caller's line, to Asterisk: MOS 3.4, 10.0 % lost, jitter 21.0 ms",
                "Asterisk to here: MOS 4.4, 0.0 % lost, jitter 0.3 ms",
            ],
        ),
        ("asterisk", {"caller_packets_received": 0.0}, ["caller's line, to Asterisk: nothing received"]),
        ("asterisk", {"packets_received": 9.0, "mos": 4.41}, ["Asterisk to here: MOS 4.4"]),
        ("sip", {"mos": 0.0}, []),
    ],
)
async def test_how_the_call_sounded_is_said_of_each_stretch(
    api, address: Address, kind: str, quality: dict[str, float], said: list[str]
) -> None:
    api.bridge.log.record("c3", CallStarted("inbound", "a", "b", "pbx", "echo", kind, "x", T0))
    api.bridge.log.record("c3", CallEnded(Cause.CALLER_HUNG_UP, "", T0 + 9, None, quality))
    assert await shown(address, "c3") == (0, ["nobody has said anything in this call", *said])
