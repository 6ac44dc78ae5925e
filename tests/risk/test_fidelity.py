import json

import numpy as np
import pytest
from scipy import stats
from statsmodels.tsa.stattools import acf

from glow_bt.errors import ConfigError, DataError, TooFewBarsError
from glow_bt.risk.fidelity import fidelity_report


def garch(num_paths, length, seed=0, leverage=0.0, df=6.0):
    """Paths of a GJR-GARCH(1,1) with Student-t shocks."""
    rng = np.random.default_rng(seed)
    shocks = rng.standard_t(df, size=(length + 200, num_paths)) * np.sqrt((df - 2) / df)
    variance, rows = np.ones(num_paths), []
    for shock in shocks:
        returns = np.sqrt(variance) * shock
        rows.append(returns)
        pull = 0.08 + leverage * (returns < 0)
        variance = (0.9 - 0.5 * leverage) * variance + 0.02 + pull * returns**2
    return 0.01 * np.array(rows[200:]).T


@pytest.fixture(scope="module")
def report():
    return fidelity_report(garch(100, 2000), garch(1, 2000, seed=1)[0], resamples=200)


def test_paths_of_the_same_law_lie_inside_almost_everywhere(report):
    assert len(report.statistics) == 10 + 3 * 50
    assert len(report.outside) <= 0.15 * len(report.statistics)
    for name in ("standard deviation", "quantile 0.05", "autocorrelation of |r| at lag 1"):
        assert report[name].inside, name
    assert report.ks_statistic < 0.06


def test_intervals_and_ranks_cover_the_law_about_as_often_as_they_say():
    paths = garch(100, 1500, seed=5)
    inside, likely = (np.zeros(16) for _ in range(2))
    for real in garch(30, 1500, seed=6):
        own = fidelity_report(paths, real, max_lag=2, resamples=40)
        inside += [statistic.inside for statistic in own.statistics]
        likely += [statistic.name not in own.unlikely for statistic in own.statistics]
    assert likely.min() >= 25, likely
    assert inside.min() >= 14, inside
    assert inside.mean() >= 20, inside


def test_normal_noise_in_place_of_a_market_is_found_out():
    noise = 0.01 * np.random.default_rng(2).standard_normal((50, 3000))
    found = fidelity_report(noise, garch(1, 3000, seed=3, df=4.0)[0], resamples=200)
    assert not found["autocorrelation of |r| at lag 1"].inside
    assert not found["left tail index"].inside
    assert not found["excess kurtosis"].inside or found["excess kurtosis"].synthetic < 0.2
    assert "autocorrelation of |r| at lag 2" in found.outside
    assert "autocorrelation of |r| at lag 2" in found.unlikely


def test_a_missing_leverage_effect_is_found_out():
    market = garch(1, 4000, seed=4, leverage=0.16)[0]
    plain, true = garch(40, 4000, seed=5), garch(40, 4000, seed=6, leverage=0.16)
    one, two = (fidelity_report(p, market, max_lag=2, resamples=200) for p in (plain, true))
    assert one["leverage at lag 1"].synthetic == pytest.approx(0, abs=0.01)
    assert one["leverage at lag 1"].real < -0.05
    assert "leverage at lag 1" in one.unlikely
    assert "leverage at lag 1" not in two.outside + two.unlikely


def test_statistics_are_those_of_scipy_and_statsmodels():
    real = garch(1, 1000, seed=7)[0]
    found = fidelity_report(real, real, resamples=20)
    assert all(own.real == pytest.approx(own.synthetic) for own in found.statistics)
    assert found["mean"].real == pytest.approx(real.mean())
    assert found["standard deviation"].real == pytest.approx(real.std())
    assert found["skewness"].real == pytest.approx(stats.skew(real))
    assert found["excess kurtosis"].real == pytest.approx(stats.kurtosis(real))
    assert found["quantile 0.01"].real == pytest.approx(np.quantile(real, 0.01))
    size, square = acf(np.abs(real), nlags=50), acf(real**2, nlags=50)
    for lag in (1, 10, 50):
        assert found[f"autocorrelation of |r| at lag {lag}"].real == pytest.approx(size[lag])
        assert found[f"autocorrelation of r^2 at lag {lag}"].real == pytest.approx(square[lag])
    lagged = np.corrcoef(real[:-3], np.abs(real[3:]))[0, 1]
    assert found["leverage at lag 3"].real == pytest.approx(lagged, abs=5e-3)
    assert found.ks_statistic == 0
    assert found.ks_pvalue == 1


@pytest.mark.parametrize("index", [2.0, 4.0])
def test_hills_index_is_that_of_a_power_law(index):
    rng = np.random.default_rng(8)
    sign = rng.choice([-1, 1], size=(200, 4000))
    # Symmetric with median 0, both tails |r|^-index.
    paths = sign * rng.pareto(index, size=sign.shape) + sign
    found = fidelity_report(paths, paths[0], max_lag=1, resamples=20)
    for side in ("left", "right"):
        assert found[f"{side} tail index"].synthetic == pytest.approx(index, rel=0.12)


def test_the_report_is_ready_for_json(report):
    again = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert again["outside"] == list(report.outside)
    assert again["num_paths"] == 100
    assert {own["name"] for own in again["statistics"] if not own["inside"]} == set(report.outside)


def test_the_same_seed_gives_the_same_report(report):
    again = fidelity_report(garch(100, 2000), garch(1, 2000, seed=1)[0], resamples=200)
    assert again == report


def test_longer_paths_are_cut_to_the_real_length():
    real = garch(1, 300)[0]
    found = fidelity_report(garch(5, 900), real, resamples=20)
    assert found.path_length == found.num_real == 300


def test_half_of_the_bars_may_stand_still():
    real = garch(1, 400)[0] * (np.arange(400) % 10 == 0)
    found = fidelity_report(real, real, resamples=20)
    assert all(np.isfinite(own.real) for own in found.statistics)


def test_an_unknown_statistic_is_refused(report):
    with pytest.raises(ConfigError, match=r"of the statistics mean, .* found 'mode'"):
        report["mode"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_lag": 0}, "max_lag of at least 1, found 0"),
        ({"coverage": 1.0}, r"coverage inside \(0, 1\)"),
        ({"block_length": 0.5}, "block_length of 1 or more"),
        ({"resamples": 19}, "at least 20 resamples, found 19"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        fidelity_report(garch(2, 300), garch(1, 300)[0], **settings)


def test_returns_that_are_none_are_refused():
    real = garch(1, 300)[0]
    with pytest.raises(TooFewBarsError, match=r"synthetic returns needs at least 200.* found 199"):
        fidelity_report(garch(2, 199), real)
    with pytest.raises(TooFewBarsError, match="real returns needs at least 400 bars, found 300"):
        fidelity_report(garch(2, 400), real, max_lag=100)
    with pytest.raises(DataError, match=r"real returns of shape \(R,\), found \(2, 300\)"):
        fidelity_report(real, garch(2, 300))
    with pytest.raises(DataError, match=r"shape \(K, T\) or \(T,\)"):
        fidelity_report(real[None, None], real)
    with pytest.raises(DataError, match="real returns that vary, found a path of constant"):
        fidelity_report(real, np.ones(300))
    broken = real.copy()
    broken[3] = np.nan
    with pytest.raises(DataError, match="expected finite synthetic returns"):
        fidelity_report(broken, real)
