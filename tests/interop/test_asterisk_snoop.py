"""Supervisors on calls through a real Asterisk, and its own recordings: who hears whom, and that nothing is left."""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from asterisk_line import AsteriskLine, asterisk_line, up
from asterisk_shop import AsteriskShop
from contract import Listener, say, tone
from sip_line import taken
from tones import read_wav

from bridge.audio.tones import tone_level
from bridge.events import Cause, FarPartyChanged, LegEnded, LegNote
from bridge.legs.asterisk.leg import AsteriskLeg
from bridge.legs.base import LegError, LegState, LegStateError
from bridge.legs.sip import SipLeg
from bridge.legs.supervision import Mode, NoSuchSupervisorError, supervision_of

AGENT_HZ, CALLER_HZ, SUPERVISOR_HZ = 600.0, 900.0, 1200.0
LOUD = 1500

HEARD: Mapping[Mode, tuple[set[float], set[float]]] = {
    "listen": ({CALLER_HZ}, {AGENT_HZ}),
    "whisper": ({CALLER_HZ, SUPERVISOR_HZ}, {AGENT_HZ}),
    "barge": ({CALLER_HZ, SUPERVISOR_HZ}, {AGENT_HZ, SUPERVISOR_HZ}),
}
"""By mode: what the agent hears, what the caller hears. The supervisor hears both in all of them."""


GOES_ON = """
[from-carrier]
exten => 900,1,Stasis(offhook)
 same => n,Wait(600)
exten => 850,1,Answer()
 same => n,Echo()
"""
"""Where a caller goes on when the agent is through."""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AsteriskShop]:
    started = AsteriskShop(tmp_path_factory.mktemp("shop"), dialplan=GOES_ON)
    yield started
    started.stop()


@dataclass
class Supervised:
    """A call that is up, both sides humming, and the phone of its supervisor."""

    line: AsteriskLine
    near: AsteriskLeg
    caller: SipLeg
    agent_ear: Listener
    caller_ear: Listener

    @property
    def phone(self) -> str:
        host, port = self.line.sip.third.address
        return f"PJSIP/carrier/sip:boss@{host}:{port}"

    async def called(self, mode: Mode) -> tuple[str, SipLeg]:
        """A supervisor's phone rings."""
        supervisor = await self.near.supervision.begin(self.phone, mode)
        assert (supervisor.endpoint, supervisor.mode, supervisor.state) == (self.phone, mode, "ringing")
        return supervisor.id, await taken(self.line.sip.at_third)

    async def joined(self, mode: Mode) -> tuple[str, Listener]:
        """A supervisor is there, and hums."""
        id, phone = await self.called(mode)
        await phone.answer()
        ear = Listener(phone)
        hum(phone, SUPERVISOR_HZ)
        await self.line.until(
            lambda: [one.state for one in self.near.supervision.supervisors if one.id == id] == ["connected"],
            "connected supervisor",
        )
        return id, ear

    async def hear(self, mode: Mode, supervisor: Listener | None = None) -> None:
        agent, caller = HEARD[mode]
        await hears(self.line, self.agent_ear, agent)
        await hears(self.line, self.caller_ear, caller)
        if supervisor is not None:
            await hears(self.line, supervisor, {AGENT_HZ, CALLER_HZ})

    @property
    def recordings(self) -> list[str]:
        events = [event for event in self.agent_ear.events if isinstance(event, LegNote)]
        return [event.detail for event in events if event.name == "asterisk-recording"]

    @property
    def notes(self) -> list[str]:
        return [event.detail for event in self.agent_ear.events if isinstance(event, LegNote)]


def hum(leg: AsteriskLeg | SipLeg, hz: float) -> None:
    say(leg, tone(leg, hz, 120_000))


def heard(ear: Listener) -> set[float]:
    pcm = b"".join(ear.frames[-10:])
    rate = ear.leg.sample_rate
    return {hz for hz in (AGENT_HZ, CALLER_HZ, SUPERVISOR_HZ) if tone_level(pcm, hz, rate) > LOUD}


