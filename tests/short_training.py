"""Return flows whose members learn for a few steps, in this process and in those it starts.

With 1,500 steps they take nine tenths of the time that a small model takes.
"""

from glow_bt.evaluation import engines
from glow_bt.training import returns

STEPS = 30


def shorten(*_):
    """Train shortly in this process from now on."""
    returns._STEPS = STEPS


def serve(parent):
    """Begin a process of `--engine local`, in place of `engines._serve`."""
    shorten()
    engines._serve(parent)


dask_setup = shorten
"""What a Dask worker calls that this module is preloaded into."""
