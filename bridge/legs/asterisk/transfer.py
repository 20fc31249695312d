"""Handing an Asterisk call over: on in the dialplan, by REFER, or two channels of the same Asterisk joined."""

from typing import TYPE_CHECKING

from bridge.legs.base import Leg, LegError, TransferRefusedError

if TYPE_CHECKING:
    from bridge.legs.asterisk.leg import AsteriskLeg


class Transfers:
    """The transfers of one leg, at most one at a time."""

    def __init__(self, leg: "AsteriskLeg") -> None:
        self._leg = leg
        self._busy = False

    async def transfer(self, target: str, replacing: Leg | None) -> None:
        """See `Leg.transfer`."""
        if self._busy:
            raise LegError("another transfer is under way")
        self._busy = True
        try:
            await self._transfer(target, replacing)
        finally:
            self._busy = False

    def stop(self) -> None:
        """Nobody waits for the outcome."""

    def far_left(self) -> None:
        """The far party hangs up."""

    # -- ways -----------------------------------------------------------------------------------------------

    async def _transfer(self, target: str, replacing: Leg | None) -> None:
        raise TransferRefusedError("not yet", 501)
