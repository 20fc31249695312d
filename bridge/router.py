"""Which agent gets a call: the first route whose patterns all match."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from types import MappingProxyType

from bridge.config import Route
from bridge.legs.base import LegInfo

NOBODY: Mapping[str, str] = MappingProxyType({})


def pick_route(routes: Sequence[Route], info: LegInfo) -> Route | None:
    """The route that a leg takes, or None."""
    for route in routes:
        if (
            fnmatchcase(info.to, route.to)
            and fnmatchcase(info.from_, route.from_)
            and fnmatchcase(info.trunk, route.trunk)
        ):
            return route
    return None


def pick_agent(routes: Sequence[Route], info: LegInfo, others: Mapping[str, str] = NOBODY) -> str | None:
    """The name of the agent for a leg, or None: nobody answers there. A dialplan's own choice goes before the
    routes; `others` are by trunk who takes calls that no route matches."""
    if info.agent:
        return info.agent
    route = pick_route(routes, info)
    return route.agent if route is not None else others.get(info.trunk)
