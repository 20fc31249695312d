"""Which agent gets a call."""

from bridge.config import Route
from bridge.legs.base import LegInfo
from bridge.router import pick_agent


def leg(to: str = "200", trunk: str = "pbx", agent: str = "") -> LegInfo:
    return LegInfo("asterisk", "inbound", "100", to, trunk, "1.2", "127.0.0.1:8088", agent=agent)


ROUTES = (Route(to="200", trunk="pbx", agent="first"), Route(to="2*", agent="second"))


def test_the_first_route_that_matches_picks_the_agent() -> None:
    assert pick_agent(ROUTES, leg()) == "first"
    assert pick_agent(ROUTES, leg(trunk="carrier")) == "second"
    assert pick_agent(ROUTES, leg(to="300")) is None


def test_the_agent_that_a_dialplan_asks_for_goes_before_the_routes() -> None:
    assert pick_agent(ROUTES, leg(agent="sales")) == "sales"


def test_a_trunks_own_agent_takes_what_no_route_matches() -> None:
    others = {"pbx": "reception"}
    assert pick_agent(ROUTES, leg(to="300"), others) == "reception"
    assert pick_agent(ROUTES, leg(to="300", trunk="carrier"), others) is None
    assert pick_agent(ROUTES, leg(), others) == "first"