async def hears(line: AsteriskLine, ear: Listener, wanted: set[float]) -> None:
    """These parties and nobody else, for a while."""
    began = len(ear.frames)

    def only_them() -> bool:
        nonlocal began
        if heard(ear) != wanted:
            began = len(ear.frames)
        return len(ear.frames) >= began + 12

    await line.until(only_them, f"sound of {wanted}, and of nobody else")


@asynccontextmanager
async def supervised(shop: AsteriskShop, number: str = "700", **settings: object) -> AsyncIterator[Supervised]:
    async with asterisk_line(shop, **settings) as line:
        near, caller = await line.call(number)
        made = Supervised(line, near, caller, Listener(near), Listener(caller))
        await near.answer()
        await up(near, caller)
        hum(near, AGENT_HZ)
        hum(caller, CALLER_HZ)
        yield made
        for leg in line.sip.third.legs:
            await leg.hangup(Cause.AGENT_HUNG_UP)


async def test_who_hears_whom_in_each_mode_until_the_supervisor_is_sent_away(shop: AsteriskShop) -> None:
    async with supervised(shop) as call:
        supervision = supervision_of(call.near)
        id, supervisor = await call.joined("listen")
        await call.hear("listen", supervisor)
        for mode in ("whisper", "barge", "listen"):
            changed = await supervision.change(id, mode)
            assert (changed.mode, changed.state) == (mode, "connected")
            await call.hear(mode, supervisor)
        # The call's own bridge still passes frames on as they are.
        assert (await call.line.endpoint.ari.bridge(call.near.line.bridge_id)).technology == "simple_bridge"
        assert supervision.supervisors == (changed,)
        await supervision.stop(id)
        assert supervision.supervisors == ()
        await supervisor.event(LegEnded)
        await call.hear("listen")
        with pytest.raises(NoSuchSupervisorError):
            await supervision.stop(id)
        with pytest.raises(NoSuchSupervisorError):
            await supervision.change(id, "barge")
        assert call.notes == [
            f"{call.phone} {what}"
            for what in (
                "is called (listen)",
                "listens",
                "speaks to the agent alone",
                "speaks to both",
                "listens",
                "is gone: stopped",
            )
        ]


async def test_the_supervisor_sees_who_is_listened_to(shop: AsteriskShop) -> None:
    async with supervised(shop) as call:
        id, phone = await call.called("listen")
        assert phone.info.from_ == "+4930111"
        await call.near.supervision.stop(id)


async def test_the_supervisor_hangs_up_and_the_call_goes_on(shop: AsteriskShop) -> None:
    async with supervised(shop) as call:
        _, supervisor = await call.joined("barge")
        await call.hear("barge", supervisor)
        await supervisor.leg.hangup(Cause.AGENT_HUNG_UP)
        await call.hear("listen")
        assert call.near.supervision.supervisors == ()
        assert call.notes[-1].endswith("is gone: hung up")


@pytest.mark.parametrize("who", ["caller", "agent", "caller while it rings"])
async def test_supervision_ends_with_the_call(shop: AsteriskShop, who: str) -> None:
    async with supervised(shop, after="hangup") as call:
        if who == "caller while it rings":
            _, phone = await call.called("listen")
            supervisor = Listener(phone)
        else:
            _, supervisor = await call.joined("barge")
        await (call.near if who == "agent" else call.caller).hangup(Cause.AGENT_HUNG_UP)
        await supervisor.event(LegEnded)
        assert call.near.supervision.supervisors == ()


async def test_two_supervisors_on_one_call(shop: AsteriskShop) -> None:
    async with supervised(shop) as call:
        _, one = await call.joined("listen")
        _, other = await call.joined("barge")
        assert {one.mode for one in call.near.supervision.supervisors} == {"listen", "barge"}
        await hears(call.line, call.caller_ear, {AGENT_HZ, SUPERVISOR_HZ})
        await other.leg.hangup(Cause.AGENT_HUNG_UP)
        await call.hear("listen", one)


