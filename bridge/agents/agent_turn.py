"""One turn of the agent: a fixed phrase, or a reply that the model thinks, with tools, while its start is spoken."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from bridge.agents.base import AgentDone
from bridge.agents.errors import EngineError, StreamEndedError, closing, next_within
from bridge.agents.hold_music import HoldMusic
from bridge.agents.record import TurnSlot
from bridge.agents.settings import ConversationSettings
from bridge.agents.speech import Speech
from bridge.agents.steps import Steps
from bridge.agents.tools import Toolbox, ToolResult
from bridge.agents.tools_cover import Cover
from bridge.events import Cause, TurnDelays
from bridge.providers.base import (
    Llm,
    LlmRequest,
    Message,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    ReplyDone,
    Switched,
    TextDelta,
    Tool,
    ToolCall,
)
from bridge.providers.dialogue import GO_ON
from bridge.providers.tools import HANG_UP

ATTEMPTS = 2
RETRY_S = 0.1
"""Before a model that failed at once is asked again."""

_CUT_SHORT = ToolResult(False, "the caller went on talking before this was done").content
_NOT_HUNG_UP = ToolResult(False, "the call goes on: another tool failed, which the caller should know first").content


@dataclass(frozen=True, slots=True)
class Timing:
    """What a reply took before it was thought (see `TurnDelays`)."""

    voice_ended_at: float | None = None
    endpoint_ms: float | None = None
    stt_ms: float | None = None
    stt: str = ""
    """The provider that understood the caller."""


@dataclass(slots=True)
class _Part:
    """What was said between two rounds of tools, and the tools called after it."""

    number: int
    calls: tuple[ToolCall, ...] = ()
    results: dict[str, str] = field(default_factory=dict)
    failed: bool = False
    """One of the tools failed."""


@dataclass(slots=True)
class AgentTurn:
    """From the first thought to the last word played."""

    speech: Speech
    interruptible: bool = True
    ends: AgentDone | None = None
    """The call ends with this once the turn was played out."""
    continues: str | None = None
    """It takes up a turn that noise cut off: the clauses of that one which were wholly heard."""
    timing: Timing = field(default_factory=Timing)
    confirmed: asyncio.Event = field(default_factory=asyncio.Event)
    """The caller's turn is over for certain: tools may be carried out."""
    started_at: float | None = None
    """When its first audio went out (s)."""
    slot: TurnSlot | None = None
    steps: Steps = field(default_factory=Steps)
    llm: str = ""
    """The model that wrote it, as `provider/model`."""
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    parts: list[_Part] = field(default_factory=lambda: [_Part(0)])

    def next_part(self) -> None:
        self.parts.append(_Part(self.speech.next_part()))

    def messages(self, heard_ms: float | None) -> list[Message]:
        """The turn for the model's memory: cut to what was heard, or, while it goes on (None), as it is meant."""
        messages = []
        for part in self.parts:
            said = self.speech.said(part.number)
            heard = said if heard_ms is None else self.speech.heard(heard_ms, part.number)
            if self.continues and not part.number:
                said, heard = f"{self.continues} {said}", f"{self.continues} {heard}".rstrip()
            if heard or part.calls:
                messages.append(Message("assistant", heard, part.calls, interrupted=heard != said))
            for call in part.calls:
                messages.append(Message("tool", part.results.get(call.id, _CUT_SHORT), tool_call_id=call.id))
        return messages

    def cancel(self) -> None:
        """Stop thinking and synthesising."""
        for task in self.tasks:
            task.cancel()

    def delays(self) -> TurnDelays:
        timing = self.timing
        reply_ms = None
        if timing.voice_ended_at is not None and self.started_at is not None:
            reply_ms = (self.started_at - timing.voice_ended_at) * 1000
        waits = self.steps.waits(self.speech.asked_at, self.speech.first_at, self.started_at)
        return TurnDelays(
            timing.endpoint_ms,
            timing.stt_ms,
            waits.llm_ms,
            waits.tts_ms,
            reply_ms,
            self.llm,
            tools_ms=waits.tools_ms,
            clause_ms=waits.clause_ms,
            playout_ms=waits.playout_ms,
            ahead_ms=waits.ahead_ms,
            stt=timing.stt,
            tts=self.speech.by,
        )


