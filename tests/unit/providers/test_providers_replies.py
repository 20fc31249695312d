"""A model's stream that has no end, no sense or no tokens: an error in time, whoever the vendor is."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from bridge.providers.base import Message, ProviderError, ProviderTimeoutError
from bridge.providers.calls import CallPiece
from bridge.providers.replies import LONGEST_REPLY, Closeable, Pieces, Sdk, paced, replied

MEMORY = [Message("user", "Hello")]


async def reply_of(pieces: Any) -> list[Any]:
    def ask(messages: Sequence[Message]) -> Pieces:
        made: Pieces = pieces()
        return made

    return [event async for event in replied("model", "model/m", MEMORY, ask)]


@pytest.mark.parametrize("piece", ["on and on ", CallPiece(0, "1", "note", "on and on ")])
async def test_a_reply_without_end_is_cut_off(piece: str | CallPiece) -> None:
    given = 0

    async def pieces() -> Any:
        nonlocal given
        while True:
            given += 1
            yield piece

    with pytest.raises(ProviderError, match="does not end"):
        await reply_of(pieces)
    assert given == LONGEST_REPLY // 10 + 1


@pytest.mark.parametrize("piece", [5, None, ["a"], CallPiece(0, arguments=None), CallPiece(0, name=3)])  # type: ignore[arg-type]
async def test_what_is_no_text_is_an_error(piece: object) -> None:
    async def pieces() -> Any:
        yield piece

    with pytest.raises(ProviderError, match="makes no sense"):
        await reply_of(pieces)


@pytest.mark.parametrize("error", [AttributeError("delta"), TypeError("null"), KeyError("type"), IndexError(0)])
async def test_a_reply_that_can_not_be_read_is_an_error(error: Exception) -> None:
    async def pieces() -> Any:
        yield "Well"
        raise error

    with pytest.raises(ProviderError, match=f"makes no sense .{type(error).__name__}"):
        await reply_of(pieces)


@dataclass(frozen=True)
class Soon:
    first_token_s: float = 0.2
    between_tokens_s: float = 0.1


async def test_events_without_a_token_do_not_keep_a_reply_alive() -> None:
    async def events() -> Any:
        yield "token"
        while True:
            await asyncio.sleep(0.01)
            yield ""

    async def stopped() -> None:
        closed.append(True)

    async def open_stream() -> Closeable[str]:
        return Closeable(events(), stopped)

    closed: list[bool] = []
    sdk = Sdk((OSError,), lambda error, in_reply: ProviderError("model", str(error)), lambda error: None)
    with pytest.raises(ProviderTimeoutError, match="next token"):
        _ = [event async for event in paced("model", sdk, Soon(), open_stream, bool)]
    assert closed == [True]
