"""The density of coming returns given a bar's context, ready to use."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from glow_bt.errors import ArtifactError, ConfigError, DataError
from glow_bt.features import ContextRows, ContextSpec, Scaler, context_rows
from glow_bt.flows import UnivariateFlow
from glow_bt.fused import FusedUnivariate, SkewedTails

__all__ = ["ReturnModel", "model_inputs"]

Floats = npt.NDArray[np.float64]
Stamps = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ReturnModel:
    """Log returns of the next h bars, for each horizon h that was trained.

    r_h = volatility * sqrt(h) * y, y distributed as the horizon's flow says of the scaled context.

    Attributes:
        spec: which numbers make a context.
        scaler: centre and scale of each, from the training bars.
        bar_seconds: interval of the bars.
        flows: by horizon in bars.

    Raises:
        ArtifactError: if the parts are not for the same contexts.
    """

    spec: ContextSpec
    scaler: Scaler
    bar_seconds: float
    flows: Mapping[int, UnivariateFlow]

    def __post_init__(self) -> None:
        widths = {flow.context_features for flow in self.flows.values()}
        if self.scaler.names != self.spec.names or widths != {len(self.spec.names)}:
            raise ArtifactError(
                f"expected flows and a scaler of the context {list(self.spec.names)}, found "
                f"widths {sorted(widths)} and a scaler of {list(self.scaler.names)}; train again"
            )

    @property
    def min_bars(self) -> int:
        """Bars that a row depends on, itself included."""
        return self.spec.min_bars

    @property
    def horizons(self) -> tuple[int, ...]:
        """Horizons in bars, ascending."""
        return tuple(sorted(self.flows))

    def inputs(self, bars: pd.DataFrame) -> tuple[Floats, Stamps]:
        """Return a valid bar frame as `model_inputs` does, with the columns of the spec."""
        return model_inputs(bars, self.spec.columns)

    def contexts(self, bars: Floats, stamps_ns: Stamps) -> ContextRows:
        """Return scaled contexts and volatility of bars min_bars - 1 .. T - 1.

        Args:
            bars: (T, 5) or (T, 6) in the order of `spec.columns`.
            stamps_ns: (T,) bar opens.

        Raises:
            As `glow_bt.features.context_rows` does.
        """
        rows = context_rows(bars, stamps_ns, self.bar_seconds, self.spec)
        return ContextRows(self.scaler.transform(rows.values), rows.volatility)

    def distribution(self, rows: ContextRows, horizon: int = 1) -> SkewedTails:
        """Return the distributions of the log return of the next `horizon` bars, one a row.

        Raises:
            ConfigError: naming the horizons there are, if it is none of them.
        """
        unit = rows.volatility * math.sqrt(horizon)
        return self.fused(horizon).distribution(rows.values).scaled(unit)

    def quantile_error(self, rows: ContextRows, level: float, horizon: int = 1) -> Floats:
        """Return (N,) the standard error of the estimated quantile at a level, a log return.

        Raises:
            ConfigError: as `distribution` does.
        """
        unit = rows.volatility * math.sqrt(horizon)
        return self.fused(horizon).quantile_error(level, rows.values) * unit

    def fused(self, horizon: int) -> FusedUnivariate:
        """Return the frozen flow of a horizon.

        Raises:
            ConfigError: naming the horizons there are, if it is none of them.
        """
        if horizon not in self._fused:
            raise ConfigError(
                f"expected a horizon among {', '.join(map(str, self.horizons))} bars, which the "
                f"model was trained for, found {horizon}; train with --return-horizons {horizon}"
            )
        return self._fused[horizon]

    @cached_property
    def _fused(self) -> dict[int, FusedUnivariate]:
        return {horizon: flow.fused() for horizon, flow in self.flows.items()}


def model_inputs(bars: pd.DataFrame, columns: tuple[str, ...]) -> tuple[Floats, Stamps]:
    """Return a valid bar frame as an array (T, len(columns)) and stamps (T,) of bar opens.

    Raises:
        DataError: if it lacks a column that a model was trained with.
    """
    missing = [name for name in columns if name not in bars.columns]
    if missing:
        raise DataError(
            f"expected bars with {', '.join(missing)}, which the model was trained with, "
            f"found {', '.join(map(str, bars.columns))}; give them, or train without"
        )
    stamps_ns = cast("pd.DatetimeIndex", bars.index).as_unit("ns").asi8
    return bars[list(columns)].to_numpy(), stamps_ns
