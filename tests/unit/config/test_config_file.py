"""Reading the configuration: values, variables, and every mistake with its place."""

from pathlib import Path

import pytest

from bridge.cli import main
from bridge.configfile import ConfigError, load, parse
from bridge.legs.base import LegInfo
from bridge.router import pick_agent


def problems(text: str, folder: Path = Path()) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        parse(text, "x.yaml", folder)
    return caught.value.problems


def info(to: str, from_: str = "1001") -> LegInfo:
    return LegInfo("sip", "inbound", from_, to, "", "id", "127.0.0.1:5060")


def test_the_built_in_default_has_both_agents(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    config = load(None).config
    assert pick_agent(config.routes, info("agent")) == "receptionist"
    assert pick_agent(config.routes, info("echo")) == "echo"
    assert pick_agent(config.routes, info("nobody")) is None
    assert (config.sip.port, config.http.port) == (5060, 8080)


def test_a_file_in_the_working_directory_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "offhook.yaml").write_text("sip: {port: 5099}")
    loaded = load(None)
    assert (loaded.source, loaded.config.sip.port) == ("offhook.yaml", 5099)


def test_a_variable_takes_precedence_over_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OFFHOOK_SIP_PORT", "5070")
    monkeypatch.setenv("OFFHOOK_RTP_PORT_MIN", "30000")
    monkeypatch.setenv("OFFHOOK_RTP_PORT_MAX", "30100")
    config = parse("sip: {port: 5099, listen: 127.0.0.1}", "x.yaml", Path())
    assert (config.sip.port, config.sip.listen, config.rtp.port_min) == (5070, "127.0.0.1", 30000)


def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OFFHOOK_SIP_PORT", "many")
    assert problems("{}")[0].startswith("OFFHOOK_SIP_PORT: sip.port: ")


def test_every_mistake_has_its_line() -> None:
    text = "sip:\n  port: 99999\n  listne: x\nagents:\n  a:\n    kind: conversation\n    stt: 7\n"
    assert problems(text) == (
        "x.yaml:2: sip.port: Input should be less than or equal to 65535 (it is 99999)",
        "x.yaml:3: sip.listne: there is no such setting",
        "x.yaml:7: agents.a.stt: Input should be a valid tuple (it is 7)",
    )


def test_every_mistake_about_something_named_elsewhere_has_its_line() -> None:
    text = (
        "agents:\n  a.b:\n    stt: [local, magic]\n    llm: [local, local]\n"
        "routes:\n  - {to: x, agent: a.b}\n  - to: y\n    agent: ghost\n"
    )
    assert [line.partition("; known")[0] for line in problems(text.replace("    llm: [local, local]\n", ""))] == [
        "x.yaml:7: routes[1].agent: there is no agent 'ghost'",
        "x.yaml:3: agents.a.b.stt: there is no provider 'magic'",
    ]
    assert problems(text) == ("x.yaml:4: agents.a.b.llm: local stands in it more than once",)


def test_every_mistake_about_a_provider_has_its_line() -> None:
    text = (
        "providers:\n"
        "  my.groq:\n    kind: groq\n    llm:\n      modle: x\n"
        "  deepgram: {api_key_env: A, api_key_file: /b}\n"
        "  openai:\n    base_url: nowhere\n"
        "  parrot: {}\n"
        "  ollama: 5\n"
    )
    said = problems(text)
    assert [line.split(": ")[:2] for line in said] == [
        ["x.yaml:5", "providers.my.groq.llm.modle"],
        ["x.yaml:6", "providers.deepgram"],
        ["x.yaml:8", "providers.openai.base_url"],
        ["x.yaml:9", "providers.parrot"],
        ["x.yaml:10", "providers.ollama"],
    ]
    assert "there is no such setting" in said[0] and "not both" in said[1] and "no kind 'parrot'" in said[3]


def test_a_variable_adds_to_a_provider_and_is_named_when_it_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "providers:\n  openai: {llm: {model: mine}}\n  groq: {}\n"
    monkeypatch.setenv("OFFHOOK_PROVIDERS_OPENAI", '{"base_url": "http://127.0.0.1:9/v1"}')
    config = parse(text, "x.yaml", Path())
    assert config.provider("openai").base_url == "http://127.0.0.1:9/v1"
    assert config.provider("openai").llm.model == "mine"  # type: ignore[attr-defined] # it is OpenAI's
    monkeypatch.setenv("OFFHOOK_PROVIDERS_OPENAI", '{"base_url": "nowhere"}')
    assert problems(text)[0].startswith("OFFHOOK_PROVIDERS_OPENAI: providers.openai.base_url: 'nowhere'")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sip: [", "x.yaml:1:7: not valid YAML"),
        ("- sip", "must be a mapping"),
        ("sip: {port: 1}\nsip: {port: 2}", "x.yaml:2: sip: stands here again, first in line 1"),
        ("routes: [{agent: ghost}]", "there is no agent 'ghost'"),
        ("agents: {a: {brief_file: none.yaml}}", "agents.a.brief_file: none.yaml"),
        ("agents: {a: {kind: ech}}", "agents.a"),
        ("rtp: {port_min: 20000, port_max: 20001}", "at least 2 above"),
        ("sip: {allow_from: [10.0.0.0/33]}", "allow_from"),
        ("sip: {listen: everywhere}", "sip.listen"),
    ],
)
def test_what_is_wrong_is_said(text: str, expected: str) -> None:
    assert expected in problems(text)[0]


