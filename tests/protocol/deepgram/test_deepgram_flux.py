"""Speech to text by Deepgram's Flux, against a stand-in: its own turns beside ours."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from deepgram import AsyncDeepgramClient
from deepgram.environment import DeepgramClientEnvironment
from deepgram.listen.v2.types import (
    ListenV2Configure,
    ListenV2ConfigureSuccess,
    ListenV2ConfigureThresholds,
    ListenV2Connected,
    ListenV2TurnInfo,
)
from deepgram_server import KEY, DeepgramServer
from standin_ear import quiet, tone
from stt_caller import Caller

from bridge.providers.base import Heard, SttEndpoint
from bridge.providers.deepgram.settings import DeepgramSettings
from bridge.providers.deepgram.stt import DeepgramStt

SCRIPT = ["I would like a table.", "For four people.", "Thank you."]


@pytest.fixture
async def server() -> AsyncIterator[DeepgramServer]:
    async with DeepgramServer(SCRIPT) as running:
        yield running


def stt(server: DeepgramServer, **options: Any) -> DeepgramStt:
    given = {"model": "flux-general-en", "settle_s": 10, **options}
    settings = DeepgramSettings(websocket_url=server.ws_url, stt=given)
    return DeepgramStt("flux", settings, environ={"DEEPGRAM_API_KEY": KEY})


async def test_partials_grow_and_a_pause_is_settled_by_what_flux_says_by_itself(server: DeepgramServer) -> None:
    async with Caller(stt(server)) as caller:
        await caller.speaks(1000)
        await caller.until(lambda: len(caller.partials) >= 2)
        assert caller.partials[0] == "I"
        await caller.pauses()
        assert (await caller.until_settled(1)).text == SCRIPT[0]
    assert {"type": "ForceEndTurn"} not in server.exchanges[0].texts


async def test_eager_and_final_ends_are_told_after_the_text_they_speak_of(server: DeepgramServer) -> None:
    async with Caller(stt(server)) as caller:
        await caller.says(1000)
        await caller.until(lambda: "end" in caller.endpoints)
    assert caller.endpoints == ["eager", "end"]
    eager = next(event for event in caller.events if isinstance(event, SttEndpoint))
    assert eager.confidence == 0.6
    told = [event for event in caller.events[: caller.events.index(eager)] if isinstance(event, Heard)]
    assert told[-1].text == SCRIPT[0]


async def test_an_eager_end_is_taken_back_when_the_caller_goes_on(server: DeepgramServer) -> None:
    server.script = ["My number is | five five five."]
    async with Caller(stt(server)) as caller:
        await caller.speaks(800)
        await caller.waits(240)
        await caller.until(lambda: "eager" in caller.endpoints)
        assert caller.heard[-1].text == "My number is"
        await caller.speaks(800)
        await caller.pauses()
        heard = await caller.until_settled(1)
        await caller.until(lambda: "end" in caller.endpoints)
    assert heard.text == "My number is five five five."
    assert caller.endpoints == ["eager", "resumed", "eager", "end"]


async def test_without_an_eager_threshold_there_are_no_eager_ends(server: DeepgramServer) -> None:
    async with Caller(stt(server, eager_eot_threshold=None)) as caller:
        await caller.says(1000)
        await caller.until(lambda: "end" in caller.endpoints)
    assert caller.endpoints == ["end"]


async def test_two_turns_of_flux_make_one_of_ours_until_it_is_committed(server: DeepgramServer) -> None:
    async with Caller(stt(server)) as caller:
        await caller.says(1000)
        await caller.until_settled(1)
        await caller.waits(700)
        await caller.says(600)
        assert (await caller.until_settled(2)).text == "I would like a table. For four people."
        await caller.waits(700)
        caller.stream.commit()
        await caller.says(600)
        assert (await caller.until_settled(3)).text == "Thank you."


async def test_committing_before_flux_would_end_its_turn_ends_it(server: DeepgramServer) -> None:
    async with Caller(stt(server)) as caller:
        await caller.says(1000)
        await caller.until_settled(1)
        caller.stream.commit()
        await server.until(lambda: {"type": "ForceEndTurn"} in server.exchanges[0].texts)
        await caller.waits(700)
        assert "end" not in caller.endpoints  # Ours is no sign of the caller's.
        await caller.says(600)
        assert (await caller.until_settled(2)).text == "For four people."


async def test_late_words_of_a_turn_that_is_over_never_get_into_the_next(server: DeepgramServer) -> None:
    async with Caller(stt(server, settle_s=30)) as caller:
        await caller.speaks(1000)
        await caller.until(lambda: bool(caller.partials))
        server.misbehave(stall="middle")
        await caller.pauses()
        caller.stream.commit()
        before = len(caller.heard)
        await caller.waits(700)
        server.behave()
        await caller.says(600)
        assert (await caller.until_settled(2)).text == "For four people."
        assert not any("table" in heard.text for heard in caller.heard[before:])


async def test_a_pause_after_flux_has_ended_the_turn_is_settled_at_once(server: DeepgramServer) -> None:
    async with Caller(stt(server)) as caller:
        await caller.speaks(1000)
        await caller.waits(420)
        await caller.until(lambda: "end" in caller.endpoints)
        caller.stream.speech_paused()
        assert caller.settled[-1].text == SCRIPT[0]


async def test_noise_without_words_settles_as_nothing(server: DeepgramServer) -> None:
    server.script = []
    async with Caller(stt(server)) as caller:
        await caller.says(200)
        assert (await caller.until_settled(1)).text == ""
        assert not caller.failures


async def test_a_stream_is_asked_for_as_the_settings_say(server: DeepgramServer) -> None:
    options = {"eot_threshold": 0.8, "eot_timeout_ms": 4000, "keyterms": ["Offhook"], "numerals": True}
    async with Caller(stt(server, **options), sample_rate=16000):
        pass
    (asked,) = server.exchanges
    assert asked.path == "/v2/listen"
    assert dict(asked.query) == {
        "model": ["flux-general-en"],
        "encoding": ["linear16"],
        "sample_rate": ["16000"],
        "eot_threshold": ["0.8"],
        "eager_eot_threshold": ["0.5"],
        "eot_timeout_ms": ["4000"],
        "keyterm": ["Offhook"],
        "numerals": ["true"],
    }


@pytest.mark.parametrize(
    ("configured", "language", "model", "hints"),
    [
        ("flux-general-en", "en-GB", "flux-general-en", []),
        ("flux-general-en", "auto", "flux-general-en", []),
        ("flux-general-en", "de-DE", "flux-general-multi", ["de"]),
        ("flux-general-multi", "auto", "flux-general-multi", []),
        ("flux-general-multi", "en", "flux-general-multi", ["en"]),
    ],
)
async def test_another_language_takes_the_multilingual_model(
    server: DeepgramServer, configured: str, language: str, model: str, hints: list[str]
) -> None:
    async with Caller(stt(server, model=configured), language=language):
        pass
    (asked,) = server.exchanges
    assert (asked.asked("model"), asked.query.get("language_hint", [])) == (model, hints)


async def test_language_is_detected_by_the_multilingual_model(server: DeepgramServer) -> None:
    server.language = "fr"
    async with Caller(stt(server, model="flux-general-multi"), language="auto") as caller:
        await caller.says(600)
        assert (await caller.until_settled(1)).language == "fr"


async def test_a_line_without_audio_is_kept_open_by_silence(
    server: DeepgramServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.providers.deepgram.stt.KEEP_ALIVE_S", 0.05)
    async with Caller(stt(server)) as caller:
        await server.until(lambda: len(server.exchanges[0].binary) >= 2)
        assert set(server.exchanges[0].binary) == {b"\xff" * 640}
        assert server.exchanges[0].texts == []
        assert not caller.failures


# -- what can go wrong ----------------------------------------------------------------------------------------------


async def test_a_fatal_error_ends_the_stream(server: DeepgramServer) -> None:
    async with Caller(stt(server)) as caller:
        server.misbehave(
            garbage='{"type": "Error", "sequence_id": 7, "code": "INTERNAL_SERVER_ERROR", "description": "sorry"}'
        )
        await caller.until(lambda: bool(caller.failures))
    (failure,) = caller.failures
    assert (failure.error, failure.fatal) == ("INTERNAL_SERVER_ERROR: sorry", True)
    await server.all_closed()


async def test_a_server_that_goes_silent_is_asked_once_more_and_then_given_up(server: DeepgramServer) -> None:
    async with Caller(stt(server, settle_s=0.2)) as caller:
        server.misbehave(stall="middle")
        await caller.says(600)
        await caller.until(lambda: bool(caller.failures))
        assert {"type": "ForceEndTurn"} in server.exchanges[0].texts
    assert caller.failures[0].fatal
    await server.all_closed()


@pytest.mark.parametrize(
    "garbage",
    [
        "{not json",
        '{"type": "TurnInfo"}',
        '{"type": "TurnInfo", "turn_index": "x", "audio_window_end": 1.0, "transcript": "t", "event": "Update"}',
        '{"type": "TurnInfo", "turn_index": 0, "audio_window_end": null, "transcript": "t", "event": "Update"}',
        '{"type": "TurnInfo", "turn_index": 0, "audio_window_end": 0.0, "transcript": "", "event": "Sneezed"}',
        '{"type": "Warning", "code": "X", "description": "y", "request_id": "r", "sequence_id": 1}',
        b"\0\1",
    ],
)
async def test_garbage_is_passed_over(server: DeepgramServer, garbage: str | bytes) -> None:
    async with Caller(stt(server)) as caller:
        server.misbehave(garbage=garbage)
        await caller.says(600)
        assert (await caller.until_settled(1)).text == SCRIPT[0]
        assert not caller.failures


async def test_probe_and_close_leave_nothing_open(server: DeepgramServer) -> None:
    assert await stt(server).probe() == "flux-general-en takes a stream"
    await server.all_closed()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_the_sdks_own_client_understands_every_message(server: DeepgramServer) -> None:
    server.language = "en"
    server.script = ["My number is | five five five."]
    client = AsyncDeepgramClient(
        api_key=KEY,
        environment=DeepgramClientEnvironment(
            base=server.http_url, production=server.ws_url, agent=server.ws_url, agent_rest=server.http_url
        ),
    )
    got = []
    async with client.listen.v2.connect(
        model="flux-general-multi", encoding="linear16", sample_rate=8000, eager_eot_threshold=0.4
    ) as socket:
        for part in (tone(800), quiet(240), tone(800), quiet(600)):
            for at in range(0, len(part), 1280):
                await socket.send_media(part[at : at + 1280])
        await socket.send_configure(
            ListenV2Configure(type="Configure", thresholds=ListenV2ConfigureThresholds(eot_threshold=0.8))
        )
        await socket.send_force_end_turn()
        await socket.send_close_stream()
        async for message in socket:
            got.append(message)
    assert {type(message) for message in got} == {ListenV2Connected, ListenV2TurnInfo, ListenV2ConfigureSuccess}
    events = [message.event for message in got if isinstance(message, ListenV2TurnInfo)]
    states = [event for event in events if event != "Update"]
    assert states == ["StartOfTurn", "EagerEndOfTurn", "TurnResumed", "EagerEndOfTurn", "EndOfTurn"]
    assert [message.sequence_id for message in got] == list(range(len(got)))
    for message in got:
        type(message).model_validate_json(message.model_dump_json(exclude_unset=True))
        assert not message.model_extra
