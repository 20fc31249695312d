"""The `offhook` command: serve, call, voices, trunks, asterisk, bans, turns, trace, check, doctor, version."""

import argparse
import asyncio
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import structlog

from bridge import __version__
from bridge.configfile import ConfigError, Loaded, load
from bridge.voices import add_parser as add_voices

EPILOG = """\
The configuration is --config FILE, else offhook.yaml in the working directory, else a built-in default that answers
`sip:agent@...` with the receptionist and `sip:echo@...` with an echo. OFFHOOK_* variables override any value by its
path, e.g. OFFHOOK_SIP_PORT=5070 or OFFHOOK_DATA_DIR=/var/lib/offhook.
"""

CALL_EPILOG = """\
Without --say and --interrupt a sample conversation that ships with Offhook is played. The exit code is 0 only if the
agent answered, spoke, and reacted to everything that was said to it.

examples:
  offhook call
  offhook call sip:agent@127.0.0.1 --say hours.wav --interrupt stop.wav --out call.wav
  offhook call sip:echo@192.168.1.20:5070 --say tone.wav
"""


TRACE_EPILOG = """\
The ladder is of the messages that the bridge still has in memory (sip.trace_mb): also of calls that have ended, were
refused, or never became one. A capture begins with them, and ends with the call or Ctrl-C.

examples:
  offhook trace 3f0c7a1b9d5e4c6c8a9be0a1d2c3b4f5
  offhook trace 8d1c@203.0.113.10 --full
  offhook trace PJSIP/carrier-00000a12
  offhook trace 3f0c7a1b9d5e4c6c8a9be0a1d2c3b4f5 --pcap call.pcap
"""


CALL_HELP = "the call's id, a SIP Call-ID, or the id or name of its channel on an Asterisk"


DOCTOR_EPILOG = """\
Providers, remote bots, tool servers, trunks and Asterisks are tried. It works while the bridge runs, which is then
asked for its trunks. Without a running bridge each trunk gets OPTIONS, and one that registers a registration that is
taken back at once. An Asterisk gets two channels for a few seconds, in an application of their own. The exit code is
1 when something is wrong.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0 done, 1 failed, 2 wrong usage or configuration."""
    args = _parser().parse_args(argv)
    if args.command == "version":
        print(f"offhook {__version__}")
        return 0
    try:
        loaded = load(args.config)
    except ConfigError as error:
        for problem in error.problems:
            print(f"offhook: {problem}", file=sys.stderr)
        return 2
    match args.command:
        case "check":
            return _check(loaded)
        case "doctor":
            return _doctor(args, loaded)
        case "call":
            return _call(args, loaded)
        case "voices":
            return _voices(args, loaded)
        case "trunks" | "asterisk" | "bans" | "trace" | "turns":
            return _view(args, loaded)
        case _:
            return _serve(loaded)


