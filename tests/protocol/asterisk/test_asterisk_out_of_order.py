"""An Asterisk that can't be asked, and one that answers each request with an error: when calls are given up."""

from pathlib import Path

import pytest
from ari_server import AriServer
from test_asterisk_bridge import ends_of, pbx, running, until, with_asterisks

from bridge.events import Cause

pytestmark = pytest.mark.usefixtures("ari_password")


async def test_a_silent_caller_is_given_up_with_an_asterisk_that_is_gone_not_with_one_that_refuses(
    tmp_path: Path,
) -> None:
    async with AriServer() as ari, running(with_asterisks(tmp_path, pbx(ari))) as bridge:
        ends = ends_of(bridge)
        await ari.call_in("c1", args=["agent=echo"])
        await until(lambda: any(call.answered_at for call in bridge.live_calls()))
        ari.misbehave(status=500)
        ari.drop_all()

        def looks() -> int:
            return sum(exchange.path == "/ari/channels" for exchange in ari.exchanges)

        before = looks()
        # One each 2 s: the fifth comes after more silence than an Asterisk that is gone is allowed.
        await until(lambda: looks() >= before + 5)
        assert not ends and len(bridge.live_calls()) == 1
        await ari.down()
        await until(lambda: len(ends) == 1)
        assert ends[0].cause is Cause.SIGNALLING_LOST
