import json

import numpy as np
import pytest
from scipy.stats import norm

from glow_bt.errors import ConfigError, DataError, TooFewBarsError
from glow_bt.risk import (
    acerbi_szekely_test,
    anderson_darling_test,
    binomial_test,
    conditional_coverage_test,
    diebold_mariano_test,
    dynamic_quantile_test,
    exponential_tail,
    fz0_loss,
    fz0_losses,
    kolmogorov_smirnov_test,
    mcneil_frey_test,
    quantile_loss,
    quantile_losses,
    traffic_light,
    violations,
)
from glow_bt.risk.forecasts import Forecasts
from glow_bt.risk.report import assess, assess_tail, compare

LEVELS = (0.01, 0.025, 0.05, 0.95, 0.975, 0.99)


def forecasts(scale, returns, levels=LEVELS):
    """Normal forecasts of mean zero."""
    probabilities = np.array(levels)
    sides = np.where(probabilities < 0.5, -1, 1) / np.minimum(probabilities, 1 - probabilities)
    shortfalls = sides * norm.pdf(norm.ppf(probabilities))
    return Forecasts(
        levels,
        returns,
        norm.logpdf(returns, scale=scale),
        norm.cdf(returns / scale),
        scale[:, None] * norm.ppf(probabilities),
        scale[:, None] * shortfalls,
    )


@pytest.fixture(scope="module")
def market():
    rng = np.random.default_rng(0)
    scale = 0.01 * np.exp(0.6 * rng.standard_normal(2000))
    return scale, scale * rng.standard_normal(2000)


@pytest.fixture(scope="module")
def right(market):
    return forecasts(*market)


@pytest.fixture(scope="module")
def constant(market):
    scale, returns = market
    return forecasts(np.full_like(scale, returns.std()), returns)


def replaced(model, **values):
    fields = ("levels", "returns", "log_prob", "pit", "quantiles", "shortfalls")
    return Forecasts(**{name: getattr(model, name) for name in fields} | values)


def test_every_cell_is_what_its_test_says(right):
    report = assess(right, seed=3)
    assert report["n"] == 2000
    assert report["nll"] == -right.log_prob.mean()
    assert report["pit"] == {
        "ks_p": kolmogorov_smirnov_test(right.pit).pvalue,
        "ad_p": anderson_darling_test(right.pit).pvalue,
    }
    assert list(report["levels"]) == ["0.01", "0.025", "0.05", "0.95", "0.975", "0.99"]
    assert list(report["es"]) == list(report["levels"])
    for level, probability in zip(LEVELS, (0.01, 0.025, 0.05, 0.05, 0.025, 0.01), strict=True):
        quantile, shortfall = right.quantile(level), right.shortfall(level)
        hits = violations(right.returns, quantile, level)
        covered = conditional_coverage_test(hits, probability)
        assert report["levels"][f"{level:g}"] == {
            "violations": hits.sum(),
            "expected": 2000 * probability,
            "rate": hits.mean(),
            "kupiec_p": covered.coverage.pvalue,
            "binomial_p": binomial_test(hits, probability).pvalue,
            "christoffersen_p": covered.independence.pvalue,
            "conditional_coverage_p": covered.pvalue,
            "dq_p": dynamic_quantile_test(right.returns, quantile, level).pvalue,
            "traffic_light": traffic_light(hits, probability).zone,
            "quantile_loss": quantile_loss(right.returns, quantile, level),
        }
        risk = (right.returns, quantile, shortfall, level)
        z2 = acerbi_szekely_test(*risk, exponential_tail(*risk[1:]), seed=3)
        assert report["es"][f"{level:g}"] == {
            "mcneil_frey_p": mcneil_frey_test(*risk, scale=abs(shortfall), seed=3).pvalue,
            "acerbi_szekely_z2": z2.statistic,
            "acerbi_szekely_z2_p": z2.pvalue,
            "fz0_loss": fz0_loss(*risk),
        }


def numbers(report):
    for value in report.values():
        if isinstance(value, dict):
            yield from numbers(value)
        else:
            yield value


