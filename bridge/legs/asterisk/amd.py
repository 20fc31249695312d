"""Answering machines told from people: an answered channel goes through a context of the dialplan, and its AMD().

The context's extension `s` runs AMD() and gives the channel back by `Stasis(${OFFHOOK_APP},amd=${AMDSTATUS},
amd_cause=${AMDCAUSE})`; pbx/asterisk has it. Meanwhile the channel is the dialplan's: no audio of ours reaches it.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from bridge.asterisk.ari import Ari
from bridge.asterisk.ari_errors import AriError, AriNotFoundError, AriRefusedError
from bridge.asterisk.ari_events import Channel
from bridge.events import AnsweredBy
from bridge.legs.base import LegError

EXTENSION = "s"
MODULE = "app_amd.so"
APP_VARIABLE = "OFFHOOK_APP"
"""Channel variable that tells the context which application to give the channel back to."""
STATUS, CAUSE = "amd", "amd_cause"
"""Names of the arguments of `Stasis` that bring the result."""

Who = Literal["human", "machine", "unsure", "hung-up"]

_WHO: Mapping[str, Who] = {"HUMAN": "human", "MACHINE": "machine", "NOTSURE": "unsure", "HANGUP": "hung-up"}


@dataclass(frozen=True, slots=True)
class Detection:
    result: AnsweredBy
    left: bool
    """The channel was away, and so is in no bridge now."""


class AmdLostError(LegError):
    """The channel went to be analysed and did not come back: nobody hears the called party, and it hears nobody."""


def result_of(args: Mapping[str, str]) -> AnsweredBy:
    """What AMD() said, by the named arguments of `Stasis`. A context that says nothing is unsure."""
    status = args.get(STATUS, "")
    who = _WHO.get(status.upper(), "unsure")
    return AnsweredBy(who, f"{status} {args.get(CAUSE, '')}".strip() or "the context gives no result back")


def arguments_of(channel: Channel) -> dict[str, str]:
    """The named arguments of the `Stasis` that a channel is in."""
    named = (arg.partition("=") for arg in channel.app_data.split(",")[1:])
    return {name.strip().lower(): value.strip() for name, found, value in named if found}


async def detect(ari: Ari, channel_id: str, context: str, *, limit_s: float) -> Detection:
    """Send an answered channel of the application through `context`, and wait until it is back. Where that can't be
    done it stays where it is, and the result is `unsure` with the reason.

    Raises AmdLostError where it does not come back; a channel that ends meanwhile gives `hung-up`."""
    if problem := await _problem(ari, channel_id, context):
        return Detection(AnsweredBy("unsure", f"not asked: {problem}"), left=False)
    with ari.entering(channel_id) as entering:
        try:
            await ari.set_variable(channel_id, APP_VARIABLE, ari.app)
            await ari.continue_in_dialplan(channel_id, context=context, extension=EXTENSION, priority=1)
        except AriRefusedError as error:
            return Detection(AnsweredBy("unsure", f"not asked: {error}"), left=False)
        except AriError as error:
            # It may have gone all the same.
            raise AmdLostError(f"answering machine detection: {error}") from error
        try:
            channel = await entering.wait(limit_s)
        except AriRefusedError as error:
            return Detection(AnsweredBy("hung-up", str(error)), left=True)
        except AriError as error:
            raise AmdLostError(f"answering machine detection: {error}") from error
    return Detection(result_of(arguments_of(channel)), left=True)


async def _problem(ari: Ari, channel_id: str, context: str) -> str:
    """Why there is no use in trying: a channel that goes on at a place that does not exist is hung up."""
    exists = f"DIALPLAN_EXISTS({context},{EXTENSION},1)"
    found = await asyncio.gather(ari.get_variable(channel_id, exists), ari.module(MODULE), return_exceptions=True)
    place, module = found
    if isinstance(module, AriNotFoundError):
        return f"{MODULE} is not loaded in Asterisk"
    for failure in found:
        if isinstance(failure, AriError):
            return f"{failure}"
        if isinstance(failure, BaseException):
            raise failure
    if place == "0":
        return f"Asterisk's dialplan has no extension {EXTENSION} in the context {context!r}"
    if place != "1":
        return "whether the context exists can't be told without func_dialplan.so in Asterisk"
    return ""
