import numpy as np
import pytest
from scipy.stats import multivariate_normal

from glow_bt.errors import FeatureError
from glow_bt.folds import Fold
from glow_bt.training.measure import gaussian_nll, measure_returns
from glow_bt.training.returns import HeldOut
from tests.models import sp500_bars
from tests.scoring.samples import arrays, model_of_two_horizons


def rows(count=400):
    rng = np.random.default_rng(0)
    return rng.normal(size=(count, 5)) @ rng.normal(size=(5, 5)) + rng.normal(size=5)


def test_gaussian_nll_is_that_of_the_training_rows_gaussian():
    x = rows()
    gaussian = multivariate_normal(x[:300].mean(axis=0), np.cov(x[:300].T))
    expected = -gaussian.logpdf(x[300:]).mean()
    assert gaussian_nll(x[:300])(x[300:]) == pytest.approx(expected, rel=1e-10)


def test_units_of_the_features_do_not_decide_on_their_rank():
    x = rows() * [1e-6, 1.0, 1e6, 1.0, 1.0]
    assert np.isfinite(gaussian_nll(x)(x))


@pytest.mark.parametrize(
    "follows", [lambda x: x[:, 0], lambda x: 3 * x[:, 1] - x[:, 2] + 7, lambda x: x.sum(axis=1)]
)
def test_a_feature_that_follows_from_the_others_is_refused(follows):
    x = rows()
    with pytest.raises(FeatureError, match="none of which is a linear function of the others"):
        gaussian_nll(np.column_stack([x, follows(x)]))


def blocks(train, validation, test):
    return Fold(range(*train), range(*validation), range(*test))


@pytest.mark.parametrize("horizon", [1, 5])
def test_returns_of_a_block_are_those_that_begin_and_end_in_it(horizon):
    """Of the first two by the members that left them out, of the test by the model."""
    model, bars = model_of_two_horizons().returns, sp500_bars(0, 700)
    fold = blocks((0, 300), (362, 500), (562, 700))
    # A held-out log density of -t for bar t, from bar 120 on, known until the validation ends.
    held_out = HeldOut(np.empty(0), -np.arange(120.0, 500.0 - horizon), ())
    metrics = measure_returns(model, {horizon: held_out}, bars, fold)
    name = "return" if horizon == 1 else "return_5"
    assert set(metrics) == {f"{name}_{block}_nll" for block in ("train", "validation", "test")}
    assert metrics[f"{name}_train_nll"] == np.arange(120, 300 - horizon).mean()
    assert metrics[f"{name}_validation_nll"] == np.arange(362, 500 - horizon).mean()
    stamps, array = arrays(bars)
    log_close = np.log(bars["close"].to_numpy())
    returns = log_close[562 + horizon : 700] - log_close[562 : 700 - horizon]
    window = slice(562 - 120, 700 - horizon)
    rows = model.contexts(array[window], stamps[window])
    expected = -model.distribution(rows, horizon).log_prob(returns).mean()
    assert metrics[f"{name}_test_nll"] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("length", [0, 1, 5])
def test_a_block_too_short_for_a_return_has_no_measurement(length):
    model, bars = model_of_two_horizons().returns, sp500_bars(0, 505)
    fold = blocks((0, 124), (362, 500), (500, 500 + length))
    held_out = HeldOut(np.empty(0), np.zeros(380), ())
    metrics = measure_returns(model, {5: held_out}, bars, fold)
    assert set(metrics) == {"return_5_validation_nll"}
