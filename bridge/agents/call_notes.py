"""What is left of a call for whoever has it next: variables for their telephone system, and a summary in words."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import structlog

from bridge.legs.base import Capability, Leg, LegError, LegState
from bridge.providers.base import Tool
from bridge.variables import SUMMARY, as_value, as_values, form_variables

log = structlog.get_logger(__name__)

SET_VARIABLES = "set_variables"

SUMMARY_ARGUMENT = "summary"

CLOSE_S = 1.5
"""How long the end of an agent's part waits for variables that are still being set."""


class CallNotes:
    """One call's. Variables are set in the background, one request at a time, the latest value of each."""

    def __init__(self, leg: Leg, note: Callable[[str, str], None]) -> None:
        """`note` puts on record what could not be set."""
        self._leg = leg
        self._note = note
        self._pending: dict[str, str] = {}
        self._task: asyncio.Task[None] | None = None
        self._failed = False
        self._forms: list[str] = []
        self._written = ""
        """The summary as the model wrote it last."""
        self._told = ""
        """The summary that was set."""

    @property
    def settable(self) -> bool:
        """Whether the call has variables."""
        return Capability.VARIABLES in self._leg.capabilities

    # -- what is noted --------------------------------------------------------------------------------------

    def form_completed(self, form: str, description: str, fields: Mapping[str, Any]) -> None:
        """A form was confirmed; its fields are variables from now on."""
        values = {name: as_value(value) for name, value in fields.items()}
        said = ", ".join(f"{_words(name)} {value}" for name, value in values.items() if value)
        self._forms.append(f"{description.rstrip('.')}: {said}.")
        self._set(form_variables(form, fields))

    def summarise(self, summary: object) -> None:
        """What the model wrote about the call; nothing leaves what it wrote before."""
        if isinstance(summary, str) and summary.strip():
            self._written = " ".join(summary.split())

    @property
    def summary(self) -> str:
        """In words: the model's, else what the forms tell, else nothing."""
        return self._written or " ".join(self._forms)

    # -- variables ------------------------------------------------------------------------------------------

    async def set(self, values: Mapping[str, Any]) -> str:
        """Set variables now; returns what went wrong, empty: nothing."""
        await self.settled()
        try:
            await self._leg.set_variables(as_values(values))
        except LegError as error:
            return str(error)
        return ""

    async def leave(self) -> None:
        """The call goes to somebody else, or ends: set what they are to know, and return when all is set."""
        if self.summary and self.summary != self._told:
            self._told = self.summary
            self._set({SUMMARY: self.summary})
        await self.settled()

    async def settled(self) -> None:
        """Return when nothing is being set any more."""
        while self._task is not None:
            await asyncio.wait({self._task})

    async def aclose(self) -> None:
        """The agent's part is over: leave the notes, in bounded time."""
        try:
            async with asyncio.timeout(CLOSE_S):
                await self.leave()
        except TimeoutError:
            self._note("variables-not-set", f"not within {CLOSE_S:g} s: {', '.join(self._pending)}")
        finally:
            if self._task is not None:
                self._task.cancel()

    def _set(self, values: Mapping[str, str]) -> None:
        if self.settable and self._leg.state is LegState.UP:
            self._pending.update(values)
            self._begin()

    def _begin(self) -> None:
        if self._task is None and self._pending and self._leg.state is LegState.UP:
            self._task = asyncio.get_running_loop().create_task(self._send(), name="variables")
            self._task.add_done_callback(self._sent)

    async def _send(self) -> None:
        while self._pending and self._leg.state is LegState.UP:
            values, self._pending = self._pending, {}
            try:
                await self._leg.set_variables(as_values(values))
            except LegError as error:
                log.warning("variables could not be set", names=sorted(values), error=str(error))
                if not self._failed and self._leg.state is LegState.UP:
                    self._failed = True
                    self._note("variables-not-set", f"{', '.join(values)}: {error}")

    def _sent(self, task: "asyncio.Task[None]") -> None:
        self._task = None
        if task.cancelled():
            return
        if (error := task.exception()) is not None:
            log.error("setting variables crashed", exc_info=error)
        else:
            # More may have come since it last looked.
            self._begin()


def variables_tool(variables: Mapping[str, str]) -> Tool:
    """The tool that sets these variables, by name with what each is for."""
    return Tool(
        SET_VARIABLES,
        "Note what you learned for the people and machines that have this call after you, in a few words each. Only "
        "what the caller said or a tool returned.",
        {
            "type": "object",
            "properties": {
                name: {"type": "string", **({"description": text} if text else {})}
                for name, text in variables.items()
            },
            "minProperties": 1,
            "additionalProperties": False,
        },
    )


def with_summary(tool: Tool, description: str) -> Tool:
    """`tool` with an argument for a summary of the call, which may be left out."""
    summary = {"type": "string", "maxLength": 600, "description": description}
    properties = {**tool.parameters["properties"], SUMMARY_ARGUMENT: summary}
    return replace(tool, parameters={**tool.parameters, "properties": properties})


def _words(name: str) -> str:
    return name.replace("_", " ").replace("-", " ")
