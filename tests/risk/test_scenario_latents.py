import numpy as np
from scipy.stats import norm

from glow_bt.risk.scenario_latents import ScenarioLatents
from glow_bt.risk.scenarios import Scenarios

DRAWS = 3 + 2 * np.random.default_rng(0).standard_normal((5, 20_000))


def test_normal_draws_are_a_straight_line():
    z = np.tile([-2.0, 0.0, 1.5], (5, 1))
    np.testing.assert_allclose(
        ScenarioLatents(Scenarios(DRAWS)).at_latent(z), 3 + 2 * z, atol=0.15
    )


def test_latents_are_the_way_back():
    own = ScenarioLatents(Scenarios(DRAWS))
    z = np.linspace(-3, 3, 5)
    np.testing.assert_allclose(own.latent(own.at_latent(z[:, None])[:, 0]), z, atol=1e-9)


def test_nothing_lies_beyond_the_outermost_draws():
    own = ScenarioLatents(Scenarios(DRAWS))
    far = own.at_latent(np.tile([-40.0, 40.0], (5, 1)))
    np.testing.assert_array_equal(far[:, 0], DRAWS.min(axis=1))
    np.testing.assert_array_equal(far[:, 1], DRAWS.max(axis=1))
    ends = own.latent(np.array([-1e9, 1e9, 3, 3, 3]))
    np.testing.assert_allclose(ends[:2], norm.ppf([0.5 / 20_000, 1 - 0.5 / 20_000]))


def test_some_rows_are_those_rows():
    own = ScenarioLatents(Scenarios(DRAWS))
    z = np.array([[0.5], [1.0]])
    np.testing.assert_array_equal(
        own.rows(slice(1, 3)).at_latent(z),
        own.at_latent(np.repeat([[0.0], [0.5], [1.0], [0.0], [0.0]], 1, axis=1))[1:3],
    )
    assert np.isnan(own.log_prob(np.zeros(5))).all()
