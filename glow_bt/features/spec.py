"""Which numbers make up the market state: the ordered registry of features and its settings.

Notation: c, h, l, v are close, high, low, volume and r = ln(c_t / c_(t-1)). sigma is the root
mean square of the `long` returns up to the bar BEFORE, so that it is known before the bar it
scales. "The rest of medium" are the bars of the medium window that precede the short one (or
the bar itself), "the rest of long" those that precede the medium one.

Every feature is free of the units of price and of volume. None is a function of the others, on
markets without gaps (open equal to the close before) either: there the candle's body is a
function of return and range, so it is not among them, nor is the open used. Windows are compared
with their rests, not with windows that contain them, so that no ratio has an upper bound; shares
and places go through a logit. Paddings, stated shares of sigma or of the mean volume, keep flat
bars, zero volume and a close at its high finite, and give the latter no fixed value. Nothing is
jittered: a return of exactly 0 stays one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np

from glow_bt.errors import ConfigError
from glow_bt.features.windows import Value, WindowStatistics

__all__ = ["DEFAULT_SPEC", "FEATURES", "Feature", "FeatureSpec"]

# Raise it when a formula changes: an artifact of an older formula is then refused.
_VERSION = 1
# Variance of a driftless diffusion from its range is range^2 / (4 ln 2): Parkinson 1980, "The
# extreme value method for estimating the variance of the rate of return", J. Business 53(1).
_PARKINSON = 1.0 / (4.0 * math.log(2.0))


@dataclass(frozen=True)
class FeatureSpec:
    """Windows and paddings of the market state.

    Attributes:
        short: short window in bars, at least 3.
        medium: medium window in bars, at least 10 and twice `short`.
        long: long window in bars, at least twice `medium`.
        sigma_floor: least value of sigma, per bar as a log return. Prices that stood still for
            a whole long window are then scaled by it.
        return_margin: padding of returns, ranges and places in ranges, in units of sigma: what
            is smaller than this share of a usual bar is noise.
        volume_margin: padding of volumes as a share of the mean volume over `long`.

    Raises:
        ConfigError: if a window or a padding is outside what can work.
    """

    short: int = 5
    medium: int = 20
    long: int = 60
    sigma_floor: float = 1e-5
    return_margin: float = 0.05
    volume_margin: float = 0.01

    def __post_init__(self) -> None:
        if not all(type(window) is int for window in self.windows):
            raise ConfigError(
                f"expected windows in whole bars, found {self.windows}; give integers"
            )
        # In a shorter medium window all returns often have one sign, and the share of falls then
        # follows from the other features.
        if self.short < 3 or self.medium < 10:
            raise ConfigError(
                f"expected short >= 3 and medium >= 10, found short={self.short}, "
                f"medium={self.medium}; with less, features follow from one another"
            )
        if self.medium < 2 * self.short or self.long < 2 * self.medium:
            raise ConfigError(
                f"expected each window at least twice the one before, found {self.windows}; "
                "lengthen the longer ones"
            )
        for name in ("sigma_floor", "return_margin", "volume_margin"):
            value = getattr(self, name)
            if not (isinstance(value, int | float) and 0.0 < value <= 1.0):
                raise ConfigError(
                    f"expected {name} above 0 and at most 1, found {value!r}; "
                    "leave it out for the default"
                )

    @property
    def windows(self) -> tuple[int, int, int]:
        """The windows short, medium and long in bars."""
        return self.short, self.medium, self.long

    @property
    def names(self) -> tuple[str, ...]:
        """Column names in order, such as ``return_20``; they carry the windows."""
        windows = {"short": self.short, "medium": self.medium, "long": self.long}
        return tuple(feature.name.format(**windows) for feature in FEATURES)

    @property
    def closes(self) -> dict[str, int]:
        """How many closes, the current one included, each feature needs; by column name."""
        needs = (feature.closes(self) for feature in FEATURES)
        return dict(zip(self.names, needs, strict=True))

    @cached_property
    def min_bars(self) -> int:
        """Bars that the first full state needs: one less of them are warm-up."""
        return max(feature.closes(self) for feature in FEATURES)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings and the column order as JSON values."""
        return {"version": _VERSION, "names": list(self.names), **asdict(self)}

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> FeatureSpec:
        """Rebuild a spec from `to_dict`.

        Raises:
            ConfigError: if the settings are incomplete, or from another version of the formulas.
        """
        wanted = {"version", "names", *(field.name for field in fields(cls))}
        if set(settings) != wanted:
            raise ConfigError(
                f"expected a feature spec of {sorted(wanted)}, found {sorted(settings)}; "
                "it was written by another version of glow_bt: train again with this one"
            )
        values = {name: settings[name] for name in wanted - {"version", "names"}}
        spec = cls(**values)
        if settings["version"] != _VERSION or tuple(settings["names"]) != spec.names:
            raise ConfigError(
                f"expected features of version {_VERSION} {list(spec.names)}, found version "
                f"{settings['version']} {settings['names']}; train again with this glow_bt"
            )
        return spec


@dataclass(frozen=True)
class Feature:
    """One column of the market state.

    Attributes:
        name: column name, with the windows as ``{short}``, ``{medium}``, ``{long}``.
        closes: closes needed, the current one included, given the spec.
        formula: what it is, on one line.
        value: the formula, of floats or of arrays (N,).
    """

    name: str
    closes: Callable[[FeatureSpec], int]
    formula: str
    value: Callable[[WindowStatistics[Any], FeatureSpec], Any]


def _with_sigma(spec: FeatureSpec) -> int:
    # sigma: `long` returns, hence long + 1 closes, before the current close.
    return spec.long + 2


