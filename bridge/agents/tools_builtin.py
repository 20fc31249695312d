"""The built-in tools as the model sees them, besides `hang_up` and `transfer` (`bridge.providers.tools`)."""

from collections.abc import Collection, Iterable
from typing import Any

from bridge.agents.tool_settings import BuiltInTools
from bridge.agents.tools_digits import MOST_DIGITS
from bridge.legs.base import Capability
from bridge.providers.base import Tool

SEND_DTMF = "send_dtmf"
COLLECT_DIGITS = "collect_digits"
TAKE_MESSAGE = "take_message"
QUEUE_STATUS = "queue_status"

_SEND_DTMF = Tool(
    SEND_DTMF,
    "Press telephone keys at the other end of the line, e.g. to choose from a menu or to open a door.",
    {
        "type": "object",
        "properties": {
            "digits": {
                "type": "string",
                "pattern": r"^[0-9*#A-D]{1,32}$",
                "description": "1 to 32 of the keys 0-9 * # A-D",
            }
        },
        "required": ["digits"],
        "additionalProperties": False,
    },
)

_COLLECT_DIGITS = Tool(
    COLLECT_DIGITS,
    "Wait for the caller to enter digits on the telephone's keys, e.g. a customer number, a PIN or a choice. In the "
    "same reply first ask for them, and say if they are to be ended with the hash key.",
    {
        "type": "object",
        "properties": {
            "min_digits": {"type": "integer", "minimum": 1, "maximum": MOST_DIGITS},
            "max_digits": {
                "type": "integer",
                "minimum": 1,
                "maximum": MOST_DIGITS,
                "description": "the entry is complete with so many",
            },
        },
        "additionalProperties": False,
    },
)

_TAKE_MESSAGE = Tool(
    TAKE_MESSAGE,
    "Leave a message for the people here. Only after reading it back to the caller and hearing a yes.",
    {
        "type": "object",
        "properties": {
            "for": {"type": "string", "maxLength": 200, "description": "whom it is for, if the caller said so"},
            "caller_name": {"type": "string", "maxLength": 200},
            "callback_number": {
                "type": "string",
                "pattern": r"^\+?[0-9 ()/.-]{3,30}$",
                "description": "a telephone number; leave it out if it is the one the caller calls from",
            },
            "text": {"type": "string", "minLength": 1, "maxLength": 4000},
        },
        "required": ["text"],
        "additionalProperties": False,
    },
)


def built_in_tools(switches: BuiltInTools, capabilities: Capability, form_ids: Collection[str]) -> list[Tool]:
    """Those that are switched on and that a leg of these capabilities can do."""
    tools = []
    if switches.send_dtmf and Capability.DTMF_SEND in capabilities:
        tools.append(_SEND_DTMF)
    digits = switches.collect_digits
    if digits.enabled and (digits.spoken or Capability.DTMF_RECEIVE in capabilities):
        tools.append(_COLLECT_DIGITS)
    if switches.take_message and TAKE_MESSAGE not in form_ids:
        tools.append(_TAKE_MESSAGE)
    return tools


def queue_tool(queues: Iterable[str]) -> Tool:
    """The tool that looks at one of these targets, each of which is a queue."""
    return Tool(
        QUEUE_STATUS,
        "Look how long a queue is before you offer to put the caller into it: how many callers wait there, and how "
        "many people are free to take one.",
        {
            "type": "object",
            "properties": {"queue": {"type": "string", "enum": list(queues)}},
            "required": ["queue"],
            "additionalProperties": False,
        },
    )


def message_fields(arguments: dict[str, Any], caller: str) -> dict[str, str]:
    """A message as it is put on record; `caller` is the number it came from."""
    return {
        "for": str(arguments.get("for", "")),
        "caller_name": str(arguments.get("caller_name", "")),
        "callback_number": str(arguments.get("callback_number") or caller),
        "text": str(arguments["text"]),
    }
