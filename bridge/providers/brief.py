"""What an agent knows and may do, written once in the configuration, for any language model.

The deterministic brain answers from it directly; a real language model gets it as a system prompt with the forms
as tools (`render_prompt`, `form_tools`).
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Fact(Strict):
    """Something the agent can tell."""

    id: str
    ask: Annotated[list[str], Field(min_length=1)]
    """Ways a caller asks for it; the more varied, the better the brain finds it."""
    say: str


class Slot(Strict):
    """One thing a form collects."""

    id: str
    type: Literal["text", "name", "date", "time", "number", "phone", "yes_no"]
    ask: str
    """The question for it."""
    min: int | None = None
    max: int | None = None
    optional: bool = False


class Form(Strict):
    """A task that collects slots, reads them back, and on a yes calls the tool of its own `id`."""

    id: str
    description: str
    ask: Annotated[list[str], Field(min_length=1)]
    """Ways a caller asks for it."""
    opening: str = ""
    slots: Annotated[list[Slot], Field(min_length=1)]
    confirm: str
    """Read back; `{slot}` is filled in."""
    done: str
    """Said once the tool succeeded."""
    failed: str = "I am sorry, I could not save that. Please try again later."


class Handover(Strict):
    """What happens when the caller wants a person."""

    ask: list[str] = Field(
        default_factory=lambda: [
            "I want to talk to a human",
            "can I speak to a real person",
            "put me through to somebody",
            "let me talk to the manager",
        ]
    )
    target: str = ""
    """SIP URI or number; empty: nobody can be reached, a message is offered through the form `message_form`."""
    say: str = "One moment, I am putting you through."
    unavailable: str = "I'm sorry, nobody can come to the phone right now. Shall I take a message?"
    message_form: str = "take_message"


class Brief(Strict):
    """An agent's knowledge, forms and phrases."""

    persona: str = "You are a friendly, brief receptionist on the telephone."
    facts: list[Fact] = Field(default_factory=list)
    forms: list[Form] = Field(default_factory=list)
    handover: Handover = Field(default_factory=Handover)
    goodbye: str = "Thank you for calling. Goodbye!"
    anything_else: str = "Is there anything else I can do for you?"
    unknown: str = "I'm sorry, I don't know that. I can take a message, or is there something else?"
    not_understood: str = "I'm sorry, I didn't quite get that. Could you say it again?"


def slot_schema(slot: Slot) -> dict[str, Any]:
    """The slot's JSON schema, as a form's tool has it."""
    match slot.type:
        case "number":
            schema: dict[str, Any] = {"type": "integer"}
            if slot.min is not None:
                schema["minimum"] = slot.min
            if slot.max is not None:
                schema["maximum"] = slot.max
        case "yes_no":
            schema = {"type": "boolean"}
        case "date":
            schema = {"type": "string", "format": "date", "description": "YYYY-MM-DD"}
        case "time":
            schema = {"type": "string", "description": "24-hour HH:MM"}
        case _:
            schema = {"type": "string"}
    return schema
