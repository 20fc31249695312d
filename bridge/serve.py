"""`offhook serve`: a bridge in the foreground, from the first line on the terminal to the last."""

import asyncio
import signal
import sys
import termios
from fnmatch import fnmatchcase

import structlog

from bridge import __version__
from bridge.app import Bridge
from bridge.asterisk.settings import AUDIOSOCKET_PORT
from bridge.config import Config
from bridge.configfile import ConfigError, Loaded, load
from bridge.log import configure
from bridge.reload import ReloadError

log = structlog.get_logger(__name__)

RELOAD_PAUSE_S = 1.0
"""After a reload, until the next: reading a configuration takes the interpreter from the calls, a tenth of a second
at a time."""


async def serve(loaded: Loaded) -> None:
    """Run a bridge in the foreground until SIGTERM or SIGINT, then drain it; SIGHUP reads the configuration again.

    Raises StartError."""
    config = loaded.config
    logs = configure(level=config.log.level, format=config.log.format, mask=config.log.mask_numbers)
    loop = asyncio.get_running_loop()
    this = asyncio.current_task()
    running: Bridge | None = None

    def on_signal() -> None:
        if running is not None:
            running.stop()
        elif this is not None:
            this.cancel()

    on_terminal = sys.stderr.isatty()
    reloading: asyncio.Task[None] | None = None
    wanted = False

    async def reload_as_wanted(bridge: Bridge) -> None:
        """One at a time, so that what was read last holds; all that is asked for meanwhile is one more."""
        nonlocal wanted
        while wanted:
            wanted = False
            await _reload(bridge, loaded)
            await asyncio.sleep(RELOAD_PAUSE_S)

    def on_hangup() -> None:
        nonlocal reloading, wanted
        if on_terminal and _terminal_is_gone():
            on_signal()
        elif running is not None:
            wanted = True
            if reloading is None or reloading.done():
                reloading = loop.create_task(reload_as_wanted(running), name="reload")

    loop.add_signal_handler(signal.SIGHUP, on_hangup)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    _say(f"offhook {__version__}, configuration: {loaded.source}")
    try:
        async with Bridge.run(config, lambda text: _say(f"offhook: {text} ..."), logs) as bridge:
            running = bridge
            _say(welcome(config))
            await bridge.serve_until_stopped()
            _say("offhook: stopping")
    except asyncio.CancelledError:
        if running is not None:
            raise
        _say("offhook: stopped while starting")
    finally:
        if reloading is not None:
            reloading.cancel()
        logs.close()


async def _reload(bridge: Bridge, loaded: Loaded) -> None:
    """Read the configuration again. Whatever is wrong with it is said, and the old one stays."""
    try:
        # Reading and checking takes longer than a frame of audio.
        again = await asyncio.to_thread(load, loaded.path)
        waiting = await bridge.reload(again.config)
    except ConfigError as error:
        for problem in error.problems:
            log.error("configuration refused, the old one stays", problem=problem)
        return
    except ReloadError as error:
        for problem in str(error).splitlines():
            log.error("configuration refused, the old one stays", problem=problem)
        return
    except Exception:
        # The task's outermost edge: nobody waits for it.
        log.exception("reading the configuration again crashed")
        return
    log.info("configuration reloaded", source=again.source)
    for setting in waiting:
        log.warning("this setting needs a restart", setting=setting)


def _terminal_is_gone() -> bool:
    """Whether the hang-up is the terminal's own, closed by its user, rather than somebody's wish for a reload."""
    try:
        termios.tcgetattr(sys.stderr.fileno())
    except termios.error:
        return True
    return False


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - the command's own words to whoever started it


def welcome(config: Config) -> str:
    """What is there, and how to try it."""
    host = "127.0.0.1" if config.sip.listen in ("0.0.0.0", "::") else config.sip.listen
    port = "" if config.sip.port == 5060 else f":{config.sip.port}"
    # A route of a trunk answers no phone that calls us.
    users = [route.to for route in config.routes if "*" not in route.to and fnmatchcase("", route.trunk)] or ["agent"]
    return "\n".join(
        (
            "offhook: ready for calls",
            f"  SIP   {config.sip.listen}:{config.sip.port}/{_transports(config)}   from {_networks(config)}",
            *(f"  ARI   {one.url}   application {one.app} of Asterisk {one.name}" for one in config.asterisk),
            *_audiosocket(config),
            f"  HTTP  http://{config.http.listen}:{config.http.port}   (key in {config.data_dir / 'api-key'})",
            f"  test  make call   or: offhook call sip:{users[0]}@{host}{port}",
            "  stop  Ctrl-C (live calls finish first; twice: at once); SIGHUP reads the configuration again",
        )
    )


def _audiosocket(config: Config) -> tuple[str, ...]:
    """Where dialplans without ARI bring their calls."""
    settings = config.audiosocket
    if not settings.trunk:
        return ()
    port = settings.port or AUDIOSOCKET_PORT
    return (f"  TCP   {settings.listen}:{port}   AudioSocket() of dialplans, trunk {settings.trunk}",)


def _transports(config: Config) -> str:
    names = [name for name, on in (("udp", config.sip.udp), ("tcp", config.sip.tcp)) if on]
    if config.tls.certificate is not None:
        names.append(f"tls:{config.tls.port}")
    return "+".join(names)


def _networks(config: Config) -> str:
    names = ", ".join(trunk.name for trunk in config.trunks)
    if config.sip.allow_from is not None:
        others = ", ".join(config.sip.allow_from)
    else:
        others = "loopback" if names else "loopback and private networks only"
    return ", ".join(part for part in (f"trunks {names}" if names else "", others) if part) or "nobody"
