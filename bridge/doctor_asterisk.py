"""What `offhook doctor` tries of each Asterisk: that it is reached and lets us in, has what is configured, and that
audio goes both ways. Everything runs in an application of the doctor's own, so that a running bridge keeps its."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from bridge.asterisk.ami import Ami
from bridge.asterisk.ari import Ari
from bridge.asterisk.ari_errors import AriError, AriNotFoundError, AriUnauthorizedError
from bridge.asterisk.needs import missing, needs
from bridge.asterisk.settings import AmiSettings, AsteriskSettings, MediaKind
from bridge.check_asterisk import media_kinds
from bridge.config import Config
from bridge.doctor_agents import Finding
from bridge.doctor_asterisk_ami import logged_in, note_event, permissions
from bridge.doctor_asterisk_dialplan import Seen, contexts, contexts_of
from bridge.doctor_asterisk_http import reached
from bridge.doctor_asterisk_safety import fallbacks, ports
from bridge.settings import PasswordError
from bridge.view import Api, ViewError
from bridge.view_asterisk import asterisk_states

CONNECT_S = 8.0
"""Longest wait for the event socket."""
FORGET_S = 2.0
"""Longest wait for Asterisk to have taken away what was hung up."""
WHOLE_S = 90.0
"""Longest examination of one Asterisk."""


async def tried_asterisks(config: Config, api: Api, bridge_runs: bool) -> AsyncIterator[Finding]:
    """Each one, all at once. `bridge_runs`: a bridge holds the data directory, and can be asked."""
    if not config.asterisk:
        return
    states: dict[str, dict[str, Any]] | None = None
    if bridge_runs:
        try:
            states = {state["name"]: state for state in await asyncio.to_thread(asterisk_states, api)}
        except ViewError as error:
            yield Finding("wrong", "Asterisk", f"a bridge runs here, but can't be asked about them: {error}")
    tasks = [asyncio.create_task(_examined(config, one, states)) for one in config.asterisk]
    try:
        for task in tasks:
            for finding in await task:
                yield finding
    finally:
        for task in tasks:
            task.cancel()
        # Each cleans up after itself, even if the user has seen enough.
        await asyncio.gather(*tasks, return_exceptions=True)


async def _examined(
    config: Config, settings: AsteriskSettings, states: Mapping[str, Mapping[str, Any]] | None
) -> list[Finding]:
    try:
        settings.password()
    except PasswordError:
        return []  # The configuration's check said so.
    found: list[Finding] = []
    try:
        async with asyncio.timeout(WHOLE_S):
            async for finding in _findings(config, settings, states):
                found.append(finding)
    except TimeoutError:
        found.append(Finding("wrong", f"Asterisk {settings.name}", f"it takes more than {WHOLE_S:.0f} s to answer"))
    return found


async def _findings(
    config: Config, settings: AsteriskSettings, states: Mapping[str, Mapping[str, Any]] | None
) -> AsyncIterator[Finding]:
    kinds = media_kinds(config, settings)
    known = False
    async for finding in reached(settings, kinds):
        known = known or finding.state == "ok"
        yield finding
    seen = Seen()
    events: set[str] = set()
    async with contextlib.AsyncExitStack() as stack:
        ami: Ami | None = None
        if settings.ami is not None and _has_password(settings.ami):
            ami = Ami(settings.ami, settings.name)
            ami.subscribe(lambda event: note_event(event, events))
            stack.push_async_callback(ami.aclose)
            yield await logged_in(settings, ami)
        if known:
            async for finding in _in_an_application(config, settings, kinds, states, seen):
                yield finding
        if ami is not None and ami.state == "up":
            async for finding in permissions(settings, ami, seen, events):
                yield finding
            async for finding in fallbacks(settings, ami):
                yield finding
            yield await ports(settings, ami, kinds, config.limits.calls)
    for finding in contexts(settings, seen):
        yield finding
    if seen.left:
        yield Finding(
            "wrong",
            f"Asterisk {settings.name}",
            f"what was made for the trial could not be taken away: {'; '.join(seen.left)}. Hang it up there",
        )


def _has_password(settings: AmiSettings) -> bool:
    try:
        settings.password()
    except PasswordError:
        return False  # The configuration's check said so.
    return True


# -- in an application of our own ---------------------------------------------------------------------------


async def _in_an_application(
    config: Config,
    settings: AsteriskSettings,
    kinds: Sequence[MediaKind],
    states: Mapping[str, Mapping[str, Any]] | None,
    seen: Seen,
) -> AsyncIterator[Finding]:
    own = settings.model_copy(update={"app": f"offhook-doctor-{secrets.token_hex(4)}"})
    ari = Ari(own, lambda event: None)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(ari.aclose)
        stack.push_async_callback(_forgotten, ari)
        ari.start()
        up = await _settled(ari)
        what = f"Asterisk {settings.name}, events"
        if not up:
            yield Finding(
                "wrong",
                what,
                f"the event socket does not open: {ari.last_error or 'no answer'}. Load res_http_websocket.so and "
                "res_ari_events.so; a proxy in between must let WebSockets through",
            )
        else:
            yield Finding("ok", what, "the event socket opens")
        try:
            seen.running = {module.name for module in await ari.modules() if module.status == "Running"}
        except AriError as error:
            yield Finding("note", f"Asterisk {settings.name}, modules", f"they can't be listed: {error}")
        else:
            for finding in _modules(settings, kinds, seen.running):
                yield finding
        yield await _application(settings, ari, states)
        writes = await _may_write(settings, ari)
        yield writes
        if up and writes.state == "ok":
            async for finding in _media(config, own, ari, kinds, seen):
                yield finding


async def _forgotten(ari: Ari) -> None:
    """Asterisk forgets an application as its socket closes only if it watches no channel any more."""
    with contextlib.suppress(AriError, TimeoutError):
        async with asyncio.timeout(FORGET_S):
            while (own := await ari.application(ari.app)).channels or own.bridges:  # noqa: ASYNC110
                await asyncio.sleep(0.02)


async def _settled(ari: Ari) -> bool:
    """Whether the event socket is open, once that is known."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CONNECT_S):
            while ari.state == "connecting":  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    return ari.state == "up"


