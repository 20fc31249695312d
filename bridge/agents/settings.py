"""What an operator sets about an agent that converses: turn taking, barge-in, limits, phrases. Units are in names."""

from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from bridge.agents.call_context import PREFIX, names_facts
from bridge.agents.clauses import split
from bridge.agents.tool_settings import AgentToolSettings
from bridge.agents.tools_template import CALL_FACTS, TemplateError, parameters_in
from bridge.agents.transfer_settings import target_of
from bridge.providers.brief import Brief, abilities

AUTO = "auto"
"""As a language: the caller's."""

Words = tuple[str, ...]
Ms = Annotated[int, Field(ge=0)]


def _time_zone(value: str) -> str:
    try:
        if value:
            ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{value!r} is not a time zone: use an IANA name, e.g. Europe/Berlin") from None
    return value


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TurnSettings(Strict):
    """When the caller's turn is over. The word lists are English; another language brings its own."""

    end_silence_ms: Ms = 500
    """Silence after the caller's last voice that ends a turn whose text looks complete."""
    incomplete_silence_ms: Ms = 1200
    """The same when the text ends in a filler, a connector, or a number or spelling that may go on."""
    answer_silence_ms: Ms = 400
    """The same when the whole text is one of `answers`: little can follow a plain yes."""
    stt_wait_ms: Ms = 2500
    """Longest wait for the settled text after the voice was told to have paused; then the best partial must do,
    and with none the agent says that it did not understand. Covers the slowest box that still takes calls."""
    endpoint_silence_ms: Annotated[int, Field(ge=100)] = 300
    """The same when the recogniser itself, or the semantic model, says that the turn is over; a text that looks
    incomplete is waited for all the same."""
    endpoint_confidence: Annotated[float, Field(ge=0, le=1)] = 0.5
    """A recogniser that is less sure of the end than this only says that it is likely."""
    endpoint_voice_ms: Ms = 1500
    """A turn that is over by the recogniser's word ends although there is still voice (a television), once that has
    brought no word for this long."""
    number_silence_ms: Ms = 1500
    """Patience with somebody who was asked for a long number, between its digits."""
    email_silence_ms: Ms = 1800
    """The same for an e-mail address that is not whole yet."""
    spelling_silence_ms: Ms = 1500
    """The same for a name that is being spelled."""
    semantic_model: Path | None = None
    """ONNX file of smart-turn v3 (inside the wheel of pipecat-ai), which judges by the sound of the voice whether the
    turn is over; needs the `vad` extra's onnxruntime. None: not used. One more sign, never waited for."""
    semantic_threshold: Annotated[float, Field(ge=0, le=1)] = 0.5
    """From this probability on it means that the turn is over."""
    max_turn_ms: Annotated[int, Field(ge=1000)] = 45_000
    """A caller who talks longer is answered in the middle of it."""
    eager: bool = True
    """Let the model and the voice start as soon as the settled text is there, before the silence is over; thrown
    away unheard when the caller goes on. Costs engine time, saves reply delay."""
    eager_lead_ms: Ms = 500
    """How long before the turn's expected end an eager start may happen: bounds the work thrown away."""
    dtmf_pause_ms: Ms = 2000
    """Keys pressed end as a turn of their own after this pause, or at once with `#`."""
    complete_number_digits: Annotated[int, Field(ge=1)] = 10
    """A row of spoken digits this long counts as finished."""
    fillers: Words = (
        "um",
        "uhm",
        "uh",
        "er",
        "erm",
        "hmm",
        "hm",
        "well",
        "like",
        "you know",
        "i mean",
        "let me see",
        "let's see",
    )
    connectors: Words = (
        "and", "but", "or", "so", "because", "with", "for", "to", "at", "on", "in", "of", "from", "by", "until",
        "between", "around", "about", "the", "a", "an", "my", "your", "our", "i", "we", "i'm", "i'd", "i'll",
        "we're", "we'd", "it's", "is", "are", "if", "than", "also", "plus", "maybe", "then", "would like", "want to",
    )  # fmt: skip
    answers: Words = (
        "yes", "yeah", "yep", "yes please", "yeah please", "yes that's right", "that's right", "that is right",
        "that's correct", "correct", "right", "sure", "okay", "no", "nope", "no thanks", "no thank you", "that's all",
        "no that's all", "that's it",
    )  # fmt: skip
    digit_words: Words = (
        "zero", "oh", "o", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "double", "triple",
    )  # fmt: skip
    number_words: Words = (
        "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
        "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety", "hundred", "thousand",
    )  # fmt: skip
    """They belong to a row of digits where one was asked for."""
    at_words: Words = ("at", "at sign")
    """How "@" is spoken."""
    dot_words: Words = ("dot", "period", "point")
    as_in_words: Words = ("as in", "for", "like", "as")
    """Between a letter and its word: "R as in Robert"."""
    ask_number_words: Words = (
        "your number", "what number", "which number", "number to call", "phone number", "telephone number",
        "mobile number", "account number", "card number", "customer number", "order number", "reference number",
        "booking number", "serial number", "digits", "zip code", "postal code", "postcode", "pin",
    )  # fmt: skip
    """A question of the agent with one of these asks for a long number; the form's or tool's own word on what it
    collects comes first."""
    ask_email_words: Words = ("email", "e-mail", "mail address")
    ask_name_words: Words = ("name",)
    ask_spelling_words: Words = ("spell", "spelling", "letter by letter")


