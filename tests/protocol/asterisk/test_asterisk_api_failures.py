"""What the HTTP API answers while Asterisk fails in each way: never 500, never a secret, and whether to try again."""

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from ari_server import AriServer
from test_asterisk_bridge import pbx, running, until, with_asterisks

from bridge.app import Bridge

REQUEST_S = 0.3
SECRET = "s3cret-of-ari"


@pytest.fixture(autouse=True)
def password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARI_PASSWORD", SECRET)


@asynccontextmanager
async def with_a_call(tmp_path: Path, ari: AriServer) -> AsyncIterator[tuple[Bridge, httpx.AsyncClient, str]]:
    """A bridge with a live call on channel `c1`, and its API."""
    async with running(with_asterisks(tmp_path, pbx(ari, request_s=REQUEST_S, reconnect_s=0.2))) as bridge:
        await ari.call_in("c1", args=["agent=echo"])
        await until(lambda: any(call.answered_at for call in bridge.live_calls()))
        key = (bridge.config.data_dir / "api-key").read_text().strip()
        client = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{bridge.http.port}", headers={"Authorization": f"Bearer {key}"}, timeout=30
        )
        async with client:
            yield bridge, client, bridge.live_calls()[0].id


def refuses(ari: AriServer) -> None:
    for method in ("GET", "POST", "PUT", "DELETE"):
        ari.answer_with(method, "", 500, {"message": "Allocation failed"})


def does_not_answer(ari: AriServer) -> None:
    ari.hold("")  # whatever is asked


REQUESTS: tuple[tuple[str, str, Any], ...] = (
    ("POST", "", {"to": "PJSIP/1001", "trunk": "pbx", "agent": "echo"}),
    ("POST", "", {"to": "1001", "trunk": "pbx", "agent": "echo"}),
    ("POST", "", {"to": "queue:support", "trunk": "pbx", "agent": "echo"}),
    ("POST", "/ID/supervise", {"endpoint": "PJSIP/2001"}),
    ("PUT", "/ID/hold", None),
    ("PUT", "/ID/variables", {"variables": {"A": "x"}}),
)

FAILURES: tuple[tuple[Callable[[AriServer], None], int, str], ...] = (
    (refuses, 502, "trunk-refused"),
    (does_not_answer, 504, "trunk-timeout"),
)


@pytest.mark.parametrize(("fails", "status", "code"), FAILURES, ids=lambda value: getattr(value, "__name__", None))
async def test_each_request_says_how_asterisk_failed(tmp_path: Path, ari: AriServer, fails, status, code) -> None:
    async with with_a_call(tmp_path, ari) as (bridge, client, call_id):
        fails(ari)
        for method, below, body in REQUESTS:
            answer = await client.request(method, f"/api/calls{below.replace('ID', call_id)}", json=body)
            assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), (below, answer.text)
            assert SECRET not in answer.text
        assert [call.id for call in bridge.live_calls()] == [call_id]
        ari.let_go()
        ari.forgive()


async def test_while_it_is_out_of_reach_the_answer_says_when_to_try_again(tmp_path: Path, ari: AriServer) -> None:
    async with with_a_call(tmp_path, ari) as (bridge, client, call_id):
        await ari.down()
        await until(lambda: bridge.asterisk_status()[0].state == "down")
        for method, below, body in REQUESTS:
            answer = await client.request(method, f"/api/calls{below.replace('ID', call_id)}", json=body)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "trunk-down"), (below, answer.text)
            assert re.fullmatch(r"[0-9]+", answer.headers["retry-after"])
            assert SECRET not in answer.text
        # What is queued, or only seen here, needs no Asterisk.
        for method, below, body, expected in (
            ("GET", f"/api/calls/{call_id}/supervise", None, 200),
            ("POST", f"/api/calls/{call_id}/dtmf", {"digits": "1"}, 204),
            ("GET", "/api/asterisk", None, 200),
            ("POST", "/api/asterisk/pbx/reconnect", None, 202),
            ("GET", "/api/asterisk/pbx/queues", None, 409),
            ("DELETE", f"/api/calls/{call_id}", None, 204),
        ):
            answer = await client.request(method, below, json=body)
            assert answer.status_code == expected, (below, answer.text)
        await until(lambda: not bridge.live_calls())
        await ari.up()
