"""`make bench`: every measurement of this box, one after the other, or the one that is named."""

import argparse
import subprocess
import sys
from pathlib import Path

MEASUREMENTS = {
    "bridging": (["-m", "bench.bridging"], ["--calls=1,50,200", "--seconds=6"]),
    "conversation": (["-m", "bench.conversation"], ["--phones=1,2"]),
    "vad": (["bench/vad.py"], ["--only=cost"]),
    "turns": (["-m", "bench.turns"], ["--kind=speech"]),
    "media": (["-m", "bench.media"], ["--calls=1,50,200", "--seconds=6"]),
    "sip": (["-m", "bench.sip"], ["--rates=25,50", "--calls=50", "--seconds=5"]),
    "ai-calls": (["-m", "bench.ai_calls"], ["--calls=1,25", "--seconds=15"]),
    "asterisk": (["-m", "bench.asterisk"], ["--quick"]),
    "pipecat": (["-m", "bench.pipecat_calls"], ["--calls=1,5", "--seconds=15"]),
}
"""Name to how it is started, and what makes it quick. Each runs in a process of its own: none warms up another."""


ONLY_WHEN_NAMED = ("ai-calls", "asterisk", "pipecat")
"""`make bench-turns` (ten minutes) and `make bench-asterisk` (six). The first time Pipecat is installed (450 MB) and
Asterisk fetched (250 MB), into the user's cache."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "what", nargs="*", metavar="WHAT", help=f"of {', '.join(MEASUREMENTS)} (default: all but the last three)"
    )
    parser.add_argument("--quick", action="store_true", help="fewer calls, for less long: a first look, no result")
    options = parser.parse_args()
    if unknown := set(options.what) - set(MEASUREMENTS):
        parser.error(f"there is no measurement {', '.join(sorted(unknown))}; known: {', '.join(MEASUREMENTS)}")
    failed = []
    for name in options.what or [name for name in MEASUREMENTS if name not in ONLY_WHEN_NAMED]:
        command, quick = MEASUREMENTS[name]
        print(f"\n== {name} ==", flush=True)
        arguments = [sys.executable, *command, *(quick if options.quick else [])]
        if subprocess.run(arguments, cwd=Path(__file__).parent.parent, check=False).returncode:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
