"""The wall clock, which the kernel's stamps are by, is set while calls are under way."""

import time

import pytest
from rtp_parties import exchange

from bridge.rtp.session import MediaSilent, MediaTimedOut

HOUR_S = 3600.0


@pytest.mark.parametrize("by_s", [HOUR_S, -HOUR_S, 0.5, -0.5])
def test_no_call_is_thought_silent_and_no_packet_lost_when_the_wall_clock_is_set(
    by_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    with exchange() as (mux, join):
        one, other = join(), join()
        one.session.update(0.0, remote=other.address)
        other.session.update(0.0, remote=one.address)

        def step() -> None:
            for party in (one, other):
                party.endpoint.tick(time.monotonic())

        for party in (one, other):
            party.session.await_media(time.monotonic())
        wall = time.time
        set_by = 0.0
        monkeypatch.setattr(time, "time", lambda: wall() + set_by)
        for number in range(20):
            step()
            # What is read then was stamped before; what comes later is stamped by the clock as it was set.
            set_by = by_s if number == 10 else 0.0
            mux.poll(time.monotonic())
        for party in (one, other):
            quality = party.session.quality
            assert not [event for event in party.events if isinstance(event, MediaSilent | MediaTimedOut)]
            assert quality.packets_received == 20
            assert quality.restarts == 0
            assert quality.jitter_ms < 100
            assert party.session.silent_ms(time.monotonic()) < 1000
