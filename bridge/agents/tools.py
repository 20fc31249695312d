"""Carrying out what the model asks for: forms, the built-in tools, HTTP requests, MCP servers' tools."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from bridge.agents.base import AgentDone, CallSession
from bridge.agents.call_context import PREFIX, template_facts
from bridge.agents.call_notes import SUMMARY_ARGUMENT, CallNotes, variables_tool, with_summary
from bridge.agents.settings import LimitSettings
from bridge.agents.tool_settings import AgentToolSettings, HttpTool, TransferTarget
from bridge.agents.tools_agent import AgentTools, McpTool
from bridge.agents.tools_builtin import (
    COLLECT_DIGITS,
    SEND_DTMF,
    TAKE_MESSAGE,
    built_in_tools,
    message_fields,
    queue_tool,
)
from bridge.agents.tools_digits import MOST_DIGITS, DigitCollector, Listening
from bridge.agents.tools_result import ToolResult, limited
from bridge.agents.tools_transfer import HandOvers
from bridge.agents.transfer_settings import target_of
from bridge.events import FormCompleted, Note, ToolCalled, TransferResult
from bridge.legs.base import Capability, LegError
from bridge.providers.base import Tool, ToolCall
from bridge.providers.brief import Brief
from bridge.providers.tools import HANG_UP, TRANSFER, check_arguments, form_tools
from bridge.targets import QueueTarget

__all__ = ["Listening", "Manner", "ToolResult", "Toolbox"]

Asked = Callable[[], Awaitable[None]]
"""Returns when the caller has heard all that was said up to the tool's call."""

PROMPT_S = 60.0
"""A question may take this long on top of the time for its answer."""

MIN_WAIT_S = 0.001

_CANCELLED = ToolResult(False, "stopped: the caller spoke or hung up; it may have been carried out or not")


@dataclass(frozen=True, slots=True)
class Manner:
    """How the agent behaves while a tool works."""

    say: str = ""
    """Said when it takes long; empty: the filler phrase."""
    interruptible: bool = True
    """A caller who speaks stops it."""
    covered: bool = True
    """False: the caller is to answer, so nothing is said meanwhile."""
    announce: str | None = None
    """To be heard to its end before the tool is called, where the model said nothing itself."""
    music: bool = True
    """The caller may have music while it is carried out."""


@dataclass(frozen=True, slots=True)
class _Bound:
    tool: Tool
    run: Callable[[dict[str, Any], Asked | None], Awaitable[ToolResult]]
    deadline_s: float
    manner: Manner = Manner()
    max_bytes: int | None = None


