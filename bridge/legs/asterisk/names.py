"""What our channels and bridges on an Asterisk are called: ids of our choice, by which they are known again."""

import secrets
from dataclasses import dataclass, field

PREFIX = "offhook-"


@dataclass(frozen=True, slots=True)
class Names:
    """The names of one process's doings for one Stasis application."""

    app: str
    instance: str = field(default_factory=lambda: secrets.token_hex(4))
    """Another one in each process: what a former one left is told from what is ours."""

    def new_leg(self) -> str:
        """A stem that the names of one call begin with."""
        return f"{PREFIX}{self.instance}-{secrets.token_hex(6)}"

    @property
    def bridge(self) -> str:
        """What our bridges are named; a bridge belongs to no application, so this says whose it is."""
        return f"{PREFIX}{self.app}"

    @property
    def joined(self) -> str:
        """The same of bridges whose two parties talk without us."""
        return f"{PREFIX}joined-{self.app}"

    def is_own(self, id: str) -> bool:
        """Made by this process."""
        return id.startswith(f"{PREFIX}{self.instance}-")


def is_made(id: str) -> bool:
    """A channel or bridge that an Offhook made, whichever."""
    return id.startswith(PREFIX)


def stem_of(id: str) -> str:
    """Of an id that is made: what all the names of its call begin with."""
    return "-".join(id.split("-", 3)[:3])


def instance_of(id: str) -> str:
    """Of an id that is made: the process that did."""
    return id.split("-", 2)[1] if id.count("-") >= 2 else ""


def media_of(stem: str) -> str:
    return f"{stem}-media"


def bridge_of(stem: str) -> str:
    return f"{stem}-bridge"


def called_of(stem: str) -> str:
    """A channel that we call somebody by."""
    return f"{stem}-out"


def joined_of(stem: str) -> str:
    """The bridge of two parties that talk without us."""
    return f"{stem}-joined"


def snoop_of(stem: str, index: int) -> str:
    return f"{stem}-snoop{index}"


def supervisor_of(stem: str, index: int) -> str:
    """The channel of a supervisor's phone."""
    return f"{stem}-supervisor{index}"


def supervisor_bridge_of(stem: str, index: int) -> str:
    return f"{stem}-supervision{index}"


def recording_of(stem: str, part: int) -> str:
    """The channel that Asterisk records a call by."""
    return f"{stem}-recording{part}"
