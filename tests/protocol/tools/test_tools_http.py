"""HTTP tools against a real server: what goes out, what comes back, and what an attacker on either side can't do."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from standin import Exchange, Reply, Standin

from bridge.agents.tool_settings import HttpTool
from bridge.agents.tools_http import HttpTools, prepare, request_of
from bridge.agents.tools_result import ToolResult
from bridge.agents.tools_template import SecretError, Secrets, TemplateError

SECRET = "tok-9f8e7d6c5b4a"
FACTS = {"call.id": "c0ffee", "call.from": "+15550100", "call.to": "100"}
CUSTOMER = {"data": {"customer": {"name": "Ada", "balance": 12.5, "notes": "x" * 50}}}
STRINGS = {"type": "object", "properties": {"id": {"type": "string"}, "note": {"type": "string"}}}


class Crm(Standin):
    """Answers as `answers` says, else with `CUSTOMER`."""

    def __init__(self) -> None:
        super().__init__()
        self.answer_with: Callable[[Exchange, Reply], Any] | None = None
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"):
            self.route(method, "/{any}", self._reply)
            self.route(method, "/api/{any}", self._reply)
            self.route(method, "/api/{any}/orders", self._reply)

    async def _reply(self, exchange: Exchange, reply: Reply) -> None:
        if self.answer_with is None:
            await reply.json(CUSTOMER)
        else:
            await self.answer_with(exchange, reply)


@pytest.fixture
async def crm() -> AsyncIterator[Crm]:
    async with Crm() as server:
        yield server


Ask = Callable[..., Any]


@pytest.fixture
async def ask(crm: Crm) -> AsyncIterator[Ask]:
    """Calls a tool of the given settings with the given arguments."""
    made: list[HttpTools] = []

    async def ask(
        arguments: dict[str, Any] | None = None, facts: dict[str, str] = FACTS, **settings: Any
    ) -> ToolResult:
        path = settings.pop("path", "/api/{id}")
        whole = {
            "name": "look",
            "description": "Look it up",
            "parameters": STRINGS,
            "url": crm.http_url + path,
            **settings,
        }
        tools = HttpTools((HttpTool(**whole),), Secrets({"CRM_TOKEN": SECRET}))
        made.append(tools)
        tools.start()
        return await tools.call("look", {"id": "7"} if arguments is None else arguments, facts)

    yield ask
    for tools in made:
        await tools.aclose()
    await crm.all_closed()


# -- what goes out ------------------------------------------------------------------------------------------


async def test_arguments_secrets_and_facts_of_the_call_stand_in_their_places(crm: Crm, ask: Ask) -> None:
    result = await ask(
        {"id": "a b", "note": "50% & more"},
        method="POST",
        path="/api/{id}/orders?from={call.from}",
        headers={"Authorization": "Bearer ${env:CRM_TOKEN}", "X-Call": "{call.id}"},
        query={"note": "{note}", "fixed": "{{1}}"},
        body={"order": {"text": "{note}", "caller": "{call.from}", "list": ["{id}"]}},
    )
    assert result.ok
    (asked,) = crm.exchanges
    assert (asked.method, asked.path) == ("POST", "/api/a%20b/orders")
    assert asked.query == {"from": ["+15550100"], "note": ["50% & more"], "fixed": ["{1}"]}
    assert asked.headers["authorization"] == f"Bearer {SECRET}"
    assert asked.headers["x-call"] == "c0ffee"
    assert asked.json() == {"order": {"text": "50% & more", "caller": "+15550100", "list": ["a b"]}}


async def test_arguments_that_no_template_names_go_where_the_method_has_them(crm: Crm, ask: Ask) -> None:
    await ask({"id": "7", "note": "hi"})
    await ask({"id": "7"})
    await ask({"id": "7", "note": "hi"}, method="POST")
    reading, without, writing = crm.exchanges
    assert (reading.query, reading.body) == ({"note": ["hi"]}, b"")
    assert without.query == {}
    assert (writing.query, writing.json()) == ({}, {"note": "hi"})


async def test_body_keeps_the_types_of_its_arguments_and_leaves_out_what_is_missing(crm: Crm, ask: Ask) -> None:
    schema = {"type": "object", "properties": {"count": {"type": "integer"}, "rush": {"type": "boolean"}, "tag": {}}}
    await ask({"count": 3, "rush": True}, path="/x", parameters=schema, method="PUT")
    assert crm.exchanges[0].json() == {"count": 3, "rush": True}
    await ask({"count": 3, "rush": True}, path="/x", parameters=schema, method="PUT", body_format="form")
    assert crm.exchanges[1].body == b"count=3&rush=true"
    assert crm.exchanges[1].headers["content-type"] == "application/x-www-form-urlencoded"


async def test_secret_may_come_from_a_file_and_its_absence_is_told_at_the_start(tmp_path: Path, ask: Ask) -> None:
    secret = tmp_path / "token"
    secret.write_text("from-a-file\n")
    assert (await ask(headers={"X-Key": f"${{file:{secret}}}"})).ok
    with pytest.raises(SecretError, match="NOT_THERE is not set"):
        await ask(headers={"X-Key": "${env:NOT_THERE}"})
    with pytest.raises(SecretError, match="can't be read"):
        await ask(headers={"X-Key": f"${{file:{tmp_path}/none}}"})


async def test_proxy_of_the_environment_is_not_used(crm: Crm, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert (await ask()).ok
    assert not (await ask(use_environment_proxy=True, retries=0)).ok


# -- a caller's words in the wrong place --------------------------------------------------------------------


@pytest.mark.parametrize(
    "attack",
    [
        "../../admin", "..", ".", "a/../b", "a%2f..%2fb", "%2e%2e", "a\\b", "x\r\nX-Evil: 1", "x\0", "a?b=c", "a#b",
        "\N{FULLWIDTH SOLIDUS}etc", "\N{ONE DOT LEADER}\N{ONE DOT LEADER}", "\N{TWO DOT LEADER}", "", "   ", "a;b=c",
        "\N{RIGHT-TO-LEFT OVERRIDE}abc", "\ud800", "x" * 501,
    ],
)  # fmt: skip
async def test_argument_can_not_leave_its_segment_of_the_path(attack: str, crm: Crm, ask: Ask) -> None:
    result = await ask({"id": attack})
    assert not result.ok and "id must" in result.error
    assert crm.exchanges == []


async def test_two_arguments_can_not_make_a_path_of_dots_together(crm: Crm, ask: Ask) -> None:
    result = await ask({"id": ".x", "note": "y."}, path="/api/{id}{note}")
    assert result.ok
    result = await ask({"id": ".", "note": "."}, path="/api/{id}{note}")
    assert not result.ok
    assert len(crm.exchanges) == 1


async def test_caller_id_can_not_leave_its_place_either(crm: Crm, ask: Ask) -> None:
    evil = {**FACTS, "call.from": "x\r\nX-Evil: 1\N{PILE OF POO}"}
    assert (await ask(facts=evil, headers={"X-From": "{call.from}"})).ok
    assert crm.exchanges[0].headers["x-from"] == "xX-Evil: 1"
    assert "x-evil" not in crm.exchanges[0].headers
    assert not (await ask(facts={**FACTS, "call.from": "../admin"}, path="/api/{call.from}")).ok
    assert len(crm.exchanges) == 1


@hypothesis_settings(max_examples=150, deadline=None)
@given(st.text(max_size=40), st.text(max_size=40))
def test_whatever_an_argument_is_the_request_goes_to_its_host_and_path(value: str, note: str) -> None:
    tool = HttpTool(
        name="look",
        description="x",
        parameters=STRINGS,
        url="http://crm.test:8000/api/{id}/orders?a={note}",
        query={"b": "-{note}"},
        headers={"X-Key": "k", "X-From": "{call.from}"},
    )
    prepared = prepare(tool, Secrets({}))
    values = {"id": value, "note": note, **FACTS, "call.from": note}
    try:
        request = request_of(tool, prepared, values)
    except (TemplateError, httpx.InvalidURL):
        return  # What is not sent is no danger.
    assert (request.url.scheme, request.url.host, request.url.port) == ("http", "crm.test", 8000)
    path, _, query = request.url.raw_path.decode().partition("?")
    assert path.startswith("/api/") and path.endswith("/orders") and path.count("/") == 3
    assert "%2F" not in path.upper() and "%5C" not in path.upper() and "/./" not in path and ".." not in path
    assert query.startswith("a=") and query.count("&") == 1 and "&b=" in query and "#" not in query
    ours = {"host", "accept", "accept-encoding", "connection", "user-agent", "x-key", "x-from"}
    assert set(request.headers) <= ours


# -- what comes back ----------------------------------------------------------------------------------------


async def test_part_of_the_answer_is_given_that_the_pointer_and_the_fields_name(ask: Ask) -> None:
    result = await ask(result="/data/customer", fields=["name", "balance", "phone"])
    assert json.loads(result.content) == {"ok": True, "result": {"name": "Ada", "balance": 12.5}}
    missing = await ask(result="/data/nobody")
    assert not missing.ok and "does not hold" in missing.error


@pytest.mark.parametrize(
    ("body", "kind", "value"),
    [
        (b"", "application/json", None),
        (b"[1, 2]", "application/vnd.api+json; charset=utf-8", [1, 2]),
        ("Grüße".encode("latin-1"), "text/plain; charset=latin-1", "Grüße"),
        (b"a\x00\x1b[31mb\n", "text/plain", "a[31mb\n"),
        (b"ok", "text/plain; charset=no-such", "ok"),
    ],
)
async def test_json_and_text_are_understood(body: bytes, kind: str, value: Any, crm: Crm, ask: Ask) -> None:
    crm.answer_with = lambda _, reply: reply.send(body, kind)
    assert await ask() == ToolResult(True, value=value)


@pytest.mark.parametrize(
    ("body", "kind", "said"),
    [
        (b"\x89PNG\r\n\x1a\n", "image/png", "neither JSON nor text"),
        (b"\x00\x01", "application/octet-stream", "neither JSON nor text"),
        (b"{not json", "application/json", "not the JSON"),
        (b"[" * 100_000, "application/json", "JSON"),
        (b"[" * 60 + b"]" * 60, "application/json", "nested"),
    ],
)
async def test_other_answers_are_failures(body: bytes, kind: str, said: str, crm: Crm, ask: Ask) -> None:
    crm.answer_with = lambda _, reply: reply.send(body, kind)
    result = await ask()
    assert not result.ok and said in result.error


async def test_redirect_is_not_followed(crm: Crm, ask: Ask) -> None:
    async with Crm() as other:
        for status in (301, 302, 303, 307, 308):
            away = {"location": f"{other.http_url}/steal"}
            crm.answer_with = lambda _, reply, s=status, a=away: reply.send(b"", "text/plain", s, a)
            result = await ask(headers={"Authorization": "Bearer ${env:CRM_TOKEN}"})
            assert not result.ok and str(status) in result.error and other.http_url not in result.error
        assert other.exchanges == []


async def test_endless_answer_is_cut_off_while_it_comes(crm: Crm, ask: Ask) -> None:
    async def endless(_: Exchange, reply: Reply) -> None:
        await reply.begin("application/json")
        while True:
            await reply.piece(b'"' + b"x" * 4096)

    crm.answer_with = endless
    result = await ask(max_response_bytes=100_000)
    assert not result.ok and "larger than 100000 bytes" in result.error
    await crm.all_closed()
    assert crm.exchanges[0].sent < 2000


async def test_answer_that_announces_too_much_is_not_read(crm: Crm, ask: Ask) -> None:
    crm.answer_with = lambda _, reply: reply.send(b"x" * 5000, "text/plain")
    result = await ask(max_response_bytes=1000)
    assert not result.ok and "larger" in result.error


async def test_packed_answer_is_refused_unread(crm: Crm, ask: Ask) -> None:
    crm.answer_with = lambda _, reply: reply.send(
        b"\x1f\x8b" + b"0" * 50, "text/plain", 200, {"content-encoding": "gzip"}
    )
    result = await ask()
    assert crm.exchanges[0].headers["accept-encoding"] == "identity"
    assert not result.ok and "packed" in result.error


async def test_slow_answer_is_given_up_and_its_connection_closed(crm: Crm, ask: Ask) -> None:
    async def slow(_: Exchange, reply: Reply) -> None:
        await reply.begin("text/plain")
        while True:
            await reply.piece(b".")
            await asyncio.sleep(0.02)

    crm.answer_with = slow
    asking = asyncio.create_task(ask())
    await crm.until(lambda: bool(crm.exchanges) and crm.exchanges[0].sent > 2)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await crm.all_closed()
    assert crm.exchanges[0].cut


async def test_secret_that_a_server_sends_back_is_hidden(crm: Crm, ask: Ask) -> None:
    async def echo(exchange: Exchange, reply: Reply) -> None:
        await reply.json({"you sent": dict(exchange.headers)}, status=200 if "ok" in exchange.path else 403)

    crm.answer_with = echo
    headers = {"Authorization": "Bearer ${env:CRM_TOKEN}"}
    for arguments in ({"id": "ok"}, {"id": "no"}):
        result = await ask(arguments, headers=headers)
        assert SECRET not in result.content and "***" in result.content


# -- failures -----------------------------------------------------------------------------------------------


async def test_refusal_is_told_with_its_words(crm: Crm, ask: Ask) -> None:
    crm.answer_with = lambda _, reply: reply.json({"error": "no such customer"}, status=404)
    result = await ask()
    assert not result.ok and result.error == 'the server answered 404: {"error": "no such customer"}'
    assert len(crm.exchanges) == 1


@pytest.mark.parametrize(
    ("settings", "tries"),
    [
        ({"method": "GET", "retries": 2}, 3),
        ({"method": "PUT", "retries": 1}, 2),
        ({"method": "GET", "retries": 0}, 1),
        ({"method": "POST", "retries": 2}, 1),
        ({"method": "POST", "retries": 1, "idempotency_key": True}, 2),
    ],
)
@pytest.mark.parametrize("failure", ["status", "drop"])
async def test_only_what_may_be_repeated_is_sent_again(
    failure: str, settings: dict[str, Any], tries: int, crm: Crm, ask: Ask
) -> None:
    async def fail(_: Exchange, reply: Reply) -> None:
        await reply.json({}, status=503)

    crm.answer_with = fail
    if failure == "drop":
        crm.misbehave(drop=True)
    result = await ask(**settings)
    assert not result.ok
    assert len(crm.exchanges) == tries
    keys = {exchange.headers.get("idempotency-key") for exchange in crm.exchanges}
    assert len(keys) == 1 and (None in keys) is not settings.get("idempotency_key", False)


async def test_request_is_answered_at_the_second_try(crm: Crm, ask: Ask) -> None:
    crm.misbehave(status=503, headers={"retry-after": "0"}, times=1)
    assert (await ask()).ok
    crm.misbehave(status=503, headers={"retry-after": "600"}, times=1)
    assert not (await ask()).ok


async def test_server_that_is_away_is_told_without_its_address(crm: Crm, ask: Ask) -> None:
    await crm.down()
    result = await ask(path="/api/{id}?key=${env:CRM_TOKEN}", method="POST")
    assert result == ToolResult(False, "the server can't be reached")
    await crm.up()


async def test_what_was_passed_on_with_the_call_can_not_leave_its_place_either(crm: Crm, ask: Ask) -> None:
    facts = {**FACTS, "call.campaign": "spring & summer", "call.customer": "../admin"}
    settings = {"path": "/api/{id}", "query": {"c": "{call.campaign}", "none": "{call.missing}"}}
    assert (await ask(facts=facts, headers={"X-Campaign": "{call.campaign}"}, **settings)).ok
    assert crm.exchanges[-1].query == {"c": ["spring & summer"]}
    assert crm.exchanges[-1].headers["x-campaign"] == "spring & summer"
    refused = await ask(facts=facts, path="/api/{call.customer}")
    assert not refused.ok and "must not contain /" in refused.error
