"""`offhook check` of Asterisks: passwords that can't be had, and settings that make no sense together."""

from pathlib import Path
from typing import Any

import pytest

from bridge.check import check, doubts
from bridge.check_asterisk import check_asterisks, describe_asterisks, media_kinds
from bridge.config import Config


@pytest.fixture(autouse=True)
def passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARI", "x")
    monkeypatch.setenv("AMI", "x")


def asterisk(**changes: Any) -> dict[str, Any]:
    return {"name": "pbx", "url": "http://127.0.0.1:8088", "username": "offhook", "password_env": "ARI"} | changes


def config(*asterisks: dict[str, Any], **more: Any) -> Config:
    values: dict[str, Any] = {
        "agents": {"echo": {"kind": "echo"}},
        "routes": [{"agent": "echo"}],
        "asterisk": list(asterisks),
    }
    return Config(**(values | more))


def test_a_plain_one_is_good() -> None:
    plain = config(asterisk(ami={"host": "127.0.0.1", "username": "offhook", "password_env": "AMI"}))
    assert list(check_asterisks(plain)) == []
    assert doubts(plain) == []
    assert list(describe_asterisks(plain)) == [
        "asterisk pbx: http://127.0.0.1:8088, application offhook; media rtp (ulaw); AMI at 127.0.0.1:5038"
    ]


def test_calls_without_ari_are_described_and_an_api_that_they_can_not_reach_is_doubted() -> None:
    made = config(audiosocket={"trunk": "old-box", "networks": ["192.168.1.5/32"], "port": 9200})
    assert list(describe_asterisks(made)) == [
        "audiosocket old-box: listens on 0.0.0.0 port 9200 for calls of dialplans without ARI"
    ]
    (doubt,) = [one for one in doubts(made) if one.startswith("audiosocket")]
    assert "can't announce their calls: http.listen is 127.0.0.1" in doubt
    assert not [
        one
        for made in (
            config(audiosocket={"trunk": "old-box"}),
            config(audiosocket={"trunk": "old-box", "networks": ["192.168.1.5/32"]}, http={"listen": "192.168.1.2"}),
        )
        for one in doubts(made)
        if one.startswith("audiosocket")
    ]


def test_a_password_that_is_not_there_is_told_with_its_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ARI")
    monkeypatch.delenv("AMI")
    ami = {"host": "127.0.0.1", "username": "offhook", "password_env": "AMI"}
    made = config(asterisk(ami=ami), data_dir=tmp_path)
    assert list(check_asterisks(made)) == [
        "asterisk 'pbx': the environment variable ARI is not set",
        "asterisk 'pbx': ami: the environment variable AMI is not set",
    ]
    assert set(check_asterisks(made)) <= set(check(made))


def test_a_password_file_for_everybody_is_told(tmp_path: Path) -> None:
    file = tmp_path / "ari"
    file.write_text("secret\n")
    file.chmod(0o644)
    (problem,) = check_asterisks(config(asterisk(password_env="", password_file=str(file))))
    assert "chmod 600" in problem
    file.chmod(0o600)
    assert not list(check_asterisks(config(asterisk(password_env="", password_file=str(file)))))


def test_two_with_one_application_would_take_each_others_calls() -> None:
    (problem,) = check_asterisks(config(asterisk(), asterisk(name="other")))
    assert problem.startswith("asterisk 'other': it has url and app of 'pbx'")
    assert not list(check_asterisks(config(asterisk(), asterisk(name="other", app="another"))))


@pytest.mark.parametrize(
    ("changes", "more", "said"),
    [
        ({"media_address": "127.0.0.1"}, {}, "media_address 127.0.0.1 is a machine's own"),
        (
            {"media": "audiosocket"},
            {"audiosocket": {"listen": "127.0.0.1", "networks": ["192.168.1.0/24"]}},
            "audiosocket.listen 127.0.0.1 can't be reached",
        ),
        (
            {"media": "websocket", "websocket": {"connects": "asterisk"}},
            {"websocket_listener": {"listen": "127.0.0.1"}},
            "websocket_listener.listen 127.0.0.1 can't be reached",
        ),
    ],
)
def test_an_asterisk_elsewhere_must_be_able_to_reach_us(
    changes: dict[str, Any], more: dict[str, Any], said: str
) -> None:
    (problem,) = check_asterisks(config(asterisk(url="https://192.168.1.5:8089", **changes), **more))
    assert said in problem


def test_an_asterisk_elsewhere_that_can_reach_us_is_good() -> None:
    made = config(
        asterisk(url="https://192.168.1.5:8089", media="audiosocket", media_address="192.168.1.9"),
        audiosocket={"networks": ["192.168.1.0/24"]},
    )
    assert list(check_asterisks(made)) == []
    assert doubts(made) == []


