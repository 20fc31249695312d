"""Telling somebody about a caller before the two talk: a summary for their ear alone, and their yes or no to it."""

import asyncio
from collections.abc import Callable

from bridge.agents.base import Introduction, Speak, SpeakError
from bridge.events import DtmfReceived, LegEnded, LegEvent, TransferResult
from bridge.legs.base import Leg

TOLD_S = 120.0
"""Longer than any summary takes: somebody who puts us on hold meanwhile is not waited for."""

REFUSED = TransferResult(603, "they do not want to take the call")
LEFT = TransferResult(480, "they hung up before the caller was put through")
NO_KEY = TransferResult(408, "nobody pressed the key that takes the call; perhaps a machine answered")
NOT_LISTENING = TransferResult(408, "they did not listen to the end")


async def introduce(
    leg: Leg, introduction: Introduction, speak: Speak, failed: Callable[[str], None]
) -> TransferResult | None:
    """Tell the far party of `leg`, which is up. None: they take the call; else why not. Where the voice fails (told
    to `failed`) they take it: somebody who has answered is not to be lost for want of a summary."""
    answer: asyncio.Future[TransferResult | None] = asyncio.get_running_loop().create_future()

    def on_event(event: LegEvent) -> None:
        if answer.done():
            return
        match event:
            case DtmfReceived(digit=digit) if digit == introduction.accept_key:
                answer.set_result(None)
            case DtmfReceived(digit=digit) if digit == introduction.refuse_key:
                answer.set_result(REFUSED)
            case LegEnded():
                answer.set_result(LEFT)
            case _:
                pass

    unsubscribe = leg.subscribe(on_event)
    telling = asyncio.ensure_future(speak(leg, introduction.text))
    try:
        await asyncio.wait((telling, answer), timeout=TOLD_S, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return answer.result()
        if not telling.done():
            return NOT_LISTENING
        try:
            telling.result()
        except SpeakError as error:
            failed(str(error))
            return None
        if not introduction.accept_key:
            return None
        await asyncio.wait((answer,), timeout=introduction.key_s)
        return answer.result() if answer.done() else NO_KEY
    finally:
        unsubscribe()
        telling.cancel()
        await asyncio.wait((telling,))
        # Looked at, so that a failure that came too late is not reported as unheard of.
        if not telling.cancelled():
            telling.exception()
