"""A call that changes over to the caller's language."""

from collections.abc import Sequence

from agents_call import Call, conversing
from agents_engines import Step

from bridge.agents.settings import ConversationSettings
from bridge.events import Note
from bridge.providers.base import LlmRequest

GERMAN = {
    "voice": "thorsten",
    "phrases": {"still_there": "Sind Sie noch da?"},
    "not_understood": "Wie bitte?",
    "turns": {"connectors": ["und", "oder"], "answers": ["ja", "nein"]},
    "barge_in": {"backchannels": ["ja", "genau"]},
}
BOTH = {"language": "auto", "languages": {"en": {}, "de": GERMAN}}


def by_language(request: LlmRequest) -> Sequence[Step]:
    return [0.1, "Gerne." if request.language == "de" else "Certainly."]


@conversing
async def test_the_agent_follows_the_caller_into_his_language() -> None:
    async with Call(by_language, **BOTH) as call:
        await call.agent_silent()
        assert call.stt.opened_in == ["auto"]
        call.stt.language = "en"
        await call.say("good morning to you")
        await call.agent_silent()
        call.stt.language = "de"
        await call.say("ich möchte einen tisch für vier personen")
        await call.agent_silent()
        assert call.heard().endswith("Certainly. Gerne.")
        assert [request.language for request in call.llm.requests][-1] == "de"
        assert call.tts.asked_as[-1] == ("Gerne.", "thorsten", "de")
        assert [(note.name, note.detail) for note in call.of(Note)] == [("language", "de")]
        await call.until(lambda: call.heard().endswith("Sind Sie noch da?"))
        await call.hang_up()
        call.assert_nothing_left()


@conversing
async def test_the_new_languages_words_decide_when_a_turn_is_over() -> None:
    async with Call(by_language, **BOTH) as call:
        call.stt.language = "de"
        await call.agent_silent()
        await call.say("ich möchte einen tisch für vier personen")
        await call.agent_silent()
        said_at = await call.say("für morgen und")
        await call.agent_speaks()
        assert call.now - said_at > 1.2


@conversing
async def test_a_fixed_language_stays_and_has_its_own_phrases() -> None:
    async with Call(by_language, language="de", languages={"de": GERMAN}) as call:
        assert call.settings.first_language == "de"
        call.stt.language = "en"
        await call.agent_silent()
        await call.say("i would like a table for four people please")
        await call.agent_silent()
        assert call.llm.requests[-1].language == "de" and call.stt.opened_in == ["de"]
        assert call.of(Note) == []
        await call.until(lambda: call.heard().endswith("Sind Sie noch da?"))


def test_settings_of_a_language_lie_over_the_agents() -> None:
    settings = ConversationSettings(**{**BOTH, "voice": "joe", "phrases": {"filler": "Just a second."}})
    english, german = settings.spoken()
    assert (english.language, english.voice, english.phrases.still_there) == ("en", "joe", "Are you still there?")
    assert (german.language, german.voice, german.phrases.still_there) == ("de", "thorsten", "Sind Sie noch da?")
    assert german.phrases.filler == "Just a second."
    assert german.brief.not_understood == "Wie bitte?" and german.brief.goodbye == english.brief.goodbye
    assert german.turns.connectors == ("und", "oder") and german.turns.fillers == english.turns.fillers
    assert english.greeting and not german.greeting
    assert ConversationSettings(language="auto").first_language == "en"
    assert ConversationSettings(language="fr").spoken()[0].language == "fr"
