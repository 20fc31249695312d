"""Whole conversations by a real Asterisk, as shipped: greeted, answered, interrupted, keys, the end, by each way that
audio can take; checked at the caller's ear and on the record."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

sys.path.insert(0, str(Path(__file__).parent))

from asterisk_house import (
    AUDIO,
    CALLER,
    CLERK,
    FRAME_S,
    GOODBYE,
    GREETING,
    HAND_OVER,
    KEEPER,
    KNOWN,
    LOOK_UP,
    OPEN,
    PRICE,
    WAYS,
    House,
    Phone,
    Way,
    loud,
    open_house,
)
from asterisk_shop import MUSIC_HZ, TONE_HZ
from standin_llm import Call

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

SUMMARY = "Sarah wants a perm, on Friday."


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with open_house(tmp_path_factory.mktemp("house")) as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="module", autouse=True)
async def nothing_left(house: House) -> AsyncIterator[None]:
    yield
    await house.clear()


async def test_callers_by_each_way_are_greeted_interrupt_press_keys_and_are_said_goodbye_to(
    house: House, record_property: Any
) -> None:
    talks = await asyncio.gather(*(talk_with_salon(house, way) for way in WAYS))
    for way, talk in zip(WAYS, talks, strict=True):
        call = await house.ended(talk.call_id)
        await house.assert_said(talk.greeting, GREETING)
        await house.assert_said(talk.cut, "on sundays we")
        await house.assert_said(talk.price, PRICE)
        await house.assert_said(talk.goodbye, GOODBYE)
        assert (call["trunk"], call["leg_kind"], call["agent"]) == (way.trunk, way.leg_kind, "salon")
        assert (call["from"], call["to"], call["cause"]) == (CALLER, way.number, "agent-hung-up")
        set_up = [(event["transport"], event["codec"]) for event in events(call, "media_set_up")]
        assert set_up == [(way.media, way.codec)]
        assert [event["digit"] for event in events(call, "dtmf_received")] == ["7", "#"]
        speakers = ["agent", "caller"] * (len(call["turns"]) // 2) + ["agent"]
        assert [turn["speaker"] for turn in call["turns"]] == speakers
        assert [turn["interrupted"] for turn in call["turns"]] == [False, False, True] + [False] * 6
        cut = call["turns"][2]
        assert cut["text"] == OPEN and OPEN.startswith(cut["heard_text"])
        assert 0 < len(cut["heard_text"]) < len(OPEN) / 2
        assert any(event["confirmed"] for event in events(call, "barge_in"))
        assert len(events(call, "far_flushed")) == (way.media == "websocket")
        record_property(f"{way}: the agent silent at the caller after its onset of speech (ms)", talk.silent_ms)
        print(f"\n{way}: the agent fell silent {talk.silent_ms} ms after the caller spoke up")


@dataclass(frozen=True)
class Talk:
    """What a caller heard (int16 mono)."""

    call_id: str
    greeting: bytes
    cut: bytes
    """The answer up to the interruption."""
    price: bytes
    goodbye: bytes
    silent_ms: int
    """From the caller's onset of speech to the end of the agent's last sound."""


async def talk_with_salon(house: House, way: Way) -> Talk:
    """Ask for the hours, interrupt the answer, press a key that means nothing, have no further wish."""
    caller = await house.call(way.number)
    begun = await caller.is_spoken_to()
    greeted = await caller.hears_an_end()
    call_id = await house.live(way.number)

    asked = await caller.asks("piper_hours_clean8k")
    answer = await caller.is_spoken_to(asked)
    await caller.until(lambda: len(caller.frames) > answer + 50)
    onset = len(caller.frames)
    asked = await caller.asks("piper_price_clean8k")
    price = await caller.is_spoken_to(asked)
    last = max((at for at in range(onset, asked) if loud(caller.frames[at])), default=onset - 1)
    priced = await caller.hears_an_end()

    caller.leg.send_dtmf("7#")
    await caller.is_spoken_to(priced)
    pardoned = await caller.hears_an_end()
    await caller.asks("piper_no1_clean8k")
    goodbye = await caller.is_spoken_to(pardoned)
    await caller.ends()
    return Talk(
        call_id,
        caller.heard(begun, greeted),
        caller.heard(answer, onset),
        caller.heard(price, priced),
        caller.heard(goodbye),
        round((last + 1 - onset) * FRAME_S * 1000),
    )


def transfer(target: str) -> tuple[Call, Call]:
    """What the clerk does with a caller who wants to talk to somebody."""
    note = Call("set_variables", {"REASON": "a perm, for a wedding"})
    return note, Call("transfer", {"target": target, "summary": SUMMARY})


async def talk_to_clerk(house: House, number: str = CLERK) -> tuple[Phone, str]:
    """A caller who was greeted, and has asked for a person; and its call's id."""
    caller = await house.call(number)
    await caller.is_spoken_to()
    await caller.hears_an_end()
    call_id = await house.live(number)
    await caller.asks("piper_human_clean8k")
    return caller, call_id


