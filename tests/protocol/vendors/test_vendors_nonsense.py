"""What a vendor sends need not be what its protocol has: nothing but a provider's own error comes of it."""

import asyncio
import json
import logging
import random
from collections.abc import Callable
from typing import Any

import pytest
import structlog
from failures_vendors import KEY, VENDORS, Vendor
from standin import Reply, Socket
from vendors_use import made, use

from bridge.providers.base import Heard, ProviderError, ReplyDone, SpeechChunk, SttEndpoint, SttFailed, TextDelta
from bridge.providers.tts_words import LONGEST_MS

ROUNDS = 12
MOST_MS = 2 * LONGEST_MS
IN_PLACE: tuple[Any, ...] = (
    *(None, True, -1, 0.5, 10**400, float("nan"), float("-inf")),
    *("", "x" * 10_000, "=?=", [], [None], [[1]], {}, {"a": 1}),
)
KINDS: dict[str, Any] = {
    "stt": Heard | SttEndpoint | SttFailed,
    "llm": TextDelta | ReplyDone,
    "tts": SpeechChunk,
}
QUICK = {
    "stt": {"settle_s": 0.2},
    "llm": {"first_token_s": 0.5, "between_tokens_s": 0.3},
    "tts": {"first_audio_s": 0.5, "between_audio_s": 0.3},
}


def altered(content: Any, chance: random.Random) -> Any:
    """`content` with something else in one place."""
    if isinstance(content, dict) and content and chance.random() < 0.85:
        name = chance.choice(list(content))
        return {**content, name: altered(content[name], chance)}
    if isinstance(content, list) and content and chance.random() < 0.85:
        place = chance.randrange(len(content))
        return [*content[:place], altered(content[place], chance), *content[place + 1 :]]
    return chance.choice(IN_PLACE)


def garbled(line: str, chance: random.Random) -> str:
    """A line of JSON, or of an event stream, with something else in it; the start of a stream is left as it is."""
    head, brace, rest = line.partition("{")
    try:
        content = json.loads(brace + rest)
    except ValueError:
        return line
    return head + json.dumps(altered(content, chance)) if chance.random() < 0.5 else line


def garbles(chance: random.Random) -> Callable[[str], str]:
    return lambda text: "\n".join(garbled(line, chance) for line in text.split("\n"))


async def rounds(vendor: Vendor) -> None:
    async with vendor.server(KEY) as server:
        for _ in range(ROUNDS):
            provider = made(vendor, server, connect_s=1, **QUICK[vendor.role])
            try:
                async with asyncio.timeout(30):
                    for event in await use(vendor, provider):
                        assert (
                            isinstance(event, Heard | SttEndpoint | SttFailed | SpeechChunk) or vendor.role == "llm"
                        )
                        if isinstance(event, SpeechChunk):
                            assert not len(event.pcm) % 2
                            assert all(0 <= word.start_ms <= word.end_ms < MOST_MS for word in event.words)
            except ProviderError as error:
                assert KEY not in str(error)
            await provider.aclose()
        await server.all_closed()


@pytest.mark.parametrize("vendor", VENDORS, ids=lambda vendor: vendor.label)
async def test_nonsense_is_a_providers_error_or_nothing(
    vendor: Vendor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    chance = random.Random(vendor.label)
    garble = garbles(chance)
    say, send, piece = Socket.send, Reply.send, Reply.piece

    async def message(socket: Socket, said: str | bytes) -> None:
        await say(socket, garble(said) if isinstance(said, str) else said[: chance.randint(1, len(said))])

    async def whole(reply: Reply, data: bytes, *how: Any) -> None:
        await send(reply, garble(data.decode()).encode(), *how)

    async def part(reply: Reply, data: bytes) -> None:
        await piece(reply, data if reply.exchange.path.endswith("/speech") else garble(data.decode()).encode())

    monkeypatch.setattr(Socket, "send", message)
    monkeypatch.setattr(Reply, "send", whole)
    monkeypatch.setattr(Reply, "piece", part)
    before = asyncio.all_tasks()
    uncaught: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: uncaught.append(context))
    with structlog.testing.capture_logs() as logs:
        await rounds(vendor)
    assert uncaught == []
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
    assert [line for line in logs if line["log_level"] == "error"] == []
    # A generator that was given up is closed by the loop, in a task that takes its turn.
    if left := asyncio.all_tasks() - before:
        await asyncio.wait(left, timeout=30)
    assert {task.get_coro() for task in asyncio.all_tasks() - before} == set()


@pytest.mark.parametrize("vendor", VENDORS, ids=lambda vendor: vendor.label)
async def test_no_log_has_the_key_however_much_it_tells(vendor: Vendor, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for name in list(logging.root.manager.loggerDict):
        # The stand-in's end of the sockets tells what it gets; ours have levels of their own, for this reason.
        if not name.startswith(("bridge.", "websockets.server")):
            caplog.set_level(logging.DEBUG, name)
    caplog.set_level(logging.WARNING, "websockets.server")
    async with vendor.server(KEY) as server:
        provider = made(vendor, server)
        await provider.start()
        await provider.warm()
        await use(vendor, provider)
        told = f"{vars(provider)!r}"
        await provider.aclose()
    assert not [record for record in caplog.records if KEY in record.getMessage() or KEY in repr(record.args)]
    assert "SecretStr" not in told
