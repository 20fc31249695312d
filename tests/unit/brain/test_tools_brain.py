"""The deterministic brain beside tools that it does not know."""

import pytest
from brain_call import GREETING, TUESDAY

from bridge.agents.tool_settings import BuiltInTools
from bridge.agents.tools_builtin import built_in_tools
from bridge.legs.base import Capability
from bridge.providers.base import LlmRequest, Message, ReplyDone, TextDelta, Tool, ToolCall
from bridge.providers.brief import Brief
from bridge.providers.local.brain import LocalBrain
from bridge.providers.tools import TRANSFER, check_arguments, form_tools

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def reply(brain: LocalBrain, brief: Brief, text: str, tools: list[Tool]) -> tuple[str, tuple[ToolCall, ...]]:
    said, calls = "", ()
    messages = [Message("assistant", GREETING), Message("user", text)]
    async for event in brain.reply(LlmRequest(brief, messages, tools, TUESDAY)):
        match event:
            case TextDelta():
                said += event.text
            case ReplyDone():
                calls = event.tool_calls
    return said, calls


async def test_tools_that_it_does_not_know_change_nothing(brain: LocalBrain, receptionist: Brief) -> None:
    brief = receptionist.model_copy(update={"handover": receptionist.handover.model_copy(update={"target": "desk"})})
    plain = form_tools(brief)
    every = BuiltInTools(send_dtmf=True)
    many = [
        *form_tools(brief, {"desk": "the front desk", "kitchen": "the cook"}),
        *built_in_tools(every, ~Capability.NONE, {form.id for form in brief.forms}),
        Tool("when_are_you_open", "Say when", {"type": "object", "properties": {}}),
    ]
    for text in ("when are you open", "a table for four please", "can I leave a message", "that's all, goodbye"):
        assert await reply(brain, brief, text, plain) == await reply(brain, brief, text, many)
    _, calls = await reply(brain, brief, "let me talk to a human please", many)
    (transfer,) = [tool for tool in many if tool.name == TRANSFER]
    assert [call.name for call in calls] == [TRANSFER]
    assert check_arguments(transfer, calls[0].arguments) == ""
