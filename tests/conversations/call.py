"""One situation played: the caller does what the script says, and all that can be known of the call is kept."""

import asyncio
import contextlib
import zlib
from dataclasses import dataclass, field
from typing import Any

import sounds
from caller import CallOverError, LineCaller, Said
from house import House
from raw_caller import Packet
from situation import Engines, Situation, Step

from bench.vad_signals import RATE

AGENT_DONE_S = 1.0
"""Silence after which the agent has finished: the pauses between its sentences are shorter."""
REPLY_S = 40.0
"""Only a limit, on busy machines."""
MONOLOGUE_S = 90.0
END_S = 90.0
DIAL_S = 30.0


@dataclass
class Outcome:
    situation: Situation
    engines: Engines
    packets: list[Packet] = field(default_factory=list)
    """From the wire, in the order of their coming."""
    said: list[Said] = field(default_factory=list)
    record: dict[str, Any] = field(default_factory=dict)
    """The call by the API."""
    trouble: str = ""
    """What kept the script from being played; empty: nothing."""
    heard: str = ""
    """What the recogniser found in all of the agent's audio."""
    referred_to: list[str] = field(default_factory=list)
    late_ms: float = 0.0
    """How late the caller's voice left, at worst: late packets are gaps in what is heard."""

    @property
    def turns(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.record.get("turns", [])
        return found

    def events(self, name: str) -> list[dict[str, Any]]:
        return [event["data"] for event in self.record.get("events", []) if event["name"] == name]


async def play(situation: Situation, engines: Engines, house: House) -> Outcome:
    """Dial, do what the script says, hang up, fetch the record. Never raises: see `Outcome.trouble`."""
    outcome = Outcome(situation, engines)
    caller = LineCaller(situation.line, zlib.crc32(situation.name.encode()))
    await caller.open()
    leg_id = ""
    try:
        leg_id = await caller.dial(house.agent_name(situation), house.bridge.sip_port)
        await _Player(caller, situation, house).play()
    except CallOverError:
        outcome.trouble = "the call was over before the caller had done everything"
    except (TimeoutError, AssertionError) as error:
        outcome.trouble = f"{type(error).__name__}: {error}"
    with contextlib.suppress(TimeoutError):
        if leg_id and not caller.ended.is_set():
            await caller.hang_up()
    await caller.close()
    outcome.packets, outcome.said, outcome.referred_to = caller.packets, caller.said, caller.referred_to
    outcome.late_ms = caller.late_ms
    if leg_id:
        try:
            outcome.record = await asyncio.to_thread(house.record_of, leg_id)
        except AssertionError as error:
            outcome.trouble += f" no record: {error}"
    return outcome


class _Player:
    def __init__(self, caller: LineCaller, situation: Situation, house: House) -> None:
        self._caller = caller
        self._situation = situation
        self._house = house
        self._from = 0
        """Packets of the agent from here on came after the caller's last step."""

    async def play(self) -> None:
        for number, step in enumerate(self._situation.script):
            try:
                await self._time_has_come(step)
                await self._do(step)
            except TimeoutError:
                raise TimeoutError(f"waiting at step {number + 1} of the script: {_brief(step)}") from None

    async def _time_has_come(self, step: Step) -> None:
        caller = self._caller
        if step.after_s is not None:
            await self._stay(step.after_s)
        elif step.over_s is not None:
            onset = await self._agent_speaks()
            await caller.until(lambda: len(caller.packets) >= onset + step.over_s * 50, REPLY_S)
        elif not (step.stay_s or step.until_end):
            await self._agent_speaks()
            await caller.until(lambda: caller.silent_for(AGENT_DONE_S), MONOLOGUE_S)

    async def _agent_speaks(self) -> int:
        """The index of its first loud packet since the caller's last step."""
        caller, at = self._caller, self._from

        def loud() -> bool:
            nonlocal at
            while at < len(caller.packets) and not caller.packets[at].loud:
                at += 1
            return at < len(caller.packets)

        await caller.until(loud, REPLY_S)
        return at

    async def _do(self, step: Step) -> None:
        caller = self._caller
        if step.say:
            samples = sounds.phrase(step.say, step.voice)
            if step.cut_s is not None:
                samples = samples[: int(step.cut_s * RATE)]
            caller.utter(step.say, samples)
        elif step.sound:
            caller.utter(f"({step.sound})", sounds.sound(step.sound, step.sound_s))
        elif step.keys:
            caller.press(step.keys)
        elif step.hold_s:
            await caller.hold(True)
            await self._stay(step.hold_s)
            await caller.hold(False)
        elif step.stay_s:
            await self._stay(step.stay_s)
        elif step.dies:
            await self._house.kill(self._situation, step.dies)
            return
        elif step.until_end:
            with contextlib.suppress(CallOverError):
                await caller.until(lambda: False, END_S)
            return
        elif step.hang_up:
            await caller.hang_up()
            return
        await caller.done()
        self._from = len(caller.packets)

    async def _stay(self, seconds: float) -> None:
        until = self._caller.loop.time() + seconds
        await self._caller.until(lambda: self._caller.loop.time() >= until, seconds + 30)


def _brief(step: Step) -> str:
    return ", ".join(f"{name}: {value}" for name, value in step.model_dump(exclude_defaults=True).items())
