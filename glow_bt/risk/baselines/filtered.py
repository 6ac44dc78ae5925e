"""Baselines with a variance that is filtered through every bar: EWMA, GARCH and its kin."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from glow_bt.errors import ConfigError
from glow_bt.risk.baselines.walking import check_request, spread_of
from glow_bt.risk.distributions import (
    LocationScale,
    NormalShape,
    SkewStudentShape,
    StandardShape,
    StudentShape,
)
from glow_bt.risk.forecasts import Forecasts, forecasts_of
from glow_bt.risk.scenarios import EmpiricalShape

__all__ = ["EwmaBaseline", "FilteredHistoricalSimulation", "FilteredVariance", "GarchBaseline"]

Floats = npt.NDArray[np.float64]

# Parameters at the edge of arch's box, drawn in by this much, have a variance.
_MARGIN = 1e-6


@dataclass(frozen=True)
class FilteredVariance:
    """A variance model run over a span, in units of log returns.

    Attributes:
        mean: of the returns.
        sigma: (T,) conditional standard deviations, each from the returns before it.
        shape: of the standardised returns.
        parameters: of the variance's recursion for returns of unit variance, in arch's order.
        log_likelihood: of the returns fitted on, nats; NaN where nothing was estimated.
    """

    mean: float
    sigma: Floats
    shape: StandardShape
    parameters: tuple[float, ...]
    log_likelihood: float


class _FilteredBaseline(ABC):
    """What is forecast from a filtered variance: mean + sigma_t Z, Z of the model's shape."""

    name: str
    min_bars: int
    has_density: bool

    @abstractmethod
    def filter(self, returns: Floats, fit: range, stop: int) -> FilteredVariance:
        """Estimate on `fit` and filter on to `stop`; sigma starts at `fit.start`."""

    def forecast(
        self,
        returns: Floats,
        *,
        fit: slice | range,
        first: int,
        stop: int,
        levels: Sequence[float],
    ) -> Forecasts:
        """Forecast each return in [first, stop), the variance filtered on through every bar."""
        fit = check_request(self, returns, fit=fit, first=first, stop=stop, levels=levels)
        path = self.filter(returns, fit, stop)
        sigma = path.sigma[first - fit.start :]
        distribution = LocationScale(np.full(len(sigma), path.mean), sigma, path.shape)
        return forecasts_of(distribution, returns[first:stop], levels)


@dataclass(frozen=True)
class EwmaBaseline(_FilteredBaseline):
    """RiskMetrics: sigma_t^2 = decay sigma_{t-1}^2 + (1 - decay) r_{t-1}^2, normal, mean 0.

    J.P. Morgan/Reuters 1996, RiskMetrics Technical Document, section 5.2. The first variance is
    that of the returns fitted on; no variance falls below 1e-8 of it.

    Attributes:
        decay: in (0, 1), 0.94 for daily bars by RiskMetrics; None to estimate it by likelihood.
    """

    decay: float | None = 0.94
    name: str = "ewma"
    min_bars: int = 30
    has_density: bool = True

    def __post_init__(self) -> None:
        if self.decay is not None and not 0 < self.decay < 1:
            raise ConfigError(f"expected a decay in (0, 1), found {self.decay}")

    def filter(self, returns: Floats, fit: range, stop: int) -> FilteredVariance:
        """Estimate on `fit` and filter on to `stop`; sigma starts at `fit.start`.

        Raises:
            DataError: if the returns fitted on are all equal.
            TrainingError: if the decay is to be estimated and does not converge.
        """
        return _filter(self, returns, fit, stop, "ewma", "normal", self.decay)


@dataclass(frozen=True)
class GarchBaseline(_FilteredBaseline):
    """Constant mean, GARCH(1,1), GJR-GARCH(1,1,1) or EGARCH(1,1,1) by maximum likelihood.

    Sigma stays between 1e-4 standard deviations and ten times the largest residual of the returns
    fitted on.

    Attributes:
        name: key in `BASELINES`.
        process: recursion of the variance (Bollerslev 1986; Glosten, Jagannathan & Runkle 1993;
            Nelson 1991), in the package `arch`.
        shape: of the standardised returns.
    """

    name: str
    process: Literal["garch", "gjr", "egarch"]
    shape: Literal["normal", "student", "skew_student"]
    min_bars: int = 100
    has_density: bool = True

    def filter(self, returns: Floats, fit: range, stop: int) -> FilteredVariance:
        """Estimate on `fit` and filter on to `stop`; sigma starts at `fit.start`.

        Raises:
            DataError: if the returns fitted on are all equal.
            TrainingError: if the likelihood has no maximum that the optimiser finds.
        """
        return _filter(self, returns, fit, stop, self.process, self.shape, None)


@dataclass(frozen=True)
class FilteredHistoricalSimulation(_FilteredBaseline):
    """GARCH(1,1)-t whose standardised returns of the span fitted on replace the Student-t.

    Barone-Adesi, Giannopoulos & Vosper 1999, "VaR without correlations for portfolios of
    derivative securities", Journal of Futures Markets 19(5). The residuals stay those of the
    estimation span, as they are: not centred, and none is added later.
    """

    name: str = "fhs"
    min_bars: int = 100
    has_density: bool = False

    def filter(self, returns: Floats, fit: range, stop: int) -> FilteredVariance:
        """Estimate on `fit` and filter on to `stop`; sigma starts at `fit.start`.

        Raises:
            DataError: if the returns fitted on are all equal.
            TrainingError: if the likelihood has no maximum that the optimiser finds.
        """
        path = _filter(self, returns, fit, stop, "garch", "student", None)
        residuals = (returns[fit.start : fit.stop] - path.mean) / path.sigma[: len(fit)]
        shape = EmpiricalShape(residuals)
        return FilteredVariance(path.mean, path.sigma, shape, path.parameters, path.log_likelihood)


def _filter(
    baseline: _FilteredBaseline,
    returns: Floats,
    fit: range,
    stop: int,
    process: str,
    shape: str,
    decay: float | None,
) -> FilteredVariance:
    from glow_bt.risk.baselines.estimation import (
        ParameterEstimate,
        conditional_variance,
        estimate,
    )

    spread = spread_of(baseline, returns, fit)
    scaled = np.asarray(returns[fit.start : stop], dtype=np.float64) / spread
    if decay is not None:
        found = ParameterEstimate(0.0, (decay,), (), np.nan)
    else:
        found = estimate(
            process,
            shape,
            scaled[: len(fit)],
            purpose=f"the baseline {baseline.name} on positions [{fit.start}, {fit.stop})",
        )
    residuals = scaled - found.mean
    variance = conditional_variance(
        process, found.variance, residuals, largest=float(np.abs(residuals[: len(fit)]).max())
    )
    return FilteredVariance(
        found.mean * spread,
        np.sqrt(variance) * spread,
        _shape(found.shape),
        found.variance,
        found.log_likelihood - len(fit) * float(np.log(spread)),
    )


def _shape(parameters: tuple[float, ...]) -> StandardShape:
    if not parameters:
        return NormalShape()
    if len(parameters) == 1:
        return StudentShape(parameters[0])
    limit = 1 - _MARGIN
    return SkewStudentShape(parameters[0], min(max(parameters[1], -limit), limit))
