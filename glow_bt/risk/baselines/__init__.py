"""Classical models of value at risk behind one interface, on the package `arch`.

A new one is a class that meets `Baseline` and one line in `BASELINES`.
"""

from collections.abc import Mapping
from types import MappingProxyType

from glow_bt.risk.baselines.filtered import (
    EwmaBaseline,
    FilteredHistoricalSimulation,
    FilteredVariance,
    GarchBaseline,
)
from glow_bt.risk.baselines.unfiltered import GaussianBaseline, HistoricalSimulation
from glow_bt.risk.baselines.walking import Baseline, DividedHistory, walk_forward

__all__ = [
    "BASELINES",
    "Baseline",
    "DividedHistory",
    "EwmaBaseline",
    "FilteredHistoricalSimulation",
    "FilteredVariance",
    "GarchBaseline",
    "GaussianBaseline",
    "HistoricalSimulation",
    "walk_forward",
]

_ALL: tuple[Baseline, ...] = (
    GaussianBaseline(),
    HistoricalSimulation(),
    EwmaBaseline(),
    GarchBaseline("garch_normal", "garch", "normal"),
    GarchBaseline("garch_t", "garch", "student"),
    GarchBaseline("gjr_skewt", "gjr", "skew_student"),
    GarchBaseline("egarch_skewt", "egarch", "skew_student"),
    FilteredHistoricalSimulation(),
)

BASELINES: Mapping[str, Baseline] = MappingProxyType({model.name: model for model in _ALL})
"""Baselines by name."""
