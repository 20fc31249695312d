"""What the HTTP API asks of the bridge about its Asterisks; `app.py` answers."""

from collections.abc import Sequence
from typing import Protocol

from bridge.asterisk.ami import Ami
from bridge.asterisk.status import AsteriskStatus


class AsteriskControl(Protocol):
    """Everything is called on the event loop's thread."""

    def asterisk_status(self) -> Sequence[AsteriskStatus]:
        """Every configured Asterisk, in the configuration's order."""
        ...

    async def reconnect_asterisk(self, name: str) -> bool:
        """Connect now, both ARI and AMI, and take the application back from who has it. False: there is no such."""
        ...

    def asterisk_ami(self, name: str) -> Ami | None:
        """Its manager interface; None where there is no such Asterisk, or none is configured."""
        ...


class NoAsterisks:
    """The control of a bridge without any."""

    def asterisk_status(self) -> Sequence[AsteriskStatus]:
        return ()

    async def reconnect_asterisk(self, name: str) -> bool:
        return False

    def asterisk_ami(self, name: str) -> Ami | None:
        return None