class Thinker:
    """The model and the tools behind one call's replies."""

    def __init__(
        self,
        llm: Llm,
        toolbox: Toolbox,
        settings: ConversationSettings,
        *,
        clock: Callable[[], float],
        wall_clock: Callable[[], datetime],
        failed: Callable[[ProviderError], None],
        switched: Callable[[Switched], None] = lambda _: None,
        call_id: str = "",
        known: str = "",
    ) -> None:
        """`known` is what the model is told of the call itself."""
        self.music: HoldMusic | None = None
        """For a caller who waits for a tool."""
        self._known = known
        self._switched = switched
        self._call_id = call_id
        self._llm = llm
        self._toolbox = toolbox
        self._settings = settings
        self._limits = settings.limits
        self._clock = clock
        self._wall_clock = wall_clock
        self._failed = failed

    def speak(self, settings: ConversationSettings) -> None:
        """Think in the language of `settings` from now on."""
        self._settings = settings

    async def think(self, turn: AgentTurn, messages: Sequence[Message], summary: str = "") -> None:
        """Give `turn` all the words of a reply to `messages`, carrying out tools on the way. `summary` is of what was
        before them. Raises EngineError."""
        await self._think(turn, messages, summary)
        turn.speech.finish()

    async def _think(self, turn: AgentTurn, messages: Sequence[Message], summary: str) -> None:
        speech = turn.speech
        for round_number in range(self._limits.tool_rounds + 1):
            last = round_number == self._limits.tool_rounds
            calls = await self._ask(turn, messages, () if last else self._toolbox.tools, summary)
            if last or not calls:
                break
            await turn.confirmed.wait()
            if await self._carry_out(turn, calls):
                return
            turn.next_part()
        if not speech.said():
            failed = turn.parts[-2].failed if len(turn.parts) > 1 else False
            speech.say(self._settings.phrases.tool_failed if failed else self._settings.brief.unknown)
        elif len(turn.parts) > 1 and turn.parts[-2].failed and not speech.said(turn.parts[-1].number):
            speech.say(self._settings.phrases.tool_failed)

    async def _ask(
        self, turn: AgentTurn, messages: Sequence[Message], tools: Sequence[Tool], summary: str
    ) -> tuple[ToolCall, ...]:
        """One round: stream the text to the voice, return the tools asked for. A reply that breaks off is asked for
        once more: anew, or, after what was given to the voice, its rest."""
        for attempt in range(1, ATTEMPTS + 1):
            spoken = turn.speech.fed_clauses
            request = LlmRequest(
                brief=self._settings.brief,
                messages=self._history(turn, messages),
                tools=tools,
                now=self._wall_clock(),
                language=self._settings.language,
                call_id=self._call_id,
                summary=summary,
                known=self._known,
            )
            cover = self._cover(turn, self._limits.llm_filler_ms, only_first=True)
            try:
                return await self._stream(turn, request)
            except ProviderError as error:
                turn.steps.answered(self._clock())
                self._failed(error)
                begun = turn.speech.fed_clauses != spoken
                if attempt == ATTEMPTS or not self._worth_asking_again(error, begun):
                    raise EngineError("llm", error) from error
                turn.speech.take_back()
            finally:
                cover.cancel()
            await asyncio.sleep(RETRY_S)
        raise AssertionError("unreachable")

    def _worth_asking_again(self, error: ProviderError, begun: bool) -> bool:
        """`begun`: words of the reply were given to the voice, which can't be said again in other words."""
        if isinstance(error, ProviderUnavailableError):
            return False
        if begun:
            return self._llm.follows_instructions
        # The caller has waited for the first word long enough.
        return not isinstance(error, ProviderTimeoutError)

    def _history(self, turn: AgentTurn, messages: Sequence[Message]) -> list[Message]:
        """What the model replies to: the memory, and what the turn has said and done so far."""
        history = [*messages, *turn.messages(None)]
        if self._llm.follows_instructions and turn.speech.said(turn.parts[-1].number):
            history.append(Message("user", GO_ON))
        return history

    async def _stream(self, turn: AgentTurn, request: LlmRequest) -> tuple[ToolCall, ...]:
        limits, name = self._limits, self._llm.name
        asked = self._clock()
        turn.steps.asked(asked)
        waiting = True
        async with closing(self._llm.reply(request)) as events:
            while True:
                left_s = asked + limits.llm_total_ms / 1000 - self._clock()
                wait_s = min(left_s, limits.llm_first_ms / 1000) if waiting else left_s
                try:
                    event = await next_within(events, wait_s, name, "first text" if waiting else "end of the reply")
                except StopAsyncIteration:
                    raise StreamEndedError(name, "the reply broke off") from None
                if isinstance(event, Switched):
                    # The next model has the same time for its first text.
                    self._switched(event)
                    continue
                turn.steps.answered(self._clock())
                waiting = False
                match event:
                    case TextDelta():
                        turn.steps.text(self._clock())
                        turn.speech.feed(event.text)
                    case ReplyDone():
                        turn.speech.flush()
                        turn.llm = event.by
                        return event.tool_calls

    async def _carry_out(self, turn: AgentTurn, calls: tuple[ToolCall, ...]) -> bool:
        """Call the tools; True when the turn is complete with it."""
        part = turn.parts[-1]
        part.calls = calls
        all_ok = True
        for call in calls:
            manner = self._toolbox.manner(call)
            if manner.announce is not None:
                await self._announce_transfer(turn, manner.announce)
            cover = Cover(turn.speech, turn.confirmed, self._settings, manner, self.music)
            turn.interruptible = manner.interruptible
            turn.steps.tool_began(self._clock())
            try:
                result = await self._toolbox.call(call, asked=turn.speech.drained)
            finally:
                turn.steps.tool_ended(self._clock())
                cover.cancel()
                turn.interruptible = True
            part.results[call.id] = result.content
            all_ok = all_ok and result.ok
            part.failed = not all_ok
        hang_up, self._toolbox.hang_up_asked = self._toolbox.hang_up_asked, False
        if self._toolbox.done is not None:
            turn.ends = self._toolbox.done
        elif hang_up and all_ok:
            if not turn.speech.said():
                turn.speech.say(self._settings.brief.goodbye)
            turn.ends = AgentDone(Cause.AGENT_HUNG_UP)
        elif hang_up:
            # Or the model would think that the call is over, and the caller would wait for somebody to hang up.
            part.results.update({call.id: _NOT_HUNG_UP for call in calls if call.name == HANG_UP})
        return turn.ends is not None

    async def _announce_transfer(self, turn: AgentTurn, text: str) -> None:
        """The caller hears what happens before the line is taken away; from then on it can't be stopped."""
        if not turn.speech.said():
            turn.speech.say(text)
        await turn.speech.drained()

    def _cover(self, turn: AgentTurn, after_ms: int, *, only_first: bool = False) -> asyncio.TimerHandle:
        """Say the filler phrase if the caller hears nothing for so long."""

        def fill() -> None:
            speech = turn.speech
            quiet = not speech.waiting and speech.queued_ms == 0
            if turn.confirmed.is_set() and quiet and not (only_first and speech.said()):
                speech.say(self._settings.phrases.filler)

        return asyncio.get_running_loop().call_later(after_ms / 1000, fill)
