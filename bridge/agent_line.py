"""What an agent sees of its call: the caller's leg, as long as the caller is with it.

While the call's two parties talk without the agent it is told that the line is on hold, as a caller's own hold is
told; what it hears then is silence. All else goes through to the leg.
"""

from collections.abc import Awaitable, Callable, Mapping

from bridge.audio.frames import FrameSink, Unsubscribe
from bridge.audio.playout import Playout
from bridge.caller_music import CallerMusic
from bridge.events import Cause, DtmfReceived, Held, LegEnded, LegEvent, Resumed
from bridge.legs.base import Capability, Leg, LegInfo, LegState, MediaQuality
from bridge.legs.subscribers import Subscribers

Ear = Callable[[bytes, float], bytes]
"""Takes a frame of the caller's and its time; returns what the agent hears in its place."""

HandOver = Callable[[str], Awaitable[None]]


class AgentLine:
    """Fulfils `Leg` for an agent. The call's owner calls what is not in that contract."""

    def __init__(
        self,
        leg: Leg,
        hand_over: HandOver,
        stop_hand_over: Callable[[], None],
        music: CallerMusic,
        *,
        can_dial: bool,
    ) -> None:
        """`hand_over` transfers by whatever way there is; with `can_dial` there always is one. `music` is the
        caller's, which others want as well."""
        self._ear: Ear | None = None
        self._leg = leg
        self._hand_over = hand_over
        self._stop_hand_over = stop_hand_over
        self._music = music
        self._can_dial = can_dial
        self._sinks: list[FrameSink] = []
        self._subscribers = Subscribers()
        self._held = self._apart = False
        self._unlisten: list[Unsubscribe] = []

    # -- the call's side ------------------------------------------------------------------------------------

    def tell(self, event: LegEvent) -> None:
        """An event of the caller's leg."""
        match event:
            case Held():
                self._held = True
                if not self._apart:
                    self._tell(event)
            case Resumed():
                self._held = False
                if not self._apart:
                    self._tell(event)
            case DtmfReceived() if self._apart:
                pass
            case LegEnded():
                self._subscribers.end(event)
            case _:
                self._tell(event)

    @property
    def held(self) -> bool:
        """Whether the caller's side holds us."""
        return self._held

    @property
    def apart(self) -> bool:
        """Whether the agent is kept from the caller."""
        return self._apart

    @apart.setter
    def apart(self, apart: bool) -> None:
        if apart != self._apart:
            self._apart = apart
            if not self._held:
                self._tell(Held() if apart else Resumed())

    @property
    def ear(self) -> Ear | None:
        """Set while there is a second party."""
        return self._ear

    @ear.setter
    def ear(self, ear: Ear | None) -> None:
        self._ear = ear
        self._listen(self._sinks)

    def close(self) -> None:
        self._ear = None
        self._listen([])
        self._subscribers.clear()

    def _listen(self, sinks: list[FrameSink]) -> None:
        """Have the leg's frames given to `sinks`: by itself, as long as nothing is put in their place."""
        for unlisten in self._unlisten:
            unlisten()
        self._sinks = sinks
        direct = sinks if self._ear is None else [self._hear]
        self._unlisten = [self._leg.listen(sink) for sink in direct]

    def _hear(self, pcm: bytes, now: float) -> None:
        if self._ear is not None:
            pcm = self._ear(pcm, now)
        for sink in self._sinks:
            sink(pcm, now)

    def _tell(self, event: LegEvent) -> None:
        self._subscribers.tell(event)

    # -- the Leg contract -----------------------------------------------------------------------------------

    @property
    def info(self) -> LegInfo:
        return self._leg.info

    @property
    def capabilities(self) -> Capability:
        return self._leg.capabilities | (Capability.TRANSFER if self._can_dial else Capability.NONE)

    @property
    def state(self) -> LegState:
        return self._leg.state

    @property
    def sample_rate(self) -> int:
        return self._leg.sample_rate

    @property
    def playout(self) -> Playout:
        return self._leg.playout

    @property
    def quality(self) -> MediaQuality:
        return self._leg.quality

    def listen(self, sink: FrameSink) -> Unsubscribe:
        self._listen([*self._sinks, sink])

        def unsubscribe() -> None:
            self._listen([s for s in self._sinks if s is not sink])

        return unsubscribe

    def subscribe(self, handler: Callable[[LegEvent], None]) -> Unsubscribe:
        return self._subscribers.subscribe(handler)

    async def ringing(self) -> None:
        await self._leg.ringing()

    async def early_media(self) -> None:
        await self._leg.early_media()

    async def answer(self) -> None:
        await self._leg.answer()

    async def hangup(self, cause: Cause, detail: str = "") -> None:
        await self._leg.hangup(cause, detail)

    async def transfer(self, target: str, *, replacing: Leg | None = None) -> None:
        """By the carrier where it does that, else through us."""
        if replacing is not None:
            await self._leg.transfer(target, replacing=replacing)
        else:
            await self._hand_over(target)

    def stop_transfer(self) -> None:
        self._stop_hand_over()
        self._leg.stop_transfer()

    def follow_transfer(self, dialled: Leg) -> None:
        self._leg.follow_transfer(dialled)

    def refuse_transfer(self, status: int) -> None:
        self._leg.refuse_transfer(status)

    def send_dtmf(self, digits: str, *, tone_ms: int = 120, gap_ms: int = 80) -> None:
        self._leg.send_dtmf(digits, tone_ms=tone_ms, gap_ms=gap_ms)

    async def hold(self, on: bool) -> None:
        await self._leg.hold(on)

    async def music(self, on: bool) -> None:
        """It plays as long as anybody wants it: the agent, or a call whose caller waits."""
        await self._music.set("agent", on)

    async def set_variables(self, values: Mapping[str, str]) -> None:
        await self._leg.set_variables(values)