def _modules(settings: AsteriskSettings, kinds: Sequence[MediaKind], running: set[str]) -> list[Finding]:
    what = f"Asterisk {settings.name}, modules"
    lacking = missing(needs(settings, kinds), running)
    findings = [
        Finding(
            "wrong" if need.must else "note",
            what,
            f"{need.shown} is not running, for {need.why}: `load = {need.modules[0]}.so` in modules.conf, then "
            f"`asterisk -rx 'module load {need.modules[0]}.so'` tells what it lacks itself",
        )
        for need in lacking
    ]
    if not lacking:
        timing = sorted(name.removesuffix(".so") for name in running if name.startswith("res_timing_"))
        findings.append(Finding("ok", what, f"all that are needed run (timing: {', '.join(timing)})"))
    return findings


async def _application(
    settings: AsteriskSettings, ari: Ari, states: Mapping[str, Mapping[str, Any]] | None
) -> Finding:
    what = f"Asterisk {settings.name}, application {settings.app}"
    state = None if states is None else states.get(settings.name)
    if states is not None and state is None:
        return Finding("wrong", what, "the running bridge does not have this Asterisk: reload it (SIGHUP)")
    try:
        await ari.application(settings.app)
        taken = True
    except AriNotFoundError:
        taken = False
    except AriError as error:
        return Finding("note", what, f"can't be asked for: {error}")
    if state is None:
        if taken:
            return Finding(
                "note",
                what,
                "no bridge runs here, but another process has it: when one is started here it takes it away. Each "
                "bridge needs an `app` of its own",
            )
        return Finding("note", what, f"no bridge runs here: Stasis({settings.app}) fails, and the dialplan goes on")
    match state["state"]:
        case "connecting" if state["since"] is None:
            return Finding(
                "note", what, "the running bridge is still starting, and connects when it is ready for calls"
            )
        case "up" if taken:
            return Finding("ok", what, "the running bridge has it")
        case "replaced":
            return Finding(
                "wrong",
                what,
                "another process has taken it from the running bridge. Each bridge needs an `app` of its own; "
                f"`offhook asterisk {settings.name} --reconnect` takes it back",
            )
    return Finding(
        "wrong", what, f"the running bridge does not have it: {state['state']} {state['last_error']}".rstrip()
    )


async def _may_write(settings: AsteriskSettings, ari: Ari) -> Finding:
    what = f"Asterisk {settings.name}, permission"
    try:
        # It changes nothing: there is no such bridge.
        await ari.delete_bridge(f"{ari.app}-none")
    except AriUnauthorizedError:
        return Finding(
            "wrong",
            what,
            f"user {settings.username!r} may only read: set read_only = no in [{settings.username}] of ari.conf, "
            "then `asterisk -rx 'module reload res_ari.so'`",
        )
    except AriNotFoundError:
        return Finding("ok", what, f"user {settings.username!r} may read and write")
    except AriError as error:
        return Finding("wrong", what, f"a request that writes fails: {error}")
    return Finding("ok", what, f"user {settings.username!r} may read and write")


async def _media(
    config: Config, own: AsteriskSettings, ari: Ari, kinds: Sequence[MediaKind], seen: Seen
) -> AsyncIterator[Finding]:
    # Imported here: the rest of the doctor needs no media.
    from bridge.audio.clock import MediaClock
    from bridge.doctor_asterisk_media import transport_for, try_media
    from bridge.legs.media import MediaPlane

    async with contextlib.AsyncExitStack() as stack:
        clock = MediaClock()
        stack.push_async_callback(clock.aclose)
        clock.start()
        plane = MediaPlane(clock, config.rtp)
        stack.callback(plane.close)
        for kind in kinds:
            async with transport_for(kind, config, own, plane) as transport:
                if isinstance(transport, Finding):
                    yield transport
                else:
                    yield await try_media(config, own, ari, transport, contexts_of(own), seen)
