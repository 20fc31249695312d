"""Many calls through a real Asterisk at once, and calls that come and go while the event socket is cut again and
again: nothing is left of them on either side."""

import asyncio
import contextlib
import random
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parents[1] / "e2e"))

from ari_proxy import AriProxy
from asterisk_caller import asterisk_section
from asterisk_shop import AsteriskShop
from bridge_process import BridgeProcess
from free_ports import free_ports
from soak_callers import Habit, open_callers

AT_ONCE = 100
IN_THE_STORM = 80
RTP_PORTS = 560
"""A call takes four of Asterisk's, and an Asterisk that has none left crashes."""

NUMBER = "9000"
DIALPLAN = f"""
[from-carrier](+)
exten => {NUMBER},1,Stasis(offhook,agent=echo)
 same => n,GotoIf($["${{STASISSTATUS}}" != "FAILED"]?over)
; Nobody is there for the application: soon there is.
 same => n,Wait(0.2)
 same => n,Goto(1)
 same => n(over),Hangup()
"""

VARIABLES = {"OFFHOOK_RTP_FIRST_MEDIA_TIMEOUT_S": "8", "OFFHOOK_RTP_MEDIA_TIMEOUT_S": "8"}

SHARES = {Habit.HANGS_UP: 75, Habit.CANCELS: 15, Habit.VANISHES: 5, Habit.IS_MUTE: 5}


@dataclass(frozen=True, slots=True)
class World:
    shop: AsteriskShop
    proxy: AriProxy
    bridge: BridgeProcess

    def wait_until_empty(self, tasks: float, files: int) -> None:
        """No call on either side, and no more than `held` in the bridge."""
        self.shop.assert_empty(45)
        self.bridge.wait_until_idle()
        self.bridge.wait_for(lambda: self.held()[0] <= tasks, 30, f"return to {tasks} tasks")
        # A connection of the record's pool may be open at one count and closed at the other. Those that Asterisk was
        # asked by over HTTP are closed when they are idle.
        self.bridge.wait_for(lambda: self.held()[1] <= files + 3, 30, f"return to {files} open files")

    def wait_until_up(self) -> None:
        """Connected, and what is to be learnt of Asterisk learnt."""
        self.bridge.wait_for(lambda: self.bridge.asterisks()[0]["rest_over_socket"], 30, "connection to Asterisk")

    def call(self, count: int, *, at_once: int, seed: int) -> Counter[str]:
        """What became of the calls, as their callers saw it."""

        async def storm() -> Counter[str]:
            target = ("127.0.0.1", self.shop.sip_port)
            callers = await open_callers(target, user=NUMBER, shares=SHARES, loss=0.0, t1_s=0.5, seed=seed)
            try:
                await callers.call_all(count, at_once=at_once)
            finally:
                callers.close()
            return callers.outcomes

        return asyncio.run(storm())

    def ended_calls(self) -> list[dict[str, Any]]:
        """All calls on record, as soon as each has ended there too: a disk takes its time."""

        def found() -> list[dict[str, Any]]:
            calls = self.bridge.calls()
            return calls if all(call["cause"] for call in calls) else []

        calls: list[dict[str, Any]] = self.bridge.wait_for(found, 30, "end of every call on record")
        return calls

    @contextlib.contextmanager
    def weather(self) -> Iterator[None]:
        """Every now and then the event socket is cut, and somebody's call hung up."""
        calm = threading.Event()
        chance = random.Random(4)

        def rage() -> None:
            while not calm.wait(chance.uniform(0.3, 1.2)):
                self.proxy.cut()
                for call in self.bridge.calls(live=True)[:1]:
                    self.bridge.try_hang_up(call["id"])

        thread = threading.Thread(target=rage)
        thread.start()
        try:
            yield
        finally:
            calm.set()
            thread.join()

    def held(self) -> tuple[float, int]:
        """Tasks and open files of the bridge."""
        return self.bridge.metrics()["offhook_event_loop_tasks"], self.bridge.open_files()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    first = free_ports(RTP_PORTS, rtp=True)
    ports = [("rtpstart = 10000\n", f"rtpstart = {first}\n", 1)]
    ports.append(("rtpend = 19999\n", f"rtpend = {first + RTP_PORTS - 1}\n", 1))
    folder: Path = tmp_path_factory.mktemp("storm")
    shop = AsteriskShop(folder / "asterisk", dialplan=DIALPLAN, replaced={"rtp.conf": ports})
    proxy = AriProxy(shop.http_port)
    try:
        section = asterisk_section(shop, port=proxy.port, more=", request_s: 10, reconnect_s: 0.2")
        bridge = BridgeProcess(
            folder / "bridge", variables={**VARIABLES, "ARI_PASSWORD": shop.password}, more=section
        )
        made = World(shop, proxy, bridge)
        made.wait_until_up()
        yield made
        bridge.stop()
    finally:
        proxy.stop()
        shop.stop()


def test_a_hundred_calls_at_once_come_up_and_leave_nothing_behind(world: World) -> None:
    tasks, files = world.held()
    outcomes = world.call(AT_ONCE, at_once=AT_ONCE, seed=1)
    world.wait_until_empty(tasks, files)
    assert not outcomes["never came up"], outcomes
    calls = world.ended_calls()
    causes = Counter(call["cause"] for call in calls)
    # Nobody's request was given up. On a busy machine the answer may overtake every CANCEL.
    assert set(causes) <= {"caller-hung-up", "cancelled", "media-timeout"}, causes
    # Who hung up is on record as that.
    quiet = [(call["from"], call["detail"], call["quality"]) for call in calls if call["cause"] == "media-timeout"]
    assert len(quiet) <= outcomes[Habit.VANISHES] + outcomes[Habit.IS_MUTE], (quiet, outcomes)


def test_calls_that_come_and_go_while_the_event_socket_is_cut_leave_nothing_behind(world: World) -> None:
    tasks, files = world.held()
    before = {call["id"] for call in world.bridge.calls()}
    with world.weather():
        outcomes = world.call(IN_THE_STORM, at_once=20, seed=2)
    world.wait_until_up()
    world.wait_until_empty(tasks, files)
    causes = Counter(call["cause"] for call in world.ended_calls() if call["id"] not in before)
    # Some cancel while nobody is there.
    assert causes.total() > IN_THE_STORM / 2, (causes, outcomes)
    assert not causes["internal-error"], causes
