"""What Asterisk says of a caller's line, read into our words and units. The words are those of 22.10 and 16.28."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.legs.asterisk.caller_line import Readings, line_quality, of_statistics, of_variable
from bridge.legs.base import LineQuality, MediaQuality
from bridge.rtp.emodel import G711, mos, rating

LOSSY = {
    "txcount": 326,
    "rxcount": 293,
    "txploss": 0,
    "rxploss": 25,
    "txjitter": 0.0022,
    "rxjitter": 0.0,
    "remote_normdevjitter": 0.0,
    "local_normdevjitter": 0.00125,
    "rtt": 0.0,
}
"""Of a caller who loses packets and sends no reports, 16.28 and 22.10 alike."""

REPORTED = {
    "txcount": 1001,
    "rxcount": 1001,
    "txploss": 20,
    "rxploss": 0,
    "txjitter": 0.0015,
    "rxjitter": 0.00075,
    "remote_normdevjitter": 0.0115,
    "local_normdevjitter": 0.001,
    "rtt": 0.2,
}


def quality(statistics: dict[str, Any]) -> LineQuality:
    read = of_statistics(statistics)
    assert read is not None
    return line_quality(read)


def test_what_is_lost_on_the_callers_line_is_rated() -> None:
    lossy = quality(LOSSY)
    assert (lossy.packets_received, lossy.packets_sent, lossy.packets_lost) == (293, 326, 25)
    assert lossy.loss_percent == pytest.approx(100 * 25 / 318)
    assert lossy.jitter_ms == 1.25
    assert lossy.mos == pytest.approx(mos(rating(G711, loss=25 / 318, delay_ms=60)))
    # A phone that sends no reports says nothing of what it hears.
    assert (lossy.round_trip_ms, lossy.remote_loss_percent, lossy.remote_jitter_ms) == (None, None, None)
    assert lossy.mos_remote is None


def test_the_phones_reports_say_what_the_caller_hears() -> None:
    reported = quality(REPORTED)
    assert reported.round_trip_ms == 200
    assert reported.remote_loss_percent == pytest.approx(100 * 20 / 1001)
    assert reported.remote_jitter_ms == 11.5
    assert reported.mos_remote == pytest.approx(mos(rating(G711, loss=20 / 1001, delay_ms=160)))
    assert reported.mos is not None and reported.mos_remote is not None and reported.mos > reported.mos_remote


def test_before_asterisks_first_report_nothing_is_known_of_losses() -> None:
    early = quality({**LOSSY, "rxcount": 200, "rxploss": 0})
    assert (early.packets_received, early.jitter_ms) == (200, 1.25)
    assert (early.packets_lost, early.loss_percent, early.mos) == (None, None, None)


def test_a_caller_who_is_not_heard_there_has_no_mos() -> None:
    assert quality({**LOSSY, "rxcount": 0, "rxploss": 0, "local_normdevjitter": 0}).numbers() == {
        "packets_received": 0,
        "packets_sent": 326,
    }


def test_a_jitter_of_whole_seconds_is_an_old_asterisks_other_unit() -> None:
    assert quality({**REPORTED, "remote_normdevjitter": 3.0}).remote_jitter_ms is None


def test_a_loss_below_zero_is_none() -> None:
    assert quality({**LOSSY, "rxploss": -3}).packets_lost == 0
    assert quality({**LOSSY, "rxploss": 2**32 - 3}).packets_lost == 0


NEW = (
    (
        "RTPAUDIOQOS",
        "ssrc=142;themssrc=362;lp=25;rxjitter=0.0115;rxcount=293;txjitter=0.0015;txcount=326;rlp=3;rtt=0.25;rxmes=88.08",
    ),
    (
        "RTPAUDIOQOSJITTER",
        "minrxjitter=000.000125;maxrxjitter=000.003125;avgrxjitter=000.001250;mintxjitter=0;avgtxjitter=000.011500;",
    ),
    ("RTPAUDIOQOSLOSS", "  minrxlost=025.000000;  maxrxlost=025.000000;"),
)
OLD = (
    NEW[0],
    ("RTPAUDIOQOSJITTER", "minrxjitter=0.000017;avgrxjitter=0.001250;reported_avgjitter=0.011500;"),
    ("RTPAUDIOQOSRTT", "minrtt=0.000000;maxrtt=0.000000;"),
)


@pytest.mark.parametrize("variables", [NEW, OLD], ids=["22", "16"])
def test_a_channels_last_variables_say_the_same(variables: tuple[tuple[str, str], ...]) -> None:
    read: Readings | None = None
    for name, value in variables:
        read = of_variable(read, name, value)
    assert read == Readings(
        received=293,
        sent=326,
        lost=25,
        remote_lost=3,
        jitter_s=0.00125,
        remote_jitter_s=0.0115,
        round_trip_s=0.25,
    )


def test_what_is_none_of_it_changes_nothing() -> None:
    read = of_variable(None, *NEW[0])
    assert of_variable(read, "RTPAUDIOQOS", "") is read
    assert of_variable(None, *NEW[1]) is None
    assert of_statistics({"message": "Unsupported channel type"}) is None


anything = st.none() | st.integers() | st.floats() | st.text(max_size=8) | st.booleans() | st.lists(st.integers())


@given(st.dictionaries(st.sampled_from(sorted(LOSSY)), anything))
def test_no_answer_makes_numbers_that_are_none(answer: dict[str, Any]) -> None:
    read = of_statistics(answer)
    if read is not None:
        numbers = line_quality(read).numbers()
        assert all(0 <= value < 2**31 for value in numbers.values())
        assert 1 <= numbers.get("mos", 1) <= 4.5


@given(st.text())
def test_no_text_of_a_variable_raises(text: str) -> None:
    read = of_variable(None, "RTPAUDIOQOS", text)
    of_variable(read or Readings(1, 1, 0, 0), "RTPAUDIOQOSJITTER", text)


def test_the_line_stands_beside_the_quality_of_our_own_stretch() -> None:
    ours = MediaQuality(packets_received=9, mos=4.41)
    assert not any(name.startswith("caller_") for name in ours.numbers())
    both = MediaQuality(packets_received=9, mos=4.41, caller_line=quality(LOSSY)).numbers()
    assert (both["mos"], both["packets_received"], both["caller_packets_received"]) == (4.41, 9, 293)
    assert both["caller_mos"] < 4
