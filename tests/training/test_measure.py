import numpy as np
import pytest
from scipy.stats import multivariate_normal

from glow_bt.errors import FeatureError
from glow_bt.training.measure import gaussian_nll


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
