"""Classical VaR models against arch, closed forms and simulated markets."""

import contextlib
import subprocess
import sys
import warnings

import numpy as np
import pytest
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
from scipy import stats

from datafeeds.samples import load_sample
from glow_bt.errors import ConfigError, DataError, TooFewBarsError, TrainingError
from glow_bt.folds import walk_forward_folds
from glow_bt.risk.baselines import (
    BASELINES,
    EwmaBaseline,
    HistoricalSimulation,
    walk_forward,
)
from glow_bt.risk.baselines import estimation as arch_estimation
from glow_bt.risk.distributions import StudentShape

LEVELS = (0.01, 0.05, 0.95, 0.99)
ARCH = {
    "garch_normal": lambda: {"volatility": GARCH(1, 0, 1), "distribution": Normal()},
    "garch_t": lambda: {"volatility": GARCH(1, 0, 1), "distribution": StudentsT()},
    "gjr_skewt": lambda: {"volatility": GARCH(1, 1, 1), "distribution": SkewStudent()},
    "egarch_skewt": lambda: {"volatility": EGARCH(1, 1, 1), "distribution": SkewStudent()},
}
FILTERED = [*ARCH, "ewma", "fhs"]
every_baseline = pytest.mark.parametrize("name", BASELINES)


def daily_returns(name="sp500"):
    return np.diff(np.log(load_sample(name)["close"].to_numpy()))


def garch_returns(count, seed, df=6.0):
    """GARCH(1,1)-t by a plain loop: yearly-like volatility clusters around 1 % a bar."""
    rng = np.random.default_rng(seed)
    shocks = rng.standard_t(df, count) * np.sqrt((df - 2) / df)
    returns, variance = np.empty(count), 1.0
    for t in range(count):
        returns[t] = np.sqrt(variance) * shocks[t]
        variance = 0.02 + 0.08 * returns[t] ** 2 + 0.9 * variance
    return 0.01 * returns


def forecast(name, returns, fit, first, stop):
    return BASELINES[name].forecast(returns, fit=fit, first=first, stop=stop, levels=LEVELS)


@pytest.mark.parametrize("name", ARCH)
def test_volatility_is_that_of_arch_within_the_fit_and_beyond(name):
    returns, fit, stop = daily_returns()[:3000], 2000, 2600
    spread = returns[:fit].std()
    path = BASELINES[name].filter(returns, range(fit), stop)
    model = ConstantMean(returns[:stop] / spread, rescale=False, **ARCH[name]())
    parameters = np.array([path.mean / spread, *path.parameters, *shape_parameters(path.shape)])
    with warnings.catch_warnings():  # arch sets filters of its own
        result = model.fit(
            disp="off",
            show_warning=False,
            last_obs=fit,
            backcast=1.0,
            starting_values=parameters,
            options={"maxiter": 0},
        )
    np.testing.assert_array_equal(result.params, parameters)
    within = result.conditional_volatility[:fit] * spread
    np.testing.assert_allclose(path.sigma[:fit], within, rtol=1e-10)
    ahead = result.forecast(horizon=1, start=fit - 1, reindex=False).variance.to_numpy()[:-1, 0]
    np.testing.assert_allclose(path.sigma[fit:], np.sqrt(ahead) * spread, rtol=1e-10)
    log_likelihood = result.loglikelihood - fit * np.log(spread)
    assert path.log_likelihood == pytest.approx(log_likelihood, abs=1e-6)


def shape_parameters(shape):
    if isinstance(shape, StudentShape):
        return [shape.df]
    return [shape.df, shape.skew] if hasattr(shape, "skew") else []


@pytest.mark.parametrize("name", ARCH)
@pytest.mark.parametrize("market", ["sp500", "nasdaq"])
def test_estimates_are_no_worse_than_archs_own(name, market):
    returns = daily_returns(market)[:2000]
    percent = 100 * returns
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        own = ConstantMean(percent, **ARCH[name](), rescale=False).fit(disp="off")
    path = BASELINES[name].filter(returns, range(2000), 2000)
    # The two start their variance from different values, worth a fraction of a nat.
    assert path.log_likelihood > own.loglikelihood + 2000 * np.log(100) - 1.0


