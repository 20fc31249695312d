"""What `pbx/asterisk` ships, in a real Asterisk 22: it loads clean, opens no more than it says, and never drops a
caller because Offhook is down or refuses."""

import hashlib
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from asterisk_shop import MUSIC_HZ, SHIPPED, AsteriskShop
from stasis_application import Application

OF_THE_PACKAGE = "users.conf is deprecated"
"""Debian's own file, not one of ours."""

OF_CHAN_SIP = {"SIPAddHeader"}
"""Gone from Asterisk 21 on; only its own channels come to it."""

NEW_TO_THE_LINTER = {
    "app 'AMD' does",
    "app 'AudioSocket' does",
    "function 'PJSIP_PARSE_URI_FROM' does",
    "function 'UUID' does",
    "function 'VERSION' does",
}
"""What asterisklint 0.4.3 does not know; Asterisk does."""

SUMMARY = 'Wants "a table": for 4, on Friday (window); will call again, won\'t he?'

LIMITED = """
[limited]
exten => s,1,Set(OFFHOOK_LONGEST_S=3)
 same => n,Goto(offhook,s,1)
"""
"""A call with an agent that lasts three seconds at most."""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AsteriskShop]:
    pbx = AsteriskShop(
        tmp_path_factory.mktemp("shop") / "asterisk",
        dialplan=LIMITED,
        uncommented=[("pjsip.conf", "#include offhook/pjsip.conf")],
    )
    yield pbx
    pbx.stop()


@pytest.fixture
def quiet_shop(shop: AsteriskShop) -> Iterator[AsteriskShop]:
    """The shop, without a call and with nobody at the queue before and after the test."""
    yield shop
    shop.hang_up_all()
    shop.cli("queue remove member PJSIP/desk from office")
    shop.assert_empty()


def ami_login(shop: AsteriskShop, user: str, password: str) -> str:
    """What the manager interface answers."""
    with (
        socket.create_connection(("127.0.0.1", shop.ami_port), timeout=20) as connection,
        connection.makefile() as said,
    ):
        said.readline()
        connection.sendall(f"Action: Login\r\nUsername: {user}\r\nSecret: {password}\r\n\r\n".encode())
        return "".join(iter(said.readline, "\n"))


