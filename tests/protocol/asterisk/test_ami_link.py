"""One connection kept to a manager interface: actions, lists, events, and everything that can go wrong with it."""

import asyncio
import hashlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import structlog
from ami_standin import CHALLENGE, QUEUES, AmiStandin

from bridge.asterisk import ami as ami_module
from bridge.asterisk.ami import Ami, AmiError, AmiRefusedError, AmiUnavailableError
from bridge.asterisk.ami_events import (
    AmiDown,
    AmiEvent,
    AmiUp,
    DeviceStateChanged,
    OtherEvent,
    QueueCallerChanged,
    QueueMemberChanged,
)
from bridge.asterisk.settings import AmiSettings
from bridge.asterisk.status import AMI_STATES

pytestmark = pytest.mark.timeout(60)


async def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


@asynccontextmanager
async def connected(
    server: AmiStandin, secret: str = "right", *, request_s: float = 20.0, up: bool = True
) -> AsyncIterator[Ami]:
    settings = AmiSettings(
        host="127.0.0.1", port=server.port, username="offhook", password_env="AMI", request_s=request_s
    )
    ami = Ami(settings, "pbx", environ={"AMI": secret}, reconnect_s=0.2)
    ami.start()
    try:
        if up:
            await until(lambda: ami.state == "up")
        yield ami
    finally:
        await ami.aclose()
        assert ami.state == "closed"


@pytest.fixture
async def server() -> AsyncIterator[AmiStandin]:
    async with AmiStandin() as started:
        yield started


async def test_the_secret_itself_never_goes_over_the_wire(server: AmiStandin) -> None:
    async with connected(server):
        login = server.named("Login")[0]
    assert login["AuthType"] == "MD5"
    assert login["Key"] == hashlib.md5(f"{CHALLENGE}right".encode()).hexdigest()
    assert all("right" not in value for fields in server.actions for value in fields.values())


async def test_queues_come_with_their_members_and_callers(server: AmiStandin) -> None:
    async with connected(server) as ami:
        (queue,) = await ami.queues()
    assert (queue.name, queue.strategy, queue.waiting, queue.completed) == ("support", "rrmemory", 2, 31)
    assert (queue.hold_s, queue.service_level_percent) == (14.0, 96.8)
    assert [(one.name, one.state, one.paused, one.available) for one in queue.members] == [
        ("Änne Müller", "NOT_INUSE", False, True),
        ("Ben", "NOT_INUSE", True, False),
    ]
    assert queue.available == 1
    assert queue.members[0].last_call_at == 1_790_000_000
    assert queue.members[1].last_call_at is None
    assert [(one.position, one.caller_number, one.waited_s) for one in queue.callers] == [
        (1, "+4930123456", 41.0),
        (2, "", 3.0),
    ]


async def test_messages_in_single_bytes_lose_no_letter(server: AmiStandin) -> None:
    server.sliced = True
    async with connected(server) as ami:
        (queue,) = await ami.queues()
    assert queue.members[0].name == "Änne Müller"


async def test_one_queue_can_be_asked_for(server: AmiStandin) -> None:
    async with connected(server) as ami:
        await ami.queues("support")
    assert server.named("QueueStatus")[0]["Queue"] == "support"


async def test_events_are_typed_and_others_come_as_they_are(server: AmiStandin) -> None:
    seen: list[AmiEvent] = []
    async with connected(server) as ami:
        ami.subscribe(seen.append)
        await server.tell(
            (
                ("Event", "QueueMemberPause"),
                ("Queue", "support"),
                ("MemberName", "Ben"),
                ("Interface", "PJSIP/1002"),
                ("Status", "6"),
                ("Paused", "1"),
                ("PausedReason", "lunch"),
            ),
            (
                ("Event", "QueueCallerJoin"),
                ("Queue", "support"),
                ("Position", "1"),
                ("Count", "3"),
                ("CallerIDNum", "+4930123456"),
            ),
            (("Event", "QueueCallerAbandon"), ("Queue", "support"), ("Position", "1"), ("HoldTime", "9")),
            (("Event", "DeviceStateChange"), ("Device", "PJSIP/1001"), ("State", "INUSE")),
            (
                ("Event", "UserEvent"),
                ("UserEvent", "OffhookHandover"),
                ("ChanVariable", "a=1"),
                ("ChanVariable", "b=2"),
            ),
        )
        await until(lambda: len(seen) == 5)
    paused, joined, gone, device, other, down = seen
    assert isinstance(paused, QueueMemberChanged)
    assert (paused.change, paused.member.paused_reason, paused.member.state) == ("paused", "lunch", "RINGING")
    assert isinstance(joined, QueueCallerChanged)
    assert (joined.change, joined.waiting, joined.caller.caller_number) == ("joined", 3, "+4930123456")
    assert isinstance(gone, QueueCallerChanged)
    assert (gone.change, gone.waiting, gone.caller.waited_s) == ("abandoned", None, 9.0)
    assert device == DeviceStateChanged("PJSIP/1001", "INUSE")
    assert isinstance(other, OtherEvent)
    assert other.fields["ChanVariable"] == "a=1\nb=2"
    assert down == AmiDown("closed")


