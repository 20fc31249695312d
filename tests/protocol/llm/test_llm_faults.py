"""Every language model over its own SDK, while its server misbehaves: an error in time that says what to do, without
the key, and nothing left open."""

import asyncio

import pytest
from llm_vendors import KEY, Bench, collect, request
from standin_llm import Says

from bridge.providers.base import (
    ProviderBusyError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    TextDelta,
)

LONG = "Well, let me see about that for you right now."
LEAKS = f"Incorrect API key provided: {KEY}, or sk-te**********cdef."


@pytest.mark.parametrize(
    ("status", "error", "hint"),
    [
        (401, ProviderUnavailableError, "check [A-Z]+_API_KEY"),
        (402, ProviderUnavailableError, "no credit"),
        (403, ProviderUnavailableError, "check [A-Z]+_API_KEY"),
        (404, ProviderUnavailableError, r"check providers\.\w+\.llm\.model"),
        (422, ProviderError, "HTTP 422"),
    ],
)
async def test_refusals_say_what_to_do_and_hide_the_key(
    status: int, error: type[ProviderError], hint: str, bench: Bench
) -> None:
    bench.server.misbehave(status=status, body=bench.vendor.error(status, LEAKS))
    with pytest.raises(error, match=hint) as caught:
        await bench.ask()
    assert KEY not in str(caught.value) and "cdef" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert len(bench.server.exchanges) == 1


@pytest.mark.parametrize("status", [429, 500, 502, 503, 529])
async def test_a_busy_server_is_asked_once_more(status: int, bench: Bench) -> None:
    bench.server.misbehave(status=status, body=bench.vendor.error(status, "later"), times=1)
    assert await bench.ask() == ("All right.", ())
    assert len(bench.server.exchanges) == 2


@pytest.mark.parametrize(
    ("status", "error"), [(429, ProviderBusyError), (529, ProviderBusyError), (500, ProviderError)]
)
async def test_a_server_that_stays_busy_is_given_up(status: int, error: type[ProviderError], bench: Bench) -> None:
    bench.server.misbehave(status=status, body=bench.vendor.error(status, LEAKS))
    with pytest.raises(error, match=str(status)) as caught:
        await bench.ask()
    assert KEY not in str(caught.value)
    assert len(bench.server.exchanges) == 2


async def test_a_long_wait_is_not_waited_for(bench: Bench) -> None:
    bench.server.misbehave(status=429, body=bench.vendor.error(429, "quota"), headers={"retry-after": "60"})
    with pytest.raises(ProviderBusyError, match="429"):
        await bench.ask()
    assert len(bench.server.exchanges) == 1


async def test_an_error_page_of_a_proxy_is_understood(bench: Bench) -> None:
    bench.server.misbehave(status=502, body=f"<html>Bad gateway for {KEY}</html>")
    with pytest.raises(ProviderError, match="HTTP 502") as caught:
        await bench.ask()
    assert KEY not in str(caught.value)


async def test_nobody_listening_is_unavailable(bench: Bench) -> None:
    with pytest.raises(ProviderUnavailableError, match=r"can't connect to http://127\.0\.0\.1:9"):
        await bench.ask(base_url="http://127.0.0.1:9")


async def test_a_server_that_says_nothing_is_given_up_in_time(bench: Bench) -> None:
    bench.server.misbehave(stall="answer")
    with pytest.raises(ProviderTimeoutError, match="first token"):
        await bench.ask(first_token_s=0.2)


async def test_a_server_that_stops_before_the_first_token(bench: Bench) -> None:
    bench.server.default = Says("Late.", first_s=60)
    with pytest.raises(ProviderTimeoutError, match="first token"):
        await bench.ask(first_token_s=0.2)


async def test_a_server_that_stops_in_the_middle(bench: Bench) -> None:
    bench.server.says(LONG)
    bench.server.misbehave(stall="middle", after=8)
    reply = bench.llm(between_tokens_s=0.2).reply(request())
    assert isinstance(await anext(reply), TextDelta)
    with pytest.raises(ProviderTimeoutError, match="next token"):
        async for _ in reply:
            pass
    async with asyncio.timeout(30):
        await bench.server.exchanges[0].over.wait()


@pytest.mark.parametrize("fault", [{"drop": True}, {"close": 1011}])
async def test_a_connection_that_breaks_in_the_middle(fault: dict[str, object], bench: Bench) -> None:
    bench.server.says(LONG)
    bench.server.misbehave(after=8, **fault)
    with pytest.raises(ProviderError, match="broke off"):
        await bench.ask()
    assert len(bench.server.exchanges) == 1


async def test_a_kept_connection_that_died_is_replaced_silently(bench: Bench) -> None:
    llm = bench.llm()
    await llm.warm()
    bench.server.drop_all()
    assert await collect(llm, request()) == ("All right.", ())


async def test_a_stream_that_ends_without_its_end_is_an_error(bench: Bench) -> None:
    writer = bench.server.writer()
    events = [*writer.head(), *writer.text("Well, ")]

    async def ends_early(exchange: object, reply: object) -> None:
        await reply.begin()  # type: ignore[attr-defined] - a `standin.Reply`
        for event in events:
            await reply.piece(event)  # type: ignore[attr-defined]
        await reply.end()  # type: ignore[attr-defined]

    bench.server.raw.append(ends_early)
    with pytest.raises(ProviderError, match="broke off"):
        await bench.ask()


async def test_garbage_in_the_stream_is_an_error(bench: Bench) -> None:
    bench.server.says(LONG)
    bench.server.misbehave(garbage=b"event: message_delta\ndata: {nonsense\n\n", after=8)
    with pytest.raises(ProviderError, match=r"not JSON|broke off"):
        await bench.ask()


async def test_garbage_in_place_of_an_answer_is_an_error(bench: Bench) -> None:
    bench.server.misbehave(status=200, body="<html>Welcome to the hotel's network</html>")
    with pytest.raises(ProviderError):
        await bench.ask()


async def test_an_error_in_the_middle_of_the_stream(bench: Bench) -> None:
    bench.server.says(LONG)
    bench.server.misbehave(garbage=bench.vendor.broken, after=8)
    with pytest.raises(ProviderError, match=r"(?i)overloaded"):
        await bench.ask()


async def test_a_server_that_comes_back_is_used_again(bench: Bench) -> None:
    llm = bench.llm()
    assert await collect(llm, request()) == ("All right.", ())
    await bench.server.down()
    with pytest.raises(ProviderUnavailableError, match="can't connect"):
        await collect(llm, request())
    await bench.server.up()
    assert await collect(llm, request()) == ("All right.", ())


async def test_no_task_is_left_behind(bench: Bench) -> None:
    before = asyncio.all_tasks()
    bench.server.says(LONG)
    bench.server.misbehave(stall="middle", after=8, times=1)
    with pytest.raises(ProviderTimeoutError):
        await bench.ask(between_tokens_s=0.1)
    reply = bench.llm().reply(request())
    await anext(reply)
    await reply.aclose()  # type: ignore[attr-defined] - an async generator behind the contract's iterator
    await bench.server.until(lambda: not bench.server.live)
    ours = {task for task in asyncio.all_tasks() - before if "standin" not in repr(task)}
    assert not ours