def register(shop: AsteriskShop, user: str, password: str) -> int:
    """The status that a phone's REGISTER ends with."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as phone:
        phone.bind(("127.0.0.3", 0))
        phone.settimeout(20)
        challenge = ""
        for number in (1, 2):
            phone.sendto(
                register_request(shop, phone.getsockname(), user, password, challenge, number).encode(),
                ("127.0.0.1", shop.sip_port),
            )
            answer = next(text for text in iter(lambda: phone.recv(4000).decode(), "") if text.startswith("SIP/2.0"))
            challenge = answer
            if " 401 " not in answer.splitlines()[0]:
                break
        return int(answer.split()[1])


def register_request(
    shop: AsteriskShop, address: tuple[str, int], user: str, password: str, challenge: str, number: int
) -> str:
    uri = f"sip:127.0.0.1:{shop.sip_port}"
    authorization = ""
    if nonce := re.search(r'nonce="([^"]+)"', challenge):
        first = md5(f"{user}:asterisk:{password}")
        response = md5(f"{first}:{nonce[1]}:00000001:0a4f113b:auth:{md5(f'REGISTER:{uri}')}")
        authorization = (
            f'Authorization: Digest username="{user}", realm="asterisk", nonce="{nonce[1]}", uri="{uri}", '
            f'response="{response}", algorithm=MD5, qop=auth, nc=00000001, cnonce="0a4f113b"\r\n'
        )
        if opaque := re.search(r'opaque="([^"]+)"', challenge):
            authorization = authorization.replace("\r\n", f', opaque="{opaque[1]}"\r\n')
    host, port = address
    return (
        f"REGISTER {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {host}:{port};rport;branch=z9hG4bK{port}{number}\r\n"
        f"From: <sip:{user}@127.0.0.1>;tag=a\r\nTo: <sip:{user}@127.0.0.1>\r\nCall-ID: {port}@{host}\r\n"
        f"CSeq: {number} REGISTER\r\nContact: <sip:{user}@{host}:{port}>\r\nExpires: 60\r\nMax-Forwards: 70\r\n"
        f"{authorization}Content-Length: 0\r\n\r\n"
    )


def md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()


def in_voicemail(shop: AsteriskShop) -> bool:
    return "VoiceMail" in shop.cli("core show channels concise")


# -- how it loads ---------------------------------------------------------------------------------------------------


def test_asterisk_starts_without_a_warning(shop: AsteriskShop) -> None:
    startup = shop.program.said[: [("Asterisk Ready" in line) for line in shop.program.said].index(True) + 1]
    complaints = [line for line in startup if re.search(r"(WARNING|ERROR)\[", line)]
    assert [line for line in complaints if OF_THE_PACKAGE not in line] == []


def test_every_module_that_is_listed_runs(shop: AsteriskShop) -> None:
    listed = set(re.findall(r"^load = (\S+)$", (SHIPPED / "modules.conf").read_text(), re.MULTILINE))
    running = {line.split()[0] for line in shop.cli("module show").splitlines() if " Running " in line}
    assert listed - running == set()


def test_the_commands_of_every_guide_are_there(shop: AsteriskShop) -> None:
    assert "No such command" not in shop.cli("pjsip reload")
    assert "reload" in shop.cli("cli show aliases")


def test_every_context_ends_a_call_properly() -> None:
    for path in (SHIPPED / "extensions.conf", *(SHIPPED / "offhook").glob("*.conf")):
        for context, body in re.findall(r"^\[([\w-]+)\]\n(.*?)(?=^\[|\Z)", path.read_text(), re.M | re.S):
            if "exten => " in body:
                assert re.search(r"^exten => h,1,", body, re.MULTILINE), f"{path.name}: [{context}] has no `h`"


def test_asterisk_knows_every_word_of_the_dialplan(shop: AsteriskShop) -> None:
    plan = shop.cli("dialplan show")
    applications = set(re.findall(r"^\s+(\w+):", shop.cli("core show applications"), re.MULTILINE))
    used = set(re.findall(r"\d+\. (\w+)\(", plan)) | set(re.findall(r"(?:\?|TryExec\()([A-Z]\w+)\(", plan))
    assert {"Stasis", "Queue", "VoiceMail", "AudioSocket", "AMD"} <= used
    known = {name.lower() for name in applications}
    assert {name for name in used if name.lower() not in known} == OF_CHAN_SIP
    functions = set(re.findall(r"^(\w+)\s", shop.cli("core show functions"), re.MULTILINE))
    assert set(re.findall(r"\$\{([A-Z_]+)\(", plan)) | set(re.findall(r"Set\(([A-Z_]+)\(", plan)) <= functions


def test_the_linter_finds_nothing() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("asterisklint"), "dialplan-check", "extensions.conf"],
        check=False,
        cwd=SHIPPED,
        env={**os.environ, "ALINT_IGNORE": ""},
        capture_output=True,
        text=True,
    )
    found = (done.stdout + done.stderr).splitlines()
    assert [line for line in found if not any(known in line for known in NEW_TO_THE_LINTER)] == []


def test_nothing_listens_but_what_the_firewall_list_says(shop: AsteriskShop) -> None:
    found = sockets_of(shop.program.process.pid)
    # PJSIP's DNS client asks from ports of the system's choice.
    asking = {one for one in found if one[0].startswith("udp") and one[1].strip("0.") == ""}
    assert len(asking) <= 2
    assert found - asking == {
        ("tcp", "127.0.0.1", shop.http_port),
        ("tcp", "127.0.0.1", shop.ami_port),
        ("tcp", "127.0.0.1", shop.sip_port),
        ("udp", "127.0.0.1", shop.sip_port),
        ("udp", "127.0.0.1", shop.near_port),
        ("udp", "127.0.0.2", shop.far_port),
    }


def sockets_of(pid: int) -> set[tuple[str, str, int]]:
    """Where a process listens: protocol, address, port."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        if (found := re.match(r"socket:\[(\d+)\]", str(link.readlink()))) is not None:
            inodes.add(found[1])
    listening = set()
    for protocol, state in (("tcp", "0A"), ("udp", "07"), ("tcp6", "0A"), ("udp6", "07")):
        for line in Path("/proc/net", protocol).read_text().splitlines()[1:]:
            row = line.split()
            if row[9] in inodes and row[3] == state:
                address, port = row[1].split(":")
                listening.add((protocol, ".".join(str(byte) for byte in bytes.fromhex(address)[::-1]), int(port, 16)))
    return listening