async def converse(caller: Phone, phone: Phone) -> None:
    """Each hears the other's tone."""
    caller.hum(900.0)
    phone.hum(1200.0)
    await phone.listens_to(900.0)
    await caller.listens_to(1200.0)


@pytest.mark.parametrize("target", ["desk", "office"])
async def test_the_agent_hands_over_to_a_phone_or_a_queue_whose_member_sees_what_it_is_about(
    house: House, target: str
) -> None:
    house.model.wants(HAND_OVER, *transfer(target))
    caller, call_id = await talk_to_clerk(house)
    phone = await house.rings()
    await phone.leg.answer()
    await converse(caller, phone)
    call = await house.ended(call_id)
    assert (call["cause"], call["turns"][-1]["text"]) == ("transferred", HAND_OVER)
    shown = {name: value for name, value in phone.leg.info.headers.items() if name.startswith("x-offhook")}
    assert shown == {"x-offhook-call-id": call_id, "x-offhook-summary": SUMMARY.replace(",", ";")}
    assert phone.leg.info.from_ == CALLER
    # The two talk on, and the bridge has no part in it.
    assert not (await house.bridge.http.get("/api/calls", params={"live": "true"})).json()["calls"]
    await phone.hang_up()
    await caller.ends()


async def test_the_agent_hands_over_to_a_place_of_the_dialplan(house: House) -> None:
    house.model.wants(HAND_OVER, *transfer("perm"))
    caller, call_id = await talk_to_clerk(house)
    await caller.listens_to(TONE_HZ)
    assert await house.dialplan_says("perm desk: ") == f"status TRANSFER, summary {SUMMARY}"
    assert (await house.ended(call_id))["cause"] == "transferred"
    await caller.hang_up()


async def test_the_agent_hands_over_to_an_endpoint_and_stays_in_between(house: House) -> None:
    house.model.wants(HAND_OVER, *transfer("direct"))
    caller, call_id = await talk_to_clerk(house)
    phone = await house.rings()
    await phone.leg.answer()
    await converse(caller, phone)
    assert phone.leg.info.from_ == CALLER
    call = await house.one(call_id)
    assert call["state"] == "up" and events(call, "bridged")[0]["agent"] == "left"
    await phone.hang_up()
    await caller.ends()
    assert (await house.ended(call_id))["cause"] == "transferred"


async def test_who_answers_is_told_about_the_caller_and_joined_with_it_by_asterisk(house: House) -> None:
    house.model.wants(HAND_OVER, *transfer("told"))
    caller, call_id = await talk_to_clerk(house)
    phone = await house.rings()
    await caller.listens_to(MUSIC_HZ)
    await phone.leg.answer()
    caller.hum(900.0)
    told = await phone.is_spoken_to()
    await phone.listens_to(900.0)
    joined = len(phone.frames)
    phone.hum(1200.0)
    await caller.listens_to(1200.0)
    await house.assert_said(phone.heard(told, joined - 15), f"here is a caller {SUMMARY}")
    call = await house.ended(call_id)
    assert call["cause"] == "transferred"
    (pbx,) = (await house.bridge.http.get("/api/asterisk")).json()["asterisks"]
    assert (pbx["calls"], pbx["joined"]) == (0, 1)
    await phone.hang_up()
    await caller.ends()


async def test_a_caller_who_can_not_be_handed_over_stays_with_the_agent_who_knows_why(house: House) -> None:
    house.model.wants(HAND_OVER, *transfer("nowhere"), then="Nobody is there, I am sorry.")
    caller, call_id = await talk_to_clerk(house)

    async def knows_why() -> str:
        """What the model was told of it."""
        told = [text for asked in house.model.asked for role, text in asked.messages if role == "tool"]
        return next((text for text in told if "transfer failed" in text), "")

    result = await house.wait_for(knows_why, "failed transfer")
    await caller.hang_up()
    assert "404" in result and "1999999" in result
    assert (await house.ended(call_id))["cause"] == "caller-hung-up"


async def test_who_waits_for_a_slow_tool_has_asterisks_music_until_the_agent_speaks(house: House) -> None:
    house.model.wants("I will look.", Call(LOOK_UP, {}), then=PRICE)
    caller, call_id = await talk_to_clerk(house, KEEPER)
    await caller.listens_to(MUSIC_HZ)
    house.ledger.answers.set()
    # The agent speaks as soon as the music has stopped.
    await caller.until(lambda: caller.level(MUSIC_HZ) < 500, "end of the music")
    begun = await caller.is_spoken_to(len(caller.frames) - 5)
    done = await caller.hears_an_end()
    await caller.hang_up()
    await house.assert_said(caller.heard(begun, done), PRICE)
    call = await house.ended(call_id)
    assert call["turns"][-1]["heard_text"] == f"I will look. {PRICE}"
    assert [one["name"] for one in events(call, "tool_called")] == [LOOK_UP]


