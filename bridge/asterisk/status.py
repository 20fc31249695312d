"""How an Asterisk stands now, as the API, the metrics and `offhook asterisk` show it."""

from dataclasses import dataclass
from typing import Literal, get_args

from bridge.asterisk.settings import MediaKind

AriState = Literal["connecting", "up", "down", "unauthorized", "replaced", "closed"]
"""`down`: tried again soon. `unauthorized`: our user or password is not taken, or the password can't be had: tried
again seldom. `replaced`: another process has taken the application; only `reconnect` takes it back."""

ARI_STATES: tuple[AriState, ...] = get_args(AriState)

AmiState = Literal["off", "connecting", "up", "down", "unauthorized", "closed"]
"""`off`: no `ami` is configured. The others as in `AriState`."""

AMI_STATES: tuple[AmiState, ...] = tuple(state for state in get_args(AmiState) if state != "off")
"""Of one that is configured."""


@dataclass(frozen=True, slots=True)
class AsteriskStatus:
    """One configured Asterisk."""

    name: str
    """Its trunk name."""
    url: str
    app: str
    """Our Stasis application there."""
    state: AriState
    since: float | None
    """Unix time (s) at which `state` was entered; None before the start."""
    last_error: str = ""
    """What went wrong last with the connection, secrets left out; it stays after a recovery."""
    last_error_at: float | None = None
    """Unix time (s)."""
    version: str = ""
    """Asterisk's, e.g. `22.10.1`; empty: not connected yet."""
    rest_over_socket: bool = False
    """Whether requests go over the event socket (Asterisk 20.14, 21.9, 22.4 and later), not over HTTP."""
    calls: int = 0
    """Live now, both ways."""
    max_calls: int | None = None
    media: MediaKind = "rtp"
    """How its audio reaches us where a route says nothing else."""
    media_kinds: tuple[MediaKind, ...] = ()
    """That, then what routes say."""
    orphans_cleaned: int = 0
    """Media channels and bridges of ours that were found without a call and deleted, since the start."""
    joined: int = 0
    """Pairs of parties that talk on without us after an attended transfer."""
    ami_state: AmiState = "off"
    ami_error: str = ""
    """What went wrong last with the manager interface; it stays after a recovery."""
    ami_error_at: float | None = None
    """Unix time (s)."""
