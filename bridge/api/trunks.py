"""Trunks as they are now, and the bans of those who are none."""

from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Path, status
from pydantic import BaseModel, Field

from bridge.api.errors import ApiError, describe
from bridge.api.services import Bridge
from bridge.trunks.guard import Ban
from bridge.trunks.status import TrunkStatus

router = APIRouter(prefix="/api", tags=["trunks"])


class RegistrationOut(BaseModel):
    """Our registration with a trunk."""

    state: Literal["registering", "registered", "failed", "refused", "unregistering", "unregistered"] = Field(
        description="`failed`: tried again soon; `refused`: our account is not taken, tried again seldom."
    )
    until: datetime | None = Field(description="When what was granted runs out.")
    next_at: datetime | None = Field(description="The next attempt; null while one is under way.")
    error: str = Field(description="What went wrong with the last attempt.")
    round_trip_ms: float | None = Field(description="Of the last attempt, a challenge included.")
    registrar: str = Field(description="Where it is registered: `transport:address:port`.")
    seen_as: str | None = Field(description="Our address as the registrar sees it.")


class LivenessOut(BaseModel):
    """Whether a trunk answers OPTIONS."""

    state: Literal["unknown", "up", "down"]
    round_trip_ms: float | None
    missed: int = Field(description="Unanswered in a row.")
    error: str


class TrunkOut(BaseModel):
    name: str
    host: str = Field(description="Empty for a trunk that only calls us.")
    transport: str = Field(description="Empty: as DNS says.")
    state: str = Field(
        description="`up`, `down`, `unknown` (not heard of yet), `unwatched` (neither registered nor asked by "
        "OPTIONS), or the registration's state while it is not registered."
    )
    registration: RegistrationOut | None = Field(description="Null for a trunk that does not register.")
    liveness: LivenessOut | None = Field(description="Null for a trunk that is not asked.")
    calls: int = Field(description="Live now, both ways.")
    max_calls: int | None
    attempts: int = Field(description="Calls tried since the start, both ways, refused ones too.")
    refused: int = Field(description="Of them, those turned away by a limit.")
    last_error: str
    last_error_at: datetime | None


class TrunkList(BaseModel):
    trunks: list[TrunkOut]


class BanOut(BaseModel):
    source: str = Field(description="An IPv4 address, or an IPv6 /64.")
    since: datetime
    until: datetime
    why: str = Field(description="The failure that brought it.")
    dropped: int = Field(description="Requests that were not answered.")


class BanList(BaseModel):
    bans: list[BanOut]


@router.get("/trunks", summary="List trunks")
async def list_trunks(bridge: Bridge) -> TrunkList:
    """Every trunk of the configuration: its registration, whether it answers, its calls, its last error."""
    return TrunkList(trunks=[_trunk_out(trunk) for trunk in bridge.control.trunk_status()])


@router.post(
    "/trunks/{name}/register",
    summary="Register again at once",
    status_code=status.HTTP_202_ACCEPTED,
    responses=describe(404),
)
async def register(bridge: Bridge, name: Annotated[str, Path(max_length=64)]) -> None:
    """Don't wait for the next attempt: the password is new, or the network is back."""
    if not bridge.control.register_again(name):
        raise ApiError(404, "no-such-registration", f"there is no trunk {name!r} that registers")


@router.get("/bans", summary="List bans")
async def list_bans(bridge: Bridge) -> BanList:
    """Addresses that nothing is answered to, after repeated failures; the oldest ban first."""
    return BanList(bans=[_ban_out(ban) for ban in bridge.control.bans()])


@router.delete(
    "/bans/{source:path}", summary="Lift a ban", status_code=status.HTTP_204_NO_CONTENT, responses=describe(404)
)
async def lift_ban(
    bridge: Bridge, source: Annotated[str, Path(max_length=64, description="An IP address, or an IPv6 /64.")]
) -> None:
    """The address may ask again, with nothing counted against it. 404 if it is not banned."""
    try:
        lifted = bridge.control.lift_ban(source)
    except ValueError as error:
        raise ApiError(400, "invalid-request", str(error)) from error
    if not lifted:
        raise ApiError(404, "no-such-ban", f"{source} is not banned")


def _at(time: float | None) -> datetime | None:
    return None if time is None else datetime.fromtimestamp(time, UTC)


def _trunk_out(trunk: TrunkStatus) -> TrunkOut:
    registration, liveness = trunk.registration, trunk.liveness
    return TrunkOut(
        name=trunk.name,
        host=trunk.host,
        transport=trunk.transport,
        state=trunk.state,
        registration=None
        if registration is None
        else RegistrationOut(
            state=registration.state,
            until=_at(registration.until),
            next_at=_at(registration.next_at),
            error=registration.error,
            round_trip_ms=registration.round_trip_ms,
            registrar=registration.registrar,
            seen_as=None if registration.seen_as is None else "{}:{}".format(*registration.seen_as),
        ),
        liveness=None
        if liveness is None
        else LivenessOut(
            state=liveness.state,
            round_trip_ms=liveness.round_trip_ms,
            missed=liveness.missed,
            error=liveness.error,
        ),
        calls=trunk.calls,
        max_calls=trunk.max_calls,
        attempts=trunk.attempts,
        refused=trunk.refused,
        last_error=trunk.last_error,
        last_error_at=_at(trunk.last_error_at),
    )


def _ban_out(ban: Ban) -> BanOut:
    return BanOut(
        source=ban.source,
        since=datetime.fromtimestamp(ban.since, UTC),
        until=datetime.fromtimestamp(ban.until, UTC),
        why=ban.why,
        dropped=ban.dropped,
    )
