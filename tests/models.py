"""Real bars, and a small model trained on them once a test run."""

import functools
from dataclasses import replace
from importlib.util import find_spec

import pandas as pd
import pytest
from arch.data import sp500

from glow_bt.flows import FAMILIES
from glow_bt.training import TrainConfig, train

ZUKO_FAMILIES = ("maf", "iaf", "nsf", "cnf")
needs_zuko = pytest.mark.skipif(
    find_spec("zuko") is None, reason="needs zuko: pip install 'glow-bt[flows]'"
)
# Every family of flows by name, as parameters of a test.
EACH_FAMILY = [
    pytest.param(name, marks=[needs_zuko] if name in ZUKO_FAMILIES else []) for name in FAMILIES
]

# 359 states to train on, 78 to validate on and 78 to test on, with a purge of 62 before each.
SMALL_BARS = 700
SMALL_CONFIG = TrainConfig(
    fractions=(0.6, 0.2, 0.2),
    num_levels=2,
    num_steps=1,
    hidden_dim=8,
    return_hidden_dim=8,
    return_members=2,
    max_epochs=3,
    batch_size=64,
    learning_rate=5e-3,
)


@functools.cache
def _history():
    bars = sp500.load()[["Open", "High", "Low", "Close", "Volume"]].astype(float)
    bars.columns = ["open", "high", "low", "close", "volume"]
    return bars.tz_localize("UTC").rename_axis("timestamp")


def sp500_bars(first=0, last=None):
    """Daily bars of the S&P 500 from 1999 on, by position."""
    return _history().iloc[first:last].copy()


def small_config(**changes):
    """The settings of `small_artifact`, with some of them changed."""
    return replace(SMALL_CONFIG, **changes)


@functools.cache
def small_artifact():
    """A model of the first 700 bars; it was trained until bar 559.

    So few bars hold no evidence on direction. It is made to believe in some, so that tests look
    at a direction that moves.
    """
    artifact = train(sp500_bars(0, SMALL_BARS), SMALL_CONFIG)
    direction = replace(artifact.direction, slope_belief=0.75, drift_belief=0.5)
    return replace(artifact, direction=direction)


def unseen_bars(count):
    """The first `count` bars after the training of `small_artifact`, and their warm-up before."""
    artifact = small_artifact()
    first = artifact.training.n_bars
    return sp500_bars(first - (artifact.min_bars - 1), first + count)


def utc(text):
    return pd.Timestamp(text, tz="UTC")
