"""What an operator sets about whom callers can be put through to, and how those are told. Units are in names."""

import re
from typing import Annotated, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from bridge.settings import Section
from bridge.targets import QueueTarget, Target, TargetError, parse_target

_TARGET_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}\Z")
_EXTENSION = re.compile(r"\+?[A-Za-z0-9*#._-]{1,64}\Z")
"""Users of a SIP peer have letters, too."""

Key = Annotated[str, Field(pattern=r"^[0-9*#]?$")]


def target_of(text: str) -> Target | None:
    """What an agent's target means; None: a user where the call came from. Raises ValueError for what is none."""
    try:
        return parse_target(text)
    except TargetError as error:
        if _EXTENSION.match(text):
            return None
        raise ValueError(
            f"{text!r} is neither a SIP address (sip:200@pbx.example.com) nor an extension or number, nor one of an "
            "Asterisk's: PJSIP/1001, dialplan:EXTEN@CONTEXT, queue:NAME"
        ) from error


def _transfer_target(value: str) -> str:
    target_of(value)
    return value


class AnnounceSettings(Section):
    """How somebody who answers is told about the caller, before the two are put through to each other."""

    enabled: bool = True
    opening: str = "I have a caller for you."
    """Said to them first; then comes the summary, which the model writes or which is made of the completed forms."""
    closing: str = ""
    """Said to them after it, e.g. "Press 1 to take the call." """
    accept_key: Key = ""
    """The key that takes the call: without it the caller is not put through, so that no mailbox takes it. Empty: who
    hears the announcement to its end takes the call."""
    refuse_key: Key = ""
    """The key that refuses the call. Hanging up does, too."""
    key_s: Annotated[float, Field(gt=0, le=60)] = 10
    """How long `accept_key` is waited for, after the announcement."""

    @model_validator(mode="after")
    def _keys_differ(self) -> Self:
        if self.accept_key and self.accept_key == self.refuse_key:
            raise ValueError(f"accept_key and refuse_key are the same key {self.accept_key!r}")
        return self


class TransferTarget(Section):
    """Somebody a caller may be put through to."""

    to: Annotated[str, AfterValidator(_transfer_target)]
    """A SIP address, or an extension or number where the call came from. Of a call that came from an Asterisk also an
    endpoint (PJSIP/1001), a place in its dialplan (dialplan:EXTEN@CONTEXT[,PRIORITY]) or a queue (queue:NAME)."""
    description: str = ""
    """For the model: who that is, and for which matters."""
    say: str = ""
    """What the caller hears before, where the model says nothing; empty: `brief.handover.say`."""
    announce: AnnounceSettings = Field(default_factory=lambda: AnnounceSettings(enabled=False))
    """`true`, or how: they are called while the caller waits, hear a summary alone, and may refuse."""

    @field_validator("announce", mode="before")
    @classmethod
    def _switch(cls, value: object) -> object:
        return {"enabled": value} if isinstance(value, bool) else value

    @model_validator(mode="after")
    def _answers(self) -> Self:
        if self.announce.enabled and isinstance(target_of(self.to), QueueTarget):
            raise ValueError(f"announce: nobody answers in {self.to} before the caller is in the queue")
        return self


class TransferSettings(Section):
    """Who can be reached, besides `brief.handover.target`, which may be one of these names."""

    targets: dict[str, TransferTarget] = Field(default_factory=dict)

    @field_validator("targets")
    @classmethod
    def _names(cls, value: dict[str, TransferTarget]) -> dict[str, TransferTarget]:
        for name in value:
            if not _TARGET_NAME.match(name):
                raise ValueError(f"{name!r} is no name of a target: small letters, digits, _ and -")
        return value
