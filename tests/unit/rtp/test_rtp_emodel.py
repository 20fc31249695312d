"""The E-model against what G.107 and G.113 publish."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.rtp.emodel import (
    G711,
    G711_UNCONCEALED,
    UNDISTURBED,
    burst_ratio,
    delay_impairment,
    equipment_impairment,
    impairment_of,
    mos,
    rating,
)


@pytest.mark.parametrize(
    ("r", "expected"),
    [(0, 1.0), (50, 2.58), (60, 3.10), (70, 3.60), (80, 4.03), (90, 4.34), (93.2, 4.41), (100, 4.5), (130, 4.5)],
)
def test_mos_of_a_rating_is_that_of_g107_annex_b(r: float, expected: float) -> None:
    assert mos(r) == pytest.approx(expected, abs=0.01)


def test_an_undisturbed_call_has_the_default_rating() -> None:
    assert rating(G711, loss=0, delay_ms=60) == UNDISTURBED


# G.113 (2002) table I.4: impairments found in listening tests, which the later formula draws a curve through.
CONCEALED = {1: 5, 2: 7, 3: 10, 5: 15, 7: 20, 10: 25, 15: 35, 20: 45}
UNCONCEALED = {1: 25, 2: 35, 3: 45, 5: 55}


@pytest.mark.parametrize(("percent", "measured"), CONCEALED.items())
def test_concealed_loss_impairs_g711_as_g113_found(percent: int, measured: float) -> None:
    assert equipment_impairment(G711, percent / 100) == pytest.approx(measured, abs=3)


@pytest.mark.parametrize(("percent", "measured"), UNCONCEALED.items())
def test_loss_without_concealment_impairs_g711_as_g113_found(percent: int, measured: float) -> None:
    assert equipment_impairment(G711_UNCONCEALED, percent / 100) == pytest.approx(measured, abs=8)


@pytest.mark.parametrize(("percent", "concealed", "bare"), [(1, 4.33, 3.82), (5, 3.93, 2.17), (20, 2.63, 1.12)])
def test_mos_of_g711_under_loss(percent: int, concealed: float, bare: float) -> None:
    """Worked by hand from Ie,eff = 95 * Ppl / (Ppl + Bpl)."""
    assert mos(rating(G711, loss=percent / 100, delay_ms=50)) == pytest.approx(concealed, abs=0.02)
    assert mos(rating(G711_UNCONCEALED, loss=percent / 100, delay_ms=50)) == pytest.approx(bare, abs=0.02)


@pytest.mark.parametrize(("delay_ms", "idd"), [(0, 0), (100, 0), (150, 0.2), (200, 3.0), (300, 14.6), (400, 24.1)])
def test_delay_impairs_as_the_formula_of_g107_has_it(delay_ms: float, idd: float) -> None:
    assert delay_impairment(delay_ms) == pytest.approx(idd, abs=0.2)


def test_bursts_of_the_same_loss_are_worse_than_random_ones() -> None:
    assert rating(G711, loss=0.2, delay_ms=0, burst_ratio=3) < rating(G711, loss=0.2, delay_ms=0) - 15


def test_random_loss_has_a_burst_ratio_of_one_and_blocks_have_their_own() -> None:
    rng = random.Random(5)
    lost = [rng.random() < 0.1 for _ in range(50_000)]
    bursts = sum(b and not a for a, b in zip([False, *lost], lost, strict=False))
    assert burst_ratio(sum(lost), len(lost), bursts) == pytest.approx(1, abs=0.03)
    assert burst_ratio(400, 10_000, 100) == pytest.approx(3.84)
    assert burst_ratio(0, 100, 0) == burst_ratio(5, 100, 0) == burst_ratio(100, 100, 1) == 1


@given(st.floats(0, 1), st.floats(0, 5000), st.floats(0.1, 50), st.sampled_from(["PCMU", "G722", "opus", "what"]))
def test_every_input_gives_a_score_and_worse_never_gives_a_better_one(
    loss: float, delay_ms: float, ratio: float, codec: str
) -> None:
    impairment = impairment_of(codec)
    r = rating(impairment, loss=loss, delay_ms=delay_ms, burst_ratio=ratio)
    assert 1 <= mos(r) <= 4.5
    assert rating(impairment, loss=min(1.0, loss + 0.01), delay_ms=delay_ms, burst_ratio=ratio) <= r
    assert rating(impairment, loss=loss, delay_ms=delay_ms + 10, burst_ratio=ratio) <= r + 1e-9
