"""What the back-tests say of one model's forecasts, and of two models': plain dicts for JSON.

Levels are keyed as they are written, "0.01" or "0.975"; those above one half are upper tails.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from glow_bt.errors import DataError, TooFewBarsError
from glow_bt.risk.backtests.acerbi_szekely import acerbi_szekely_test, exponential_tail
from glow_bt.risk.backtests.coverage import binomial_test
from glow_bt.risk.backtests.diebold_mariano import diebold_mariano_test
from glow_bt.risk.backtests.dynamic_quantile import dynamic_quantile_test
from glow_bt.risk.backtests.exceedances import mcneil_frey_test
from glow_bt.risk.backtests.independence import conditional_coverage_test
from glow_bt.risk.backtests.losses import fz0_loss, fz0_losses, quantile_loss, quantile_losses
from glow_bt.risk.backtests.tails import lower_tail, violations
from glow_bt.risk.backtests.traffic_light import traffic_light
from glow_bt.risk.backtests.uniformity import anderson_darling_test, kolmogorov_smirnov_test
from glow_bt.risk.forecasts import Forecasts

__all__ = ["Cells", "assess", "compare"]

Floats = npt.NDArray[np.float64]
Cells = dict[str, int | float | str | None]


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
        ad_p, None without a PIT; levels: of each level violations, expected, rate, kupiec_p,
        binomial_p, christoffersen_p, conditional_coverage_p, dq_p, traffic_light and
        quantile_loss; es: of each level mcneil_frey_p (None with fewer than five violations),
        acerbi_szekely_z2, acerbi_szekely_z2_p and fz0_loss.

    Raises:
        DataError: if a forecast or a return is not finite, or a shortfall is no loss.
        TooFewBarsError: if there are too few bars for a test.
    """
    log_prob = _all_or_none(forecasts.log_prob, "log_prob")
    pit = _all_or_none(forecasts.pit, "pit")
    return {
        "n": len(forecasts),
        "nll": None if log_prob is None else float(-log_prob.mean()),
        "pit": None
        if pit is None
        else {
            "ks_p": kolmogorov_smirnov_test(pit).pvalue,
            "ad_p": anderson_darling_test(pit).pvalue,
        },
        "levels": {f"{level:g}": _assess_quantile(forecasts, level) for level in forecasts.levels},
        "es": {
            f"{level:g}": _assess_shortfall(forecasts, level, seed) for level in forecasts.levels
        },
    }


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


def _assess_quantile(forecasts: Forecasts, level: float) -> Cells:
    returns, quantile = forecasts.returns, forecasts.quantile(level)
    probability, _ = lower_tail(level)
    hits = violations(returns, quantile, level)
    covered = conditional_coverage_test(hits, probability)
    return {
        "violations": covered.coverage.num_violations,
        "expected": covered.coverage.expected_violations,
        "rate": covered.coverage.violation_rate,
        "kupiec_p": covered.coverage.pvalue,
        "binomial_p": binomial_test(hits, probability).pvalue,
        "christoffersen_p": covered.independence.pvalue,
        "conditional_coverage_p": covered.pvalue,
        "dq_p": dynamic_quantile_test(returns, quantile, level).pvalue,
        "traffic_light": traffic_light(hits, probability).zone,
        "quantile_loss": quantile_loss(returns, quantile, level),
    }


def _assess_shortfall(forecasts: Forecasts, level: float, seed: int) -> Cells:
    returns, quantile = forecasts.returns, forecasts.quantile(level)
    shortfall = forecasts.shortfall(level)
    fz0 = fz0_loss(returns, quantile, shortfall, level)  # refuses shortfalls that are no loss
    try:
        size_p: float | None = mcneil_frey_test(
            returns, quantile, shortfall, level, scale=np.abs(shortfall), seed=seed
        ).pvalue
    except TooFewBarsError:
        size_p = None
    inside = quantile < shortfall if level < 0.5 else quantile > shortfall
    # Such bars get a tail of no width, and the p-value below is not told.
    tail = exponential_tail(np.where(inside, shortfall, quantile), shortfall, level)
    z2 = acerbi_szekely_test(returns, quantile, shortfall, level, tail, seed=seed)
    return {
        "mcneil_frey_p": size_p,
        "acerbi_szekely_z2": z2.statistic,
        "acerbi_szekely_z2_p": None if inside.any() else z2.pvalue,
        "fz0_loss": fz0,
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
