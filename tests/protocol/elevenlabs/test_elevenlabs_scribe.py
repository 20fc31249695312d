"""ElevenLabs' Scribe, against a stand-in that the SDK's own class can talk to."""

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from elevenlabs.realtime.connection import RealtimeEvents
from elevenlabs.realtime.scribe import AudioFormat, ScribeRealtime
from scribe_server import KEY, Scribe
from standin_ear import tone
from stt_talk import Talk

from bridge.audio.codec import PCMU
from bridge.providers.base import (
    ProviderBusyError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    SttEndpoint,
)
from bridge.providers.elevenlabs.settings import ElevenLabsSettings
from bridge.providers.elevenlabs.stt import ElevenLabsStt

Make = Callable[..., ElevenLabsStt]


@pytest.fixture
async def scribe() -> AsyncIterator[Scribe]:
    async with Scribe() as scribe:
        yield scribe


@pytest.fixture
def make_stt(scribe: Scribe) -> Make:
    def make(connect_s: float = 20.0, key: str = KEY, **stt: Any) -> ElevenLabsStt:
        settings = ElevenLabsSettings.model_validate(
            {"base_url": scribe.http_url, "connect_s": connect_s, "stt": stt}
        )
        return ElevenLabsStt("elevenlabs", settings, environ={"ELEVENLABS_API_KEY": key})

    return make


@pytest.fixture
async def talk(scribe: Scribe, make_stt: Make) -> AsyncIterator[Talk]:
    """A caller whose ear is open; at the end nothing is left open."""
    talk = await Talk.open(make_stt())
    yield talk
    await talk.stream.aclose()
    await scribe.all_closed()


def commits(scribe: Scribe) -> int:
    return sum(message["commit"] for message in scribe.exchanges[0].texts)


async def test_the_sdks_own_class_understands_the_stand_in(scribe: Scribe) -> None:
    scribe.script.append("Hello there.")
    client = ScribeRealtime(api_key=KEY, base_url=scribe.ws_url)
    connection = await client.connect(
        {"model_id": "scribe_v2_realtime", "audio_format": AudioFormat.ULAW_8000, "sample_rate": 8000}
    )
    heard: list[str] = []
    done = asyncio.Event()

    def committed(message: dict[str, Any]) -> None:
        heard.append(message["text"])
        done.set()

    connection.on(RealtimeEvents.PARTIAL_TRANSCRIPT, lambda message: heard.append(message["text"]))
    connection.on(RealtimeEvents.COMMITTED_TRANSCRIPT, committed)
    await connection.send({"audio_base_64": base64.b64encode(PCMU.encoder()(tone(600))).decode()})
    await connection.commit()
    async with asyncio.timeout(30):
        await done.wait()
    await connection.close()
    assert heard == ["Hello", "Hello there."]


async def test_text_comes_while_the_caller_speaks_and_is_settled_at_his_pause(scribe: Scribe, talk: Talk) -> None:
    scribe.script.append("I need a table for four.")
    talk.silence(500)
    talk.say(900)
    settled = await talk.settle(1)
    assert (settled.text, settled.pause) == ("I need a table for four.", 1)
    assert talk.partials[:2] == ["I", "I need"]
    socket = scribe.exchanges[0]
    assert socket.headers["xi-api-key"] == KEY
    assert {name: socket.asked(name) for name in socket.query} == {
        "model_id": "scribe_v2_realtime",
        "audio_format": "ulaw_8000",
        "commit_strategy": "manual",
        "language_code": "en",
    }
    assert commits(scribe) == 1
    assert sum(len(base64.b64decode(message["audio_base_64"])) for message in socket.texts) == (500 + 900 + 200) * 8


async def test_settings_go_into_the_url(scribe: Scribe, make_stt: Make) -> None:
    stt = make_stt(
        commit="vad",
        vad_silence_s=0.5,
        keyterms=("Caprese", "Da Mario"),
        no_verbatim=True,
        filter_background_audio=True,
        zero_retention=True,
    )
    talk = await Talk.open(stt, language="auto")
    socket = scribe.exchanges[0]
    assert socket.query["keyterms"] == ["Caprese", "Da Mario"]
    wanted = {
        "commit_strategy": "vad",
        "vad_silence_threshold_secs": "0.5",
        "no_verbatim": "true",
        "filter_background_audio": "true",
        "enable_logging": "false",
        "include_language_detection": "true",
    }
    assert {name: socket.asked(name) for name in wanted} == wanted
    assert "language_code" not in socket.query
    await talk.stream.aclose()


@pytest.mark.parametrize(("rate", "wire"), [(16000, "pcm_16000"), (24000, "pcm_24000"), (48000, "pcm_16000")])
async def test_wideband_audio_is_linear(rate: int, wire: str, scribe: Scribe, make_stt: Make) -> None:
    scribe.script.append("Hello.")
    talk = await Talk.open(make_stt(), sample_rate=rate)
    talk.say()
    assert (await talk.settle(1)).text == "Hello."
    assert scribe.exchanges[0].asked("audio_format") == wire
    await talk.stream.aclose()