class BargeInSettings(Strict):
    """When the caller stops the agent."""

    enabled: bool = True
    """False: the agent finishes; what was said over it is answered after."""
    min_words: Annotated[int, Field(ge=1)] = 2
    """Words besides backchannels that stop the agent before the speech has lasted `confirm_speech_ms`."""
    sensitivity: Literal["low", "normal", "high"] = "normal"
    """`high`: one word or two thirds of `confirm_speech_ms` will do. `low`: one word more is needed, and length
    alone counts only when the time to decide is over."""
    confirm_speech_ms: Ms = 450
    """Speech that has gone on this long after the pause stops the agent, words or not."""
    decide_ms: Annotated[int, Field(ge=100)] = 500
    """The agent is never left paused longer than this without a decision."""
    partial_after_ms: Ms = 250
    """Speech over the agent that lasts this long is sent to the recogniser while it goes on."""
    background_below_db: Annotated[float, Field(ge=0)] = 9.0
    """A voice so much softer than the caller's own (a television, somebody in the room) does not stop the agent by
    its length, only by words. Until the caller has spoken, a usual telephone voice is taken for theirs."""
    certain_speech: Annotated[float, Field(ge=0, le=1)] = 0.95
    """A sound whose probability of being speech stays below this in its clearer moments too (music, a television)
    does not stop the agent by its length either."""
    protected_phrases: Words = ()
    """What the caller has to hear (a legal notice), word for word as the agent says it: until such a phrase of the
    agent's present turn has been played nobody interrupts it. Keys are taken and answered after it."""
    click_ms: Ms = 80
    """Voice activity shorter than this is a click and needs no text to be rejected."""
    answer_window_ms: Ms = 1000
    """A "yes" begun when no more than this was left to say is an answer, not a backchannel."""
    backchannels: Words = (
        "mhm", "mm", "mmm", "mm hmm", "hm", "hmm", "uh huh", "huh", "uh", "um", "ah", "oh", "aha", "okay", "ok",
        "yeah", "yep", "yes", "right", "alright", "all right", "sure", "good", "great", "fine", "cool", "i see",
        "got it", "of course", "hello", "hi", "thanks", "thank you", "you",
    )  # fmt: skip
    """What a listener says without wanting the floor (and "you", which recognisers make of noise)."""
    stop_words: Words = (
        "stop", "wait", "no", "nope", "hold on", "hang on", "excuse me", "sorry", "pardon", "actually", "listen",
        "cancel", "help",
    )  # fmt: skip
    """Any of these alone stops the agent."""

    @model_validator(mode="after")
    def _decides_in_time(self) -> Self:
        if self.confirm_speech_ms > self.decide_ms:
            raise ValueError(
                f"confirm_speech_ms ({self.confirm_speech_ms}) must not exceed decide_ms ({self.decide_ms})"
            )
        return self


