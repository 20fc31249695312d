"""What holds for every test: how Hypothesis looks for examples, where free ports come from, how a run is ended."""

import signal
import sys
from pathlib import Path

from hypothesis import HealthCheck, settings

# The same examples each time, and no clock: a run says something of the code, not of the dice or of who else uses the
# machine. For new examples: `make test ARGS=--hypothesis-profile=explore`, or a path of one test in place of all.
settings.register_profile("same", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("explore", settings.get_profile("same"), derandomize=False, max_examples=500)
settings.load_profile("same")

# At the end: nothing there is to hide what another folder has by that name.
sys.path.append(str(Path(__file__).parent / "interop"))

# As Ctrl-C does: fixtures end what they started. By default a run that is told to end leaves its bridges behind.
signal.signal(signal.SIGTERM, signal.default_int_handler)
