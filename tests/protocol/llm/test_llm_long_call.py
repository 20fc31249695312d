"""A long call through a real client: what the model is sent stays within its budget, and stays true."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import pytest
from llm_vendors import BRIEF, Bench, collect, request
from standin_llm import Call, Says

from bridge.agents.memory import OVERDRAFT, Memory, tokens
from bridge.agents.settings import ConversationSettings, LimitSettings
from bridge.agents.summary import Summariser
from bridge.providers.base import Llm, Message

BUDGET = 600
NOTED = "I have noted that wish of yours with all its many details, madam."


class LongCall:
    """The caller and the agent, without audio: replies are cut where they are said to be heard."""

    def __init__(self, llm: Llm) -> None:
        self.llm = llm
        self.memory = Memory(200, BUDGET)
        self.tasks: set[asyncio.Task[None]] = set()
        self.notes: list[str] = []
        self.summariser = Summariser(
            llm,
            self.memory,
            ConversationSettings(brief=BRIEF, limits=LimitSettings(memory_tokens=BUDGET)),
            call_id="call-1",
            now=lambda: request().now,
            start=self.start,
            note=lambda name, detail: self.notes.append(detail),
        )

    def start(self, work: Callable[[], Awaitable[None]]) -> None:
        async def do() -> None:
            await work()

        task = asyncio.create_task(do())
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def turn(self, said: str, heard_words: int | None = None) -> str:
        """The caller says something; of the reply `heard_words` are heard (None: all)."""
        self.memory.add_user(said)
        text, calls = await collect(
            self.llm, request(*self.memory.messages, summary=self.memory.summary, call_id="call-1")
        )
        heard = " ".join(text.split()[:heard_words])
        results = [Message("tool", '{"ok": true}', tool_call_id=call.id) for call in calls]
        self.memory.add([Message("assistant", heard, calls, interrupted=heard != text.strip()), *results])
        self.summariser.consider()
        return text

    async def settled(self) -> None:
        while self.tasks:
            await asyncio.gather(*self.tasks)


@pytest.fixture
async def call(bench: Bench) -> AsyncIterator[LongCall]:
    call = LongCall(bench.llm())
    yield call
    for task in list(call.tasks):
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_a_long_call_stays_within_its_budget_and_true(bench: Bench, call: LongCall) -> None:
    server = bench.server
    server.on("NOTES SO FAR", Says("The caller is Ann and counts her wishes."))
    server.on("book", Says("One moment.", [Call("book_table", {"date": "2026-05-08", "people": 4})]))
    server.on("wish", Says(NOTED))
    await call.turn("please book it")
    for number in range(60):
        await call.turn(f"this is wish number {number}, which I tell you at some length", 4 if number % 3 else None)
        if number % 5 == 0:
            await call.settled()
    replies = [asked for asked in server.asked if "NOTES SO FAR" not in asked.last]
    summaries = [asked for asked in server.asked if "NOTES SO FAR" in asked.last]
    assert len(replies) == 61 and len(summaries) >= 2
    for asked in replies:
        assert sum(tokens(text) for _, text in asked.messages) <= BUDGET * OVERDRAFT + 100
        for role, text in asked.messages:
            if role == "assistant" and text.startswith("I have noted"):
                assert text in ("I have noted that—", NOTED)
    last = replies[-1]
    assert "The caller is Ann and counts her wishes." in last.prompt
    assert 'book_table {"date": "2026-05-08", "people": 4}: {"ok": true}' in last.prompt
    assert last.last.startswith("this is wish number 59")
    # Nothing was lost in between: what is not in the messages any more was given to a summary.
    told = "".join(asked.last for asked in summaries) + str(last.messages)
    assert all(f"wish number {number}," in told for number in range(60))
    assert "madam" not in "".join(line for line in told.splitlines() if line.endswith("—"))
    assert call.notes == []


async def test_a_summary_under_way_never_delays_a_reply(bench: Bench, call: LongCall) -> None:
    bench.server.on("NOTES SO FAR", Says("Notes.", first_s=60))
    for number in range(30):
        async with asyncio.timeout(30):
            await call.turn(f"this is wish number {number}, which I tell you at some length")
    assert call.tasks and call.memory.summary == ""
    assert call.memory.tokens <= BUDGET * OVERDRAFT


async def test_a_summary_that_fails_leaves_a_trimmed_memory_and_a_note(bench: Bench, call: LongCall) -> None:
    bench.server.on("NOTES SO FAR", Says(""))
    for number in range(60):
        await call.turn(f"this is wish number {number}, which I tell you at some length")
        await call.settled()
    assert set(call.notes) == {f"{bench.vendor.name}: the summary is empty"}
    assert call.memory.tokens <= BUDGET * OVERDRAFT and call.memory.summary == ""
