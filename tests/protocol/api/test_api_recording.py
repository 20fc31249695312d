"""Recordings over HTTP: whole, in ranges, and never anything else of the disk."""

import os

import pytest

WAV = b"RIFF" + os.urandom(400_000)


@pytest.fixture
def recorded(api):
    (api.recordings / "c1.wav").write_bytes(WAV)
    api.bridge.whole_call("c1", recording="c1.wav")
    return api


def code(response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


async def test_a_recording_is_served_whole(recorded, client):
    response = await client.get("/api/calls/c1/recording")
    assert response.status_code == 200
    assert response.content == WAV
    assert response.headers["content-type"] == "audio/wav"
    assert response.headers["accept-ranges"] == "bytes"
    assert 'filename="call-c1.wav"' in response.headers["content-disposition"]


@pytest.mark.parametrize(
    ("wanted", "first", "end"),
    [
        ("0-3", 0, 4),
        ("100-", 100, len(WAV)),
        ("-500", len(WAV) - 500, len(WAV)),
        ("399999-9999999", 399_999, len(WAV)),
    ],
)
async def test_a_player_can_ask_for_a_range(recorded, client, wanted, first, end):
    response = await client.get("/api/calls/c1/recording", headers={"Range": f"bytes={wanted}"})
    assert response.status_code == 206
    assert response.content == WAV[first:end]
    assert response.headers["content-range"] == f"bytes {first}-{end - 1}/{len(WAV)}"


async def test_a_range_outside_the_file_is_a_416(recorded, client):
    response = await client.get("/api/calls/c1/recording", headers={"Range": "bytes=500000-"})
    assert response.status_code == 416


async def test_a_player_can_ask_for_the_length_alone(recorded, client):
    response = await client.head("/api/calls/c1/recording")
    assert response.status_code == 200
    assert response.headers["content-length"] == str(len(WAV))
    assert response.content == b""


async def test_a_call_that_is_up_has_no_recording_yet(api, client):
    api.bridge.begin("c1")
    assert code(await client.get("/api/calls/c1/recording")) == (404, "recording-not-ready")


async def test_a_call_without_one_says_so(api, client):
    api.bridge.whole_call("c1")
    response = await client.get("/api/calls/c1/recording")
    assert code(response) == (404, "no-recording")
    assert "recording is off for agent 'receptionist'" in response.json()["error"]["message"]


async def test_a_file_that_was_deleted_is_said_to_be_gone(recorded, client):
    (recorded.recordings / "c1.wav").unlink()
    assert code(await client.get("/api/calls/c1/recording")) == (404, "recording-gone")


@pytest.mark.parametrize("name", ["../offhook.sqlite3", "/etc/passwd", "..", ".", "", "link.wav", "sub"])
async def test_no_name_on_the_record_leads_out_of_the_directory(api, client, name):
    (api.recordings / "link.wav").symlink_to("/etc/passwd")
    (api.recordings / "sub").mkdir()
    api.bridge.whole_call("c1", recording=name)
    response = await client.get("/api/calls/c1/recording")
    assert code(response) in ((404, "recording-gone"), (404, "no-recording"))
    assert "root:" not in response.text


@pytest.mark.parametrize(
    "path",
    [
        "/api/calls/../../etc/passwd/recording",
        "/api/calls/..%2f..%2foffhook.sqlite3/recording",
        "/api/calls/%2e%2e/recording",
        "/api/calls/c1.wav/recording",
        "/api/calls/c1%00/recording",
        "/api/calls/c1/recording/../../../../etc/passwd",
    ],
)
async def test_no_path_leads_out_of_the_directory(recorded, client, path):
    # As it stands: the client's own tidying of the path would hide what is to be tested.
    request = client.build_request("GET", recorded.url)
    request.url = request.url.copy_with(raw_path=path.encode())
    response = await client.send(request)
    assert response.status_code in (400, 404)
    assert b"root:" not in response.content
    assert b"SQLite" not in response.content