def test_reports_are_plain_json(right, constant):
    for report in (assess(right), compare(right, constant)):
        assert json.loads(json.dumps(report, allow_nan=False)) == report
        assert {type(value) for value in numbers(report)} <= {int, float, str, type(None)}


def test_equal_seeds_give_equal_reports(right):
    assert assess(right) == assess(right)
    first, other = (assess(right, seed=seed)["es"]["0.05"]["mcneil_frey_p"] for seed in (0, 1))
    assert first != other


def test_right_forecasts_pass_and_wrong_ones_do_not(right, constant):
    passed = assess(right)
    assert min(passed["pit"].values()) > 0.001
    for level in passed["levels"]:
        assert passed["levels"][level]["conditional_coverage_p"] > 0.001
        assert passed["levels"][level]["traffic_light"] == "green"
        assert passed["es"][level]["mcneil_frey_p"] > 0.001
        assert passed["es"][level]["acerbi_szekely_z2_p"] > 0.001
    failed = assess(constant)
    assert failed["nll"] > passed["nll"]
    assert failed["pit"]["ad_p"] < 0.001
    for level in ("0.01", "0.99"):
        assert failed["levels"][level]["kupiec_p"] < 0.001
        assert failed["levels"][level]["traffic_light"] == "red"
        assert failed["es"][level]["acerbi_szekely_z2_p"] < 0.01
        assert failed["es"][level]["fz0_loss"] > passed["es"][level]["fz0_loss"]


def test_a_model_without_density_or_pit(right, constant):
    nothing = np.full(2000, np.nan)
    report = assess(replaced(right, log_prob=nothing, pit=nothing))
    assert (report["nll"], report["pit"]) == (None, None)
    for pair in (
        (replaced(right, log_prob=nothing), constant),
        (constant, replaced(right, log_prob=nothing)),
    ):
        assert compare(*pair)["nll"] is None


def test_too_few_violations_for_the_size_of_losses(right):
    report = assess(right.rows(slice(0, 60)))
    assert report["es"]["0.01"]["mcneil_frey_p"] is None
    assert report["es"]["0.01"]["acerbi_szekely_z2_p"] is not None


def test_a_shortfall_inside_its_quantile_cannot_be_simulated(right):
    moved = right.shortfalls.copy()
    moved[5] = 0.99 * right.quantiles[5]
    report = assess(replaced(right, shortfalls=moved))
    for cells in report["es"].values():
        assert cells["acerbi_szekely_z2_p"] is None
        assert np.isfinite(cells["acerbi_szekely_z2"])
        assert np.isfinite(cells["fz0_loss"])


@pytest.mark.parametrize("level", [0.01, 0.975])
def test_a_tail_alone_has_the_cells_of_the_whole_report(right, level):
    report = assess(right, seed=2)
    tail = assess_tail(right.returns, right.quantile(level), right.shortfall(level), level, seed=2)
    assert tail.quantile == report["levels"][f"{level:g}"]
    assert tail.shortfall == report["es"][f"{level:g}"]
    assert tail.refused == {}


@pytest.mark.parametrize(
    ("count", "missing"),
    [
        (0, {"kupiec_p": 1, "binomial_p": 1, "dq_p": 11, "traffic_light": 6, "fz0_loss": 1}),
        (1, {"kupiec_p": 2, "christoffersen_p": 2, "dq_p": 11, "traffic_light": 6}),
        (5, {"dq_p": 11, "traffic_light": 6, "mcneil_frey_p": 505}),
        (10, {"dq_p": 11, "mcneil_frey_p": 510}),
        (11, {"mcneil_frey_p": 511}),
    ],
)
def test_a_tail_of_few_bars_says_what_each_test_needs(right, count, missing):
    rows = right.rows(slice(0, count))
    tail = assess_tail(rows.returns, rows.quantile(0.01), rows.shortfall(0.01), 0.01)
    cells = tail.quantile | tail.shortfall
    assert {name: tail.refused[name].needed for name in missing} == missing
    assert all(cells[name] is None for name in tail.refused)
    assert {name for name, cell in cells.items() if cell is None} - {"rate"} == set(tail.refused)
    assert (cells["violations"], cells["expected"]) == (0, 0.01 * count)
    assert (cells["rate"] is None) == (count == 0)