async def test_supervision_and_recording_follow_when_the_caller_transfers_its_call(shop: AsteriskShop) -> None:
    async with supervised(shop, recording="asterisk") as call:
        _, supervisor = await call.joined("listen")
        # The caller calls an echo as well, and joins the two.
        echo = await call.line.dial("850")
        await call.line.until(lambda: echo.state is LegState.UP, "second call of the caller")
        await call.caller.transfer("", replacing=echo)
        await call.agent_ear.event(FarPartyChanged)
        await hears(call.line, call.agent_ear, {AGENT_HZ})
        await hears(call.line, supervisor, {AGENT_HZ})
        await call.line.until(lambda: len(call.recordings) == 2, "second part of the recording")
        await call.near.hangup(Cause.AGENT_HUNG_UP)


async def test_who_can_not_be_called_supervises_nothing(shop: AsteriskShop) -> None:
    async with supervised(shop) as call:
        supervision = call.near.supervision
        for endpoint in ("PJSIP/nix", "PJSIP/1001", "sip:boss@example.org", "nobody"):
            with pytest.raises(LegError):
                await supervision.begin(endpoint, "listen")
        busy = await supervision.begin("PJSIP/busy@carrier", "listen")
        await call.line.until(lambda: supervision.supervisors == (), "end of the call to the supervisor")
        assert busy.state == "ringing"
        assert call.notes[-1] == "PJSIP/busy@carrier is gone: busy (486: User busy (17))"
        assert call.near.state is LegState.UP
        await call.hear("listen")


async def test_only_a_call_that_is_up_is_supervised(shop: AsteriskShop) -> None:
    async with asterisk_line(shop) as line:
        near, _ = await line.call()
        with pytest.raises(LegStateError):
            await near.supervision.begin("PJSIP/desk", "listen")


# -- recordings -----------------------------------------------------------------------------------------------------


async def test_asterisk_records_both_sides_until_we_are_through(shop: AsteriskShop) -> None:
    async with supervised(shop, "900", recording="asterisk") as call:
        await call.hear("listen")
        name, detail = await noted(call)
        assert name == "asterisk-recording"
        # Recorded, the call's own bridge still passes frames on as they are.
        assert (await call.line.endpoint.ari.bridge(call.near.line.bridge_id)).technology == "simple_bridge"
        began = len(call.caller_ear.frames)
        await call.line.until(lambda: len(call.caller_ear.frames) > began + 75, "more to record")
        await call.near.hangup(Cause.AGENT_HUNG_UP)
        # The caller goes on in the dialplan behind `Stasis`, where nothing of ours listens.
        await call.line.until(lambda: not any("Snoop/" in one for one in shop.channels()), "end of the recording")
        assert call.caller.state is LegState.UP
        samples, rate = read_wav(shop.folder / "spool/recording" / detail)
        pcm = samples[-rate:].astype("<i2").tobytes()
        assert {hz for hz in (AGENT_HZ, CALLER_HZ, SUPERVISOR_HZ) if tone_level(pcm, hz, rate) > LOUD} == {
            AGENT_HZ,
            CALLER_HZ,
        }


async def test_a_recording_that_fails_is_on_record_and_the_call_goes_on(shop: AsteriskShop) -> None:
    folder = shop.folder / "spool/recording/offhook"
    kept = folder.with_name("kept")
    if folder.exists():
        folder.rename(kept)
    folder.write_text("a file where a folder is wanted")
    try:
        async with supervised(shop, recording="asterisk") as call:
            # Asterisk says that it records, and then that it does not.
            await call.line.until(lambda: any("Asterisk's log says why" in note for note in call.notes), "failure")
            last = [event for event in call.agent_ear.events if isinstance(event, LegNote)][-1]
            assert last.name == "asterisk-recording-failed"
            await call.line.until(lambda: not any("Snoop/" in one for one in shop.channels()), "end of the recording")
            await call.hear("listen")
    finally:
        folder.unlink()


async def noted(call: Supervised) -> tuple[str, str]:
    """The first note, and where it is."""
    event = await call.agent_ear.event(LegNote)
    assert isinstance(event, LegNote)
    return event.name, event.detail
