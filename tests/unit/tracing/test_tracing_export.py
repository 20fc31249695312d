"""How the exporter is configured, and what the log says of each turn."""

import pytest
import structlog
from pydantic import ValidationError

from bridge.check import check
from bridge.config import Config, TracingSettings
from bridge.events import BargeIn, TurnDelays, TurnEnded
from bridge.span_export import TracingError, headers_of, traces_url
from bridge.store.records import Recorded
from bridge.turn_log import log_turn


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("http://localhost:4318", "http://localhost:4318/v1/traces"),
        ("http://localhost:4318/", "http://localhost:4318/v1/traces"),
        ("https://otlp.example.com/api/v1/otel/v1/traces", "https://otlp.example.com/api/v1/otel/v1/traces"),
    ],
)
def test_endpoint_without_a_path_gets_the_usual_one(endpoint: str, url: str) -> None:
    assert traces_url(endpoint) == url


def test_headers_come_from_the_environment() -> None:
    environ = {"KEYS": "Authorization=Bearer%20abc=, x-team = phones ,"}
    assert headers_of("KEYS", environ) == {"authorization": "Bearer abc=", "x-team": "phones"}
    assert headers_of("", environ) == {}


@pytest.mark.parametrize(("value", "said"), [("", "is not set"), ("secret-without-name", "is not written as")])
def test_wrong_headers_are_said_without_showing_them(value: str, said: str) -> None:
    with pytest.raises(TracingError, match=said) as caught:
        headers_of("KEYS", {"KEYS": value})
    assert "secret" not in str(caught.value)


def test_check_finds_headers_that_are_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOT_THERE", raising=False)
    tracing = TracingSettings(otlp_endpoint="http://localhost:4318", headers_env="NOT_THERE")
    problems = check(Config(tracing=tracing))
    assert any("NOT_THERE is not set" in problem for problem in problems)


@pytest.mark.parametrize("endpoint", ["localhost:4318", "grpc://localhost:4317", "http://"])
def test_endpoint_that_is_no_http_address_is_refused(endpoint: str) -> None:
    with pytest.raises(ValidationError, match="otlp_endpoint"):
        TracingSettings(otlp_endpoint=endpoint)


def test_each_turn_of_the_agent_is_one_line_with_its_parts_and_no_words() -> None:
    delays = TurnDelays(500.4, 0.0, 100.0, 150.0, 800.0, "openai/m", playout_ms=10.0, stt="deepgram", tts="cartesia")
    turn = TurnEnded(3, "agent", "a secret", 0.0, 900.0, "a secret", 900.0, True, delays)
    caller = TurnEnded(2, "caller", "a secret", 0.0, 900.0, "a secret", 900.0)
    with structlog.testing.capture_logs() as lines:
        for event in (caller, turn, BargeIn(800.0, False, "backchannel: a secret", 240.0)):
            log_turn(Recorded("c1", 0, 0.0, event))
    assert lines == [
        {
            "event": "turn",
            "log_level": "info",
            "call": "c1",
            "index": 3,
            "reply_ms": 800,
            "endpoint_ms": 500,
            "stt_ms": 0,
            "llm_ms": 100,
            "tts_ms": 150,
            "playout_ms": 10,
            "rest_ms": 40,
            "stt": "deepgram",
            "llm": "openai/m",
            "tts": "cartesia",
            "heard_ms": 900,
            "interrupted": True,
        },
        {
            "event": "barge-in over",
            "log_level": "debug",
            "call": "c1",
            "confirmed": False,
            "reason": "backchannel",
            "pause_ms": 240,
            "at_ms": 800,
        },
    ]