async def test_a_failing_listener_costs_neither_the_connection_nor_the_others(server: AmiStandin) -> None:
    seen: list[AmiEvent] = []

    def fail(_: AmiEvent) -> None:
        raise KeyError("a listener's mistake")

    async with connected(server) as ami:
        ami.subscribe(fail)
        unsubscribe = ami.subscribe(seen.append)
        await server.tell((("Event", "DeviceStateChange"), ("Device", "PJSIP/1001"), ("State", "INUSE")))
        await until(lambda: seen)
        unsubscribe()
        await ami.queues()
        assert ami.connects == 1


async def test_a_refusal_carries_what_asterisk_said(server: AmiStandin) -> None:
    server.answers["redirect"] = lambda _: [(("Response", "Error"), ("Message", "Permission denied"))]
    async with connected(server) as ami:
        with pytest.raises(AmiRefusedError, match="Redirect: Permission denied") as told:
            await ami.action("Redirect", Channel="PJSIP/1-1", Context="x", Exten="1", Priority=1)
        assert told.value.denied
        assert ami.readings() == {
            'asterisk_ami_up{asterisk="pbx"}': 1.0,
            'asterisk_ami_connects_total{asterisk="pbx"}': 1.0,
            'asterisk_ami_actions_total{asterisk="pbx"}': 1.0,
            'asterisk_ami_actions_failed_total{asterisk="pbx"}': 1.0,
            'asterisk_ami_events_total{asterisk="pbx"}': 0.0,
        } | {f'asterisk_ami_state{{asterisk="pbx",state="{state}"}}': float(state == "up") for state in AMI_STATES}


async def test_an_originate_is_async_and_its_end_comes_as_an_event(server: AmiStandin) -> None:
    server.answers["originate"] = lambda _: [(("Response", "Success"), ("Message", "Originate successfully queued"))]
    seen: list[AmiEvent] = []
    async with connected(server) as ami:
        ami.subscribe(seen.append)
        (answer,) = await ami.action("Originate", Channel="Local/1@x", Variable=["a=1", "b=2"], Application="Wait")
        await server.tell((("Event", "OriginateResponse"), ("Response", "Failure"), ("ActionID", answer["ActionID"])))
        await until(lambda: seen)
    sent = server.named("Originate")[0]
    assert (sent["Async"], sent["Variable"]) == ("true", "a=1\nb=2")
    assert isinstance(seen[0], OtherEvent)
    assert seen[0].fields["ActionID"] == answer["ActionID"]


async def test_an_answer_that_looks_like_a_list_but_is_none_is_complete(server: AmiStandin) -> None:
    """`Added interface to queue`: nothing follows."""
    server.answers["queueadd"] = lambda _: [(("Response", "Success"), ("Message", "Added interface to queue"))]
    async with connected(server) as ami:
        (answer,) = await ami.action("QueueAdd", Queue="support", Interface="Local/7@x")
    assert answer["Message"] == "Added interface to queue"


async def test_a_line_break_in_a_value_is_refused(server: AmiStandin) -> None:
    async with connected(server) as ami:
        with pytest.raises(ValueError, match="line break"):
            await ami.action("Getvar", Variable="x\r\n\r\nAction: Hangup\r\nChannel: /.*/")
        with pytest.raises(ValueError, match="is no device"):
            await ami.device_state("PJSIP/1),SHELL(x")
    assert not server.named("Hangup")


async def test_an_action_without_answer_ends_at_its_deadline_and_its_late_rows_are_no_events(
    server: AmiStandin,
) -> None:
    server.deaf.add("queuestatus")
    seen: list[AmiEvent] = []
    async with connected(server, request_s=0.2) as ami:
        ami.subscribe(seen.append)
        with pytest.raises(AmiUnavailableError, match=r"QueueStatus: no answer within 0\.2 s"):
            await ami.queues()
        late = server.named("QueueStatus")[0]["ActionID"]
        await server.tell(*((*message, ("ActionID", late)) for message in QUEUES))
        await server.tell((("Event", "DeviceStateChange"), ("Device", "PJSIP/1001"), ("State", "INUSE")))
        await until(lambda: seen)
        assert seen == [DeviceStateChanged("PJSIP/1001", "INUSE")]