async def test_a_turn_of_several_pauses_grows_and_the_next_starts_anew(scribe: Scribe, talk: Talk) -> None:
    scribe.script += ["I need a table", "for four", "Goodbye."]
    talk.say()
    assert (await talk.settle(1)).text == "I need a table"
    talk.silence(200)
    talk.say()
    assert (await talk.settle(2)).text == "I need a table for four"
    talk.stream.commit()
    talk.silence(1000)
    talk.say()
    assert (await talk.settle(3)).text == "Goodbye."


async def test_a_late_text_of_the_old_turn_never_gets_into_the_new_one(scribe: Scribe, talk: Talk) -> None:
    scribe.script += ["Old words here.", "New words."]
    scribe.holding = True
    talk.say()
    await scribe.until(lambda: bool(scribe.sessions[0].held))
    talk.stream.commit()
    told = len(talk.events)
    talk.say()
    await scribe.until(lambda: len(scribe.sessions[0].held) == 2)
    await scribe.release()
    assert (await talk.settle(2)).text == "New words."
    assert not any("Old" in heard.text for heard in talk.heard[told:])


async def test_a_turn_that_ends_in_speech_takes_its_words_along(scribe: Scribe, talk: Talk) -> None:
    scribe.script += ["Interrupting you here", "and now this"]
    talk.speak(800)
    await talk.until(lambda: "Interrupting" in talk.partials)
    talk.stream.commit()
    told = len(talk.events)
    talk.audio(tone(500))
    talk.pause()
    assert (await talk.settle(1)).text == "and now this"
    assert not any("Interrupting" in heard.text for heard in talk.heard[told:])
    assert commits(scribe) == 2


async def test_a_pause_with_too_little_in_it_is_settled_with_what_is_known(scribe: Scribe, talk: Talk) -> None:
    scribe.script.append("Yes.")
    talk.say()
    await talk.settle(1)
    talk.stream.speech_started()
    talk.silence(200)
    talk.stream.speech_paused()
    assert (await talk.settle(2)).text == "Yes."
    assert commits(scribe) == 1


async def test_the_language_is_told_where_it_is_detected(scribe: Scribe, make_stt: Make) -> None:
    scribe.script += ["Grüß Gott.", "Grüß Gott."]
    scribe.language = "de"
    talk = await Talk.open(make_stt(), language="auto")
    for pause in (1, 2):
        talk.say()
        await talk.until(lambda pause=pause: bool(talk.settled) and talk.settled[-1].pause == pause)
        await talk.until(lambda: talk.heard[-1].language == "de")
    assert talk.heard[-1].text == "Grüß Gott. Grüß Gott."
    await talk.stream.aclose()


async def test_texts_that_come_twice_are_heard_once(scribe: Scribe, talk: Talk) -> None:
    scribe.always_detailed = True
    scribe.script += ["One", "two"]
    talk.say()
    await talk.settle(1)
    talk.say()
    assert (await talk.settle(2)).text == "One two"


async def test_the_servers_pauses_are_signs_of_the_turns_end(scribe: Scribe, make_stt: Make) -> None:
    scribe.script += ["Hello there.", "Goodbye."]
    talk = await Talk.open(make_stt(commit="vad"))
    talk.say()
    talk.silence(500)
    assert (await talk.settle(1)).text == "Hello there."
    assert talk.endpoints == [SttEndpoint("end")]
    talk.stream.commit()
    talk.speak(600)
    talk.silence(700)
    await talk.until(lambda: len(talk.endpoints) == 2)
    talk.stream.speech_paused()
    assert (await talk.settle(2)).text == "Goodbye."
    assert commits(scribe) == 0
    await talk.stream.aclose()


async def test_a_pause_that_the_server_does_not_find_is_settled_with_what_is_known(
    scribe: Scribe, make_stt: Make
) -> None:
    scribe.script.append("Hello there my friend.")
    talk = await Talk.open(make_stt(commit="vad", settle_s=0.4))
    talk.say(800)
    assert (await talk.settle(1)).text.startswith("Hello")
    await talk.stream.aclose()


# -- misbehaviour -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "error"), [(401, ProviderUnavailableError), (429, ProviderBusyError), (500, ProviderError)]
)
async def test_a_refused_handshake_says_why_and_hides_the_key(
    status: int, error: type[ProviderError], scribe: Scribe, make_stt: Make
) -> None:
    scribe.misbehave(status=status, body={"detail": {"status": "x", "message": f"not {KEY}"}})
    with pytest.raises(error, match=str(status)) as caught:
        await Talk.open(make_stt())
    assert KEY not in str(caught.value)
    await scribe.all_closed()