@pytest.mark.parametrize("name", [*ARCH, "ewma", "gaussian"])
def test_the_likelihood_is_in_units_of_log_returns(name):
    returns = daily_returns()[:1500]
    found = forecast(name, returns, slice(0, 1000), 1000, 1500)
    scaled = forecast(name, 7 * returns, slice(0, 1000), 1000, 1500)
    np.testing.assert_allclose(scaled.log_prob, found.log_prob - np.log(7), atol=1e-3)
    np.testing.assert_allclose(scaled.quantiles, 7 * found.quantiles, rtol=1e-3)


def test_the_parameters_of_a_simulated_garch_are_found():
    returns = garch_returns(12_000, seed=4)
    path = BASELINES["garch_t"].filter(returns, range(12_000), 12_000)
    omega, alpha, beta = path.parameters
    assert alpha == pytest.approx(0.08, abs=0.015)
    assert beta == pytest.approx(0.9, abs=0.02)
    assert path.shape.df == pytest.approx(6, abs=0.8)
    assert omega * returns.var() * 1e4 == pytest.approx(0.02, abs=0.008)


@pytest.mark.parametrize("name", ["garch_t", "gjr_skewt", "fhs"])
def test_models_that_hold_forecast_tails_at_their_rate(name):
    returns = garch_returns(16_000, seed=5)
    found = forecast(name, returns, slice(0, 6000), 6000, 16_000)
    for level in LEVELS:
        # Both what is counted and what it was estimated from are samples.
        deviation = np.sqrt(level * (1 - level) * (1 / 10_000 + 1 / 6000))
        share = np.mean(found.returns < found.quantile(level))
        assert share == pytest.approx(level, abs=3.5 * deviation)
        beyond = (
            found.returns < found.quantile(level)
            if level < 0.5
            else found.returns > found.quantile(level)
        )
        ratio = found.returns[beyond] / found.shortfall(level)[beyond]
        assert ratio.mean() == pytest.approx(1, abs=4 * ratio.std() / np.sqrt(len(ratio)))
    apart = stats.kstest(found.pit, "uniform").statistic
    assert apart < 1.63 * np.sqrt(1 / 10_000 + 1 / 6000)  # the 1 % level of two samples


@every_baseline
def test_nothing_depends_on_the_bar_itself_or_on_later_ones(name):
    returns = daily_returns()[:1400]
    cut = 1250
    other = returns.copy()
    other[cut:] = np.random.default_rng(0).standard_t(3, len(returns) - cut) * 0.05
    seen = forecast(name, returns, slice(0, 1200), 1200, 1400)
    changed = forecast(name, other, slice(0, 1200), 1200, 1400)
    upto = cut + 1 - 1200
    for field in ("quantiles", "shortfalls"):
        np.testing.assert_array_equal(getattr(seen, field)[:upto], getattr(changed, field)[:upto])
        if name != "gaussian":
            assert not np.allclose(getattr(seen, field)[upto:], getattr(changed, field)[upto:])
    np.testing.assert_array_equal(seen.pit[: upto - 1], changed.pit[: upto - 1])


@every_baseline
def test_bars_between_fit_and_first_are_filtered_but_not_fitted_on(name):
    returns = daily_returns()[:1400]
    long = forecast(name, returns, slice(0, 1000), 1000, 1400)
    short = forecast(name, returns, range(1000), 1300, 1400)
    np.testing.assert_allclose(short.quantiles, long.quantiles[300:], rtol=1e-12)
    np.testing.assert_array_equal(short.returns, returns[1300:1400])


@every_baseline
def test_forecasts_have_the_stated_form(name):
    found = forecast(name, daily_returns()[:1300], slice(100, 1100), 1100, 1300)
    assert found.levels == LEVELS
    assert len(found) == 200
    assert np.isfinite(found.quantiles).all()
    assert (np.diff(found.quantiles, axis=1) > 0).all()
    assert (found.shortfalls[:, :2] <= found.quantiles[:, :2]).all()
    assert (found.shortfalls[:, 2:] >= found.quantiles[:, 2:]).all()
    assert ((found.pit > 0) & (found.pit < 1)).all()
    assert np.isfinite(found.log_prob).all() == BASELINES[name].has_density
    assert BASELINES[name].name == name


