"""What tests let workers do."""

import os
import signal
from pathlib import Path

from glow_bt.errors import ConfigError, TooFewBarsError


def process_id(number):
    return number, os.getpid()


def die_once(number, mark):
    """End as a process does that runs out of memory, the first time."""
    mark = Path(mark)
    if number == 1 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def die_always(number):
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def fail(kind):
    if kind == "bars":
        raise TooFewBarsError(10, 5, "a test")
    raise ConfigError("expected something else")


def threads(_):
    return os.environ["OMP_NUM_THREADS"]
