"""The caller's line: what Asterisk has measured between the caller and itself, which our own audio does not show.

A caller who hangs up brings it along: Asterisk sets the channel's `RTPAUDIOQOS` variables just before it tells the
end, and tells the application of them. For a call that goes on, or that we end, it is asked: once soon after the
answer, then seldom. Measured on 22.10 and 16.28, chan_pjsip and chan_sip (docs/decisions.md).
"""

import asyncio
import math
import random
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import Any

import structlog

from bridge.asterisk.ari import Ari
from bridge.asterisk.ari_errors import AriError, AriNotFoundError, AriUnauthorizedError
from bridge.legs.base import LineQuality
from bridge.legs.media_quality import FAR_BUFFER_MS
from bridge.rtp.emodel import G711, mos, rating

log = structlog.get_logger(__name__)

MEASURED = frozenset({"PJSIP", "SIP"})
"""Channel technologies whose RTP Asterisk can be asked about; of others it answers 403."""

FIRST_S = 6.0
"""After the answer: Asterisk counts what is lost with each RTCP report of its own, the first of them after 5 s."""
EVERY_S = 30.0
SPREAD = 0.2
"""The part of these waits that is left to chance: calls that began together are not to be asked about together."""

COMPARE_S = 1.0
"""Between two looks that are to show whether packets come."""
LAST_S = 1.0
"""What the end of a call may wait for the last numbers."""

FIRST_REPORT_PACKETS = 250
"""In 5 s, of 20 ms each. With fewer, nothing is known of what was lost."""
PACKET_MS = 20.0

Spawn = Callable[[Coroutine[Any, Any, None], str], "asyncio.Task[None]"]


# -- sans-IO ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Readings:
    """What Asterisk says of one channel's RTP. Where the far end sends no reports, what would be in them is 0."""

    received: int
    sent: int
    lost: int
    """Of the far end's packets, up to Asterisk's last report."""
    remote_lost: int
    """Of Asterisk's, by the far end's last report."""
    jitter_s: float = 0.0
    """Mean."""
    remote_jitter_s: float = 0.0
    round_trip_s: float = 0.0


def of_statistics(answer: Mapping[str, Any]) -> Readings | None:
    """The answer to `GET /channels/ID/rtp_statistics`; None: it is none. `txjitter` and `rxjitter` are passed over:
    in them the two sides are exchanged."""
    if "rxcount" not in answer:
        return None
    return Readings(
        received=_count(answer.get("rxcount")),
        sent=_count(answer.get("txcount")),
        lost=_count(answer.get("rxploss")),
        remote_lost=_count(answer.get("txploss")),
        jitter_s=_seconds(answer.get("local_normdevjitter")),
        remote_jitter_s=_seconds(answer.get("remote_normdevjitter")),
        round_trip_s=_seconds(answer.get("rtt")),
    )


def of_variable(before: Readings | None, name: str, value: str) -> Readings | None:
    """With what a variable of the channel says (`lp=25;rxcount=293;...`); `before`: by those set before it."""
    if name not in ("RTPAUDIOQOS", "RTPAUDIOQOSJITTER"):
        return before
    fields = {key.strip(): text for key, _, text in (part.partition("=") for part in value.split(";"))}
    if name == "RTPAUDIOQOSJITTER":
        if before is None:
            return None
        # The second name is 16's.
        remote = fields.get("avgtxjitter", fields.get("reported_avgjitter"))
        return replace(before, jitter_s=_seconds(fields.get("avgrxjitter")), remote_jitter_s=_seconds(remote))
    if "rxcount" not in fields:
        return before
    return Readings(
        received=_count(fields.get("rxcount")),
        sent=_count(fields.get("txcount")),
        lost=_count(fields.get("lp")),
        remote_lost=_count(fields.get("rlp")),
        round_trip_s=_seconds(fields.get("rtt")),
    )


def line_quality(read: Readings) -> LineQuality:
    """In our words and units, rated as G.711 with concealment: which codec it is Asterisk does not say."""
    expected = read.received + read.lost
    reports = bool(read.round_trip_s or read.remote_jitter_s or read.remote_lost)
    trip_ms = 1000 * read.round_trip_s if read.round_trip_s else None
    jitter_ms = 1000 * read.jitter_s if read.received else None
    # 16 tells the far end's in units of the RTP clock: no jitter is whole seconds.
    remote_jitter_ms = 1000 * read.remote_jitter_s if 0 < read.remote_jitter_s < 1 else None
    known = read.received > 0 and expected >= FIRST_REPORT_PACKETS
    told = reports and read.sent >= FIRST_REPORT_PACKETS
    loss = read.lost / expected if known else None
    remote_loss = min(1.0, read.remote_lost / read.sent) if told else None
    return LineQuality(
        packets_received=read.received,
        packets_sent=read.sent,
        packets_lost=read.lost if known else None,
        loss_percent=None if loss is None else 100 * loss,
        jitter_ms=jitter_ms,
        round_trip_ms=trip_ms,
        remote_loss_percent=None if remote_loss is None else 100 * remote_loss,
        remote_jitter_ms=remote_jitter_ms,
        mos=None if loss is None else _mos(loss, trip_ms, jitter_ms),
        mos_remote=None if remote_loss is None else _mos(remote_loss, trip_ms, remote_jitter_ms),
    )


