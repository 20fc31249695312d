"""Run the bridge and see where its time goes: a sample of the main thread's stack after each 2 ms of its CPU time.

    python -m bench.sampled PROFILE serve -c offhook.yaml

SIGUSR2 begins anew. At the end PROFILE gets functions by their own samples and by those of what they call, and lines
by their own. Less in the way than a tracing profiler: what is cheap and often called keeps its share.
"""

import signal
import sys
from collections import Counter
from pathlib import Path
from types import FrameType

from bridge.cli import main

EVERY_S = 0.002
SHOWN = 150

own: "Counter[str]" = Counter()
total: "Counter[str]" = Counter()
lines: "Counter[str]" = Counter()


def _sample(signal_number: int, frame: FrameType | None) -> None:
    if frame is None:
        return
    own[_function(frame)] += 1
    lines[f"{_function(frame)}:{frame.f_lineno}"] += 1
    seen = set()
    while frame is not None:
        seen.add(_function(frame))
        frame = frame.f_back
    total.update(seen)


def _anew(signal_number: int, frame: FrameType | None) -> None:
    for counter in (own, total, lines):
        counter.clear()


def _function(frame: FrameType) -> str:
    path = Path(frame.f_code.co_filename).parts
    return f"{'/'.join(path[-3:])} {frame.f_code.co_qualname}"


def _write(file: Path) -> None:
    count = max(1, own.total())
    with file.open("w") as out:
        for title, counter in (("own", own), ("with what it calls", total), ("lines", lines)):
            out.write(f"== {title}, % of {count} samples\n")
            for name, number in counter.most_common(SHOWN):
                out.write(f"{100 * number / count:6.1f}  {name}\n")


if __name__ == "__main__":
    profile = Path(sys.argv[1])
    signal.signal(signal.SIGPROF, _sample)
    signal.signal(signal.SIGUSR2, _anew)
    signal.setitimer(signal.ITIMER_PROF, EVERY_S, EVERY_S)
    try:
        code = main(sys.argv[2:])
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        _write(profile)
    raise SystemExit(code)
