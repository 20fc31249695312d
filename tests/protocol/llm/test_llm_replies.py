"""Every language model over its own SDK: what is said and asked for arrives, however the stream is cut."""

import asyncio
import json

import pytest
from llm_vendors import KEY, VENDORS, Bench, collect, request
from standin_llm import Call, Says

from bridge.providers.base import Message, ReplyDone, TextDelta, ToolCall

BOOK = Call("book_table", {"date": "2026-05-08", "people": 4}, id="call_a")


@pytest.mark.parametrize("cut", [0, 1, 7])
async def test_text_arrives_however_the_stream_is_cut(cut: int, bench: Bench) -> None:
    bench.server.cut = cut
    bench.server.says("We open at noon – é. “Quoted”\nOn two lines.")
    assert await bench.ask() == ("We open at noon – é. “Quoted”\nOn two lines.", ())


async def test_text_comes_as_it_is_written_not_at_the_end(bench: Bench) -> None:
    bench.server.says("We open at noon.")
    bench.server.misbehave(stall="middle", after=5)
    reply = bench.llm().reply(request())
    assert await anext(reply) == TextDelta("We")
    bench.server.behave()
    rest = [event async for event in reply]
    assert "".join(event.text for event in rest if isinstance(event, TextDelta)) == " open at noon."


@pytest.mark.parametrize("cut", [0, 3])
async def test_parallel_calls_arrive_whole(cut: int, bench: Bench) -> None:
    bench.server.cut = cut
    bench.server.on("", Says("One moment.", [BOOK, Call("hang_up", id="call_b")]))
    assert await bench.ask() == (
        "One moment.",
        (
            ToolCall("call_a", "book_table", {"date": "2026-05-08", "people": 4}, _signature(bench)),
            ToolCall("call_b", "hang_up", {}),
        ),
    )


def _signature(bench: Bench) -> str:
    return "gemini\nYSB0aG91Z2h0" if bench.vendor.name == "gemini" else ""


async def test_the_request_has_prompt_memory_and_tools(bench: Bench) -> None:
    call = ToolCall("call_a", "book_table", {"people": 4})
    memory = [
        Message("assistant", "Hello, Bella Vista."),
        Message("user", "A table for four"),
        Message("assistant", "One moment.", (call,)),
        Message("tool", '{"ok": true}', tool_call_id="call_a"),
        Message("assistant", "It is booked for", interrupted=True),
        Message("user", "Great, and"),
        Message("user", "do you have parking?"),
    ]
    bench.server.says("Yes.")
    await collect(bench.llm(), request(*memory, summary="The caller is called Ann.", language="de"))
    (asked,) = bench.server.asked
    for part in ("We open at noon.", "Hello, Bella Vista.", "The caller is called Ann.", "Speak German"):
        assert part in asked.prompt
    roles = [role for role, _ in asked.messages]
    assert roles == ["user", "assistant", "tool", "assistant", "user"]
    assert asked.messages[3][1] == "It is booked for—"
    assert asked.last == "Great, and do you have parking?"
    assert "true" in asked.messages[2][1].lower()
    assert list(asked.tools) == ["book_table", "hang_up"]


async def test_instructions_stand_alone(bench: Bench) -> None:
    bench.server.says("A summary.")
    asked = request(Message("user", "Sum this up: ..."), instructions="You sum up calls.", tools=())
    assert await collect(bench.llm(), asked) == ("A summary.", ())
    (seen,) = bench.server.asked
    assert seen.prompt == "You sum up calls." and not seen.tools


async def test_the_reply_says_who_wrote_it(bench: Bench) -> None:
    done = [event async for event in bench.llm().reply(request())][-1]
    assert isinstance(done, ReplyDone) and done.by == f"{bench.vendor.name}/test-model"


