"""What the back-tests say of one model's forecasts, and of two models': plain dicts for JSON.

Levels are keyed as they are written, "0.01" or "0.975"; those above one half are upper tails.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.typing import ArrayLike

from glow_bt.errors import DataError, TooFewBarsError
from glow_bt.risk.backtests.acerbi_szekely import acerbi_szekely_test, exponential_tail
from glow_bt.risk.backtests.coverage import binomial_test
from glow_bt.risk.backtests.diebold_mariano import diebold_mariano_test
from glow_bt.risk.backtests.dynamic_quantile import dynamic_quantile_test
from glow_bt.risk.backtests.exceedances import mcneil_frey_test
from glow_bt.risk.backtests.independence import conditional_coverage_test
from glow_bt.risk.backtests.losses import fz0_loss, fz0_losses, quantile_loss, quantile_losses
from glow_bt.risk.backtests.tails import check_level, lower_tail, violations
from glow_bt.risk.backtests.traffic_light import traffic_light
from glow_bt.risk.backtests.uniformity import anderson_darling_test, kolmogorov_smirnov_test
from glow_bt.risk.forecasts import Forecasts

__all__ = ["Cells", "TailReport", "assess", "assess_tail", "compare"]

Floats = npt.NDArray[np.float64]
Cells = dict[str, int | float | str | None]


@dataclass(frozen=True)
class TailReport:
    """What the back-tests say of the forecasts of one tail.

    Attributes:
        quantile: violations, expected, rate (None without a bar), kupiec_p, binomial_p,
            christoffersen_p, conditional_coverage_p, dq_p, traffic_light and quantile_loss.
        shortfall: mcneil_frey_p, acerbi_szekely_z2, acerbi_szekely_z2_p and fz0_loss.
        refused: by name of a cell that is None, why its test could not be done: how many bars
            it needs, or what is wrong with the forecasts. A shortfall inside its quantile (see
            `assess`) leaves acerbi_szekely_z2_p None without a word here.
    """

    quantile: Cells
    shortfall: Cells
    refused: dict[str, DataError]


def assess(forecasts: Forecasts, *, seed: int = 0) -> dict[str, object]:
    """Back-test one model's forecasts.

    Shortfalls are tested from what `Forecasts` holds. McNeil and Frey's residuals are in units of
    the shortfall, r / ES - 1, in place of a scale: the same but for a factor where the shape of
    the forecast stays and its scale moves.
    Acerbi and Szekely's p-value is simulated with exponential tails through quantile and
    shortfall (`exponential_tail`, which says how far that strays), because the whole tail is not
    kept; where a shortfall lies inside its quantile there is no such tail and no p-value.

    Args:
        forecasts: of one model, in time order.
        seed: of the bootstrap and of the simulation.

    Returns:
        n; nll: mean negative log density in nats, None for a model without one; pit: ks_p and
        ad_p, None without a PIT; levels: of each level `TailReport.quantile`; es: of each level
        `TailReport.shortfall` (mcneil_frey_p is None with fewer than five violations).

    Raises:
        DataError: if a forecast or a return is not finite, or a shortfall is no loss.
        TooFewBarsError: if there are too few bars for a test.
    """
    log_prob = _all_or_none(forecasts.log_prob, "log_prob")
    pit = _all_or_none(forecasts.pit, "pit")
    tails = {f"{level:g}": _assess_whole(forecasts, level, seed) for level in forecasts.levels}
    return {
        "n": len(forecasts),
        "nll": None if log_prob is None else float(-log_prob.mean()),
        "pit": None
        if pit is None
        else {
            "ks_p": kolmogorov_smirnov_test(pit).pvalue,
            "ad_p": anderson_darling_test(pit).pvalue,
        },
        "levels": {level: tail.quantile for level, tail in tails.items()},
        "es": {level: tail.shortfall for level, tail in tails.items()},
    }


def assess_tail(
    returns: ArrayLike, quantile: ArrayLike, shortfall: ArrayLike, level: float, *, seed: int = 0
) -> TailReport:
    """Back-test the forecasts of one tail as far as they can be: what cannot be told is None.

    `assess` says how shortfalls are tested.

    Args:
        returns: (N,) returns that came true, in time order.
        quantile: (N,) forecasts of their quantile.
        shortfall: (N,) forecasts of the mean return beyond it.
        level: probability below the quantile, in (0, 1); upper tails are above 0.5.
        seed: of the bootstrap and of the simulation.

    Raises:
        ConfigError: if the level is outside (0, 1).
        DataError: if a quantile or a return is not finite.
    """
    check_level(level)
    tail = _Tail(
        np.asarray(returns, dtype=np.float64),
        np.asarray(quantile, dtype=np.float64),
        np.asarray(shortfall, dtype=np.float64),
        level,
        seed,
    )
    count, hits = len(tail.returns), int(tail.hits.sum())
    refused: dict[str, DataError] = {}
    counts: Cells = {
        "violations": hits,
        "expected": tail.probability * count,
        "rate": hits / count if count else None,
    }
    return TailReport(
        quantile=counts | _cells(_QUANTILE_TESTS, tail, refused),
        shortfall=_cells(_SHORTFALL_TESTS, tail, refused),
        refused=refused,
    )


def compare(forecasts: Forecasts, other: Forecasts) -> dict[str, object]:
    """Compare two models' forecasts of the same returns by Diebold and Mariano's test.

    Returns:
        n; nll (None where a model has no density), quantile_loss and fz0_loss of each level: the
        difference of the mean losses, first minus other; the statistic, below zero where the
        first is better; and p, one-sided, small where the first is better.

    Raises:
        DataError: if returns or levels differ, or a value is not finite.
        TooFewBarsError: if there are too few bars for the test.
    """
    if forecasts.levels != other.levels or not np.array_equal(forecasts.returns, other.returns):
        raise DataError(
            f"expected forecasts of the same returns at the same levels, found {len(forecasts)} "
            f"returns at {forecasts.levels} and {len(other)} at {other.levels}; "
            "compare models over the same bars"
        )
    densities = [_all_or_none(model.log_prob, "log_prob") for model in (forecasts, other)]
    first, second = densities
    return {
        "n": len(forecasts),
        "nll": None if first is None or second is None else _difference(-first, -second),
        "quantile_loss": {
            f"{level:g}": _difference(
                *(
                    quantile_losses(model.returns, model.quantile(level), level)
                    for model in (forecasts, other)
                )
            )
            for level in forecasts.levels
        },
        "fz0_loss": {
            f"{level:g}": _difference(
                *(
                    fz0_losses(model.returns, model.quantile(level), model.shortfall(level), level)
                    for model in (forecasts, other)
                )
            )
            for level in forecasts.levels
        },
    }


class _Tail:
    """Forecasts of one tail beside what came true."""

    def __init__(
        self, returns: Floats, quantile: Floats, shortfall: Floats, level: float, seed: int
    ) -> None:
        self.returns, self.quantile, self.shortfall = returns, quantile, shortfall
        self.level, self.seed = level, seed
        self.probability, _ = lower_tail(level)
        empty = np.zeros(0, dtype=np.bool_)
        self.hits = violations(returns, quantile, level) if returns.size else empty

    @property
    def risk(self) -> tuple[Floats, Floats, Floats, float]:
        """What tests of the shortfall are given."""
        return self.returns, self.quantile, self.shortfall, self.level


def _assess_whole(forecasts: Forecasts, level: float, seed: int) -> TailReport:
    """Assess a tail, of which everything must be told but the size of too few violations."""
    report = assess_tail(
        forecasts.returns,
        forecasts.quantile(level),
        forecasts.shortfall(level),
        level,
        seed=seed,
    )
    for name, error in report.refused.items():
        if not (name == "mcneil_frey_p" and isinstance(error, TooFewBarsError)):
            raise error
    return report


def _cells(tests: _Tests, tail: _Tail, refused: dict[str, DataError]) -> Cells:
    """Do tests; note in `refused` those that cannot be done, whose cells are None."""
    cells: Cells = {}
    for names, test in tests.items():
        try:
            values = test(tail)
        except DataError as error:
            values = (None,) * len(names)
            refused.update(dict.fromkeys(names, error))
        cells.update(zip(names, values, strict=True))
    return cells


def _coverage(tail: _Tail) -> tuple[float, float, float]:
    covered = conditional_coverage_test(tail.hits, tail.probability)
    return covered.coverage.pvalue, covered.independence.pvalue, covered.pvalue


def _mcneil_frey(tail: _Tail) -> tuple[float]:
    fz0_loss(*tail.risk)  # refuses shortfalls that are no loss
    scale = np.abs(tail.shortfall)
    return (mcneil_frey_test(*tail.risk, scale=scale, seed=tail.seed).pvalue,)


def _acerbi_szekely(tail: _Tail) -> tuple[float, float | None]:
    quantile, shortfall = tail.quantile, tail.shortfall
    inside = quantile < shortfall if tail.level <= 0.5 else quantile > shortfall
    # Such bars get a tail of no width, and the p-value below is not told.
    draws = exponential_tail(np.where(inside, shortfall, quantile), shortfall, tail.level)
    z2 = acerbi_szekely_test(*tail.risk, draws, seed=tail.seed)
    return z2.statistic, None if inside.any() else z2.pvalue


_Tests = Mapping[tuple[str, ...], Callable[[_Tail], tuple[float | str | None, ...]]]

_QUANTILE_TESTS: _Tests = {
    ("kupiec_p", "christoffersen_p", "conditional_coverage_p"): _coverage,
    ("binomial_p",): lambda tail: (binomial_test(tail.hits, tail.probability).pvalue,),
    ("dq_p",): lambda tail: (dynamic_quantile_test(*tail.risk[:2], tail.level).pvalue,),
    ("traffic_light",): lambda tail: (traffic_light(tail.hits, tail.probability).zone,),
    ("quantile_loss",): lambda tail: (quantile_loss(*tail.risk[:2], tail.level),),
}
_SHORTFALL_TESTS: _Tests = {
    ("mcneil_frey_p",): _mcneil_frey,
    ("acerbi_szekely_z2", "acerbi_szekely_z2_p"): _acerbi_szekely,
    ("fz0_loss",): lambda tail: (fz0_loss(*tail.risk),),
}


def _difference(losses: Floats, other: Floats) -> Cells:
    result = diebold_mariano_test(losses, other)
    return {
        "difference": result.difference,
        "statistic": result.statistic,
        "p": result.first_better,
    }


def _all_or_none(values: Floats, name: str) -> Floats | None:
    """Return values that are all finite, or None where all are NaN."""
    if np.isnan(values).all():
        return None
    if not np.isfinite(values).all():
        raise DataError(
            f"expected {name} finite at every bar, or NaN at every bar of a model without any, "
            f"found {int((~np.isfinite(values)).sum())} of {values.size} that are not"
        )
    return values
