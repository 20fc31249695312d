"""How Asterisk gets a channel back: on in its dialplan with what we say of the call, or hung up."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import structlog

from bridge.asterisk import outcome
from bridge.asterisk.ari import Ari
from bridge.asterisk.ari_errors import AriError, AriRefusedError
from bridge.asterisk.outcome import Status
from bridge.events import Cause
from bridge.variables import as_value

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the dialplan a channel goes on."""

    context: str
    extension: str
    priority: int | None = 1
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Release:
    """What is to be done with a channel that we are through with."""

    channel_id: str
    variables: Mapping[str, str] = field(default_factory=dict)
    place: Place | None = None
    """None: at the next priority."""
    hang_up: int | None = None
    """Hang up with this Q.850 cause; None: it goes on in the dialplan."""
    music: bool = False
    """It hears our music still, which would go on in the dialplan."""
    held: bool = False
    """It is on hold by us still."""
    lift: Callable[[], Awaitable[Mapping[str, str]]] | None = None
    """Gives what is to be set besides, when the channel goes on in the dialplan: its own limit of time."""

    async def carry_out(self, ari: Ari) -> bool:
        """False: Asterisk could not be asked, try again later. Never raises."""
        try:
            if self.hang_up is not None:
                await ari.hangup(self.channel_id, self.hang_up)
                return True
            if self.music:
                await ari.stop_music(self.channel_id)
            if self.held:
                await ari.unhold(self.channel_id)
            lifted = await self.lift() if self.lift is not None else {}
            if said := {**self.variables, **lifted}:
                await set_all(ari, self.channel_id, said)
            place = self.place
            if place is None:
                await ari.continue_in_dialplan(self.channel_id)
            else:
                await ari.continue_in_dialplan(
                    self.channel_id,
                    context=place.context,
                    extension=place.extension,
                    priority=place.priority,
                    label=place.label,
                )
        except AriError as error:
            if isinstance(error, AriRefusedError) and error.status < 500:
                # It has hung up meanwhile, or is out of the application already.
                log.debug("channel is gone", channel=self.channel_id, error=str(error))
                return True
            log.debug("channel not given back yet", channel=self.channel_id, error=str(error))
            return False
        return True


def status_of(cause: Cause, *, was_up: bool) -> Status:
    """Of a leg that ended so: it is transferred only by being sent somewhere."""
    return "TRANSFER" if cause is Cause.TRANSFERRED else outcome.status_of(cause, was_up=was_up)


def outcome_variables(status: Status, cause: Cause, detail: str) -> dict[str, str]:
    """What the dialplan is told of a call."""
    return {"OFFHOOK_STATUS": status, "OFFHOOK_CAUSE": cause.value, "OFFHOOK_DETAIL": as_value(detail)}


async def set_all(ari: Ari, channel_id: str, values: Mapping[str, str]) -> None:
    """At the same time. Raises AriError: the first that failed, when all are done."""
    requests = (ari.set_variable(channel_id, name, as_value(value)) for name, value in values.items())
    for result in await asyncio.gather(*requests, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result