@pytest.mark.parametrize("shortfall", [np.nan, -np.inf, 0.01, 0.0])
def test_one_shortfall_that_is_none_leaves_the_quantile_tested(right, shortfall):
    shortfalls = right.shortfall(0.05).copy()
    shortfalls[7] = shortfall
    tail = assess_tail(right.returns, right.quantile(0.05), shortfalls, 0.05)
    assert tail.quantile == assess(right)["levels"]["0.05"]
    assert set(tail.shortfall.values()) == {None}
    assert set(tail.refused) == set(tail.shortfall)


def test_the_median_is_a_tail_too(right):
    returns, scale = right.returns, right.quantile(0.05) / norm.ppf(0.05)
    tail = assess_tail(returns, 0.0 * scale, -scale * 2 * norm.pdf(0.0), 0.5)
    assert tail.refused == {}
    assert tail.quantile["rate"] == pytest.approx(0.5, abs=0.05)
    assert tail.shortfall["acerbi_szekely_z2_p"] > 0.01


def test_no_tail_is_assessed_at_no_level_or_with_a_quantile_that_is_none(right):
    risk = right.returns, right.quantile(0.05), right.shortfall(0.05)
    with pytest.raises(ConfigError, match=r"level in \(0, 1\), found 1\.5"):
        assess_tail(*risk, 1.5)
    with pytest.raises(DataError, match="finite returns and forecasts"):
        assess_tail(risk[0], np.full(2000, np.nan), risk[2], 0.05)


def test_comparisons_are_diebold_and_marianos(right, constant):
    report = compare(right, constant)

    def cells(losses, other):
        result = diebold_mariano_test(losses, other)
        assert result.first_better < 0.05
        return {
            "difference": result.difference,
            "statistic": result.statistic,
            "p": result.first_better,
        }

    assert report["n"] == 2000
    assert report["nll"] == cells(-right.log_prob, -constant.log_prob)
    for level in LEVELS:
        losses, joint = (
            [function(model, level) for model in (right, constant)]
            for function in (
                lambda m, p: quantile_losses(m.returns, m.quantile(p), p),
                lambda m, p: fz0_losses(m.returns, m.quantile(p), m.shortfall(p), p),
            )
        )
        assert report["quantile_loss"][f"{level:g}"] == cells(*losses)
        assert report["fz0_loss"][f"{level:g}"] == cells(*joint)
    assert compare(constant, right)["nll"]["p"] > 0.999


def test_what_cannot_be_reported(right, constant):
    broken = right.log_prob.copy()
    broken[7] = np.nan
    with pytest.raises(DataError, match=r"log_prob finite at every bar, .* found 1 of 2000"):
        assess(replaced(right, log_prob=broken))
    with pytest.raises(DataError, match="pit finite"):
        assess(replaced(right, pit=np.where(np.isnan(broken), np.inf, right.pit)))
    with pytest.raises(DataError, match="finite returns and forecasts"):
        assess(replaced(right, quantiles=np.where(np.isnan(broken), np.nan, right.quantiles.T).T))
    with pytest.raises(TooFewBarsError, match="at least 11 bars, found 10"):
        assess(right.rows(slice(0, 10)))
    with pytest.raises(TooFewBarsError, match="at least"):
        assess(right.rows(slice(0, 0)))
    with pytest.raises(
        DataError, match=r"same returns at the same levels, found 2000 .* and 1999"
    ):
        compare(right, constant.rows(slice(1, None)))
    with pytest.raises(DataError, match="same returns"):
        compare(right, replaced(constant, returns=-constant.returns))
    with pytest.raises(ConfigError, match="one of the levels"):
        right.quantile(0.1)
