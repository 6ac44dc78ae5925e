import numpy as np
import pytest
from scipy import stats

from glow_bt.errors import FlowError
from glow_bt.fused import ScenarioBank
from tests.contracts.registry import draw_rows, fitted


def contexts_of(flow, count, seed=8):
    context = draw_rows(flow, count, seed)[1]
    return None if context is None else context.numpy()


def test_points_fill_the_cube_evenly_and_stay_inside():
    points = ScenarioBank.sobol(1024, 3).points
    assert points.shape == (1024, 4)
    assert points.min() > 0
    assert points.max() < 1
    # Each 1024th of each axis holds one point.
    cells = np.sort((points * 1024).astype(int), axis=0)
    np.testing.assert_array_equal(cells, np.arange(1024)[:, None].repeat(4, axis=1))


def test_the_same_seed_gives_the_same_bank():
    first, again, other = (ScenarioBank.sobol(64, 2, seed).points for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.isclose(first, other).any()


@pytest.mark.parametrize("name", ["glow-1-context", "glow-1-spline", "glow-1-mixture"])
def test_quantiles_of_scenarios_tend_to_the_exact_ones(name):
    flow = fitted(name)
    bank = ScenarioBank.sobol(2**14, 1)
    context = draw_rows(flow, 3, seed=8)[1]
    draws = bank.scenarios(flow.fused(), None if context is None else context.numpy())
    for p in (0.01, 0.05, 0.5, 0.99):
        exact = flow.quantile(p, context)
        density = flow.log_prob(exact[:, None], context).exp().numpy()
        # Evenly spread points err by about a point, at most a few.
        error = 12 / 2**14 / density
        assert (np.abs(np.quantile(draws[..., 0], p, axis=1) - exact.numpy()) < error).all()


@pytest.mark.parametrize("name", ["glow-5-context", "glow-6-student_t", "glow-6-mixture"])
def test_scenarios_are_distributed_as_samples_are(name):
    flow = fitted(name).fused()
    context = contexts_of(fitted(name), 2)
    draws = ScenarioBank.sobol(4096, flow.num_features).scenarios(flow, context)
    assert draws.shape == (1 if context is None else 2, 4096, flow.num_features)
    one = None if context is None else context[:1]
    samples = flow.sample(20_000, one, seed=3)
    for feature in range(flow.num_features):
        test = stats.ks_2samp(draws[0, :, feature], samples[:, feature])
        assert test.pvalue > 1e-4
    mixed = np.arange(1, flow.num_features + 1) * (-1.0) ** np.arange(flow.num_features)
    assert stats.ks_2samp(draws[0] @ mixed, samples @ mixed).pvalue > 1e-4


def test_a_portfolio_and_a_path_are_read_off_with_less_error_than_off_samples():
    """Width n: the VaR of a weighted sum, by 20 banks and by 20 samples of the same size."""
    flow = fitted("glow-5-context").fused()
    context = contexts_of(fitted("glow-5-context"), 1)
    weights = np.full(5, 0.2)
    banks, samples = (
        np.array([np.quantile(draws @ weights, 0.05) for draws in many])
        for many in (
            [ScenarioBank.sobol(1024, 5, s).scenarios(flow, context)[0] for s in range(20)],
            [flow.sample(1024, context, seed=s) for s in range(20)],
        )
    )
    assert banks.std() < 0.7 * samples.std()
    assert abs(banks.mean() - samples.mean()) < 4 * samples.std() / 20**0.5


def test_neighbouring_contexts_share_their_draws():
    flow = fitted("glow-5-context").fused()
    context = contexts_of(fitted("glow-5-context"), 1)
    bank = ScenarioBank.sobol(256, 5)
    near, nearer = bank.scenarios(flow, np.concatenate([context, context + 1e-6]))
    np.testing.assert_allclose(nearer, near, atol=1e-3)
    assert not np.array_equal(near, nearer)


@pytest.mark.parametrize("count", [0, -4, 3, 1000])
def test_a_number_of_scenarios_that_is_no_power_of_2_is_refused(count):
    with pytest.raises(FlowError, match=f"power of 2, found {count}; take such as 1024"):
        ScenarioBank.sobol(count, 2)


def test_rubbish_is_refused():
    with pytest.raises(FlowError, match="num_features of at least 1, found 0"):
        ScenarioBank.sobol(64, 0)
    bank = ScenarioBank.sobol(64, 3)
    with pytest.raises(FlowError, match="flow of 3 features, as the bank has, found one of 5"):
        bank.scenarios(fitted("glow-5").fused())
    bank = ScenarioBank.sobol(64, 5)
    conditional = fitted("glow-5-context").fused()
    with pytest.raises(FlowError, match=r"context of shape \(N, 3\), found none"):
        bank.scenarios(conditional)
    for wrong, found in ((np.zeros((2, 4)), r"\(2, 4\)"), (np.zeros(3), r"\(3,\)")):
        with pytest.raises(FlowError, match=rf"contexts of shape \(N, 3\), found {found}"):
            bank.scenarios(conditional, wrong)
    with pytest.raises(FlowError, match=r"contexts, found 1 that are not, first row 1: .*nan"):
        bank.scenarios(conditional, [[0.0, 0.0, 0.0], [0.0, np.nan, 0.0]])
    assert bank.scenarios(conditional, np.zeros((0, 3))).shape == (0, 64, 5)
    with pytest.raises(FlowError, match="expected no context"):
        bank.scenarios(fitted("glow-5").fused(), np.zeros((2, 3)))
