"""Realtime transcription sessions, through the SDK, against a stand-in that speaks the documented events."""

import base64
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from openai_transcription_server import TranscriptionServer
from stt_talk import Talk

from bridge.providers.base import (
    ProviderBusyError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    SttEndpoint,
)
from bridge.providers.openai.settings import OpenAiSettings, OpenAiSttSettings
from bridge.providers.openai.stt import OpenAiStt

KEY = "sk-proj-session0123456789"

MakeStt = Callable[..., OpenAiStt]


@pytest.fixture
async def server() -> AsyncIterator[TranscriptionServer]:
    async with TranscriptionServer(key=KEY) as server:
        yield server


@pytest.fixture
async def make_stt(server: TranscriptionServer) -> AsyncIterator[MakeStt]:
    made: list[OpenAiStt] = []

    def make(*, connect_s: float = 20.0, **settings: Any) -> OpenAiStt:
        whole = OpenAiSettings(
            base_url=server.base_url, api_key_env="K", connect_s=connect_s, stt=OpenAiSttSettings(**settings)
        )
        made.append(OpenAiStt("openai", whole, environ={"K": KEY}))
        return made[-1]

    yield make
    for stt in made:
        await stt.aclose()


@pytest.fixture
async def talk(server: TranscriptionServer, make_stt: MakeStt) -> AsyncIterator[Talk]:
    """A caller whose ear is open; at the end nothing is left open."""
    talk = await Talk.open(make_stt())
    yield talk
    await talk.stream.aclose()
    await server.all_closed()


def sent(server: TranscriptionServer, number: int = 0) -> list[str]:
    """The kinds of events that the client sent, runs of audio as one."""
    kinds = [message["type"].removeprefix("input_audio_buffer.") for message in server.exchanges[number].texts]
    return [kind for at, kind in enumerate(kinds) if at == 0 or kind != "append" or kinds[at - 1] != "append"]


def audio_ms(server: TranscriptionServer) -> float:
    """Audio that came, in mu-law."""
    messages = server.exchanges[0].texts
    return sum(len(base64.b64decode(message["audio"])) for message in messages if "audio" in message) / 8


async def test_text_comes_while_the_caller_speaks_and_is_settled_at_his_pause(
    server: TranscriptionServer, talk: Talk
) -> None:
    server.script.append("I need a table for four.")
    talk.silence(1000)
    talk.say(900)
    settled = await talk.settle(1)
    assert (settled.text, settled.settled, settled.pause) == ("I need a table for four.", True, 1)
    assert talk.partials[:2] == ["I", "I need"]
    assert sent(server) == ["session.update", "append", "commit"]
    # The second of silence is not sent, but for 380 ms in which voice had begun.
    assert audio_ms(server) == 380 - 100 + 900 + 200


async def test_the_session_is_set_up_as_configured(server: TranscriptionServer, make_stt: MakeStt) -> None:
    stt = make_stt(
        model="gpt-realtime-whisper", prompt="A restaurant.", keywords=("Caprese",), noise_reduction="near_field",
        delay="low",
    )  # fmt: skip
    talk = await Talk.open(stt, language="de-AT")
    assert server.exchanges[0].headers["authorization"] == f"Bearer {KEY}"
    session = server.exchanges[0].texts[0]["session"]
    assert session == {
        "type": "transcription",
        "audio": {
            "input": {
                "format": {"type": "audio/pcmu"},
                "transcription": {
                    "model": "gpt-realtime-whisper",
                    "language": "de",
                    "prompt": "A restaurant.",
                    "keywords": ["Caprese"],
                    "delay": "low",
                },
                "turn_detection": None,
                "noise_reduction": {"type": "near_field"},
            }
        },
    }
    await talk.stream.aclose()


@pytest.mark.parametrize("rate", [16000, 24000, 48000])
async def test_wideband_audio_goes_at_24_khz(rate: int, server: TranscriptionServer, make_stt: MakeStt) -> None:
    server.script.append("Hello there.")
    talk = await Talk.open(make_stt(), sample_rate=rate, language="auto")
    talk.say(600)
    assert (await talk.settle(1)).text == "Hello there."
    sound = server.exchanges[0].texts[0]["session"]["audio"]["input"]
    assert sound["format"] == {"type": "audio/pcm", "rate": 24000}
    assert "language" not in sound["transcription"]
    await talk.stream.aclose()


async def test_a_turn_of_several_pauses_grows(server: TranscriptionServer, talk: Talk) -> None:
    server.script += ["I need a table", "for four"]
    server.language = "en"
    talk.say()
    assert (await talk.settle(1)).text == "I need a table"
    talk.silence(100)
    talk.say()
    settled = await talk.settle(2)
    assert (settled.text, settled.language) == ("I need a table for four", "en")