class LimitSettings(Strict):
    """How long anything may take."""

    silence_ms: Annotated[int, Field(ge=1000)] = 8000
    """Silence after the agent finished that brings the re-prompt."""
    max_reprompts: Annotated[int, Field(ge=0)] = 2
    """Re-prompts in a row; the silence after the last one ends the call with a goodbye."""
    max_call_s: Annotated[int, Field(ge=5)] = 1800
    """Then the caller is told, and the call ends."""
    max_call_warning_s: Annotated[int, Field(ge=0)] = 60
    """How long before that the caller is warned, in the next pause (`phrases.max_length_warning`); 0: not at all.
    A call that may not last longer than this has no warning."""
    stt_open_ms: Ms = 3000
    llm_first_ms: Ms = 8000
    """Request to the model's first text or tool call."""
    llm_total_ms: Ms = 30_000
    """Request to the reply's end."""
    tts_chunk_ms: Ms = 5000
    """Wait for the voice's next audio."""
    tts_filler_ms: Ms = 2000
    """A clause whose first audio leaves the caller in silence this long is covered by the filler phrase."""
    tool_ms: Ms = 10_000
    transfer_ms: Ms = 30_000
    """Transfer asked for until its outcome is known: the other phone rings within it."""
    announce_ms: Annotated[int, Field(ge=1000)] = 60_000
    """On top of that, where who answers is told about the caller first, and may take the call or refuse it."""
    tool_rounds: Annotated[int, Field(ge=1)] = 4
    """Times in one turn the model may see results and go on; after that it must speak without tools."""
    tool_result_bytes: Annotated[int, Field(ge=100)] = 4000
    """What the model gets of a tool's result; the rest is cut, and said to be."""
    tool_filler_ms: Ms = 800
    """A tool that leaves the caller in silence this long is covered by its `say`, or the filler phrase."""
    tool_filler_again_ms: Annotated[int, Field(ge=1000)] = 7000
    """Silence after that, while it still works, until the caller is asked for patience again."""
    tool_music_ms: Ms = 0
    """From a tool's beginning until the caller has the telephone system's music on hold, where that has some, in the
    place of words; 0: none."""
    llm_filler_ms: Ms = 2500
    """The same for the model's first words."""
    look_ahead_ms: Ms = 3000
    """The next sentence is given to the voice when less than this is left to play: bounds the work that a barge-in
    throws away."""
    goodbye_tail_ms: Ms = 300
    """From the last packet of a goodbye to the hang-up: the far jitter buffer plays it out."""
    closing_s: Annotated[int, Field(ge=1)] = 20
    """A goodbye that was not played out by then (a dead engine, a caller on hold) is cut."""
    memory_messages: Annotated[int, Field(ge=4)] = 200
    """Messages kept for the model."""
    memory_tokens: Annotated[int, Field(ge=500)] = 6000
    """About how much of the conversation a language model is sent as it was; what is older is summed up by it, beside
    the conversation. Half an hour of talk has some 9000 tokens."""


class PhraseSettings(Strict):
    """What the agent says when no model is asked."""

    apology: str = "I am sorry, we have a technical problem. Please call again later."
    apology_handover: str = "I am sorry, we have a technical problem. I am putting you through to a person."
    """Said instead where there is a `brief.handover.target` and the line can transfer."""
    still_there: str = "Are you still there?"
    silence_goodbye: str = "I can't hear you any more, so I will hang up now. Please call again. Goodbye!"
    max_length_goodbye: str = (
        "I am sorry, we have reached the end of the time for this call. Please call again. Goodbye!"
    )
    max_length_warning: str = "Just so you know, we have about one minute left on this call."
    """Goes with `limits.max_call_warning_s`."""
    filler: str = "One moment, please."
    still_working: str = "I am still working on it."
    """Said instead from the second time on."""
    tool_failed: str = "I am sorry, that did not work."
    """Where a tool failed and the model says nothing."""


class LanguageSettings(Strict):
    """What is different where the agent speaks one language; what is not given here is as everywhere else."""

    voice: str = ""
    """The voice's own name, of the first provider; empty: the agent's, which must speak the language then."""
    voices: dict[str, str] = Field(default_factory=dict)
    """The same by provider, where a chain has several."""
    phrases: PhraseSettings = Field(default_factory=PhraseSettings)
    not_understood: str = ""
    """In place of the brief's, as the next ones."""
    unknown: str = ""
    goodbye: str = ""
    transfer: str = ""
    """In place of the brief's `handover.say`."""
    turns: TurnSettings = Field(default_factory=TurnSettings)
    """The word lists of the language above all."""
    barge_in: BargeInSettings = Field(default_factory=BargeInSettings)


M = TypeVar("M", bound=Strict)


def _over(base: M, other: M) -> M:
    """`base` with what is given in `other`."""
    return base.model_copy(update={name: getattr(other, name) for name in other.model_fields_set})