def test_nothing_shipped_is_a_password(tmp_path: Path) -> None:
    """Without what `install` makes at random, nobody gets in anywhere."""
    pbx = AsteriskShop(tmp_path / "asterisk", secrets=False)
    try:
        for password in ("", "offhook", "password"):
            answer = httpx.get(f"{pbx.ari_url}/ari/asterisk/info", auth=("offhook", password), timeout=20)
            assert answer.status_code == 401
            assert "Authentication failed" in ami_login(pbx, "offhook", password)
            assert register(pbx, "1001", password) in (401, 403, 500)
        assert "no voicemail users" in pbx.cli("voicemail show users").lower()
    finally:
        pbx.stop()


def test_what_install_made_lets_in(shop: AsteriskShop) -> None:
    phone = re.search(r"username = 1001\npassword = (\w+)", (shop.etc / "offhook/secrets/phones.conf").read_text())
    assert phone is not None
    assert httpx.get(f"{shop.ari_url}/ari/asterisk/info", auth=("offhook", shop.password)).status_code == 200
    assert "Authentication accepted" in ami_login(shop, "offhook", shop.ami_password)
    assert register(shop, "1001", phone[1]) == 200
    shop.cli("pjsip show contacts")


# -- Offhook is down, or gives a call back --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "number",
    ["700@phones", "701@phones", "702@phones", "s@offhook", "s@offhook-sip", "s@offhook-audiosocket"],
    ids=["ari", "sip", "audiosocket", "ari-without-number", "sip-without-number", "audiosocket-without-number"],
)
def test_while_offhook_is_down_a_call_lands_in_the_queue(quiet_shop: AsteriskShop, number: str) -> None:
    quiet_shop.cli("queue add member PJSIP/desk to office")
    heard = quiet_shop.heard_s("tone"), quiet_shop.heard_s("desk")
    quiet_shop.originate(f"Local/{number}/n", "tone@world")
    quiet_shop.program.wait_for(lambda: quiet_shop.heard_s("tone") > heard[0] + 0.5, 30, "tone from the desk")
    quiet_shop.program.wait_for(lambda: quiet_shop.heard_s("desk") > heard[1] + 0.5, 30, "tone from the caller")


def test_while_nobody_is_at_the_queue_a_call_lands_in_voicemail(quiet_shop: AsteriskShop) -> None:
    box = quiet_shop.folder / "spool/voicemail/offhook/office/INBOX"
    quiet_shop.call_in("+4930123456")
    # The greeting takes a while; `#` is for who knows it.
    quiet_shop.program.wait_for(lambda: in_voicemail(quiet_shop), 30, "call in voicemail")
    quiet_shop.program.wait_for(
        lambda: any(box.parent.glob("tmp/*")) or any(box.glob("*.wav")), 60, "message being recorded"
    )
    quiet_shop.hang_up_all()
    quiet_shop.program.wait_for(lambda: any(box.glob("msg*.txt")), 30, "message in the box")


@pytest.mark.parametrize("status", ["REFUSED", "FAILED"])
def test_a_call_that_offhook_gives_back_lands_in_the_queue(quiet_shop: AsteriskShop, status: str) -> None:
    quiet_shop.cli("queue add member PJSIP/desk to office")
    heard = quiet_shop.heard_s("tone")
    with Application(quiet_shop) as application:
        quiet_shop.call_in("700")
        start = application.started()
        assert start["args"] == ["did=700"]
        application.give_back(start["channel"]["id"], {"OFFHOOK_STATUS": status})
        quiet_shop.program.wait_for(lambda: quiet_shop.heard_s("tone") > heard + 0.5, 30, "tone from the desk")


def test_a_call_whose_agent_was_through_ends(quiet_shop: AsteriskShop) -> None:
    with Application(quiet_shop) as application:
        quiet_shop.call_in("700")
        channel = application.started()["channel"]["id"]
        application.post(f"/channels/{channel}/answer")
        application.give_back(channel, {"OFFHOOK_STATUS": "ANSWERED"})
        quiet_shop.program.wait_for_line("world call ended ANSWER 16", 30)