def test_a_gaussian_is_the_mean_and_deviation_of_the_fit():
    returns = daily_returns()[:1100]
    found = forecast("gaussian", returns, slice(50, 1000), 1000, 1100)
    reference = stats.norm(returns[50:1000].mean(), returns[50:1000].std())
    np.testing.assert_allclose(found.quantile(0.01), reference.ppf(0.01))
    np.testing.assert_allclose(found.log_prob, reference.logpdf(returns[1000:]))


@pytest.mark.parametrize("window", [250, 1000])
def test_historical_simulation_looks_back_on_its_window(window):
    returns = daily_returns()[:1500]
    model = HistoricalSimulation(window=window)
    found = model.forecast(returns, fit=slice(0, 600), first=600, stop=1500, levels=LEVELS)
    length = min(window, 600)  # all that is there if that is fewer
    for row in (0, 1, 500, 899):
        past = np.sort(returns[600 + row - length : 600 + row])
        rank = int(np.ceil(length * 0.05 - 1e-9))
        assert found.quantile(0.05)[row] == past[rank - 1]
        assert found.quantile(0.95)[row] == past[-rank]


def test_ewma_is_the_recursion_of_riskmetrics():
    returns = daily_returns()[:800]
    path = EwmaBaseline().filter(returns, range(500), 800)
    variance = np.empty(800)
    variance[0] = returns[:500].var()
    for t in range(1, 800):
        variance[t] = 0.94 * variance[t - 1] + 0.06 * returns[t - 1] ** 2
    np.testing.assert_allclose(path.sigma, np.sqrt(variance), rtol=1e-10)
    assert path.mean == 0


def test_the_decay_of_an_ewma_can_be_estimated():
    returns = daily_returns()[:2000]
    path = EwmaBaseline(decay=None).filter(returns, range(2000), 2000)
    own = ZeroMean(100 * returns, volatility=EWMAVariance(None)).fit(disp="off")
    assert path.parameters[0] == pytest.approx(own.params.iloc[0], abs=2e-3)


def test_filtered_historical_simulation_takes_the_residuals_of_the_fit():
    returns = daily_returns()[:1300]
    found = forecast("fhs", returns, slice(0, 1000), 1000, 1300)
    path = BASELINES["garch_t"].filter(returns, range(1000), 1300)
    residuals = np.sort((returns[:1000] - path.mean) / path.sigma[:1000])
    np.testing.assert_allclose(found.quantile(0.01), path.mean + path.sigma[1000:] * residuals[9])
    np.testing.assert_allclose(
        found.shortfall(0.99), path.mean + path.sigma[1000:] * residuals[-10:].mean()
    )


def test_walking_forward_refits_at_each_fold_and_joins():
    returns = daily_returns()[:2000]
    folds = walk_forward_folds(2000, 3, purge=20)
    seen = []
    found = walk_forward(
        BASELINES["garch_t"], returns, folds, LEVELS, lambda done, of: seen.append((done, of))
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]
    np.testing.assert_array_equal(found.returns, returns[folds[0].test.start :])
    last = folds[-1]
    alone = forecast(
        "garch_t", returns, range(last.validation.stop), last.test.start, last.test.stop
    )
    np.testing.assert_array_equal(found.quantiles[-len(alone) :], alone.quantiles)
    spans = [(range(f.validation.stop), f.test.start, f.test.stop) for f in folds]
    again = walk_forward(BASELINES["garch_t"], returns, spans, LEVELS)
    np.testing.assert_array_equal(found.log_prob, again.log_prob)


@pytest.mark.parametrize("spans", [[], [(slice(0, 500), 700, 800), (slice(0, 500), 750, 900)]])
def test_folds_out_of_order_are_refused(spans):
    with pytest.raises(ConfigError, match="folds that follow one another in time"):
        walk_forward(BASELINES["gaussian"], daily_returns(), spans, LEVELS)