async def test_what_the_dialplan_passes_on_reaches_the_agent_and_what_it_learned_the_dialplan(house: House) -> None:
    house.model.wants("Goodbye then.", transfer("desk")[0], Call("hang_up", {"summary": SUMMARY}))
    caller, call_id = await talk_to_clerk(house, KNOWN)
    await caller.listens_to(TONE_HZ)
    call = await house.ended(call_id)
    assert await house.dialplan_says("after: status") == f"ANSWERED, cause agent-hung-up, call {call_id}"
    assert await house.dialplan_says("after: reason") == f"a perm, for a wedding, summary {SUMMARY}"
    assert (call["agent"], call["to"]) == ("guide", KNOWN)
    known = {"campaign": "spring", "offer": "perm", "customer": "Sarah Thompson"}
    assert events(call, "call_started")[0]["headers"].items() >= known.items()
    assert call["turns"][0]["heard_text"] == "Good day Sarah Thompson, this is the hair salon."
    prompt = house.model.asked[0].prompt
    assert "spring" in prompt and "Sarah Thompson" in prompt and "perm" not in prompt
    await caller.hang_up()


async def test_who_is_called_sees_the_number_and_talks_with_the_agent(house: House) -> None:
    call_id = await house.dial("PJSIP/1001", **{"from": "+4930199", "caller_name": "Hair salon"})
    phone = await house.rings()
    assert (phone.leg.info.from_, phone.leg.info.display_name) == ("+4930199", "Hair salon")
    await phone.leg.answer()
    begun = await phone.is_spoken_to()
    greeted = await phone.hears_an_end()
    asked = await phone.asks("piper_price_clean8k")
    price = await phone.is_spoken_to(asked)
    priced = await phone.hears_an_end()
    await phone.hang_up()
    call = await house.ended(call_id)
    await house.assert_said(phone.heard(begun, greeted), GREETING)
    await house.assert_said(phone.heard(price, priced), PRICE)
    assert (call["direction"], call["to"], call["from"]) == ("outbound", "PJSIP/1001", "+4930199")
    assert (call["cause"], call["trunk"], len(call["turns"])) == ("caller-hung-up", "pbx", 3)


FATES = {
    "PJSIP/busy@carrier": ("busy", 486, 17),
    "PJSIP/nobody@carrier": ("rejected", 404, 1),
    "PJSIP/refused@carrier": ("rejected", 403, 21),
    "PJSIP/congestion@carrier": ("rejected", 503, 34),
    "PJSIP/ring@carrier": ("no-answer", None, 19),
    "PJSIP/1002": ("no-answer", 480, 20),
}


async def test_what_came_of_calls_that_nobody_took_is_on_record(house: House) -> None:
    ids = [await house.dial(to, timeout_s=2) for to in FATES]
    calls = [await house.ended(call_id) for call_id in ids]
    ends = [events(call, "leg_ended")[0] for call in calls]
    found = {call["to"]: (call["cause"], end["status"], end["q850"]) for call, end in zip(calls, ends, strict=True)}
    assert found == FATES


async def test_machines_are_told_from_people_and_talked_to_or_hung_up_on(house: House) -> None:
    talk = await house.dial("PJSIP/machine@carrier", machine="talk")
    spared = await house.dial("PJSIP/machine@carrier", machine="hangup")
    person = await house.dial("PJSIP/human@carrier", machine="hangup")

    async def greeted() -> bool:
        return all([(await house.one(call_id))["turns"] for call_id in (talk, person)])

    await house.wait_for(greeted, "greeting")
    for call_id in (talk, person):
        await house.bridge.http.delete(f"/api/calls/{call_id}")
    calls = [await house.ended(call_id) for call_id in (talk, spared, person)]
    taken = [(events(call, "answered_by")[0]["who"], call["cause"]) for call in calls]
    assert taken == [("machine", "api-hung-up"), ("machine", "agent-hung-up"), ("human", "api-hung-up")]
    assert [[turn["text"] for turn in call["turns"]] for call in calls] == [[GREETING], [], [GREETING]]


async def test_a_newcomer_calls_the_agent_through_asterisk_by_the_command(house: House, tmp_path: Path) -> None:
    words = [house.shop.address(WAYS[0].number), "--out", str(tmp_path / "call.wav"), "--api", house.api_url]
    script = ["--interrupt", "piper_price_clean8k", "--say", "piper_no1_clean8k"]
    words += [str(AUDIO / f"{word}.wav") if word.startswith("piper") else word for word in script]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bridge.cli", "call", *words),
        env=os.environ | {"OFFHOOK_DATA_DIR": str(house.bridge.data)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said = (await process.communicate())[0].decode()
    assert process.returncode == 0, said
    for line in ("answered after", "agent fell silent", "the call ended: the agent hung up"):
        assert line in said, said
    # The bridge knows the call by Asterisk's name for it, and finds it all the same.
    assert PRICE in said and "no transcript" not in said, said


def events(call: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [event["data"] for event in call["events"] if event["name"] == name]
