"""Every situation of `situations/`, with the embedded engines and with the providers' stand-ins, over SIP and RTP.

All that were selected are played at once, on one bridge for each kind of engines; each test judges one of them.
"""

from collections.abc import Callable
from functools import cache

import pytest
from call import Outcome
from measures import transcript
from rounds import play_all
from situation import Engines, Situation, all_situations
from verdict import failures

PLAYED = [(situation, engines) for situation in all_situations() for engines in situation.engines]


@pytest.fixture(scope="module")
def played(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Engines], dict]:
    """The outcomes with these engines, of the situations that were selected."""
    selected = [
        item.callspec.params["which"]
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.module is request.module and hasattr(item, "callspec")
    ]

    @cache
    def play(engines: Engines) -> dict[str, Outcome]:
        situations = [situation for situation, kind in selected if kind == engines]
        return play_all(situations, engines, tmp_path_factory.mktemp(engines))

    return play


@pytest.mark.timeout(600)
@pytest.mark.parametrize("which", PLAYED, ids=[f"{situation.name}-{engines}" for situation, engines in PLAYED])
def test_situation(which: tuple[Situation, Engines], played: Callable[[Engines], dict]) -> None:
    situation, engines = which
    outcome = played(engines)[situation.name]
    wrong = failures(outcome)
    assert not wrong, "\n".join([*wrong, transcript(outcome)])