def test_media_of_routes_counts_where_the_route_may_be_for_it() -> None:
    routes = [{"agent": "echo", "trunk": "other", "media": "websocket"}, {"agent": "echo", "media": "audiosocket"}]
    made = config(asterisk(), asterisk(name="other", app="two"), routes=routes)
    assert media_kinds(made, made.asterisk[0]) == ("rtp", "audiosocket")
    assert media_kinds(made, made.asterisk[1]) == ("rtp", "websocket", "audiosocket")


@pytest.mark.parametrize(
    ("changes", "more", "said"),
    [
        ({}, {"websocket_listener": {"port": 8787}}, "websocket_listener: nothing uses it"),
        ({}, {"audiosocket": {"port": 9092}}, "audiosocket: nothing uses it"),
        (
            {"agent": "echo"},
            {"routes": [{"agent": "echo", "trunk": "p?", "media": "websocket"}]},
            "routes[0].media: it is for calls of an asterisk, and no name of one matches 'p?'",
        ),
        ({}, {"routes": []}, "it has no agent, and no route is for it"),
        ({"url": "http://192.168.1.5:8088"}, {}, "its password goes to 192.168.1.5 unencrypted"),
        ({"url": "https://pbx.lan", "media": "audiosocket"}, {}, "unless pbx.lan is this machine"),
        ({"verify": False}, {}, "verify: false has no meaning without https"),
    ],
)
def test_what_may_be_meant_otherwise_is_told_and_keeps_nobody_from_starting(
    changes: dict[str, Any], more: dict[str, Any], said: str
) -> None:
    made = config(asterisk(**changes), **more)
    assert [said in doubt for doubt in doubts(made)] == [True]
    assert list(check_asterisks(made)) == []


def test_listeners_that_are_used_are_not_doubted() -> None:
    made = config(
        asterisk(media="websocket", websocket={"connects": "asterisk"}),
        websocket_listener={"port": 8787},
        audiosocket={"port": 9092, "trunk": "dialplan"},
    )
    assert doubts(made) == []


def test_an_announcement_that_nobody_can_speak_is_doubted() -> None:
    desk = {"targets": {"desk": {"to": "PJSIP/1001", "announce": True}}}
    agent = {"kind": "realtime", "realtime": "openai", "transfer": desk}
    spoken = Config.model_validate({"agents": {"one": {**agent, "tts": "local"}}})
    unspoken = Config.model_validate({"agents": {"one": agent}})
    assert doubts(spoken) == []
    assert ["desk unannounced" in doubt for doubt in doubts(unspoken)] == [True]


def test_files_of_tls_that_can_not_be_used_are_told(tmp_path: Path) -> None:
    ami = {"host": "127.0.0.1", "username": "offhook", "password_env": "AMI", "tls": True, "ca": tmp_path / "none"}
    (tmp_path / "empty").touch()
    made = config(
        asterisk(url="https://127.0.0.1:8089", ca=str(tmp_path / "empty"), ami=ami),
        websocket_listener={"certificate": tmp_path / "own.pem"},
    )
    assert list(check_asterisks(made)) == [
        f"asterisk 'pbx': ca {tmp_path}/empty: no certificate or crl found",
        f"asterisk 'pbx': ami: ca {tmp_path}/none: No such file or directory",
        f"websocket_listener: certificate {tmp_path}/own.pem: No such file or directory",
    ]


def test_certificates_that_nobody_looks_at_are_doubtful(tmp_path: Path) -> None:
    ami = {"host": "pbx.example.com", "username": "offhook", "password_env": "AMI"}
    https = {"url": "https://pbx.example.com:8089"}
    (unchecked, manager) = doubts(config(asterisk(**https, verify=False, ami={**ami, "tls": True, "verify": False})))
    assert "read its password" in unchecked
    assert "ami: verify: false" in manager
    (unencrypted,) = doubts(config(asterisk(**https, ami=ami)))
    assert "pbx.example.com is spoken to unencrypted: set tls: true" in unencrypted
    idle = config(asterisk(ca=str(tmp_path), ami={**ami, "host": "localhost", "ca": str(tmp_path)}))
    assert doubts(idle) == [
        "asterisk 'pbx': ca has no meaning without https",
        "asterisk 'pbx': ami: ca has no meaning without tls: true",
    ]


def test_an_agent_s_target_that_no_asterisk_may_be_asked_for_is_doubtful() -> None:
    targets = {"boss": {"to": "PJSIP/2001"}, "sales": {"to": "PJSIP/1001"}, "out": {"to": "200"}}
    agents = {"desk": {"kind": "conversation", "brief_file": "receptionist", "transfer": {"targets": targets}}}
    narrow = asterisk(dial=["PJSIP/10??"], agent="desk")
    more = {"agents": agents, "routes": [{"agent": "desk"}]}
    told = "agent 'desk': transfer.targets.boss: no `dial` of an asterisk permits PJSIP/2001"
    assert doubts(config(narrow, **more)) == [told]
    assert doubts(config(narrow, asterisk(name="other", app="other", agent="desk"), **more)) == []
    assert doubts(config(**more)) == []
