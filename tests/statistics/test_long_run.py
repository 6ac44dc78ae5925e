import numpy as np
import pytest
import statsmodels.api as sm

from glow_bt.errors import ConfigError
from glow_bt.statistics import long_run_variance, usual_lags
from tests.statistics.processes import autoregressive


@pytest.mark.parametrize("lags", [0, 1, 9])
def test_the_variance_is_that_of_statsmodels(lags):
    values = autoregressive(np.random.default_rng(0), 1, 120, 0.5)[0]
    fit = sm.OLS(values, np.ones(120)).fit(
        cov_type="HAC", cov_kwds={"maxlags": lags, "use_correction": False}
    )
    assert long_run_variance(values, lags) / 120 == pytest.approx(fit.bse[0] ** 2, rel=1e-9)


def test_unless_given_lags_grow_slowly_with_the_bars():
    assert [usual_lags(num_bars) for num_bars in (2, 60, 100, 33_259)] == [1, 3, 4, 14]
    values = np.random.default_rng(1).standard_normal(60)
    assert long_run_variance(values) == long_run_variance(values, 3)


def test_lags_that_there_are_not():
    for lags in (-1, 9):
        with pytest.raises(ConfigError, match=f"lags from 0 to 8, .* found {lags}"):
            long_run_variance(np.arange(9.0), lags)
