"""A chain of language models: the first that answers does; if it breaks off, the next one goes on in its words."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace

from bridge.providers.base import (
    Llm,
    LlmEvent,
    LlmRequest,
    Message,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    ReplyDone,
    Switched,
    TextDelta,
)
from bridge.providers.chain import Course, FallbackSettings, Member, closing, probe_all, warm_first, within
from bridge.providers.dialogue import GO_ON

LAST_SHARE = 0.95
"""The last model fails this much before the conversation would give up by itself, so that it is known which one."""

LEAST_S = 1.0
"""Even the last of a long chain gets this long for its first text."""

MAX_HELD = 24
"""A longer run of letters is no word of a language that has spaces between them."""


class ChainLlm:
    """An `Llm` over `members`. `for_call` makes one that stays with the model that works."""

    def __init__(
        self,
        members: Sequence[Member[Llm]],
        settings: FallbackSettings,
        *,
        first_s: float,
        now: Callable[[], float],
    ) -> None:
        """`first_s` is how long the conversation waits for a reply's first text, whatever the chain does."""
        self._members = tuple(members)
        self._settings = settings
        self._first_s = first_s
        self._now = now
        self._course: Course[Llm] = Course(self._members)

    def for_call(self) -> "ChainLlm":
        return ChainLlm(self._members, self._settings, first_s=self._first_s, now=self._now)

    @property
    def name(self) -> str:
        """Of the model that is asked at present."""
        return self._course.present.name

    @property
    def follows_instructions(self) -> bool:
        return any(member.provider.follows_instructions for member in self._members)

    async def start(self) -> None:
        """Nothing to do: who made the members starts them."""

    async def probe(self) -> str:
        return await probe_all(self._members)

    async def warm(self) -> None:
        await warm_first(self._course)

    async def aclose(self) -> None:
        """Nothing to do: who made the members closes them."""

    async def reply(self, request: LlmRequest) -> AsyncIterator[LlmEvent]:
        """Stream a reply. Raises the last model's ProviderError when none is left."""
        order = self._course.order()
        if request.instructions:
            order = [member for member in order if member.provider.follows_instructions]
            if not order:
                raise ProviderUnavailableError(self.name, "no model of the chain follows instructions")
        deadline = self._now() + self._first_s * LAST_SHARE
        said = _Said()
        for place, member in enumerate(order):
            rest = order[place + 1 :]
            try:
                async with aclosing(self._ask(member, request, said, deadline, last=not rest)) as events:
                    async for event in events:
                        yield event
            except ProviderError as error:
                if not rest:
                    raise
                member.health.switched()
                said.broke_off()
                self._course.present = rest[0]
                yield Switched("llm", member.name, rest[0].name, error)
            else:
                self._course.present = member
                return

    async def _ask(
        self, member: Member[Llm], request: LlmRequest, said: "_Said", deadline: float, *, last: bool
    ) -> AsyncGenerator[LlmEvent, None]:
        settings, health = self._settings, member.health
        first_s = max(LEAST_S, deadline - self._now())
        # One that a breaker keeps from us is asked as a last resort: with little patience.
        if not last or not health.usable:
            first_s = min(first_s, settings.llm_first_s)
        if said.text and member.provider.follows_instructions:
            partial = (Message("assistant", said.text, interrupted=True), Message("user", GO_ON))
            request = replace(request, messages=[*request.messages, *partial])
        begun = health.began()
        waiting = open_ = True
        try:
            async with closing(member.provider.reply(request)) as events:
                while True:
                    try:
                        event = await self._next(events, member, first_s, waiting=waiting, last=last)
                    except StopAsyncIteration:
                        raise ProviderError(member.name, "the reply broke off") from None
                    if waiting:
                        waiting = False
                        health.answered(begun)
                    match event:
                        case TextDelta():
                            # With nobody to go on after it there is no need to keep words whole.
                            if text := said.add(event.text, hold=not last):
                                yield TextDelta(text)
                        case ReplyDone():
                            if text := said.finish():
                                yield TextDelta(text)
                            open_ = False
                            health.succeeded()
                            yield event
                            return
                        case _:
                            yield event
        except ProviderError as error:
            open_ = False
            health.failed(error)
            raise
        finally:
            if open_:
                self._given_up(member, begun, waiting)

    async def _next(
        self, events: AsyncIterator[LlmEvent], member: Member[Llm], first_s: float, *, waiting: bool, last: bool
    ) -> LlmEvent:
        if waiting:
            return await within(events, first_s, member.name, "first text")
        return await within(events, None if last else self._settings.llm_next_s, member.name, "more text")

    def _given_up(self, member: Member[Llm], begun: float, waiting: bool) -> None:
        """The reply is not wanted any more. Nobody knows whether it would have come, unless it was long overdue."""
        if waiting and self._now() - begun >= self._settings.llm_first_s:
            member.health.failed(ProviderTimeoutError(member.name, "no first text until it was given up"))
        else:
            member.health.gave_up()


class _Said:
    """The text of one reply, given out word by word, over all the models that speak it."""

    def __init__(self) -> None:
        self.text = ""
        """What was given out."""
        self._held = ""
        """The beginning of a word: it is given out with what follows it."""
        self._again = ""
        """What the model that goes on has said so far, as long as it may be only repeating `text`."""
        self._joining = False

    def add(self, text: str, *, hold: bool) -> str:
        """The next text of the present model; returns what is to be given out."""
        if self._joining:
            text = self._join(text)
        text = self._held + text
        self._held = ""
        if hold:
            cut = _last_word(text)
            text, self._held = text[:cut], text[cut:]
        self.text += text
        return text

    def finish(self) -> str:
        """The reply is complete; returns what is still to be given out."""
        text = self._held
        if self._joining:
            # It said nothing but what was said: there is nothing to add.
            text += "" if _same(self.text.strip(), self._again.strip()) else self._gap(self._again)
            self._joining = False
        self._held = self._again = ""
        self.text += text
        return text

    def broke_off(self) -> None:
        """Another model goes on from `text`; half a word is forgotten."""
        self._held = self._again = ""
        self._joining = bool(self.text)

    def _join(self, text: str) -> str:
        """Take away what the new model repeats although it was told not to."""
        self._again += text
        said, again = self.text.strip(), self._again.lstrip()
        if len(again) <= len(said):
            if _same(said, again):
                return ""
            fresh = again
        else:
            fresh = again[len(said) :].lstrip() if _same(said, again) else again
        self._joining = False
        self._again = ""
        return self._gap(fresh)

    def _gap(self, text: str) -> str:
        needs_space = text[:1].isalnum() and not self.text[-1:].isspace()
        return f" {text}" if needs_space else text


def _same(said: str, again: str) -> bool:
    """Whether one is the beginning of the other."""
    length = min(len(said), len(again))
    return said[:length].casefold() == again[:length].casefold()


def _last_word(text: str) -> int:
    """Where the run of letters at the text's end begins; its end, if that is no word that may go on."""
    at = len(text)
    # Beyond U+2E80 are scripts that put no space between words.
    while at and text[at - 1].isalpha() and ord(text[at - 1]) < 0x2E80:
        at -= 1
    return at if len(text) - at <= MAX_HELD else len(text)