def test_a_call_whose_offhook_never_comes_back_ends_at_the_limit(quiet_shop: AsteriskShop) -> None:
    with Application(quiet_shop) as application:
        quiet_shop.originate("Local/s@limited/n", "silent@world")
        channel = application.started()["channel"]["id"]
        application.post(f"/channels/{channel}/answer")
    quiet_shop.assert_empty()


def test_what_a_caller_dials_adds_no_argument(quiet_shop: AsteriskShop) -> None:
    with Application(quiet_shop) as application:
        application.post("/channels", endpoint="PJSIP/700,agent=sales@shop", extension="tone", context="world")
        assert application.started()["args"] == ["did=700agentsales"]


# -- where an agent sends callers -----------------------------------------------------------------------------------


def test_a_caller_handed_to_a_queue_comes_with_what_was_learned(quiet_shop: AsteriskShop) -> None:
    quiet_shop.cli("queue add member PJSIP/desk to office")
    quiet_shop.cli("pjsip set logger on")
    heard = quiet_shop.heard_s("desk")
    with Application(quiet_shop) as application:
        quiet_shop.call_in("700")
        learned = {
            "OFFHOOK_STATUS": "TRANSFER",
            "OFFHOOK_CALL_ID": "01HXYZ",
            "OFFHOOK_SUMMARY": SUMMARY,
        }
        application.give_back(
            application.started()["channel"]["id"], learned, context="offhook-queue", extension="office", priority="1"
        )
        quiet_shop.program.wait_for(lambda: quiet_shop.heard_s("desk") > heard + 0.5, 30, "tone from the caller")
    quiet_shop.program.wait_for_line(f"X-Offhook-Summary: {SUMMARY.replace(',', ';')}", 10)
    quiet_shop.program.wait_for_line("X-Offhook-Call-ID: 01HXYZ", 10)
    quiet_shop.program.wait_for_line(f",Summary: {SUMMARY.replace(',', ';')}", 10)
    quiet_shop.cli("pjsip set logger off")


def test_a_caller_waits_at_a_busy_queue_with_music(quiet_shop: AsteriskShop) -> None:
    quiet_shop.cli("queue add member PJSIP/deaf to office")
    heard = quiet_shop.heard_s("tone", MUSIC_HZ)
    quiet_shop.call_in("700")
    quiet_shop.program.wait_for(lambda: quiet_shop.heard_s("tone", MUSIC_HZ) > heard + 0.5, 30, "music on hold")
    quiet_shop.cli("queue remove member PJSIP/deaf from office")


def test_a_caller_sent_to_a_phone_that_does_not_answer_is_not_dropped(quiet_shop: AsteriskShop) -> None:
    quiet_shop.cli("queue add member PJSIP/desk to office")
    heard = quiet_shop.heard_s("tone")
    with Application(quiet_shop) as application:
        quiet_shop.call_in("700")
        application.give_back(
            application.started()["channel"]["id"],
            {"OFFHOOK_STATUS": "TRANSFER"},
            context="offhook-transfer",
            extension="1001",
            priority="1",
        )
        quiet_shop.program.wait_for(lambda: quiet_shop.heard_s("tone") > heard + 0.5, 30, "tone from the desk")


def test_an_agent_can_dial_no_number_outside(shop: AsteriskShop) -> None:
    for number in ("+4930123456", "0049301234", "190012345", "2001", "10010"):
        assert "There is no existence" in shop.cli(f"dialplan show {number}@offhook-transfer")
    assert "_1XXX" in shop.cli("dialplan show 1001@offhook-transfer")


@pytest.mark.parametrize(("callee", "verdict"), [("human", "HUMAN"), ("machine", "MACHINE")])
def test_a_person_is_told_from_a_machine(quiet_shop: AsteriskShop, callee: str, verdict: str) -> None:
    with Application(quiet_shop) as application:
        application.post("/channels", endpoint=f"PJSIP/{callee}@carrier", app="offhook", appArgs="ours")
        channel = application.started()["channel"]["id"]
        application.give_back(channel, {}, context="offhook-amd", extension="s", priority="1")
        assert application.started()["args"][0] == f"amd={verdict}"