def _mos(loss: float, trip_ms: float | None, jitter_ms: float | None) -> float:
    buffer_ms = max(FAR_BUFFER_MS, 2 * (jitter_ms or 0.0))
    return mos(rating(G711, loss=loss, delay_ms=(trip_ms or 0.0) / 2 + PACKET_MS + buffer_ms))


def _number(value: object) -> float:
    try:
        number = float(value) if isinstance(value, int | float | str) else 0.0
    except ValueError:
        return 0.0
    return number if math.isfinite(number) else 0.0


def _count(value: object) -> int:
    """A duplicate makes a loss negative, which some versions write as an unsigned number."""
    number = int(_number(value))
    return number if 0 <= number < 2**31 else 0


def _seconds(value: object) -> float:
    """No jitter and no round trip is an hour long."""
    number = _number(value)
    return number if 0 <= number < 3600 else 0.0


# -- carrying it out ----------------------------------------------------------------------------------------


class CallerLine:
    """Of one leg's channel, from its answer on. Whatever fails here is no trouble of the call: then less is known."""

    def __init__(
        self,
        ari: Ari,
        spawn: Spawn,
        *,
        first_s: float = FIRST_S,
        every_s: float = EVERY_S,
        compare_s: float = COMPARE_S,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`chance`: 0 to 1."""
        self._ari = ari
        self._spawn = spawn
        self._first_s, self._every_s, self._compare_s = first_s, every_s, compare_s
        self._chance = chance
        self._channel_id = ""
        self._asking = False
        """It can be asked about, as far as is known."""
        self._read: Readings | None = None
        self._final = False
        """By the channel's variables, which Asterisk sets at the end."""
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def quality(self) -> LineQuality | None:
        """As last told; None: Asterisk has said nothing of it."""
        return None if self._read is None else line_quality(self._read)

    def begin(self, channel_id: str, technology: str) -> None:
        """The call is answered, or another channel has taken the place of the one before."""
        self._stop()
        self._channel_id = channel_id
        self._asking = technology in MEASURED
        self._read, self._final = None, False
        self._later(self._first_s)

    def told(self, variable: str, value: str) -> None:
        """A variable of the channel was set."""
        if variable.startswith("RTPAUDIOQOS") and self._channel_id:
            read = of_variable(self._read, variable, value)
            if read is not self._read:
                self._read, self._final = read, True

    def look(self) -> "asyncio.Task[None] | None":
        """Ask now. None: there is nothing to ask, or it is being asked."""
        if not self._asking or self._final or self._ari.state in ("connecting", "down"):
            return None
        if self._task is None or self._task.done():
            self._task = self._spawn(self._look(), f"caller's line of {self._channel_id}")
            return self._task
        return None

    def end(self, *, there: bool) -> None:
        """The leg is over. `there`: its channel is not, for a moment: it is asked about for the last time."""
        self._stop()
        if there:
            self.look()
        self._asking = False

    async def settled(self) -> None:
        """Wait for what was asked last, but not for long. Never raises."""
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=LAST_S)

    async def is_heard(self) -> bool | None:
        """Whether Asterisk gets packets of the caller now; None: that can't be known, or the leg is over."""
        counts = []
        for pause_s in (0.0, self._compare_s):
            await asyncio.sleep(pause_s)
            if (task := self.look()) is None:
                return None
            await asyncio.wait({task})
            if not self._asking or self._read is None:
                return None
            counts.append(self._read.received)
        return counts[1] > counts[0]

    # -- inside ---------------------------------------------------------------------------------------------

    async def _look(self) -> None:
        channel_id = self._channel_id
        try:
            answer = await self._ari.rtp_statistics(channel_id)
        except (AriNotFoundError, AriUnauthorizedError) as error:
            # It has no RTP, or is gone; or this Asterisk can't be asked.
            log.debug("nothing is known of the caller's line", channel=channel_id, reason=str(error))
            if channel_id == self._channel_id:
                self._asking = False
            return
        except AriError as error:
            log.debug("the caller's line could not be asked about", channel=channel_id, error=str(error))
            return
        if channel_id == self._channel_id and not self._final:
            self._read = of_statistics(answer) or self._read

    def _later(self, pause_s: float) -> None:
        if self._asking:
            waits_s = pause_s * (1 + SPREAD * self._chance())
            self._timer = asyncio.get_running_loop().call_later(waits_s, self._next)

    def _next(self) -> None:
        self.look()
        self._later(self._every_s)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