@pytest.mark.parametrize(
    ("kind", "error", "hint"),
    [
        ("auth_error", ProviderUnavailableError, "check ELEVENLABS_API_KEY"),
        ("quota_exceeded", ProviderUnavailableError, "no credit left"),
        ("rate_limited", ProviderBusyError, "takes no more"),
        ("queue_overflow", ProviderBusyError, "takes no more"),
        ("resource_exhausted", ProviderBusyError, "takes no more"),
        ("unaccepted_terms", ProviderUnavailableError, "unaccepted_terms"),
        ("transcriber_error", ProviderError, "transcriber_error"),
    ],
)
async def test_a_session_that_is_refused_after_the_upgrade(
    kind: str, error: type[ProviderError], hint: str, scribe: Scribe, make_stt: Make
) -> None:
    scribe.refuses = (kind, f"no, {KEY}")
    with pytest.raises(error, match=hint) as caught:
        await Talk.open(make_stt())
    assert KEY not in str(caught.value)
    await scribe.all_closed()


async def test_a_wrong_key_and_a_wrong_model(scribe: Scribe, make_stt: Make) -> None:
    with pytest.raises(ProviderUnavailableError, match="the key was refused") as caught:
        await make_stt(key="sk_another0123456789").probe()
    assert "sk_another" not in str(caught.value)
    with pytest.raises(ProviderError, match="Invalid model_id nothing"):
        await make_stt(model="nothing").probe()
    assert await make_stt().probe() == "scribe_v2_realtime takes a session"
    await scribe.all_closed()


@pytest.mark.parametrize("fault", [{"stall": "answer"}, {"stall": "middle"}])
async def test_a_session_that_does_not_begin(fault: dict[str, Any], scribe: Scribe, make_stt: Make) -> None:
    scribe.misbehave(**fault)
    with pytest.raises(ProviderTimeoutError, match=r"within 0\.2 s"):
        await Talk.open(make_stt(connect_s=0.2))
    await scribe.all_closed()


async def test_nobody_listening_and_back_again(scribe: Scribe, make_stt: Make) -> None:
    await scribe.down()
    with pytest.raises(ProviderUnavailableError, match="can't be reached"):
        await Talk.open(make_stt())
    await scribe.up()
    await (await Talk.open(make_stt())).stream.aclose()


@pytest.mark.parametrize(
    "kind", ["session_time_limit_exceeded", "insufficient_audio_activity", "transcriber_error", "error"]
)
async def test_an_error_in_the_session_ends_it(kind: str, scribe: Scribe, talk: Talk) -> None:
    await scribe.sessions[0].socket.json({"message_type": kind, "error": f"why {KEY}"})
    failure = await talk.failure()
    assert kind in failure
    assert KEY not in failure


async def test_warnings_and_unknown_messages_are_passed_over(scribe: Scribe, talk: Talk) -> None:
    scribe.script.append("Hello there.")
    for content in ({"message_type": "warning", "warning": "x"}, {"message_type": "news"}, {"text": 3}, 7, None):
        await scribe.sessions[0].socket.json(content)
    scribe.misbehave(garbage="{nonsense", times=1)
    scribe.misbehave(garbage=b"\xff\xfe", times=1)
    talk.say()
    assert (await talk.settle(1)).text == "Hello there."


@pytest.mark.parametrize("code", [1000, 1011])
async def test_a_session_closed_in_the_middle_of_an_utterance(code: int, scribe: Scribe, talk: Talk) -> None:
    talk.speak(400)
    scribe.close_all(code, f"why {KEY}")
    failure = await talk.failure()
    assert "closed the connection" in failure
    assert KEY not in failure


async def test_a_lost_connection(scribe: Scribe, talk: Talk) -> None:
    talk.speak(400)
    scribe.drop_all()
    assert "the connection was lost" in await talk.failure()


async def test_a_server_gone_silent_fails_in_time(scribe: Scribe, make_stt: Make) -> None:
    talk = await Talk.open(make_stt(settle_s=0.3))
    scribe.misbehave(stall="middle")
    talk.say()
    assert "silent" in await talk.failure()
    await talk.stream.aclose()
    await scribe.all_closed()


async def test_a_server_that_takes_no_audio_is_left_in_time(scribe: Scribe, make_stt: Make) -> None:
    talk = await Talk.open(make_stt())
    scribe.misbehave(deaf=True)
    for _ in range(40):
        talk.audio(bytes(16000))
    assert "takes no audio" in await talk.failure()
    await talk.stream.aclose()
    scribe.behave()
    await scribe.all_closed()


def test_a_missing_key_is_named() -> None:
    with pytest.raises(ProviderUnavailableError, match="ELEVENLABS_API_KEY"):
        ElevenLabsStt("elevenlabs", ElevenLabsSettings(), environ={})
