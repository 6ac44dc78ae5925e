import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.mixture import GaussianMixture

from glow_bt.errors import ConfigError
from glow_bt.regimes import METHODS, Regimes, match_labels, order_labels

CENTRES = np.array([[0.0, 0.0, 0.0], [4.0, 0.0, 1.0], [0.0, -5.0, 2.0]])
SPREADS = np.array([0.5, 1.0, 1.5])


def clusters(seed, rows=600):
    rng = np.random.default_rng(seed)
    truth = rng.choice(3, rows, p=[0.5, 0.3, 0.2])
    z = CENTRES[truth] + SPREADS[truth, None] * rng.normal(size=(rows, 3))
    return z, truth


def agreement(a, b):
    """Share of equal labels under the best renaming."""
    table = np.zeros((3, 3))
    np.add.at(table, (a, b), 1)
    return table[linear_sum_assignment(-table)].sum() / len(a)


def test_kmeans_assigns_as_scikit_learn_does():
    z, _ = clusters(0)
    fresh = np.random.default_rng(1).normal(0, 4, (2000, 3))
    regimes = Regimes.fit(z, 3, "kmeans", seed=5)
    reference = KMeans(3, n_init=4, random_state=5).fit(z)
    np.testing.assert_array_equal(regimes.assign(fresh), reference.predict(fresh))
    np.testing.assert_array_equal(regimes.means, reference.cluster_centers_)


def test_gmm_assigns_and_weighs_as_scikit_learn_does():
    z, _ = clusters(0)
    fresh = np.random.default_rng(1).normal(0, 4, (2000, 3))
    regimes = Regimes.fit(z, 3, "gmm", seed=5)
    reference = GaussianMixture(
        3, covariance_type="diag", n_init=2, random_state=5, reg_covar=1e-3
    ).fit(z)
    np.testing.assert_array_equal(regimes.assign(fresh), reference.predict(fresh))
    np.testing.assert_allclose(
        regimes.posterior(fresh), reference.predict_proba(fresh), rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("method", METHODS)
def test_clusters_that_are_there_are_found(method):
    z, truth = clusters(2)
    regimes = Regimes.fit(z, 3, method)
    assert agreement(regimes.assign(z), truth) > 0.93
    assert regimes.num_regimes == 3


@pytest.mark.parametrize("method", METHODS)
def test_a_row_alone_gets_the_regime_that_it_gets_in_a_batch(method):
    z, _ = clusters(3, 200)
    regimes = Regimes.fit(z, 3, method)
    alone = np.concatenate([regimes.assign(row[None]) for row in z])
    np.testing.assert_array_equal(alone, regimes.assign(z))


def test_posteriors_are_shares_and_finite_far_out():
    regimes = Regimes.fit(clusters(4)[0], 3)
    far = np.random.default_rng(4).normal(0, 1e4, (50, 3))
    posterior = regimes.posterior(far)
    assert np.isfinite(posterior).all()
    np.testing.assert_allclose(posterior.sum(axis=1), 1.0, rtol=1e-12)
    np.testing.assert_array_equal(posterior.argmax(axis=1), regimes.assign(far))


def test_the_same_seed_gives_the_same_regimes_and_leaves_numpy_alone():
    z, _ = clusters(5)
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first, second = Regimes.fit(z, 4, seed=1), Regimes.fit(z, 4, seed=1)
    np.testing.assert_array_equal(first.means, second.means)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_ordered_labels_rise_with_the_statistic():
    z, truth = clusters(6)
    volatility = np.array([0.03, 0.01, 0.02])[truth]
    regimes = Regimes.fit(z, 3)
    ordered = regimes.relabelled(order_labels(regimes.assign(z), volatility, 3))
    labels = ordered.assign(z)
    means = [volatility[labels == k].mean() for k in range(3)]
    assert means == sorted(means)
    assert agreement(labels, regimes.assign(z)) == 1.0


def test_labels_of_empty_regimes_come_last():
    labels = np.array([2, 2, 0, 0])
    np.testing.assert_array_equal(order_labels(labels, np.array([1.0, 1, 5, 5]), 4), [2, 0, 1, 3])


@given(st.permutations(range(4)), st.integers(0, 1000))
def test_matching_undoes_any_renaming(renamed, seed):
    reference = np.append(np.random.default_rng(seed).integers(0, 4, 60), range(4))
    labels = np.array(renamed)[reference]
    np.testing.assert_array_equal(match_labels(reference, labels, 4), renamed)


@given(st.permutations(range(3)))
def test_relabelling_renames_and_changes_nothing_else(order):
    z, _ = clusters(7, 100)
    regimes = Regimes.fit(z, 3)
    renamed = regimes.relabelled(np.array(order))
    np.testing.assert_array_equal(np.array(order)[renamed.assign(z)], regimes.assign(z))


@pytest.mark.parametrize("method", METHODS)
def test_labels_keep_their_meaning_when_trained_again_on_almost_the_same_bars(method):
    z, _ = clusters(8, 800)
    first = Regimes.fit(z[:700], 3, method, seed=0)
    for seed in range(1, 5):
        again = Regimes.fit(z[20 * seed :], 3, method, seed=seed)
        shared = z[20 * seed : 700]
        order = match_labels(first.assign(shared), again.assign(shared), 3)
        named = again.relabelled(order).assign(shared)
        assert (named == first.assign(shared)).mean() > 0.97


def test_an_unknown_method_is_refused():
    with pytest.raises(ConfigError, match="among gmm, kmeans, found 'dbscan'"):
        Regimes.fit(np.zeros((10, 2)), 2, "dbscan")


@pytest.mark.parametrize("number", [0, 11])
def test_more_regimes_than_rows_or_none_are_refused(number):
    with pytest.raises(ConfigError, match="between 1 and 10 regimes"):
        Regimes.fit(np.zeros((10, 2)), number)


@pytest.mark.parametrize(
    ("weights", "means", "scales"),
    [
        (np.ones(2), np.zeros((3, 2)), np.ones((3, 2))),
        (np.ones(3), np.zeros((3, 2)), np.ones((2, 3))),
        (np.zeros(3), np.zeros((3, 2)), np.ones((3, 2))),
        (np.ones(3), np.zeros((3, 2)), -np.ones((3, 2))),
        (np.ones(3), np.full((3, 2), np.nan), np.ones((3, 2))),
        (np.ones(0), np.zeros((0, 2)), np.ones((0, 2))),
    ],
)
def test_parts_that_cannot_be_are_refused(weights, means, scales):
    with pytest.raises(ConfigError, match="fit the regimes again"):
        Regimes(weights, means, scales)
