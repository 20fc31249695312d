"""Which agent gets a call: the first route whose patterns all match."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from bridge.config import Route
from bridge.legs.base import LegInfo


def pick_agent(routes: Sequence[Route], info: LegInfo) -> str | None:
    """The name of the agent for a leg, or None: nobody answers there."""
    for route in routes:
        if (
            fnmatchcase(info.to, route.to)
            and fnmatchcase(info.from_, route.from_)
            and fnmatchcase(info.trunk, route.trunk)
        ):
            return route.agent
    return None