@every_baseline
def test_a_halted_market_gives_finite_forecasts(name):
    returns = garch_returns(900, seed=6)
    returns[300:320] = returns[620:640] = 0.0  # in the fit, and while forecasting
    found = forecast(name, returns, slice(0, 500), 500, 900)
    for field in ("quantiles", "shortfalls", "pit"):
        assert np.isfinite(getattr(found, field)).all()
    if BASELINES[name].has_density:
        assert np.isfinite(found.log_prob).all()


@pytest.mark.parametrize("name", ARCH)
def test_a_model_fitted_on_a_year_does_not_run_away_in_the_next_months(name):
    returns = daily_returns()
    for start in range(0, 4400, 440):
        span = returns[start : start + 350]
        path = BASELINES[name].filter(span, range(250), 350)
        assert path.sigma.max() < 10 * span.std()


def test_a_single_jump_is_refused_or_forecast_sanely():
    returns = np.where(np.arange(900) == 400, 0.1, 0.0)
    for name in FILTERED:
        with contextlib.suppress(TrainingError):
            found = forecast(name, returns, slice(0, 700), 700, 900)
            assert abs(found.quantiles).max() < 2


@every_baseline
def test_a_market_closed_for_ages_stays_finite_too(name):
    returns = garch_returns(12_000, seed=7)
    returns[1000:11_990] = 0.0
    found = forecast(name, returns, slice(0, 800), 800, 12_000)
    assert np.isfinite(found.quantiles).all()
    assert np.isfinite(found.log_prob).all() == BASELINES[name].has_density


@pytest.mark.parametrize("name", [name for name in BASELINES if name != "historical"])
def test_constant_prices_are_refused_naming_model_and_span(name):
    with pytest.raises(DataError, match=rf"{name} expected returns that vary.*\[20, 620\)"):
        forecast(name, np.zeros(1000), slice(20, 620), 620, 1000)


def test_constant_prices_have_a_history():
    assert not forecast("historical", np.zeros(1000), slice(0, 600), 600, 1000).quantiles.any()


def test_an_estimate_that_does_not_converge_is_refused(monkeypatch):
    monkeypatch.setattr(arch_estimation, "_MAX_ITERATIONS", 1)
    with pytest.raises(TrainingError, match=r"garch_t on positions \[0, 500\) to converge"):
        forecast("garch_t", daily_returns()[:600], slice(0, 500), 500, 600)


@every_baseline
def test_too_few_bars_are_refused_with_the_number_needed(name):
    needed = BASELINES[name].min_bars
    with pytest.raises(TooFewBarsError, match=rf"{name} needs at least {needed} bars"):
        forecast(name, daily_returns()[:500], slice(0, needed - 1), 300, 400)
    assert len(forecast(name, daily_returns()[:500], slice(0, needed), 300, 400)) == 100


@every_baseline
def test_requests_that_look_ahead_or_make_no_sense_are_refused(name):
    returns = daily_returns()[:600]
    for fit, first, stop in [
        (slice(0, 501), 500, 600),
        (range(0, 500, 2), 500, 600),
        (slice(0, 400), 500, 500),
        (slice(0, 400), 500, 601),
    ]:
        with pytest.raises(ConfigError, match="nothing may be fitted on what is forecast"):
            forecast(name, returns, fit, first, stop)
    with pytest.raises(ConfigError, match="levels in ascending order"):
        BASELINES[name].forecast(returns, fit=slice(0, 500), first=500, stop=600, levels=(0.5,))
    with pytest.raises(DataError, match=r"returns of shape \(T,\)"):
        forecast(name, returns[:, None], slice(0, 500), 500, 600)
    returns[450] = np.nan
    with pytest.raises(DataError, match="finite returns, found NaN"):
        forecast(name, returns, slice(0, 500), 500, 600)


def test_settings_that_cannot_work_are_refused():
    with pytest.raises(ConfigError, match=r"a decay in \(0, 1\), found 1\.5"):
        EwmaBaseline(decay=1.5)
    with pytest.raises(ConfigError, match="a window of 100 returns or more, found 20"):
        HistoricalSimulation(window=20)


def test_arch_is_loaded_when_a_model_is_first_fitted():
    code = "import sys, glow_bt.risk.baselines; print('arch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
