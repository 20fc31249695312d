"""The deterministic conversation: one caller's sentence in, what to say, ask and call out. No I/O, no clock.

It is replayed from the conversation's memory for each reply, so what counts is what the caller heard: a question that
was cut off is asked again, and a yes confirms only a read-back that was heard to its end.
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from bridge.providers.brief import Brief, Form, abilities
from bridge.providers.local.brain_acts import Acts, acts
from bridge.providers.local.brain_floor import ANYTHING_ELSE, NOTHING, Asked, Floor, Plan
from bridge.providers.local.brain_form import MISSES_TO_OFFER, Exit, FormTalk, facts_of
from bridge.providers.local.brain_match import ACCEPT, SURE, Match
from bridge.providers.local.slots import extract
from bridge.providers.local.slots_names import name_in
from bridge.providers.local.text_replies import wants_more, without_question
from bridge.providers.local.text_words import words
from bridge.providers.tools import HANG_UP, TRANSFER


class Dialogue:
    """One conversation, up to where its memory goes."""

    def __init__(self, brief: Brief, now: datetime, tools: Collection[str]) -> None:
        self._brief = brief
        self._phrases = brief.phrases
        self._now = now
        self._tools = frozenset(tools)
        self._floor = Floor()
        self._form: FormTalk | None = None
        self._submitted: FormTalk | None = None
        """Confirmed, and its tool called."""
        self._failed: FormTalk | None = None
        """Its tool failed, and the caller has not heard of it yet."""
        self._name = ""
        """The caller's, if it was said outside of a form."""

    # -- what happened ------------------------------------------------------------------------------------------

    def agent_said(self, content: str, *, interrupted: bool, calls: Sequence[str] = ()) -> None:
        """The agent's turn as the caller heard it. `calls` are the tools it called."""
        self._floor.agent_said(content, interrupted=interrupted)
        if content.strip():
            self._failed = None
        if self._form is not None and self._form.form.id in calls:
            self._submitted, self._form = self._form, None
            self._floor.asked = NOTHING

    def tool_answered(self, name: str, ok: bool) -> Plan:
        """The result of a tool."""
        form = self._brief.form(name)
        if form is None:
            return self._nobody_there() if name == TRANSFER and not ok else self._floor.reply()
        template = form.done if ok else form.failed
        submitted, self._submitted = self._submitted, None
        if submitted is None or submitted.form.id != name:
            # Called by another model: the values are not known here, so nothing is said with a hole in it.
            said = "" if "{" in template else template
        else:
            said = submitted.finish(template)
            self._failed = None if ok else submitted
        self._floor.misses = 0
        return self._anything_else(said)

    def caller_said(self, text: str, match: Match) -> Plan:
        """The caller's turn. `match` says what its meaning is about."""
        if self._failed is not None:
            # The tool was cut short by these words, and nothing was said of it: as if it had not been called.
            self._form, self._failed = self._failed, None
            self._floor.asked = NOTHING
        act = acts(text)
        asked = self._floor.question
        if act.repeat and not (act.no and asked.kind in ("confirm", "anything_else", "offer")):
            return self._floor.again(self._phrases.hello)
        if act.wait:
            return self._floor.remark(self._phrases.wait)
        if asked.kind == "offer" and (act.yes or act.no):
            return self._offer_answered(asked.offer, accepted=act.yes)
        if self._form is not None:
            plan = self._form.answer(text, act, match)
            return self._leave(plan, text) if isinstance(plan, Exit) else plan
        return self._idle(text, act, match, asked)

    def nothing_said(self) -> Plan:
        """A reply is wanted though the caller said nothing new: ask again."""
        if self._form is not None:
            return self._form.ask()
        return self._anything_else() if self._floor.last.say else self._floor.reply(self._phrases.hello)

    # -- replies ------------------------------------------------------------------------------------------------

    def _anything_else(self, *say: str) -> Plan:
        return self._floor.reply(*say, self._brief.anything_else, asked=ANYTHING_ELSE)

    def _hang_up(self, *say: str) -> Plan:
        calls: tuple[tuple[str, dict[str, Any]], ...] = ((HANG_UP, {}),) if HANG_UP in self._tools else ()
        return self._floor.reply(*say, self._brief.goodbye, calls=calls)

    def _hand_over(self) -> Plan:
        target = self._brief.handover.target
        if target and TRANSFER in self._tools:
            return self._floor.reply(self._brief.handover.say, calls=((TRANSFER, {"target": target}),))
        return self._nobody_there()

    def _nobody_there(self) -> Plan:
        form = self._brief.form(self._brief.handover.message_form)
        say = self._brief.handover.unavailable
        if self._form is not None and (form is None or self._form.form.id == form.id):
            return self._form.ask(without_question(say))
        if form is None:
            return self._anything_else(without_question(say))
        return self._floor.reply(say, asked=Asked("offer", offer=form.id))

    def _offer_answered(self, offer: str, *, accepted: bool) -> Plan:
        self._floor.misses = 0
        if accepted and offer == TRANSFER:
            return self._hand_over()
        form = self._brief.form(offer) if accepted else None
        if form is not None:
            return self._open(form)
        return self._form.ask() if self._form is not None else self._anything_else()

    def _offer_help(self, *say: str) -> Plan:
        """After several misses: a person, or a message to one."""
        self._floor.misses = 0
        if self._brief.handover.target and TRANSFER in self._tools:
            return self._floor.reply(*say, self._phrases.offer_handover, asked=Asked("offer", offer=TRANSFER))
        message = self._brief.form(self._brief.handover.message_form)
        if message is not None and (self._form is None or self._form.form.id != message.id):
            return self._floor.reply(*say, self._phrases.offer_message, asked=Asked("offer", offer=message.id))
        if self._form is not None:
            return self._form.ask()
        return self._floor.reply(*say, abilities(self._brief))

    def _open(self, form: Form, text: str = "", *, first: Sequence[str] = ()) -> Plan:
        self._form = FormTalk(form, self._brief, self._now, self._floor)
        return self._form.open(text, name=self._name, first=first)

    def _leave(self, leaving: Exit, text: str) -> Plan:
        """Out of the form, or beside it."""
        if leaving.to == "help":
            return self._offer_help(leaving.say)
        if leaving.to == "handover":
            return self._hand_over()
        self._form = None
        form = self._brief.form(leaving.form)
        if form is not None:
            return self._open(form, text)
        if leaving.to == "goodbye":
            return self._hang_up(self._phrases.cancelled)
        return self._anything_else(self._phrases.cancelled)

    # -- outside a form -----------------------------------------------------------------------------------------

    def _idle(self, text: str, act: Acts, match: Match, asked: Asked) -> Plan:
        if not act.plain:
            return self._missed(understood=False)
        by_words = self._by_words(act, asked)
        if by_words is not None:
            return by_words
        introduced = name_in(words(text), expected=False)
        self._name = introduced.name if introduced is not None else self._name
        best = match.best
        form = None if act.question or (best is not None and best.score >= SURE) else self._form_by_values(text)
        if form is not None:
            self._floor.misses = 0
            return self._open(form, text)
        if best is not None and best.score >= ACCEPT:
            if best.kind == "beyond":
                return self._missed(understood=True)
            self._floor.misses = 0
            form = self._brief.form(best.id) or self._brief.form(match.also.id if match.also is not None else "")
            if form is not None:
                # "A table for two, and do you have parking?"
                return self._open(form, text, first=[without_question(f.say) for f in facts_of(self._brief, match)])
            if best.kind == "handover":
                return self._hand_over()
            return self._chat(best.id) if best.kind == "chat" else self._tell(match)
        if introduced is not None:
            return self._floor.reply(self._phrases.hello)
        return self._missed(understood=act.question or len(words(text)) > 3)

    def _by_words(self, act: Acts, asked: Asked) -> Plan | None:
        """Short utterances whose words alone say what they are."""
        closing = asked.kind == "anything_else"
        declined = act.no and (closing or "thank" in act.plain)
        if act.bye or act.done or declined or (closing and (act.thanks or act.okay) and not act.leading_yes):
            return self._hang_up()
        if act.wrong_number:
            return self._hang_up(self._phrases.wrong_number)
        if act.thanks:
            return self._hang_up() if closing else self._anything_else(self._phrases.thanks)
        if act.hello:
            return self._floor.reply(self._phrases.hello)
        if wants_more(act.plain) or (act.yes and (closing or not act.okay)):
            return self._floor.reply(self._phrases.go_on)
        return self._anything_else() if act.okay or act.no or act.cancel else None

    def _missed(self, *, understood: bool) -> Plan:
        """`understood`: it was a sentence, but about something the agent knows nothing of."""
        self._floor.misses += 1
        apology = self._phrases.no_answer if understood else self._phrases.again
        if self._floor.misses >= MISSES_TO_OFFER:
            return self._offer_help(apology)
        if self._floor.misses == 2:
            return self._floor.reply(apology, abilities(self._brief))
        if not understood:
            return self._floor.reply(self._brief.not_understood)
        message = self._brief.form(self._brief.handover.message_form)
        if message is None:
            return self._anything_else(apology)
        return self._floor.reply(self._brief.unknown, asked=Asked("offer", offer=message.id))

    def _tell(self, match: Match) -> Plan:
        facts = facts_of(self._brief, match)
        if len(facts) == 1 and facts[0].offer:
            return self._floor.reply(facts[0].say, asked=Asked("offer", offer=facts[0].offer))
        return self._floor.reply(*(without_question(fact.say) if fact.offer else fact.say for fact in facts))

    def _chat(self, about: str) -> Plan:
        return self._floor.reply(abilities(self._brief) if about == "abilities" else getattr(self._phrases, about))

    def _form_by_values(self, text: str) -> Form | None:
        """A form that a sentence fills without saying what it wants: "four people, Friday at eight"."""
        for form in self._brief.forms:
            found = extract(text, form, expected="", filled=(), today=self._now.date())
            dated = any(form.slot(slot).type in ("date", "time", "number") for slot in found.readings)
            if dated and found.used_words * 2 >= found.total_words:
                return form
        return None