class ConversationSettings(AgentToolSettings):
    """One talking agent."""

    greeting: str = "Hello, how can I help you?"
    """Empty: the caller speaks first. `{call.NAME}` stands for what `context` names, and for `{call.from}`,
    `{call.to}`; it is then spoken without preparation."""
    greeting_plain: str = "Hello, how can I help you?"
    """Said where the call lacks a fact that `greeting` names."""
    greeting_interruptible: bool = True
    brief: Brief = Field(default_factory=Brief)
    language: str = "en"
    """BCP 47; `auto`: the caller's, as far as the recogniser tells it, among `languages`."""
    languages: dict[str, LanguageSettings] = Field(default_factory=dict)
    """By BCP 47 code, what is different in a language. With `auto` they are the languages that the agent speaks, the
    first one is what it begins in; none: it begins in English and follows any."""
    voice: str = ""
    """The voice's own name; empty for its default."""
    time_zone: Annotated[str, AfterValidator(_time_zone)] = ""
    """IANA name, for "tomorrow at seven"; empty: the machine's."""
    turns: TurnSettings = Field(default_factory=TurnSettings)
    barge_in: BargeInSettings = Field(default_factory=BargeInSettings)
    limits: LimitSettings = Field(default_factory=LimitSettings)
    phrases: PhraseSettings = Field(default_factory=PhraseSettings)

    @model_validator(mode="after")
    def _tools_fit(self) -> Self:
        if wrong := self.clash(form.id for form in self.brief.forms):
            raise ValueError(wrong)
        target = self.brief.handover.target
        if target and target not in self.transfer.targets:
            try:
                target_of(target)
            except ValueError as error:
                raise ValueError(f"brief.handover.target: {error}, nor a name in transfer.targets") from error
        return self

    @model_validator(mode="after")
    def _greeting_is_known(self) -> Self:
        if not names_facts(self.greeting):
            return self
        try:
            named = parameters_in(self.greeting)
        except TemplateError as error:
            raise ValueError(f"greeting: {error}") from error
        facts = {*CALL_FACTS, *(PREFIX + name for name in self.context)}
        if unknown := [name for name in named if name not in facts]:
            raise ValueError(f"greeting names {{{unknown[0]}}}; there are: {', '.join(sorted(facts))}")
        return self

    @property
    def fixed_greeting(self) -> str:
        """The greeting of calls that it does not name a fact of."""
        return self.greeting_plain if names_facts(self.greeting) else self.greeting

    @property
    def first_language(self) -> str:
        """What the agent begins a call in (BCP 47)."""
        return self.language if self.language != AUTO else next(iter(self.languages), "en")

    def spoken_in(self, language: str) -> Self:
        """These settings as they are while the call is held in `language`."""
        given = self.languages.get(language)
        if given is None:
            return self.model_copy(update={"language": language})
        brief = self.brief
        texts = {name: getattr(given, name) for name in ("not_understood", "unknown", "goodbye")}
        changes: dict[str, object] = {name: text for name, text in texts.items() if text}
        if given.transfer:
            changes["handover"] = brief.handover.model_copy(update={"say": given.transfer})
        return self.model_copy(
            update={
                "language": language,
                "voice": given.voice or self.voice,
                "brief": brief.model_copy(update=changes),
                "phrases": _over(self.phrases, given.phrases),
                "turns": _over(self.turns, given.turns),
                "barge_in": _over(self.barge_in, given.barge_in),
            }
        )

    def spoken(self) -> tuple[Self, ...]:
        """These settings in each language that the agent may come to speak, the first one first."""
        first = self.first_language
        others = [language for language in self.languages if language != first] if self.language == AUTO else []
        # The greeting is said before anybody can know what the caller speaks.
        changed = [self.spoken_in(language).model_copy(update={"greeting": ""}) for language in others]
        return (self.spoken_in(first), *changed)

    def rote_phrases(self) -> tuple[str, ...]:
        """What the conversation itself says, whatever its model: texts as the voice will be asked for them, the most
        urgent first."""
        brief, phrases = self.brief, self.phrases
        texts = [
            self.fixed_greeting,
            phrases.apology,
            phrases.apology_handover if brief.handover.target else "",
            phrases.filler,
            *self.tool_phrases(),
            phrases.still_working,
            phrases.tool_failed,
            phrases.still_there,
            phrases.silence_goodbye,
            phrases.max_length_warning,
            phrases.max_length_goodbye,
            brief.goodbye,
            brief.not_understood,
            brief.handover.say,
        ]
        return tuple(dict.fromkeys(text for text in texts if text))

    def fixed_phrases(self) -> tuple[str, ...]:
        """The texts to synthesise at start: what must be there at once, then everything fixed that a model may say,
        sentence by sentence."""
        brief = self.brief
        spoken = [brief.anything_else, brief.unknown, brief.goodbye, brief.not_understood]
        spoken += [brief.handover.say, brief.handover.unavailable, abilities(brief)]
        for form in brief.forms:
            spoken += [form.opening, *(slot.ask for slot in form.slots), form.done, form.failed]
            spoken += [
                text for slot in form.slots for text in (slot.example, slot.too_low, slot.too_high, slot.closed_say)
            ]
        spoken += brief.phrases.model_dump().values()
        spoken += [fact.say for fact in brief.facts]
        clauses = [clause for text in spoken if "{" not in text for clause in split(text)]
        texts = [*self.rote_phrases(), *clauses]
        return tuple(dict.fromkeys(text for text in texts if text))


class EchoSettings(Strict):
    """The agent that sends back what it hears, for measuring plain bridging."""

    max_call_s: Annotated[int, Field(ge=1)] = 3600
    max_delay_ms: Annotated[int, Field(ge=20)] = 40
    """Audio waiting to be sent back; what comes on top is dropped, so that the delay never grows."""
