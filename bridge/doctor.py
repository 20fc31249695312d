"""`offhook doctor`: what `check` says, then providers, trunks and Asterisks tried for real, with what to do."""

import asyncio
import contextlib
import fcntl
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from bridge.check import ROLES, check, doubts, providers_in_use, warnings
from bridge.config import Config
from bridge.doctor_agents import Finding, tried_agents
from bridge.providers.base import (
    ProviderBusyError,
    ProviderError,
    ProviderTimeoutError,
    Role,
)
from bridge.providers.registry import KINDS, LOCAL, make
from bridge.startup import endpoint_settings
from bridge.trunks.settings import TrunkSettings
from bridge.trunks.status import TrunkStatus
from bridge.view import Api, ViewError, trunk_states

Say = Callable[[str], None]

PROBE_S = 20.0
"""Longest wait for a provider."""

CLOSE_S = 3.0

TRUNKS_S = 8.0
"""Longest wait for the trunks: an answer to OPTIONS is missed after 4 s, a registration takes two round trips."""

UNREGISTER_S = 2.0

ASK_S = 30.0
"""OPTIONS to a trunk that is configured to get none; it is asked once."""


async def examine(config: Config, api: Api, say: Say) -> int:
    """Try everything, tell `say` each finding as it comes. Returns the exit code: 1 when something is wrong."""
    wrong = 0
    async for finding in _findings(config, api):
        say(finding.line())
        wrong += finding.state == "wrong"
    say("nothing is wrong" if not wrong else f"{wrong} {'thing is' if wrong == 1 else 'things are'} wrong")
    return 1 if wrong else 0


async def _findings(config: Config, api: Api) -> AsyncIterator[Finding]:
    for problem in await asyncio.to_thread(check, config):
        yield Finding("wrong", "configuration", problem)
    for warning in (*warnings(config), *doubts(config)):
        yield Finding("note", "configuration", warning)
    trials = [_try_provider(config, role, name) for role, name in _providers(config)]
    for trial in asyncio.as_completed(trials):
        finding = await trial
        if finding is not None:
            yield finding
    async for finding in tried_agents(config):
        yield finding
    async for finding in _trunks(config, api):
        yield finding
    if config.asterisk:
        # Imported here: most configurations have none.
        from bridge.doctor_asterisk import tried_asterisks

        async for finding in tried_asterisks(config, api, _bridge_runs(config.data_dir)):
            yield finding
    if config.audiosocket.trunk:
        from bridge.doctor_audiosocket import tried_audiosocket

        async for finding in tried_audiosocket(config, api, _bridge_runs(config.data_dir)):
            yield finding


# -- providers ----------------------------------------------------------------------------------------------


def _providers(config: Config) -> Iterable[tuple[Role, str]]:
    """What agents use, and what is configured for them to use one day."""
    used = providers_in_use(config)
    yield from used
    names = {name for _, name in used}
    for name, settings in config.providers.items():
        if name not in names:
            roles = KINDS[settings.kind or name].roles
            set_up = [role for role in ROLES if role in roles and role in settings.model_fields_set]
            for role in set_up or [role for role in ROLES if role in roles][:1]:
                yield role, name


