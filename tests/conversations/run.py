"""Play situations and show what came of them: `python tests/conversations/run.py [NAME ...] [--engines local]`."""

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import paths  # noqa: F401  it is there for what it does to the path
from measures import table, transcript
from rounds import play_all
from situation import all_situations
from verdict import failures


def main() -> int:
    known = {situation.name: situation for situation in all_situations()}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="situations; all of them by default")
    parser.add_argument("--engines", choices=("local", "standins"), help="both by default")
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in known]:
        parser.error(f"there is no situation {', '.join(unknown)}; known: {', '.join(known)}")
    wanted = [known[name] for name in options.names or known]
    outcomes = []
    for engines in ("local", "standins"):
        chosen = [situation for situation in wanted if engines in situation.engines]
        if chosen and options.engines in (None, engines):
            with tempfile.TemporaryDirectory() as folder:
                outcomes += list(play_all(chosen, engines, Path(folder)).values())
    for outcome in outcomes:
        print(transcript(outcome))
        print("".join(f"  WRONG: {wrong}\n" for wrong in failures(outcome)))
    print(table(outcomes))
    return 1 if any(failures(outcome) for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
