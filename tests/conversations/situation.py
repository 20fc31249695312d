"""What a situation's file may say: who calls over what line, what is said when, and what is to come of it."""

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

SITUATIONS = Path(__file__).parent / "situations"

Engines = Literal["local", "standins"]
Sound = Literal["cough", "throat", "clicks", "breathing", "mhm", "television", "music"]
Role = Literal["stt", "llm", "tts"]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _several(value: object) -> object:
    return value if isinstance(value, list) else [value]


class Background(Strict):
    """A sound that never stops."""

    sound: Sound
    db: float = -40.0
    """dBFS."""


class Echo(Strict):
    """The agent's voice comes back on the caller's line."""

    db: float
    delay_ms: int


class LineModel(Strict):
    """What lies between the caller's mouth and the bridge."""

    gain_db: float = 0.0
    """Of the caller's voice, whose active level is -20 dBFS."""
    loss: float = 0.0
    """Share of the caller's packets that never arrive."""
    jitter_ms: float = 0.0
    """Packets are late by up to this; they overtake each other."""
    background: Background | None = None
    echo: Echo | None = None
    transfer: Literal["obeys", "refuses"] = "obeys"
    """What the caller's telephone does when it is told to call somebody else (REFER)."""


class Step(Strict):
    """One thing that the caller does. Without `over_s` and `after_s` it waits until the agent has spoken since the
    step before, and is silent."""

    say: str = ""
    sound: Sound | Literal[""] = ""
    sound_s: float = 1.0
    keys: str = ""
    hang_up: bool = False
    hold_s: float = 0.0
    """The caller puts the agent on hold for this long."""
    stay_s: float = 0.0
    """The caller stays on the line for this long, silent."""
    until_end: bool = False
    """The caller stays on the line until the agent hangs up."""
    dies: Role | Literal[""] = ""
    """The stand-in of this role is gone from now on."""

    cut_s: float | None = None
    """Only so much of `say` is said."""
    voice: Literal["piper", "kokoro"] = "piper"
    """Whose recording to take of `say`, where there is one."""
    hears: str | None = None
    """What a stand-in recogniser makes of it; by default `say`."""
    over_s: float | None = None
    """This long after the agent has begun to speak."""
    after_s: float | None = None
    """This long after the caller's last step, whatever the agent does."""

    @model_validator(mode="after")
    def _one_thing(self) -> "Step":
        things = ("say", "sound", "keys", "hang_up", "hold_s", "stay_s", "until_end", "dies")
        done = [name for name in things if getattr(self, name)]
        if len(done) != 1:
            raise ValueError(f"a step does one thing, not {', '.join(done) or 'nothing'}")
        return self


class ToolCall(Strict):
    name: str
    arguments: dict[str, Any] = Field(default_factory=dict)


class Reply(Strict):
    """What the stand-in language model says when `to` is found in the caller's last words."""

    to: str
    say: str = ""
    calls: list[ToolCall] = Field(default_factory=list)
    then: str = ""
    """The reply to the same words the next time: after the tools' results."""
    first_s: float | None = None


class ExpectedTurn(Strict):
    """A turn of the record. Texts are regular expressions, in any case of letters."""

    agent: str = ""
    caller: str = ""
    interrupted: bool | None = None


class ExpectedForm(Strict):
    form: str
    fields: dict[str, str] = Field(default_factory=dict)
    """Regular expressions."""


class Expectations(Strict):
    cause: Annotated[list[str], BeforeValidator(_several)] = Field(default_factory=lambda: ["caller-hung-up"])
    """How the call ends: one of these."""
    turns: list[ExpectedTurn] = Field(default_factory=list)
    """In this order; others may stand between them."""
    heard: list[str] = Field(default_factory=list)
    """What the recogniser finds in the agent's audio off the wire, by words of which most must be found."""
    never: list[str] = Field(default_factory=list)
    """Regular expressions that no turn of the agent matches."""
    tools: list[str] = Field(default_factory=list)
    forms: list[ExpectedForm] = Field(default_factory=list)
    stops: int | None = None
    """How many times the caller stops the agent (barge-ins confirmed)."""
    stops_at_best: int | None = None
    """In place of `stops` where it hangs on the recogniser's being in time, which a busy machine's is not: it is
    measured, not judged."""
    failed: list[Role] = Field(default_factory=list)
    """Roles whose provider is on record as failed; the others are not."""
    events: list[str] = Field(default_factory=list)
    """Names of events on the record."""


class Situation(Strict):
    name: str
    about: str
    engines: list[Engines] = Field(default_factory=lambda: ["local", "standins"])
    line: LineModel = LineModel()
    agent: dict[str, Any] = Field(default_factory=dict)
    """Laid over the agent's settings; `{tools}` stands for the tool server's URL."""
    replies: list[Reply] = Field(default_factory=list)
    script: list[Step]
    expect: dict[str, Any] = Field(default_factory=dict)
    """`Expectations` with any engines..."""
    expect_local: dict[str, Any] = Field(default_factory=dict)
    """...and what is other with these."""
    expect_standins: dict[str, Any] = Field(default_factory=dict)

    def expected(self, engines: Engines) -> Expectations:
        return Expectations(**{**self.expect, **getattr(self, f"expect_{engines}")})

    @model_validator(mode="after")
    def _complete(self) -> "Situation":
        for engines in self.engines:
            self.expected(engines)
        if "local" in self.engines and any(step.dies for step in self.script):
            raise ValueError("only stand-ins die")
        return self

    def utterances(self) -> list[str]:
        """What a stand-in recogniser hears: a text for each utterance, ` | ` being pauses within one."""
        found: list[str] = []
        for step in self.script:
            if not (step.say or step.sound):
                continue
            text = step.hears if step.hears is not None else step.say
            if found and step.after_s is not None and step.after_s < 0.5:
                found[-1] = f"{found[-1]} | {text}"
            else:
                found.append(text)
        return found


def load(path: Path) -> Situation:
    return Situation(name=path.stem, **yaml.safe_load(path.read_text()))


def all_situations() -> list[Situation]:
    return [load(path) for path in sorted(SITUATIONS.glob("*.yaml"))]