async def _try_provider(config: Config, role: Role, name: str) -> Finding | None:
    what = f"{name} ({role})"
    if name == LOCAL:
        # To load it would take the processor from the calls of a running bridge. Its files were checked.
        from bridge.providers.local.models import check_models

        problems = await asyncio.to_thread(check_models, config.engines)
        return None if problems else Finding("ok", what, "embedded; its files are there and unaltered")
    provider = None
    try:
        provider = make(role, name, config.provider(name), os.environ)
        await provider.start()
    except ProviderError as error:
        if provider is not None:
            await provider.aclose()
        used = (role, name) in providers_in_use(config)
        # Of one in use the configuration's check said so.
        return None if used else Finding("note", what, f"{_without(error)} (no agent uses it)")
    begun = time.monotonic()
    try:
        async with asyncio.timeout(PROBE_S):
            seen = await provider.probe()
    except ProviderError as error:
        return Finding("wrong", what, f"{_without(error)} (after {_ms(begun)}).{_advice(config, name, error)}")
    except TimeoutError:
        return Finding("wrong", what, f"no answer within {PROBE_S:.0f} s: is the network, or its base_url, right?")
    else:
        return Finding("ok", what, f"{seen} ({_ms(begun)})")
    finally:
        with contextlib.suppress(ProviderError, TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await provider.aclose()


def _advice(config: Config, name: str, error: ProviderError) -> str:
    """What to do where the provider itself, which knows no more, does not say."""
    said = str(error).lower()
    if isinstance(error, ProviderTimeoutError) or "connect" in said or "reach" in said:
        return " Check the network, DNS and any proxy from this machine, and the provider's base_url"
    if isinstance(error, ProviderBusyError):
        return " Check the account's limits and credit with the vendor"
    settings = config.provider(name)
    stands_in = str(settings.api_key_file or settings.api_key_env or KINDS[settings.kind or name].key_env)
    if "key" in said and stands_in and stands_in not in str(error):
        return f" Check the key in {stands_in}"
    return ""


def _without(error: ProviderError) -> str:
    return str(error).removeprefix(f"{error.provider}: ")


def _ms(begun: float) -> str:
    return f"{(time.monotonic() - begun) * 1000:.0f} ms"


# -- trunks -------------------------------------------------------------------------------------------------


async def _trunks(config: Config, api: Api) -> AsyncIterator[Finding]:
    if not config.trunks:
        return
    if _bridge_runs(config.data_dir):
        try:
            states = await asyncio.to_thread(trunk_states, api)
        except ViewError as error:
            yield Finding("wrong", "trunks", f"a bridge runs here, but can't be asked about them: {error}")
            return
        for trunk in states:
            yield _of_running(trunk)
        missing = {trunk.name for trunk in config.trunks} - {trunk["name"] for trunk in states}
        for name in sorted(missing):
            yield Finding("wrong", f"trunk {name}", "the running bridge does not have it: reload it (SIGHUP)")
        return
    yield Finding("note", "trunks", "no bridge runs here, so each is asked from here, from another port")
    async for finding in _ask_trunks(config):
        yield finding


def _bridge_runs(data_dir: Path) -> bool:
    """Whether a bridge holds the data directory."""
    try:
        with (data_dir / "offhook.lock").open("r") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _of_running(trunk: dict[str, Any]) -> Finding:
    """A trunk as the running bridge tells of it (`GET /api/trunks`)."""
    what, state = f"trunk {trunk['name']}", trunk["state"]
    parts = [part for part in (trunk["registration"], trunk["liveness"]) if part is not None]
    trip = next((part["round_trip_ms"] for part in parts if part["round_trip_ms"] is not None), None)
    if state == "up":
        return Finding("ok", what, "up" if trip is None else f"up ({trip:.0f} ms)")
    if state == "unwatched":
        return Finding("note", what, "the running bridge neither registers nor asks it (options_s: 0)")
    error = next((part["error"] for part in parts if part["error"]), "")
    if state in ("unknown", "registering"):
        return Finding("note", what, f"{state}: ask again in a moment {error}".rstrip())
    return Finding("wrong", what, f"{state}: {error or 'no answer'}. {_mend(state)}")


async def _ask_trunks(config: Config) -> AsyncIterator[Finding]:
    """Register with, or send OPTIONS to, each trunk from a port of our own, and take the registrations back."""
    # Imported here: the rest of the doctor needs no media and no SIP.
    from bridge.audio.clock import MediaClock
    from bridge.legs.media import MediaPlane
    from bridge.legs.sip_endpoint import SipEndpoint
    from bridge.sip.errors import TlsError
    from bridge.sip.events import RequestAnswered
    from bridge.trunks.guard import Guard
    from bridge.trunks.keeper import TrunkKeeper
    from bridge.trunks.trunks import TrunkError, Trunks, prepare

    try:
        prepared = prepare([_watched(trunk) for trunk in config.trunks])
    except TrunkError:
        return  # The configuration's check said so.
    async with contextlib.AsyncExitStack() as stack:
        trunks = Trunks(
            prepared,
            guard=Guard(config.guard),
            allow_from=(),
            strangers="silent",
            realm=config.sip.realm,
            algorithms=config.sip.digest,
            nonce_lifetime_s=config.sip.nonce_s,
        )
        clock = MediaClock()
        stack.push_async_callback(clock.aclose)
        media = MediaPlane(clock, config.rtp)
        stack.callback(media.close)
        keepers: list[TrunkKeeper] = []

        def answered(event: RequestAnswered) -> None:
            for keeper in keepers:
                keeper.answered(event)

        settings = replace(endpoint_settings(config), port=0, tls_port=0, more_hosts=())
        endpoint = SipEndpoint(settings, media, on_answered=answered)
        try:
            await endpoint.start()
        except (OSError, TlsError) as error:
            yield Finding("wrong", "trunks", f"can't be asked from {config.sip.listen}: {error}")
            return
        stack.push_async_callback(endpoint.aclose)
        keeper = TrunkKeeper(trunks, endpoint.agent, endpoint.transports)
        keepers.append(keeper)
        endpoint.transports.on_connection_lost = keeper.connection_lost
        keeper.start()
        stack.push_async_callback(keeper.aclose)
        stack.push_async_callback(keeper.unregister, UNREGISTER_S)
        until = time.monotonic() + TRUNKS_S
        while time.monotonic() < until and any(_undecided(status) for status in trunks.status()):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        own = {trunk.name: trunk for trunk in config.trunks}
        for status in trunks.status():
            yield _of_asked(status, own[status.name])


def _watched(trunk: TrunkSettings) -> TrunkSettings:
    """The same, asked by OPTIONS even if it is not to be while it is in use."""
    return trunk.model_copy(update={"options_s": trunk.options_s or ASK_S}) if trunk.host else trunk


def _undecided(status: TrunkStatus) -> bool:
    registration, liveness = status.registration, status.liveness
    if registration is not None and registration.state in ("registering", "unregistered") and not registration.error:
        return True
    return liveness is not None and liveness.state == "unknown" and not liveness.missed and not liveness.error


def _of_asked(status: TrunkStatus, settings: TrunkSettings) -> Finding:
    what, registration, liveness = f"trunk {status.name}", status.registration, status.liveness
    if registration is not None and registration.state != "registered":
        state = registration.state if registration.state in ("failed", "refused") else "failed"
        return Finding("wrong", what, f"registration {state}: {registration.error or 'no answer'}. {_mend(state)}")
    if liveness is None:
        if registration is not None:
            return Finding("ok", what, "registers")
        return Finding("note", what, "it has no host: it only calls us, so there is nothing to try")
    if liveness.state == "up":
        trip = "" if liveness.round_trip_ms is None else f" ({liveness.round_trip_ms:.0f} ms)"
        return Finding("ok", what, f"{'registers and ' if registration else ''}answers{trip}")
    says = f"{liveness.error or 'no answer to OPTIONS'}. {_mend('down')}"
    if not settings.options_s:
        return Finding("note", what, f"{says} It is not asked in use (options_s: 0), so this may be its way")
    return Finding("wrong", what, says)


def _mend(state: str) -> str:
    match state:
        case "refused":
            return "Check username, password and aor with the carrier"
        case "failed":
            return "Check host, port and transport, and that the firewall lets us out"
        case _:
            return "Check host, port and transport, and that it takes requests from this address"
