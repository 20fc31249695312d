"""Nobody gets in without the key: every route, every method, every way to bring it."""

import base64
import io

import httpx
import pytest

from bridge import log as logs


def routes(app) -> list[tuple[str, str]]:
    """Every method and path the application serves, whatever way it was added."""
    found = []
    stack = list(app.routes)
    while stack:
        route = stack.pop()
        # An included router may be kept as one entry that holds its routes.
        nested = getattr(route, "routes", None) or getattr(getattr(route, "original_router", None), "routes", None)
        if nested:
            stack.extend(nested)
        found += [(method, route.path) for method in getattr(route, "methods", None) or () if hasattr(route, "path")]
    return found


def is_error(response: httpx.Response, status: int, code: str) -> bool:
    return response.status_code == status and response.json()["error"]["code"] == code


async def test_the_list_of_routes_is_whole(api):
    """The next test is worth what this list is."""
    assert {
        ("GET", "/healthz"),
        ("GET", "/readyz"),
        ("GET", "/metrics"),
        ("GET", "/docs"),
        ("GET", "/openapi.json"),
        ("GET", "/api/calls"),
        ("POST", "/api/calls"),
        ("GET", "/api/calls/{call_id}"),
        ("DELETE", "/api/calls/{call_id}"),
        ("GET", "/api/calls/{call_id}/events"),
        ("GET", "/api/calls/{call_id}/recording"),
        ("HEAD", "/api/calls/{call_id}/recording"),
    } <= set(routes(api.app))


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong-key-wrong-key-wrong"},
        {"Authorization": "Bearer"},
        {"Authorization": "the-key-of-these-tests-0123456789"},
        {"Authorization": "Basic !!!"},
        {"Authorization": "Basic bm9jb2xvbg=="},
        {"X-API-Key": ""},
        {"X-API-Key": "the-key-of-these-tests-012345678"},
        {"X-API-Key": "THE-KEY-OF-THESE-TESTS-0123456789"},
        {"X-Forwarded-For": "127.0.0.1"},
        {"Cookie": "api_key=the-key-of-these-tests-0123456789"},
    ],
)
async def test_every_route_refuses_who_has_no_key(api, headers):
    api.bridge.whole_call("c1", recording="c1.wav")
    (api.recordings / "c1.wav").write_bytes(b"RIFF secret")
    async with api.client(key=None) as client:
        for method, path in routes(api.app):
            url = path.replace("{call_id}", "c1")
            response = await client.request(method, url, headers=headers)
            # A wrong key is no key that is missing: the probes refuse it too.
            if url in ("/healthz", "/readyz") and not wrong_key(headers):
                assert response.status_code == 200
                continue
            assert response.status_code in (401, 429), (method, url)
            assert b"c1" not in response.content
            assert "RIFF" not in response.text


def wrong_key(headers: dict[str, str]) -> bool:
    return headers.get("Authorization", "").startswith("Bearer w") or bool(headers.get("X-API-Key"))


async def test_paths_and_methods_that_do_not_exist_refuse_too(api):
    async with api.client(key=None) as client:
        for path in ("/", "/nope", "/api", "/api/calls/", "//healthz", "/healthz/", "/docs/x"):
            for method in ("GET", "POST", "PUT", "OPTIONS", "HEAD", "BREW"):
                assert (await client.request(method, path)).status_code == 401, (method, path)


async def test_the_probes_are_open_for_reading_only(api):
    async with api.client(key=None) as client:
        for method in ("POST", "DELETE", "PUT"):
            assert (await client.request(method, "/healthz")).status_code == 401


async def test_each_way_to_bring_the_key_works(api):
    key = "the-key-of-these-tests-0123456789"
    basic = base64.b64encode(f"anyone:{key}".encode()).decode()
    async with api.client(key=None) as client:
        for headers in (
            {"Authorization": f"Bearer {key}"},
            {"Authorization": f"bearer  {key}"},
            {"X-API-Key": key},
            {"Authorization": f"Basic {basic}"},
        ):
            assert (await client.get("/api/calls", headers=headers)).status_code == 200, headers


async def test_a_browser_is_asked_for_the_key_but_what_it_sends_by_itself_changes_nothing(api):
    api.bridge.begin("c1")
    basic = base64.b64encode(b"x:the-key-of-these-tests-0123456789").decode()
    async with api.client(key=None) as client:
        asked = await client.get("/docs")
        assert asked.headers["www-authenticate"].startswith("Basic ")
        for method, path in (("DELETE", "/api/calls/c1"), ("POST", "/api/calls")):
            response = await client.request(method, path, headers={"Authorization": f"Basic {basic}"})
            assert is_error(response, 401, "unauthorized")
    assert "c1" in api.bridge.calls


async def test_a_refusal_says_where_the_key_is_and_not_what(api):
    async with api.client(key=None) as client:
        response = await client.get("/api/calls")
    assert is_error(response, 401, "unauthorized")
    assert "api-key" in response.json()["error"]["message"]
    assert "the-key-of" not in response.text


async def test_guessing_is_slowed_down_and_the_right_key_still_gets_in(api):
    async with api.client(key="guess-guess-guess-guess") as guesser, api.client() as owner:
        answers = [(await guesser.get("/api/calls")).status_code for _ in range(15)]
        assert answers == [401] * 10 + [429] * 5
        refused = await guesser.get("/api/calls")
        assert is_error(refused, 429, "too-many-requests")
        assert int(refused.headers["retry-after"]) > 0
        assert (await owner.get("/api/calls")).status_code == 200


async def test_wrong_keys_are_logged_without_the_key_and_without_a_flood(api):
    stream = io.StringIO()
    configured = logs.configure(stream=stream, format="json")
    configured.hide("the-key-of-these-tests-0123456789")
    async with api.client(key="guess-guess-guess-guess") as client:
        for _ in range(200):
            await client.get("/api/calls")
    configured.close()
    written = stream.getvalue()
    assert "wrong API key" in written
    assert "127.0.0.1" in written
    assert "guess-guess" not in written
    assert len(written.splitlines()) < 20