def test_a_brief_of_ones_own_is_read_beside_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_text("greeting: Shop, hello!\nbrief: {persona: A shop.}\n")
    config = parse("agents: {a: {brief_file: shop.yaml}}", "x.yaml", tmp_path)
    agent = config.agents["a"]
    assert agent.kind == "conversation"
    assert agent.greeting == "Shop, hello!"


def test_the_first_route_that_matches_wins() -> None:
    config = parse(
        "agents: {a: {kind: echo}, b: {kind: echo}}\nroutes: [{to: '49*', from: '100?', agent: a}, {agent: b}]",
        "x.yaml",
        Path(),
    )
    assert pick_agent(config.routes, info("4930", "1001")) == "a"
    assert pick_agent(config.routes, info("4930", "2001")) == "b"


def test_check_prints_mistakes_and_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("sip: {port: 0}")
    assert main(["check", "--config", str(file)]) == 2
    assert f"{file}:1: sip.port" in capsys.readouterr().err


def test_check_says_that_a_configuration_is_good(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["check"]) == 0
    assert "built-in default: good. Agents: receptionist, echo." in capsys.readouterr().out


def test_check_finds_a_missing_key_and_an_unwritable_directory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    (tmp_path / "file").touch()
    file = tmp_path / "a.yaml"
    file.write_text(f"data_dir: {tmp_path}/file/data\nagents: {{a: {{llm: openai}}}}\nroutes: [{{agent: a}}]\n")
    assert main(["check", "-c", str(file)]) == 1
    said = capsys.readouterr().err
    assert "no API key" in said
    assert "data_dir" in said


def test_a_file_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "-c", "/nowhere/offhook.yaml"]) == 2
    assert "/nowhere/offhook.yaml: can't be read" in capsys.readouterr().err


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"]) == 0
    assert capsys.readouterr().out.startswith("offhook ")


TRUNKS = """
sip: {{tcp: false}}
trunks:
  - name: carrier
    host: sip.example.com
    transport: tls
    srtp: required
    username: acme
    password_env: {variable}
    register: true
    networks: [192.0.2.0/24]
  - {{name: sbc, certificate_names: [sbc.example.com]}}
  - {{name: pbx, host: pbx.example, transport: tcp, users: [{{username: bob, password_file: {file}}}]}}
agents: {{echo: {{kind: echo}}}}
routes: [{{trunk: carrier, agent: echo}}]
"""


def test_check_describes_trunks_and_finds_what_would_keep_them_from_working(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CARRIER_PASSWORD", raising=False)
    file = tmp_path / "a.yaml"
    file.write_text(TRUNKS.format(variable="CARRIER_PASSWORD", file=tmp_path / "none"))
    assert main(["check", "-c", str(file)]) == 1
    said = capsys.readouterr()
    assert said.out.splitlines() == [
        "trunk carrier: calls to sip.example.com over TLS; registers sip:acme@sip.example.com; "
        "calls from 192.0.2.0/24, the addresses of sip.example.com; SRTP required",
        "trunk sbc: calls from certificate sbc.example.com",
        "trunk pbx: calls to pbx.example over TCP; calls from the addresses of pbx.example, digest user bob",
    ]
    assert "trunk 'carrier': the environment variable CARRIER_PASSWORD is not set" in said.err
    assert "trunk 'pbx', user 'bob': password_file" in said.err
    assert "trunk 'sbc': certificate_names need tls.certificate" in said.err
    assert "trunk 'pbx': transport: tcp, which sip.tcp switches off" in said.err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("trunks: [{name: a, host: a.example}, {name: a, host: b.example}]", "'a' stands here again"),
        ("trunks: [{name: a}]", "x.yaml:1: trunks[0]: it needs host"),
        ("trunks:\n  - name: a\n    host: a.example\n    prot: 5060", "x.yaml:4: trunks[0].prot: there is no such"),
        ("agents: {e: {kind: echo}}\nroutes: [{trunk: ghost, agent: e}]", "there is no trunk 'ghost'"),
        ("sip: {udp: false, tcp: false}", "nothing to listen on"),
        ("sip: {nameservers: [dns.example]}", "sip.nameservers[0]"),
        ("tls: {key: a.pem}", "key without certificate"),
        ("sip: {session_expires_s: 100, min_se_s: 200}", "is below sip.min_se_s"),
    ],
)
def test_what_is_wrong_about_trunks_and_transports_is_said(text: str, expected: str) -> None:
    assert expected in problems(text)[0]


def test_without_trunks_private_networks_may_call_with_trunks_only_who_is_named() -> None:
    assert "192.168.0.0/16" in parse("{}", "x.yaml", Path()).allowed_networks
    with_trunk = "trunks: [{name: a, networks: [10.0.0.0/8]}]"
    assert parse(with_trunk, "x.yaml", Path()).allowed_networks == ("127.0.0.0/8", "::1/128")
    both = f"sip: {{allow_from: [192.168.7.0/24]}}\n{with_trunk}"
    assert parse(both, "x.yaml", Path()).allowed_networks == ("192.168.7.0/24",)
