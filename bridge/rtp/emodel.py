"""How a call sounds: the E-model (ITU-T G.107) for what packets do to speech: codec, loss, its bursts, and delay.

Everything else the model knows (room noise, sidetone, echo, levels) is left at its default, so an undisturbed G.711
call rates R = 93.2, which is a MOS of 4.41. All codecs are rated on this one narrowband scale, what a listener used
to the telephone would say, so that calls can be compared: a wideband codec earns nothing for its bandwidth here.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

UNDISTURBED = 93.2
"""R with every parameter at its default (G.107, 06/2015, table 3)."""

WORST_IE = 95.0
"""The equipment impairment that loss comes near to (G.107 7.5)."""

MAX_BURST_RATIO = 8.0
"""Of a loss in long blocks. More is an outage, which the model was not made for."""


@dataclass(frozen=True, slots=True)
class Impairment:
    """What a codec does to speech (G.107 7.5, values of G.113 appendix I)."""

    ie: float
    """Impairment without loss."""
    bpl: float
    """Robustness against loss, its concealment included."""
    lookahead_ms: float = 0.0
    """Delay of the coding itself."""


G711 = Impairment(0, 25.1, 0)
"""With concealment by pitch waveform replication (G.711 appendix I), as ours is."""

G711_UNCONCEALED = Impairment(0, 4.3, 0)

_KNOWN: Mapping[str, Impairment] = {
    "PCMU": G711,
    "PCMA": G711,
    # Approximations: G.113 rates these on the wideband scale or not at all. Undisturbed they are no worse than G.711,
    # and what is lost of them is concealed in the same way.
    "L16": G711,
    "G722": Impairment(0, 25.1, 1.5),
    # An approximation too: Opus conceals at least as well. What its in-band FEC repairs does not count as lost.
    "OPUS": Impairment(0, 25.1, 6.5),
}


def impairment_of(codec: str) -> Impairment:
    """Of a codec by its encoding name; G.711's where it is not known."""
    return _KNOWN.get(codec.upper(), G711)


def rating(impairment: Impairment, *, loss: float, delay_ms: float, burst_ratio: float = 1.0) -> float:
    """The transmission rating R, below 0 for the very worst.

    `loss` is the fraction (0 to 1) that was not played: lost, or too late. `delay_ms` is from mouth to ear."""
    return UNDISTURBED - delay_impairment(delay_ms) - equipment_impairment(impairment, loss, burst_ratio)


def equipment_impairment(impairment: Impairment, loss: float, burst_ratio: float = 1.0) -> float:
    """Ie,eff (G.107 7.5)."""
    percent = max(0.0, min(loss, 1.0)) * 100
    if not percent:
        return impairment.ie
    ratio = max(1.0, min(burst_ratio, MAX_BURST_RATIO))
    return impairment.ie + (WORST_IE - impairment.ie) * percent / (percent / ratio + impairment.bpl)


def delay_impairment(delay_ms: float) -> float:
    """Idd (G.107 7.4): a conversation that stumbles. Echo is not counted: none comes from a box without a hybrid."""
    if delay_ms <= 100:
        return 0.0
    x = math.log2(delay_ms / 100)
    return float(25 * ((1 + x**6) ** (1 / 6) - 3 * (1 + (x / 3) ** 6) ** (1 / 6) + 2))


def mos(rating: float) -> float:
    """The mean opinion score, 1 to 4.5, of a rating R (G.107 annex B)."""
    if rating <= 0:
        return 1.0
    if rating >= 100:
        return 4.5
    # The polynomial dips below 1 for the lowest ratings.
    return max(1.0, 1 + 0.035 * rating + rating * (rating - 60) * (100 - rating) * 7e-6)


def burst_ratio(lost: int, expected: int, bursts: int) -> float:
    """Mean length of the bursts in which packets were lost, over that of as many lost at random (G.107 3.1).

    1 for random loss, more for bursts; 1 where nothing is known of them (`bursts` 0)."""
    if lost <= 0 or bursts <= 0 or expected <= lost:
        return 1.0
    return max(1.0, min(lost / bursts * (1 - lost / expected), MAX_BURST_RATIO))