class Toolbox:
    """The tools of one call. `call` never raises for what a model or the far side does wrong."""

    def __init__(
        self,
        session: CallSession,
        brief: Brief,
        limits: LimitSettings,
        shared: AgentTools | None = None,
        *,
        language: str = "en",
        post: Callable[[Listening], None] = lambda _: None,
        has_voice: bool = True,
    ) -> None:
        """`shared` belongs to the agent; without it there are the forms and the built-in tools. `language` (BCP 47)
        is for spoken digits. `post` is told when a tool begins and ceases to wait for the caller's digits: in between
        the floor is the caller's, and his words go to `spoken`. `has_voice`: the agent can speak to others than its
        caller. MCP servers that are down are noted on the record."""
        self._session = session
        self._brief = brief
        self._limits = limits
        self._shared = shared or AgentTools(AgentToolSettings())
        self._language = language
        self._post = post
        self._notes = CallNotes(session.leg, self._note)
        self._targets = self._reachable()
        self._hand_overs = HandOvers(session, self._targets, limits, self._notes, has_voice=has_voice)
        self._own = {bound.tool.name: bound for bound in self._own_tools()}
        self._mcp: dict[str, _Bound] = {}
        self._collector: DigitCollector | None = None
        self._entered = asyncio.Event()
        self.listening = False
        """A tool has asked its question and waits for the caller's digits."""
        self.hang_up_asked = False
        """The model wants the call to end once it has spoken."""
        for name, why in self._shared.down.items():
            self._note("tools-missing", f"MCP server {name}: {why}")

    @property
    def done(self) -> AgentDone | None:
        """A tool ended our part in the call."""
        return self._hand_overs.done

    @property
    def transferring(self) -> bool:
        return self._hand_overs.under_way

    async def aclose(self) -> None:
        """The agent's part in the call is over: leave what who has it next is to know, in bounded time."""
        await self._notes.aclose()

    @property
    def tools(self) -> tuple[Tool, ...]:
        """What the model may call on this leg, now: MCP servers come and go."""
        self._mcp = {one.tool.name: self._server_tool(one) for one in self._shared.mcp_tools(set(self._own))}
        return tuple(bound.tool for bound in (*self._own.values(), *self._mcp.values()))

    def manner(self, call: ToolCall) -> Manner:
        """How to behave while `call` is carried out."""
        bound = self._own.get(call.name) or self._mcp.get(call.name)
        if bound is None:
            return Manner()
        if call.name == TRANSFER:
            name = str(call.arguments.get("target"))
            target = self._targets.get(name)
            if target is None:
                return Manner()
            # Who waits for somebody that is told about them does not hear the agent.
            covered = not self._hand_overs.announced(name)
            say = target.say or self._brief.handover.say
            return Manner(interruptible=False, covered=covered, announce=say, music=False)
        return bound.manner

    async def call(self, call: ToolCall, *, asked: Asked | None = None) -> ToolResult:
        """Carry out `call`, within the tool's deadline, and put it on record. `asked` is for tools that wait for an
        answer: what they ask was said before; not given: it was heard."""
        started = self._session.clock()
        result = _CANCELLED
        try:
            result = await self._call(call, asked)
        except asyncio.CancelledError:
            if call.name == TRANSFER and self._hand_overs.succeeded:
                result = ToolResult(True)
            raise
        finally:
            took_ms = (self._session.clock() - started) * 1000
            self._session.emit(
                ToolCalled(
                    call.name, call.arguments, result.ok, result.content, took_ms, self._session.at_ms(started)
                )
            )
        return result

    async def _call(self, call: ToolCall, asked: Asked | None) -> ToolResult:
        bound = self._own.get(call.name) or self._mcp.get(call.name)
        if bound is None:
            if call.name == TRANSFER:
                return ToolResult(False, "nobody can be reached; say so")
            return ToolResult(
                False, f"there is no tool {call.name!r}; there are: {', '.join((*self._own, *self._mcp))}"
            )
        if wrong := check_arguments(bound.tool, call.arguments):
            return ToolResult(False, wrong)
        deadline_s = bound.deadline_s
        if call.name == TRANSFER:
            deadline_s = self._hand_overs.deadline_s(call.arguments["target"])
        try:
            async with asyncio.timeout(deadline_s):
                result = await bound.run(call.arguments, asked)
        except TimeoutError:
            return ToolResult(False, f"no result within {deadline_s:g} s")
        return limited(result, bound.max_bytes or self._limits.tool_result_bytes)

    # -- what tools there are -------------------------------------------------------------------------------

    def _reachable(self) -> dict[str, TransferTarget]:
        """Whom the caller may be put through to, by the name the model has for it."""
        targets = dict(self._shared.settings.transfer.targets)
        first = self._brief.handover.target
        if first and first not in targets:
            targets = {first: TransferTarget.model_construct(to=first, description="", say=""), **targets}
        return targets

    def _own_tools(self) -> list[_Bound]:
        switches = self._shared.settings.builtin_tools
        capabilities = self._session.leg.capabilities
        tool_s = self._limits.tool_ms / 1000
        bound: list[_Bound] = []
        for tool in form_tools(self._brief, {name: one.description for name, one in self._targets.items()}):
            match tool.name:
                case name if name == HANG_UP:
                    if switches.hang_up:
                        read = "Shown to who has the call next: what it came to, in a sentence."
                        ending = with_summary(tool, read) if self._notes.settable else tool
                        bound.append(_Bound(ending, self._hang_up, tool_s))
                case name if name == TRANSFER:
                    if switches.transfer and Capability.TRANSFER in capabilities:
                        bound.append(_Bound(self._hand_overs.tool(tool), self._transfer, tool_s))
                case name:
                    bound.append(_Bound(tool, self._form(name), tool_s))
        for tool in built_in_tools(switches, capabilities, {form.id for form in self._brief.forms}):
            match tool.name:
                case name if name == SEND_DTMF:
                    bound.append(_Bound(tool, self._send_dtmf, tool_s))
                case name if name == TAKE_MESSAGE:
                    bound.append(_Bound(tool, self._take_message, tool_s))
                case name if name == COLLECT_DIGITS:
                    deadline_s = switches.collect_digits.max_s + PROMPT_S
                    bound.append(_Bound(tool, self._collect_digits, deadline_s, Manner(covered=False)))
        variables = self._shared.settings.variables
        if variables and self._notes.settable:
            bound.append(_Bound(variables_tool(variables), self._set_variables, tool_s))
        if switches.queue_status and self._session.queues is not None and (queues := self._queues()):
            bound.append(_Bound(queue_tool(queues), self._queue_status, tool_s))
        bound += [self._http_tool(settings, tool) for settings, tool in self._shared.http_tools]
        return bound

    def _queues(self) -> dict[str, str]:
        """The queues among the targets: theirs, by the name that the model has for them."""
        targets = {name: target_of(target.to) for name, target in self._targets.items()}
        return {name: target.name for name, target in targets.items() if isinstance(target, QueueTarget)}

    def _facts(self) -> dict[str, str]:
        """What is known of the call, as templates name it."""
        return template_facts(self._session.call_id, self._session.leg.info, self._shared.settings.context)

    def _http_tool(self, settings: HttpTool, tool: Tool) -> _Bound:
        async def run(arguments: dict[str, Any], _: Asked | None) -> ToolResult:
            return await self._shared.http.call(tool.name, arguments, self._facts())

        return _Bound(
            tool,
            run,
            settings.timeout_s or self._limits.tool_ms / 1000,
            Manner(settings.say, settings.stops_for_caller),
            settings.max_result_bytes,
        )

    def _server_tool(self, one: McpTool) -> _Bound:
        settings = one.server.settings

        async def run(arguments: dict[str, Any], _: Asked | None) -> ToolResult:
            facts = {key.removeprefix(PREFIX): value for key, value in self._facts().items()}
            return await one.server.call(one.name, arguments, facts if settings.call_facts else None)

        return _Bound(
            one.tool,
            run,
            settings.timeout_s or self._limits.tool_ms / 1000,
            Manner(settings.say, settings.interruptible),
            settings.max_result_bytes,
        )

    # -- carrying them out ----------------------------------------------------------------------------------

    def _form(self, form: str) -> Callable[[dict[str, Any], Asked | None], Awaitable[ToolResult]]:
        async def complete(fields: dict[str, Any], _: Asked | None) -> ToolResult:
            self._completed(form, dict(fields))
            return ToolResult(True)

        return complete

    def _completed(self, form: str, fields: dict[str, Any]) -> None:
        self._session.emit(FormCompleted(form, fields, self._session.at_ms(self._session.clock())))
        described = self._brief.form(form)
        self._notes.form_completed(form, described.description if described else "A message", fields)

    async def _take_message(self, arguments: dict[str, Any], _: Asked | None) -> ToolResult:
        self._completed(TAKE_MESSAGE, message_fields(arguments, self._session.leg.info.from_))
        return ToolResult(True)

    async def _hang_up(self, arguments: dict[str, Any], _: Asked | None) -> ToolResult:
        self._notes.summarise(arguments.get(SUMMARY_ARGUMENT))
        self.hang_up_asked = True
        return ToolResult(True)

    async def _send_dtmf(self, arguments: dict[str, Any], _: Asked | None) -> ToolResult:
        try:
            self._session.leg.send_dtmf(arguments["digits"])
        except (LegError, ValueError) as error:
            return ToolResult(False, f"the keys could not be sent: {error}")
        return ToolResult(True)

    # -- digits ---------------------------------------------------------------------------------------------

    @property
    def collecting(self) -> bool:
        """A tool takes the caller's digits: keys and words are for it."""
        return self._collector is not None

    def key(self, digit: str) -> bool:
        """The caller pressed a key. True: a tool took it."""
        if self._collector is None:
            return False
        self._collector.key(self._session.clock(), digit)
        self._entered.set()
        return True

    def answering(self) -> None:
        """The caller answers a tool's question, whether it was heard to its end or not."""
        if self._collector is not None:
            self._collector.asked(self._session.clock())
            self._listen(True)
            self._entered.set()

    def voice(self, on: bool) -> None:
        """The caller's voice began or stopped."""
        if self._collector is not None:
            self._collector.voice(self._session.clock(), on)
            self._entered.set()

    def spoken(self, text: str) -> bool:
        """The caller ended a turn with this text (empty: not understood). True: a tool took it."""
        if self._collector is None:
            return False
        self._collector.spoken(self._session.clock(), text)
        self._entered.set()
        return True

    async def _collect_digits(self, arguments: dict[str, Any], asked: Asked | None) -> ToolResult:
        clock = self._session.clock
        most = arguments.get("max_digits", MOST_DIGITS)
        least = min(arguments.get("min_digits", 1), most)
        settings = self._shared.settings.builtin_tools.collect_digits
        collector = DigitCollector(settings, clock(), least=least, most=most, language=self._language)
        self._collector = collector

        async def ask() -> None:
            if asked is not None:
                await asked()
            self.answering()

        try:
            async with asyncio.TaskGroup() as group:
                asking = group.create_task(ask())
                while collector.result is None:
                    self._entered.clear()
                    with suppress(TimeoutError):
                        async with asyncio.timeout(max(MIN_WAIT_S, collector.deadline() - clock())):
                            await self._entered.wait()
                    collector.tick(clock())
                asking.cancel()
        finally:
            self._collector = None
            self._listen(False)
        return collector.result

    def _listen(self, on: bool) -> None:
        if on != self.listening:
            self.listening = on
            self._post(Listening(on))

    # -- transfers ------------------------------------------------------------------------------------------

    @property
    def can_hand_over(self) -> bool:
        """Whether the caller can be put through to whom the brief names, should we not be able to go on."""
        return bool(self._brief.handover.target) and TRANSFER in self._own

    async def hand_over(self) -> None:
        """Put the caller through to that one; `done` tells whether it worked."""
        self._hand_overs.in_haste = True
        await self.call(ToolCall("handover", TRANSFER, {"target": self._brief.handover.target}))

    def transfer_result(self, event: TransferResult) -> None:
        """The leg told how a transfer ended."""
        self._hand_overs.result(event)

    async def _transfer(self, arguments: dict[str, Any], _: Asked | None) -> ToolResult:
        return await self._hand_overs.carry_out(arguments)

    # -- what the telephone system is told, and tells -------------------------------------------------------

    async def _set_variables(self, arguments: dict[str, Any], _: Asked | None) -> ToolResult:
        wrong = await self._notes.set(arguments)
        return ToolResult(False, f"the variables could not be set: {wrong}") if wrong else ToolResult(True)

    async def _queue_status(self, arguments: dict[str, Any], _: Asked | None) -> ToolResult:
        assert self._session.queues is not None
        numbers = await self._session.queues.queue(self._queues()[arguments["queue"]])
        if numbers is None:
            return ToolResult(False, "nothing is known of that queue now")
        return ToolResult(True, value=asdict(numbers))

    def _note(self, name: str, detail: str) -> None:
        self._session.emit(Note(name, detail, self._session.at_ms(self._session.clock())))