async def test_a_cut_fails_what_waits_at_once_connects_again_and_sends_nothing_twice(server: AmiStandin) -> None:
    server.deaf.add("originate")
    seen: list[AmiEvent] = []
    async with connected(server) as ami:
        ami.subscribe(seen.append)
        waiting = asyncio.create_task(ami.action("Originate", Channel="Local/1@x", Application="Wait"))
        await until(lambda: server.named("Originate"))
        server.cut()
        with pytest.raises(AmiUnavailableError, match="Originate"):
            await waiting
        await until(lambda: ami.state == "up" and ami.connects == 2)
        await ami.queues()
    assert len(server.named("Originate")) == 1
    assert [type(event) for event in seen] == [AmiDown, AmiUp, AmiDown]
    assert seen[1] == AmiUp(first=False)


async def test_asterisk_that_shuts_down_is_met_again_when_it_is_back(server: AmiStandin) -> None:
    async with connected(server) as ami:
        await server.tell((("Event", "Shutdown"), ("Shutdown", "Cleanly"), ("Restart", "True")))
        await until(lambda: ami.state == "down")
        assert "Asterisk shut down" in ami.last_error
        await server.stop()
        with pytest.raises(AmiUnavailableError, match="the manager interface is down"):
            await ami.queues()
        await server.start()
        await until(lambda: ami.state == "up")
        assert len(await ami.queues()) == 1


async def test_wrong_credentials_are_told_once_and_not_tried_again_soon(server: AmiStandin) -> None:
    with structlog.testing.capture_logs() as logs:
        async with connected(server, "wrong-secret", up=False) as ami:
            await until(lambda: ami.state == "unauthorized")
            assert "manager.conf" in ami.last_error
            ami.reconnect()
            await until(lambda: len(server.named("Login")) == 2)
            await until(lambda: ami.state == "unauthorized")
            with pytest.raises(AmiError):
                await ami.queues()
    assert ami_module.UNAUTHORIZED_PAUSE_S >= 60
    assert [entry["log_level"] for entry in logs] == ["error"]
    assert "wrong-secret" not in repr(logs)


async def test_a_missing_password_is_told_and_nothing_is_connected(server: AmiStandin) -> None:
    settings = AmiSettings(host="127.0.0.1", port=server.port, username="offhook", password_env="AMI")
    ami = Ami(settings, "pbx", environ={})
    ami.start()
    await until(lambda: ami.state == "unauthorized")
    assert "AMI is not set" in ami.last_error
    await ami.aclose()
    assert server.connections == 0


async def test_what_is_no_manager_interface_is_called_that(server: AmiStandin) -> None:
    server.banner = b"SSH-2.0-OpenSSH_9.2\r\n"
    async with connected(server, up=False) as ami:
        await until(lambda: ami.state == "down")
        assert "no manager interface is there: it says 'SSH-2.0-OpenSSH_9.2" in ami.last_error


async def test_a_far_side_that_falls_silent_is_noticed_by_a_ping(
    server: AmiStandin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ami_module, "QUIET_S", 0.05)
    async with connected(server, request_s=0.5) as ami:
        await until(lambda: len(server.named("Ping")) >= 3)
        assert ami.connects == 1
        server.deaf.add("ping")
        await until(lambda: ami.connects == 2)


async def test_nothing_secret_is_logged_at_any_level(server: AmiStandin, caplog: pytest.LogCaptureFixture) -> None:
    server.answers["originate"] = lambda _: [(("Response", "Success"), ("Message", "Originate successfully queued"))]
    with caplog.at_level(logging.DEBUG):
        async with connected(server) as ami:
            await ami.action("Originate", Channel="Local/1@x", Variable="PIN=4711", Application="Wait")
            server.cut()
            await until(lambda: ami.connects == 2)
    assert "4711" not in caplog.text
    assert "right" not in caplog.text


async def test_a_message_without_end_is_not_kept(server: AmiStandin) -> None:
    async with connected(server) as ami:
        await server.tell((("Event", "UserEvent"), ("Text", "x" * 2_000_000)))
        await until(lambda: ami.connects == 2)
        assert "a message of more than" in ami.last_error


async def test_a_message_that_can_not_be_read_is_no_shutdown(server: AmiStandin) -> None:
    async with connected(server) as ami:
        await server.tell((("Event", "UserEvent"), ("Event", "of a dialplan")))
        await until(lambda: ami.state == "down")
        assert "can't be read" in ami.last_error
        await until(lambda: ami.state == "up")
