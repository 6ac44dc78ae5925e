import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from glow_bt.errors import ConfigError, DataError, TooFewBarsError
from glow_bt.risk import violations
from glow_bt.risk.backtests.tails import lower_tail, resampled_pvalue

ROWS = arrays(np.float64, 12, elements=st.floats(-1, 1))


@given(ROWS, ROWS)
def test_a_violation_is_a_return_outside_its_quantile(returns, quantile):
    assert (violations(returns, quantile, 0.05) == (returns < quantile)).all()
    assert (violations(returns, quantile, 0.5) == (returns < quantile)).all()
    assert (violations(returns, quantile, 0.95) == (returns > quantile)).all()


def test_a_return_at_its_quantile_is_none():
    assert not violations([-0.02], [-0.02], 0.01).any()
    assert not violations([0.02], [0.02], 0.99).any()


def test_one_quantile_for_all_bars():
    assert violations([-0.03, 0.01], -0.02, 0.01).tolist() == [True, False]


def test_the_upper_tail_is_the_mirror_image():
    probability, (values,) = lower_tail(0.99, np.array([1.0, -2.0]))
    assert probability == 0.01
    assert values.tolist() == [-1.0, 2.0]
    assert lower_tail(0.3, values) == (0.3, (values,))


def test_a_resampled_pvalue_counts_the_sample_itself():
    assert resampled_pvalue(np.array([False] * 98 + [True])) == 2 / 100
    assert resampled_pvalue(np.zeros(99, dtype=bool)) == 1 / 100


def test_what_has_no_violations():
    for level in (0.0, 1.0, -0.1, float("nan")):
        with pytest.raises(ConfigError, match=r"level in \(0, 1\), found"):
            violations([0.0], [0.0], level)
    with pytest.raises(DataError, match=r"found shapes \(2,\), \(3,\)"):
        violations([0.0, 0.1], [0.0, 0.1, 0.2], 0.05)
    with pytest.raises(DataError, match="finite"):
        violations([0.0, np.nan], 0.0, 0.05)
    with pytest.raises(DataError, match="finite"):
        violations([0.0], -np.inf, 0.05)
    with pytest.raises(TooFewBarsError, match="at least 1 bars, found 0"):
        violations([], 0.0, 0.05)