def _serve(loaded: Loaded) -> int:
    from bridge.app import StartError
    from bridge.serve import serve

    try:
        asyncio.run(serve(loaded))
    except StartError as error:
        print(f"offhook: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _call(args: argparse.Namespace, loaded: Loaded) -> int:
    from bridge.phone import PhoneError, PhoneOptions, Utterance, place_call, sample_conversation

    script = args.script or sample_conversation()
    options = PhoneOptions(
        target=args.uri or f"sip:agent@127.0.0.1:{loaded.config.sip.port}",
        script=tuple(Utterance(Path(path), interrupt) for path, interrupt in script),
        out=args.out,
        wait_s=args.wait,
        api_url=args.api or f"http://127.0.0.1:{loaded.config.http.port}",
        data_dir=loaded.config.data_dir,
        from_user=args.from_user,
    )
    try:
        return asyncio.run(place_call(options, print))
    except PhoneError as error:
        print(f"offhook: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _voices(args: argparse.Namespace, loaded: Loaded) -> int:
    from bridge.voices import run

    def complain(line: str) -> None:
        print(line, file=sys.stderr)

    try:
        return asyncio.run(run(args, loaded.config, print, complain))
    except KeyboardInterrupt:
        return 130


def _view(args: argparse.Namespace, loaded: Loaded) -> int:
    from bridge.view import Api, ViewError, lift_ban, save_packets, show_bans, show_trace, show_trunks
    from bridge.view_asterisk import reconnect, show_asterisk, show_asterisks
    from bridge.view_turns import show_turns

    api = Api(args.api or f"http://127.0.0.1:{loaded.config.http.port}", loaded.config.data_dir)
    try:
        if args.command == "trunks":
            return show_trunks(api, print)
        if args.command == "asterisk":
            if not args.name and (args.queues or args.reconnect):
                print("offhook asterisk: --queues and --reconnect need NAME", file=sys.stderr)
                return 2
            if args.reconnect:
                return reconnect(api, args.name, print)
            if args.name:
                return show_asterisk(api, args.name, print, queues=args.queues)
            return show_asterisks(api, print)
        if args.command == "turns":
            return show_turns(api, args.call, print)
        if args.command == "trace":
            if args.pcap is not None:
                return save_packets(api, args.call, args.pcap, print)
            return show_trace(api, args.call, print, whole=args.full)
        return lift_ban(api, args.lift, print) if args.lift else show_bans(api, print)
    except ViewError as error:
        print(f"offhook: {error}", file=sys.stderr)
        return 1


def _check(loaded: Loaded) -> int:
    from bridge.check import check, describe_trunks, doubts, warnings
    from bridge.check_asterisk import describe_asterisks

    for line in (*describe_trunks(loaded.config), *describe_asterisks(loaded.config)):
        print(line)
    problems = check(loaded.config)
    for problem in problems:
        print(f"offhook: {problem}", file=sys.stderr)
    for warning in warnings(loaded.config):
        print(f"offhook: soon: {warning}", file=sys.stderr)
    for doubt in doubts(loaded.config):
        print(f"offhook: note: {doubt}", file=sys.stderr)
    if problems:
        return 1
    config = loaded.config
    print(f"{loaded.source}: good. Agents: {', '.join(config.agents) or 'none'}.")
    return 0


def _doctor(args: argparse.Namespace, loaded: Loaded) -> int:
    from bridge.doctor import examine
    from bridge.view import Api

    config = loaded.config
    api = Api(args.api or f"http://127.0.0.1:{config.http.port}", config.data_dir)
    # What providers and trunks write into the log is said here in its own words.
    logging.disable(logging.CRITICAL)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    print(f"{loaded.source}:", flush=True)
    try:
        return asyncio.run(examine(config, api, lambda line: print(line, flush=True)))
    except KeyboardInterrupt:
        return 130


class _Script(argparse.Action):
    """Collects --say and --interrupt in the order they stand in."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        script = list(getattr(namespace, self.dest) or [])
        script.append((str(values), option_string == "--interrupt"))
        setattr(namespace, self.dest, script)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="offhook",
        description="Lets AI answer the phone: takes SIP calls and connects them to a talking agent.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    config = argparse.ArgumentParser(add_help=False)
    config.add_argument("-c", "--config", type=Path, metavar="FILE", help="configuration file (YAML)")

    commands.add_parser("serve", parents=[config], help="start the bridge in the foreground", epilog=EPILOG)
    call = commands.add_parser(
        "call",
        parents=[config],
        help="call an agent as a SIP phone, play recorded speech, show what happens",
        epilog=CALL_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    call.add_argument("uri", nargs="?", metavar="URI", help="whom to call (default: sip:agent@127.0.0.1)")
    call.add_argument(
        "--say",
        dest="script",
        action=_Script,
        metavar="FILE",
        help="say this WAV when the agent has finished; repeatable",
    )
    call.add_argument(
        "--interrupt", dest="script", action=_Script, metavar="FILE", help="say this WAV while the agent is speaking"
    )
    call.add_argument(
        "--out", type=Path, default=Path("call.wav"), metavar="FILE", help="stereo WAV (default: call.wav)"
    )
    call.add_argument(
        "--wait", type=float, default=10.0, metavar="SECONDS", help="how long the agent may take to answer or react"
    )
    call.add_argument("--from", dest="from_user", default="phone", metavar="USER", help="our user part")
    call.add_argument(
        "--api", metavar="URL", help="the bridge's HTTP address, for the transcript as the agent understood it"
    )
    api = argparse.ArgumentParser(add_help=False)
    api.add_argument("--api", metavar="URL", help="the bridge's HTTP address (default: on this machine)")
    commands.add_parser(
        "trunks", parents=[config, api], help="show the trunks of the running bridge: registrations, calls, errors"
    )
    asterisk = commands.add_parser(
        "asterisk",
        parents=[config, api],
        help="show the Asterisks of the running bridge: connections, calls, queues",
    )
    asterisk.add_argument("name", nargs="?", metavar="NAME", help="its name in the configuration (default: all)")
    asterisk.add_argument("--queues", action="store_true", help="show the queues of NAME, their members and callers")
    asterisk.add_argument(
        "--reconnect", action="store_true", help="connect to NAME now, and take its application back if it was taken"
    )
    bans = commands.add_parser("bans", parents=[config, api], help="show who is banned, or lift a ban")
    bans.add_argument("--lift", metavar="ADDRESS", help="let this address (or IPv6 /64) call again")
    turns = commands.add_parser(
        "turns", parents=[config, api], help="show a call's turns, and where the time of each reply went"
    )
    turns.add_argument("call", metavar="CALL", help=CALL_HELP)
    trace = commands.add_parser(
        "trace",
        parents=[config, api],
        help="show a call's SIP messages, or capture its packets for Wireshark",
        epilog=TRACE_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    trace.add_argument("call", metavar="CALL", help=CALL_HELP)
    trace.add_argument("--full", action="store_true", help="each message whole (secrets removed), not the ladder")
    trace.add_argument("--pcap", type=Path, metavar="FILE", help="write SIP, RTP and RTCP of a live call to FILE")
    commands.add_parser(
        "check", parents=[config], help="validate the configuration, print every mistake with its place"
    )
    commands.add_parser(
        "doctor",
        parents=[config, api],
        help="check, then try each provider, trunk and Asterisk, and say what is wrong and how to mend it",
        epilog=DOCTOR_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_voices(commands, config)
    commands.add_parser("version", help="print the version")
    return parser


if __name__ == "__main__":
    sys.exit(main())
