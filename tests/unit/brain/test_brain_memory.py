"""The brain keeps nothing: everything comes from the memory it is given, and from what was heard of it."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from brain_call import TUESDAY, BrainCall, arguments
from numpy.typing import NDArray

from bridge.providers.base import LlmEvent, LlmRequest, Message, ReplyDone, TextDelta, ToolCall
from bridge.providers.brief import Brief, Fact
from bridge.providers.local.brain import LocalBrain
from bridge.providers.local.embed import Embedder
from bridge.providers.tools import form_tools

pytestmark = pytest.mark.asyncio(loop_scope="session")


class CountingEmbeds:
    """The real embedder, with what it was asked for."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self.asked: list[list[str]] = []

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.asked.append(list(texts))
        return await self._embedder.embed(texts)


def request(brief: Brief, *messages: Message) -> LlmRequest:
    return LlmRequest(brief, messages, form_tools(brief), TUESDAY)


async def collect(brain: LocalBrain, asked: LlmRequest) -> list[LlmEvent]:
    return [event async for event in brain.reply(asked)]


def text(events: list[LlmEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


async def test_any_brain_goes_on_where_another_was(
    receptionist: Brief, brain: LocalBrain, embedder: Embedder
) -> None:
    call = BrainCall(brain, receptionist)
    await call.say("a table for two on Friday at seven")
    other = BrainCall(LocalBrain(embedder), receptionist, messages=call.messages)
    assert "Miller" in (await other.say("Miller")).text
    assert set(arguments((await other.say("yes")).calls)) == {"book_table"}


async def test_the_same_memory_gets_the_same_reply(receptionist: Brief, brain: LocalBrain) -> None:
    call = BrainCall(brain, receptionist)
    for said in ("a table for two", "Friday", "do you have parking", "no make it three people"):
        await call.say(said)
    asked = request(receptionist, *call.messages, Message("user", "at eight"))
    first, second = await collect(brain, asked), await collect(brain, asked)
    assert first == second


async def test_calls_at_once_do_not_mix(receptionist: Brief, brain: LocalBrain) -> None:
    async def book(people: int, name: str) -> dict[str, object]:
        call = BrainCall(brain, receptionist)
        for said in ("I want to book a table", "Friday", "at eight", str(people), name):
            await call.say(said)
        return arguments((await call.say("yes")).calls)["book_table"]

    booked = await asyncio.gather(*(book(n, name) for n, name in enumerate(("Adams", "Baker", "Clark"), start=2)))
    assert [(entry["people"], entry["name"]) for entry in booked] == [(2, "Adams"), (3, "Baker"), (4, "Clark")]


async def test_a_turn_costs_one_embedding_call_of_its_own_words(receptionist: Brief, embedder: Embedder) -> None:
    counting = CountingEmbeds(embedder)
    brain = LocalBrain(counting)
    await brain.prepare(receptionist)
    call = BrainCall(brain, receptionist)
    counting.asked.clear()
    await call.say("where are you")
    await call.say("and is there any parking")
    await call.say("okay")
    assert counting.asked == [["where are you"], ["and is there any parking"]]


async def test_a_sentence_is_a_delta_and_the_end_comes_last(receptionist: Brief, brain: LocalBrain) -> None:
    events = await collect(brain, request(receptionist, Message("user", "I'd like to book a table")))
    assert events == [TextDelta("With pleasure."), TextDelta(" For which day?"), ReplyDone()]


async def test_a_filler_before_the_reply_is_still_the_reply(receptionist: Brief, brain: LocalBrain) -> None:
    call = BrainCall(brain, receptionist)
    await call.say("a table for two on Friday at seven, my name is Miller")
    call.messages[-1] = replace(call.messages[-1], content="One moment, please. " + call.messages[-1].content)
    assert "book_table" in arguments((await call.say("yes")).calls)


async def test_a_reminder_leaves_the_question_open(receptionist: Brief, brain: LocalBrain) -> None:
    call = BrainCall(brain, receptionist)
    await call.say("a table for two on Friday at seven, my name is Miller")
    call.messages.append(Message("assistant", "Are you still there?"))
    assert "book_table" in arguments((await call.say("yes")).calls)


async def test_a_form_whose_tool_was_cut_short_is_read_back_again(receptionist: Brief, brain: LocalBrain) -> None:
    call = BrainCall(brain, receptionist)
    await call.say("a table for two on Friday at seven, my name is Miller")
    made = ToolCall("x", "book_table", {})
    call.messages += [
        Message("user", "yes"),
        Message("assistant", "", (made,)),
        Message("tool", '{"ok": false, "error": "the caller went on talking"}', tool_call_id="x"),
    ]
    answer = await call.say("wait, make it three people")
    assert "A table for 3" in answer.text


async def test_takes_over_from_another_model(receptionist: Brief, brain: LocalBrain) -> None:
    made = ToolCall("x", "book_table", {"date": "2026-05-08", "time": "19:00", "people": 2, "name": "Miller"})
    memory = [
        Message("user", "a table for two on Friday at seven for Miller"),
        Message("assistant", "Sure thing! That is two on Friday at seven, right?"),
        Message("user", "yes"),
        Message("assistant", "", (made,)),
        Message("tool", '{"ok": true}', tool_call_id="x"),
    ]
    reply = text(await collect(brain, request(receptionist, *memory)))
    assert reply == "Is there anything else I can do for you?"


async def test_a_yes_to_another_models_read_back_books_nothing(receptionist: Brief, brain: LocalBrain) -> None:
    memory = [
        Message("user", "a table for two on Friday at seven, my name is Miller"),
        Message("assistant", "Sure thing! That is two on Friday at seven, right?"),
        Message("user", "yes"),
    ]
    events = await collect(brain, request(receptionist, *memory))
    assert "Is that right?" in text(events)
    assert events[-1] == ReplyDone()


async def test_without_a_message_form_none_is_offered(embedder: Embedder) -> None:
    brief = Brief(facts=[Fact(id="hours", ask=["when are you open"], say="We open at noon.")])
    call = BrainCall(LocalBrain(embedder), brief)
    for said in ("what is the capital of France", "I want to talk to a human", "mumble", "bumble", "jumble"):
        assert "message" not in (await call.say(said)).text.lower()


async def test_nothing_said_yet_is_a_greeting(receptionist: Brief, brain: LocalBrain) -> None:
    assert text(await collect(brain, request(receptionist))) == receptionist.phrases.hello


async def test_asked_for_a_reply_without_new_words_it_asks_again(receptionist: Brief, brain: LocalBrain) -> None:
    call = BrainCall(brain, receptionist)
    await call.say("I'd like to book a table")
    assert "For which day?" in text(await collect(brain, request(receptionist, *call.messages)))
