"""Maximum likelihood of variance models by the package `arch`: its only importer.

Loaded when a model is first fitted, since arch brings pandas, statsmodels and matplotlib along.
Returns come in here scaled to unit variance: arch's optimiser and its bounds expect that.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from arch.univariate import (
    EGARCH,
    GARCH,
    ConstantMean,
    EWMAVariance,
    Normal,
    SkewStudent,
    StudentsT,
    ZeroMean,
)
from arch.utility.exceptions import ConvergenceWarning

from glow_bt.errors import TrainingError

__all__ = ["ParameterEstimate", "conditional_variance", "estimate"]

Floats = npt.NDArray[np.float64]

# Variance before the first bar: that of the whole span, which is 1.
_BACKCAST = 1.0
_MAX_ITERATIONS = 500
# Bounds on a conditional variance, over the variance and the largest squared residual of the span
# fitted on. arch's own upper one, 1e7, would let a filter that diverges forecast anything.
_LOWEST, _HIGHEST = 1e-8, 100.0

# Starting values of the variance's parameters beside those of arch's own search.
_STARTS: dict[str, tuple[tuple[float, ...], ...]] = {
    "ewma": ((0.97,),),
    "garch": ((0.05, 0.08, 0.9), (0.02, 0.03, 0.96)),
    "gjr": ((0.05, 0.04, 0.06, 0.9), (0.02, 0.03, 0.0, 0.96)),
    "egarch": ((0.0, 0.15, -0.05, 0.97), (0.0, 0.3, 0.0, 0.9)),
}
_SHAPE_START: dict[str, tuple[float, ...]] = {
    "normal": (),
    "student": (5.0,),
    "skew_student": (5.0, 0.0),
}


class _GrowingEgarch(EGARCH):  # type: ignore[misc]  # arch carries no types here
    """EGARCH whose alpha is not negative: large moves raise the variance, as they do in markets.

    A negative alpha, which fits of some hundred bars like, makes the filter diverge: a calm bar
    raises sigma, which makes the next bar calmer still. Wintenberger 2013, "Continuous
    invertibility and stable QML estimation of the EGARCH(1,1) model", Scandinavian Journal of
    Statistics 40(4).
    """

    def bounds(self, resids: Floats) -> list[tuple[float, float]]:
        """Return arch's bounds of (omega, alpha, gamma, beta) with alpha from 0 on."""
        omega, (_, highest), *rest = super().bounds(resids)
        return [omega, (0.0, highest), *rest]


@dataclass(frozen=True)
class ParameterEstimate:
    """What maximum likelihood found, for returns of unit variance.

    Attributes:
        mean: of the returns.
        variance: parameters of the variance's recursion, in arch's order.
        shape: parameters of the standardised return: (), (df,) or (df, skew).
        log_likelihood: sum over the bars, nats.
    """

    mean: float
    variance: tuple[float, ...]
    shape: tuple[float, ...]
    log_likelihood: float


def estimate(process: str, shape: str, returns: Floats, *, purpose: str) -> ParameterEstimate:
    """Maximise the likelihood from several starting values; the best converged one counts.

    arch's optimiser (SLSQP) stops short of the maximum from some starting values, and says so
    from others where it stands on it. So it runs from arch's own and from those above.

    Args:
        process: "ewma" with its decay estimated and mean 0, "garch", "gjr" or "egarch".
        shape: "normal", "student" or "skew_student".
        returns: (N,) of unit variance.
        purpose: what the error names: model and span.

    Raises:
        TrainingError: if none converges.
    """
    starts = [(0.0, *start) if process != "ewma" else start for start in _STARTS[process]]
    results = [
        result
        for start in (None, *(np.array([*start, *_SHAPE_START[shape]]) for start in starts))
        if (result := _maximise(_model(process, shape, returns), start)) is not None
    ]
    if not results:
        raise TrainingError(
            f"expected {purpose} to converge, found no maximum of its likelihood from "
            f"{len(starts) + 1} starting points; give more bars, or leave the model out"
        )
    best = max(results, key=lambda result: float(result.loglikelihood))
    values = [float(value) for value in np.asarray(best.params)]
    num_shape = len(_SHAPE_START[shape])
    num_mean = 0 if process == "ewma" else 1
    return ParameterEstimate(
        mean=values[0] if num_mean else 0.0,
        variance=tuple(values[num_mean : len(values) - num_shape]),
        shape=tuple(values[len(values) - num_shape :]),
        log_likelihood=float(best.loglikelihood),
    )


def conditional_variance(
    process: str, parameters: tuple[float, ...], residuals: Floats, *, largest: float
) -> Floats:
    """Run arch's recursion over residuals (T,): variance t is made from residuals before t.

    Args:
        process: as in `estimate`.
        parameters: of the variance, as estimated.
        residuals: (T,) returns less their mean, from the start of the estimation span on.
        largest: largest absolute residual of that span; with the lower bound it keeps the
            variance finite. Bounds that arch takes from all residuals would look ahead.
    """
    bounds = np.empty((len(residuals), 2))
    bounds[:] = _LOWEST, _HIGHEST * max(1.0, largest**2)
    volatility = _volatility(process)
    variance = np.zeros(len(residuals))
    volatility.compute_variance(
        np.array(parameters),
        np.ascontiguousarray(residuals),
        variance,
        volatility.backcast_transform(_BACKCAST),
        bounds,
    )
    return np.clip(variance, bounds[0, 0], None)  # EWMA knows no bounds


def _maximise(model: Any, start: Floats | None) -> Any | None:  # noqa: ANN401
    """Return arch's result, or None if it did not converge."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        # The optimiser tries values where the likelihood overflows; its verdict is read below.
        warnings.simplefilter("ignore", RuntimeWarning)
        warnings.simplefilter("ignore", ConvergenceWarning)
        try:
            result = model.fit(
                disp="off",
                show_warning=False,
                starting_values=start,
                backcast=_BACKCAST,
                options={"maxiter": _MAX_ITERATIONS},
            )
        except (ValueError, np.linalg.LinAlgError):
            return None  # a NaN on the way to the maximum
    found = np.isfinite([*np.asarray(result.params), result.loglikelihood]).all()
    # Every model nests a constant variance, up to the first bars: what is worse is no maximum.
    constant = -0.5 * (math.log(2 * math.pi) + 1) * len(model.y)
    is_maximum = result.convergence_flag == 0 and result.loglikelihood > 1.01 * constant
    return result if found and is_maximum else None


def _model(process: str, shape: str, returns: Floats) -> Any:  # noqa: ANN401
    mean = ZeroMean if process == "ewma" else ConstantMean
    shapes = {"normal": Normal, "student": StudentsT, "skew_student": SkewStudent}
    return mean(
        returns, rescale=False, volatility=_volatility(process), distribution=shapes[shape]()
    )


def _volatility(process: str) -> Any:  # noqa: ANN401
    if process == "ewma":
        return EWMAVariance(None)
    if process == "egarch":
        return _GrowingEgarch(p=1, o=1, q=1)
    return GARCH(p=1, o=1 if process == "gjr" else 0, q=1)