def _with_volume(spec: FeatureSpec) -> int:
    return spec.long


def _scaled(move: Value, window: int, w: WindowStatistics[Value]) -> Value:
    return move / (w.sigma * math.sqrt(window))


def _log_ratio(above: Value, below: Value, margin: Value) -> Value:
    ratio = (above + margin) / (below + margin)
    # The logarithm of numpy for floats too: that of the standard library may differ in a bit.
    return float(np.log(ratio)) if isinstance(ratio, float) else np.log(ratio)


def _squares(above: Value, below: Value, w: WindowStatistics[Value], spec: FeatureSpec) -> Value:
    margin = spec.return_margin * w.sigma
    return _log_ratio(above, below, margin * margin)


def _volumes(above: Value, below: Value, w: WindowStatistics[Value], spec: FeatureSpec) -> Value:
    margin = spec.volume_margin * w.volumes.long
    # Without any volume in the long window every ratio is 1.
    return _log_ratio(above, below, margin + (margin == 0.0))


def _place(low: Value, high: Value, w: WindowStatistics[Value], spec: FeatureSpec) -> Value:
    margin = spec.return_margin * w.sigma * w.close
    return _log_ratio(w.close - low, high - w.close, margin)


# The one place that says which features there are, and in which order. m = return_margin * sigma
# and mv = volume_margin * mean v over `long` (1 where that mean is 0) are the paddings.
FEATURES: tuple[Feature, ...] = (
    Feature(
        "return_1",
        _with_sigma,
        "r / sigma",
        lambda w, spec: _scaled(w.return_1, 1, w),
    ),
    Feature(
        "return_{short}",
        _with_sigma,
        "ln(c_t / c_(t-short)) / (sigma sqrt(short))",
        lambda w, spec: _scaled(w.return_short, spec.short, w),
    ),
    Feature(
        "return_{medium}",
        _with_sigma,
        "ln(c_t / c_(t-medium)) / (sigma sqrt(medium))",
        lambda w, spec: _scaled(w.return_medium, spec.medium, w),
    ),
    Feature(
        "return_{long}",
        _with_sigma,
        "ln(c_t / c_(t-long)) / (sigma sqrt(long))",
        lambda w, spec: _scaled(w.return_long, spec.long, w),
    ),
    Feature(
        "trend_{medium}",
        _with_sigma,
        "(ln c - mean ln c over medium) / (sigma sqrt(medium))",
        lambda w, spec: _scaled(w.trend, spec.medium, w),
    ),
    Feature(
        "vol_{short}_{medium}",
        _with_sigma,
        "ln((mean r^2 over short + m^2) / (mean r^2 over the rest of medium + m^2)) / 2",
        lambda w, spec: 0.5 * _squares(w.squares.short, w.squares.before_short, w, spec),
    ),
    Feature(
        "vol_{medium}_{long}",
        _with_sigma,
        "ln((mean r^2 over medium + m^2) / (mean r^2 over the rest of long + m^2)) / 2",
        lambda w, spec: 0.5 * _squares(w.squares.medium, w.squares.before_medium, w, spec),
    ),
    Feature(
        "range_1",
        _with_sigma,
        "ln((ln(h / l)^2 + m^2) / (mean ln(h / l)^2 over the rest of medium + m^2)) / 2",
        lambda w, spec: 0.5 * _squares(w.range_square, w.range_before, w, spec),
    ),
    Feature(
        "range_{medium}",
        _with_sigma,
        "ln((mean ln(h / l)^2 over medium / (4 ln 2) + m^2) / (mean r^2 over medium + m^2)) / 2",
        lambda w, spec: 0.5 * _squares(_PARKINSON * w.range_medium, w.squares.medium, w, spec),
    ),
    Feature(
        "downside_{medium}",
        _with_sigma,
        "ln((mean r^2 [r < 0] over medium + m^2) / (mean r^2 [r > 0] over medium + m^2))",
        lambda w, spec: _squares(w.square_down, w.square_up, w, spec),
    ),
    Feature(
        "volume_1",
        _with_volume,
        "ln((v + mv) / (mean v over the rest of medium + mv))",
        lambda w, spec: _volumes(w.volume, w.volume_before, w, spec),
    ),
    Feature(
        "volume_{short}",
        _with_volume,
        "ln((mean v over short + mv) / (mean v over the rest of medium + mv))",
        lambda w, spec: _volumes(w.volumes.short, w.volumes.before_short, w, spec),
    ),
    Feature(
        "volume_{medium}",
        _with_volume,
        "ln((mean v over medium + mv) / (mean v over the rest of long + mv))",
        lambda w, spec: _volumes(w.volumes.medium, w.volumes.before_medium, w, spec),
    ),
    Feature(
        "signed_volume_{medium}",
        _with_volume,
        "atanh(mean v sign(r) over medium / (mean v over medium + mv))",
        lambda w, spec: (
            0.5
            * _volumes(
                w.volumes.medium + w.volume_signed, w.volumes.medium - w.volume_signed, w, spec
            )
        ),
    ),
    Feature(
        "place_{medium}",
        _with_sigma,
        "ln((c - lowest l over medium + m c) / (highest h over medium - c + m c))",
        lambda w, spec: _place(w.low_medium, w.high_medium, w, spec),
    ),
    Feature(
        "close_location",
        _with_sigma,
        "ln((c - l + m c) / (h - c + m c))",
        lambda w, spec: _place(w.low, w.high, w, spec),
    ),
)

DEFAULT_SPEC = FeatureSpec()
