"""Runs the fuzz targets: `python tests/fuzz/fuzz_run.py --seconds 3600` (all of them, for so long in all).

A crash ends it with 1; its input is in the crashes folder, and `fuzz_run.py --replay FILE TARGET` runs it alone. What
the fuzzer finds interesting is kept in a cache folder, so that a next run goes on from there."""

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
DEFAULT_STATE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "offhook" / "fuzz"

MAX_BYTES = 4096
TIMEOUT_S = 10
"""One input that takes longer is a finding too: what a peer sends must never hold the loop. A busy machine may."""
MEMORY_MB = 1024


def main() -> int:
    parser = argparse.ArgumentParser(description="Fuzz what reads the network.")
    parser.add_argument("targets", nargs="*", help="all unless named")
    parser.add_argument("--seconds", type=float, default=60, help="in all, shared by the targets (60)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="targets at a time")
    parser.add_argument("--seed", type=int, default=0, help="the same inputs each time (0: others each time)")
    parser.add_argument("--state", type=Path, default=DEFAULT_STATE, help=f"findings ({DEFAULT_STATE})")
    parser.add_argument("--replay", type=Path, help="run this input instead of fuzzing")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return _fuzz(options.targets[0], options.seconds, options.state, options.seed)
    sys.path.insert(0, str(HERE))
    from fuzz_targets import TARGETS

    names = options.targets or list(TARGETS)
    unknown = [name for name in names if name not in TARGETS]
    if unknown:
        parser.error(f"no such target: {', '.join(unknown)}; there are {', '.join(TARGETS)}")
    if options.replay is not None:
        for name in names:
            TARGETS[name](options.replay.read_bytes())
        return 0
    return run_all(names, options.seconds, options.jobs, options.state, options.seed)


def run_all(names: list[str], seconds: float, jobs: int, state: Path, seed: int = 0) -> int:
    """Fuzz each target in a process of its own; 1 if one crashed."""
    jobs = max(1, min(jobs, len(names)))
    # libFuzzer counts whole seconds, and starting takes two of them.
    each = max(2, int(seconds * jobs / len(names)))
    with ThreadPoolExecutor(jobs) as pool:
        results = list(pool.map(lambda name: _run_worker(name, each, state, seed), names))
    for name, (code, said) in zip(names, results, strict=True):
        runs = [line for line in said.splitlines() if line.startswith("Done ")]
        print(f"{name}: {'crashed' if code else (runs or ['done'])[-1]}")
        if code:
            print(said[-3000:])
    return int(any(code for code, _ in results))


def _run_worker(name: str, seconds: int, state: Path, seed: int) -> tuple[int, str]:
    command = [sys.executable, __file__, "--worker", "--seconds", str(seconds), "--state", str(state)]
    command += ["--seed", str(seed), name]
    done = subprocess.run(
        command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    return done.returncode, done.stdout


def _fuzz(name: str, seconds: float, state: Path, seed: int) -> int:
    import atheris

    sys.path[:0] = [str(HERE), str(HERE.parent.parent)]
    with atheris.instrument_imports(include=["bridge.sip", "bridge.rtp"]):
        from fuzz_targets import TARGETS
    found, crashes = state / "corpus" / name, state / "crashes"
    found.mkdir(parents=True, exist_ok=True)
    crashes.mkdir(parents=True, exist_ok=True)
    arguments = [f"-max_total_time={int(seconds)}", f"-max_len={MAX_BYTES}", f"-timeout={TIMEOUT_S}"]
    arguments += [
        f"-rss_limit_mb={MEMORY_MB}",
        f"-artifact_prefix={crashes}/{name}-",
        "-print_final_stats=0",
        f"-seed={seed}",
    ]
    arguments += [str(found), str(CORPUS / name)]
    words = CORPUS / f"{name}.dict"
    if words.exists():
        arguments.append(f"-dict={words}")
    atheris.Setup([sys.argv[0], *arguments], TARGETS[name])
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