async def test_the_next_turn_starts_anew(server: TranscriptionServer, talk: Talk) -> None:
    server.script += ["Hello.", "Goodbye."]
    talk.say()
    await talk.settle(1)
    talk.stream.commit()
    talk.say()
    assert (await talk.settle(2)).text == "Goodbye."


async def test_a_late_text_of_the_old_turn_never_gets_into_the_new_one(
    server: TranscriptionServer, talk: Talk
) -> None:
    server.script += ["Old words.", "New."]
    server.holding = True
    talk.say()
    await server.until(lambda: bool(server.sessions[0].held))
    talk.stream.commit()
    told = len(talk.events)
    talk.say()
    await server.until(lambda: len(server.sessions[0].held) == 2)
    await server.release()
    assert (await talk.settle(2)).text == "New."
    assert not any("Old" in heard.text for heard in talk.heard[told:])


async def test_a_turn_that_ends_in_speech_takes_its_words_along(server: TranscriptionServer, talk: Talk) -> None:
    server.script += ["Interrupting you here", "and now this"]
    talk.speak(800)
    await talk.until(lambda: "Interrupting" in talk.partials)
    talk.stream.commit()
    told = len(talk.events)
    talk.audio(bytes(320) * 5)
    talk.speak(300)
    talk.pause()
    assert (await talk.settle(1)).text == "and now this"
    assert not any("Interrupting" in heard.text for heard in talk.heard[told:])
    assert "clear" in sent(server)


async def test_a_pause_with_nothing_in_it_is_settled_with_what_is_known(
    server: TranscriptionServer, talk: Talk
) -> None:
    server.script.append("Yes.")
    talk.say()
    await talk.settle(1)
    talk.stream.speech_started()
    talk.stream.speech_paused()
    assert (await talk.settle(2)).text == "Yes."


async def test_two_pauses_in_a_row_are_answered_once_both_texts_are_there(
    server: TranscriptionServer, talk: Talk
) -> None:
    server.script += ["One", "two"]
    server.holding = True
    talk.say()
    talk.say()
    await server.until(lambda: len(server.sessions[0].held) == 2)
    await server.release()
    assert (await talk.settle(2)).text == "One two"
    assert [heard.pause for heard in talk.settled] == [2]


async def test_a_model_that_has_no_partials_settles_all_the_same(
    server: TranscriptionServer, make_stt: MakeStt
) -> None:
    server.script.append("Hello there.")
    talk = await Talk.open(make_stt(model="gpt-transcribe"))
    talk.say()
    assert (await talk.settle(1)).text == "Hello there."
    await talk.stream.aclose()


# -- the server's own voice activity ----------------------------------------------------------------------------


async def test_the_servers_pauses_are_signs_of_the_turns_end(server: TranscriptionServer, make_stt: MakeStt) -> None:
    server.script += ["Hello there.", "Goodbye."]
    talk = await Talk.open(make_stt(turn_detection="server_vad"))
    assert server.exchanges[0].texts[0]["session"]["audio"]["input"]["turn_detection"] == {"type": "server_vad"}
    talk.say()
    talk.silence(600)
    assert (await talk.settle(1)).text == "Hello there."
    assert talk.endpoints == [SttEndpoint("end")]
    # It is told after the text that it is about.
    assert talk.events.index(talk.endpoints[0]) > 0
    talk.stream.commit()
    talk.speak()
    talk.silence(700)
    await talk.until(lambda: len(talk.endpoints) == 2)
    talk.stream.speech_paused()
    assert (await talk.settle(2)).text == "Goodbye."
    assert sent(server).count("commit") == 0
    await talk.stream.aclose()


async def test_a_pause_that_the_server_does_not_find_is_committed_for_it(
    server: TranscriptionServer, make_stt: MakeStt
) -> None:
    server.script.append("Hello there.")
    talk = await Talk.open(make_stt(turn_detection="semantic_vad", settle_s=0.4))
    talk.say()
    assert (await talk.settle(1)).text == "Hello there."
    assert sent(server)[-1] == "commit"
    await talk.stream.aclose()


async def test_what_the_server_commits_late_is_of_the_old_turn(
    server: TranscriptionServer, make_stt: MakeStt
) -> None:
    server.script += ["Old words here.", "New."]
    talk = await Talk.open(make_stt(turn_detection="server_vad"))
    talk.speak(800)
    await talk.until(lambda: bool(talk.partials))
    talk.stream.commit()
    told = len(talk.events)
    talk.silence(700)
    talk.speak(300)
    talk.silence(700)
    talk.stream.speech_paused()
    assert (await talk.settle(1)).text == "New."
    assert not any("Old" in heard.text for heard in talk.heard[told:])
    await talk.stream.aclose()