async def test_a_call_and_its_result_go_back_to_the_model_that_asked(bench: Bench) -> None:
    bench.server.thought = "it is a booking"  # type: ignore[attr-defined] - not all have thoughts
    bench.server.on("", Says("", [BOOK, Call("hang_up")]), Says("Done."))
    llm = bench.llm(reasoning_effort="low") if bench.vendor.name == "openai" else bench.llm()
    said = Message("user", "Yes please")
    _, calls = await collect(llm, request(said))
    results = [Message("tool", json.dumps({"ok": True}), tool_call_id=call.id) for call in calls]
    text, _ = await collect(llm, request(said, Message("assistant", "", calls), *results))
    assert text == "Done."
    signed = [call for call in calls if call.signature]
    assert len(signed) == (0 if "chat" in str(bench.server.exchanges[0].path) else 1)
    if signed:
        assert "it is a booking" in str(bench.server.asked[1].body) or "aXQgaXMgYSBib29raW5n" in str(
            bench.server.asked[1].body
        )


async def test_another_vendors_signature_is_not_sent(bench: Bench) -> None:
    call = ToolCall("functions.book:0", "book_table", {}, signature="somebody\nsecret thought")
    memory = [Message("user", "Yes"), Message("assistant", "", (call,)), Message("tool", "{}", tool_call_id=call.id)]
    bench.server.says("Done.")
    text, _ = await bench.ask(*memory)
    assert text == "Done."
    assert "secret thought" not in str(bench.server.asked[0].body)


@pytest.mark.parametrize("bench", [name for name in VENDORS if not VENDORS[name].whole_calls], indirect=True)
async def test_broken_arguments_go_back_to_the_model_which_repairs_them(bench: Bench) -> None:
    bench.server.on("", Says("", [Call("book_table", '{"people": fo')]), Says("", [BOOK]))
    assert await bench.ask() == ("", (ToolCall("call_a", "book_table", {"date": "2026-05-08", "people": 4}),))
    assert '{\\"people\\": fo' in bench.server.asked[1].messages[-1][1]


async def test_closing_the_reply_closes_the_response_at_once(bench: Bench) -> None:
    bench.server.misbehave(stall="middle", after=5)
    bench.server.says("Well, let me see about that.")
    reply = bench.llm().reply(request())
    await anext(reply)
    await reply.aclose()  # type: ignore[attr-defined] - an async generator behind the contract's iterator
    async with asyncio.timeout(30):
        await bench.server.exchanges[0].over.wait()
    assert bench.server.exchanges[0].cut


async def test_cancelling_before_the_first_token_closes_the_connection(bench: Bench) -> None:
    bench.server.default = Says("Late.", first_s=60)
    task = asyncio.create_task(bench.ask())
    await bench.server.until(lambda: bool(bench.server.asked))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(30):
        await bench.server.exchanges[0].over.wait()
    assert bench.server.exchanges[0].cut


async def test_replies_at_the_same_time_do_not_mix(bench: Bench) -> None:
    bench.server.pace(first_s=0.01, per_token_s=0.001)
    for word in ("one", "two", "three"):
        bench.server.on(word, Says(f"You said {word}. " * 5))
    llm = bench.llm()
    words = ["one", "two", "three"] * 4
    replies = await asyncio.gather(*(collect(llm, request(Message("user", word))) for word in words))
    assert [text for text, _ in replies] == [f"You said {word}. " * 5 for word in words]


async def test_a_warmed_connection_is_used_for_the_first_reply(bench: Bench) -> None:
    llm = bench.llm()
    await llm.start()
    await llm.warm()
    await collect(llm, request())
    await collect(llm, request())
    assert [exchange.connection for exchange in bench.server.exchanges] == [0, 0, 0]
    assert KEY in str(bench.server.exchanges[0].headers)


async def test_warming_never_raises(bench: Bench) -> None:
    bench.server.misbehave(status=500, times=1)
    await bench.llm().warm()
    bench.server.misbehave(stall="answer", times=1)
    await bench.llm(connect_s=0.1).warm()
    await bench.llm(base_url="http://127.0.0.1:9").warm()


async def test_a_probe_has_the_model_say_a_word(bench: Bench) -> None:
    assert (await bench.llm().probe()).startswith("test-model at http://127.0.0.1")
    assert len(bench.server.asked) == 1
