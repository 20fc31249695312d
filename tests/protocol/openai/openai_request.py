"""The brief and the requests of these tests."""

from datetime import datetime

from bridge.providers.base import LlmRequest, Message
from bridge.providers.brief import Brief, Fact, Form, Slot
from bridge.providers.tools import form_tools

KEY = "sk-test-0123456789abcdef"

BRIEF = Brief(
    facts=[Fact(id="hours", ask=["when are you open"], say="We open at noon.")],
    forms=[
        Form(
            id="book_table",
            description="Book a table",
            ask=["book a table"],
            slots=[
                Slot(id="date", type="date", ask="Which day?"),
                Slot(id="people", type="number", ask="How many?", min=1, max=12),
            ],
            confirm="{people} on {date}?",
            done="Done.",
        )
    ],
)


def request(*messages: Message) -> LlmRequest:
    memory = messages or (Message("user", "When are you open?"),)
    now = datetime(2026, 5, 5, 15, 0)  # noqa: DTZ001 the caller's local time, as a request has it
    return LlmRequest(BRIEF, memory, form_tools(BRIEF), now)