# -- misbehaviour -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "error"), [(401, ProviderUnavailableError), (429, ProviderBusyError), (500, ProviderError)]
)
async def test_a_refused_handshake_says_why_and_hides_the_key(
    status: int, error: type[ProviderError], server: TranscriptionServer, make_stt: MakeStt
) -> None:
    server.misbehave(status=status, body={"error": {"message": f"Incorrect API key provided: {KEY}"}})
    with pytest.raises(error, match=str(status)) as caught:
        await Talk.open(make_stt())
    assert KEY not in str(caught.value)
    await server.all_closed()


async def test_a_key_refused_after_the_upgrade(server: TranscriptionServer, make_stt: MakeStt) -> None:
    server.key = "sk-another-key-0123456789"
    with pytest.raises(ProviderUnavailableError, match="check K") as caught:
        await Talk.open(make_stt())
    assert KEY not in str(caught.value)
    await server.all_closed()


async def test_an_unknown_model(server: TranscriptionServer, make_stt: MakeStt) -> None:
    with pytest.raises(ProviderError, match="'nothing' does not exist"):
        await Talk.open(make_stt(model="nothing"))
    await server.all_closed()


async def test_nobody_listening(server: TranscriptionServer, make_stt: MakeStt) -> None:
    stt = make_stt()
    await server.down()
    with pytest.raises(ProviderUnavailableError, match="can't be reached"):
        await Talk.open(stt)
    await server.up()
    await (await Talk.open(stt)).stream.aclose()


@pytest.mark.parametrize("fault", [{"stall": "answer"}, {"stall": "middle"}, {"deaf": True}])
async def test_a_server_that_does_not_set_up(
    fault: dict[str, Any], server: TranscriptionServer, make_stt: MakeStt
) -> None:
    server.misbehave(**fault)
    with pytest.raises(ProviderTimeoutError, match=r"no (session|connection) within 0\.3 s"):
        await Talk.open(make_stt(connect_s=0.3))
    server.behave()
    await server.all_closed()


async def test_garbage_before_the_set_up_is_passed_over(server: TranscriptionServer, make_stt: MakeStt) -> None:
    server.misbehave(garbage="hello?")
    await (await Talk.open(make_stt())).stream.aclose()
    await server.all_closed()


@pytest.mark.parametrize("code", [1000, 1011])
async def test_a_session_closed_in_the_middle_of_an_utterance(
    code: int, server: TranscriptionServer, talk: Talk
) -> None:
    talk.speak(400)
    await server.until(lambda: "append" in sent(server))
    server.close_all(code, f"why {KEY}")
    failure = await talk.failure()
    assert "closed the connection" in failure
    assert KEY not in failure
    talk.say()
    assert len(talk.failures) == 1


async def test_a_lost_connection(server: TranscriptionServer, talk: Talk) -> None:
    talk.speak(400)
    server.drop_all()
    assert "the connection was lost" in await talk.failure()


async def test_garbage_is_no_text(server: TranscriptionServer, talk: Talk) -> None:
    server.script.append("Hello there.")
    for garbage in ("{nonsense", "[]", '{"type": 7}', b"\xff\xfe", '{"type": "error", "error": 3}'):
        server.misbehave(garbage=garbage, times=1)
    server.misbehave(garbage='{"type":"conversation.item.input_audio_transcription.delta","item_id":3,"delta":{}}')
    talk.say()
    assert (await talk.settle(1)).text == "Hello there."


async def test_a_server_gone_silent_fails_in_time(server: TranscriptionServer, make_stt: MakeStt) -> None:
    server.script.append("Hello.")
    talk = await Talk.open(make_stt(settle_s=0.3))
    server.misbehave(stall="middle")
    talk.say()
    assert "silent" in await talk.failure()
    await talk.stream.aclose()
    await server.all_closed()


async def test_an_item_that_can_not_be_transcribed(server: TranscriptionServer, talk: Talk) -> None:
    server.fail_next = 1
    talk.say()
    assert "could not transcribe: The audio could not be read." in await talk.failure()


async def test_an_error_in_the_session_ends_it(server: TranscriptionServer, talk: Talk) -> None:
    message = f"Your session hit the maximum duration of 60 minutes. {KEY}"
    await server.sessions[0].say("error", error={"type": "x", "code": "session_expired", "message": message})
    failure = await talk.failure()
    assert "maximum duration" in failure
    assert KEY not in failure


async def test_a_server_that_takes_no_audio_costs_no_memory_and_is_left_in_time(
    server: TranscriptionServer, make_stt: MakeStt
) -> None:
    talk = await Talk.open(make_stt())
    server.misbehave(deaf=True)
    talk.speak(200)
    for _ in range(40):
        talk.audio(bytes(16000))
    assert "takes no audio" in await talk.failure()
    await talk.stream.aclose()
    server.behave()
    await server.all_closed()
