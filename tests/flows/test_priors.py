import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import kstest, multivariate_normal, norm
from scipy.stats import t as student_t

from glow_bt.errors import FlowError
from glow_bt.flows import GaussianMixturePrior, NormalPrior, StudentTPrior
from glow_bt.flows.priors import make_prior


def latents(count=50, num_features=3, spread=3.0):
    rng = np.random.default_rng(0)
    return torch.tensor(spread * rng.normal(size=(count, num_features)))


def student_prior(*degrees):
    prior = StudentTPrior(len(degrees)).double().requires_grad_(False)
    prior.log_df.copy_(torch.tensor(degrees, dtype=torch.float64).log())
    return prior


def mixture_prior():
    prior = GaussianMixturePrior(3, num_components=2).double().requires_grad_(False)
    prior.logits.copy_(torch.tensor([0.3, -0.9]))
    prior.means.copy_(torch.tensor([[0.0, 1.0, 2.0], [-3.0, 0.5, 0.0]]))
    prior.log_scales.copy_(torch.tensor([[0.5, 2.0, 1.0], [1.0, 0.25, 3.0]]).log())
    return prior


def weights_of(prior):
    return prior.logits.softmax(dim=0).numpy()


def joint_by_hand(prior, z):
    """Return log w_k + log N(z; m_k, s_k^2), (N, K), from scipy."""
    scales = prior.log_scales.exp().numpy()
    return np.stack(
        [
            np.log(weight) + multivariate_normal(mean, np.diag(scale**2)).logpdf(z)
            for weight, mean, scale in zip(
                weights_of(prior), prior.means.numpy(), scales, strict=True
            )
        ],
        axis=1,
    )


def generator():
    return torch.Generator().manual_seed(1)


def test_the_normal_prior_is_scipys():
    z = latents()
    expected = norm.logpdf(z).sum(axis=1)
    np.testing.assert_allclose(NormalPrior(3).double().log_prob(z), expected, rtol=1e-13)


def test_the_students_t_prior_is_scipys():
    z = latents(spread=30.0)
    expected = student_t.logpdf(z, df=[1.5, 4.0, 60.0]).sum(axis=1)
    np.testing.assert_allclose(student_prior(1.5, 4.0, 60.0).log_prob(z), expected, rtol=1e-11)


def test_the_mixture_prior_is_the_sum_of_its_components():
    prior, z = mixture_prior(), latents()
    joint = joint_by_hand(prior, z)
    np.testing.assert_allclose(prior.log_prob(z), logsumexp(joint, axis=1), rtol=1e-12)
    posterior = prior.posterior(z)
    assert posterior.shape == (50, 2)
    expected = np.exp(joint - logsumexp(joint, axis=1, keepdims=True))
    np.testing.assert_allclose(posterior, expected, atol=1e-12)
    np.testing.assert_allclose(posterior.sum(dim=1), np.ones(50), rtol=1e-14)


def test_a_mixture_stays_finite_far_from_all_components():
    z = torch.full((1, 3), 1e3, dtype=torch.float64)
    prior = mixture_prior()
    assert torch.isfinite(prior.log_prob(z)).all()
    assert prior.posterior(z).sum().item() == pytest.approx(1)


def test_components_of_a_fresh_mixture_differ_slightly():
    means = GaussianMixturePrior(3, num_components=4).means
    assert 0 < torch.pdist(means).min() < torch.pdist(means).max() < 1.5


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_samples_follow_their_density(temperature):
    draws = NormalPrior(2).double().sample(20_000, temperature, generator())
    assert kstest(draws[:, 1] / temperature, norm.cdf).pvalue > 0.001
    draws = student_prior(2.0, 10.0).sample(20_000, temperature, generator())
    assert kstest(draws[:, 0] / temperature, student_t(2.0).cdf).pvalue > 0.001
    assert kstest(draws[:, 1] / temperature, student_t(10.0).cdf).pvalue > 0.001


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_samples_of_a_mixture_follow_its_density(temperature):
    prior = mixture_prior()
    draws = prior.sample(20_000, temperature, generator())
    scales = temperature * prior.log_scales.exp().numpy()
    for feature in range(3):

        def cdf(z, feature=feature):
            at = norm.cdf(z[:, None], prior.means[:, feature], scales[:, feature])
            return at @ weights_of(prior)

        assert kstest(draws[:, feature].numpy(), cdf).pvalue > 0.001


@pytest.mark.parametrize(
    "prior",
    [NormalPrior(3), StudentTPrior(3), GaussianMixturePrior(3)],
    ids=lambda p: type(p).__name__,
)
def test_samples_have_the_priors_type_and_repeat(prior):
    assert prior.dtype == torch.float32
    assert prior.sample(5, 1.0, generator()).dtype == torch.float32
    prior = prior.double()
    assert prior.dtype == torch.float64
    draws = prior.sample(5, 1.0, generator())
    assert draws.dtype == torch.float64
    assert draws.shape == (5, 3)
    assert not draws.requires_grad
    assert torch.equal(draws, prior.sample(5, 1.0, generator()))


def test_a_prior_is_made_by_name():
    assert isinstance(make_prior("normal", 2, 4), NormalPrior)
    assert isinstance(make_prior("student_t", 2, 4), StudentTPrior)
    mixture = make_prior("mixture", 2, 4)
    assert isinstance(mixture, GaussianMixturePrior)
    assert mixture.means.shape == (4, 2)


def test_an_unknown_prior_is_refused():
    with pytest.raises(FlowError, match="'normal', 'student_t' or 'mixture', found 'cauchy'"):
        make_prior("cauchy", 2, 4)
    with pytest.raises(FlowError, match="at least 1 mixture component, found 0"):
        make_prior("mixture", 2, 0)


def one_feature_priors():
    mixture = GaussianMixturePrior(1, num_components=3).double().requires_grad_(False)
    mixture.means.copy_(torch.tensor([[-3.0], [0.0], [4.0]]))
    mixture.log_scales.copy_(torch.tensor([[-2.0], [0.5], [1.0]]))
    return [NormalPrior(1).double(), student_prior(1.1), student_prior(30.0), mixture]


@pytest.mark.parametrize("prior", one_feature_priors(), ids=lambda prior: type(prior).__name__)
def test_cdf_and_quantile_are_those_of_the_density(prior):
    p = np.array([1e-6, 1e-3, 0.2, 0.5, 0.7, 0.999])
    z = prior.quantile(p)
    np.testing.assert_allclose(prior.cdf(torch.tensor(z)[:, None]), p, rtol=1e-8)
    grid = torch.linspace(z[1], z[4], 200_001, dtype=torch.float64)[:, None]
    mass = torch.trapezoid(prior.log_prob(grid).exp(), grid[:, 0])
    assert mass.item() == pytest.approx(0.7 - 1e-3, abs=1e-7)


@pytest.mark.parametrize("degrees", [0.5, 1.1, 6.5])
def test_far_quantiles_of_students_t_follow_its_power_law(degrees):
    prior = student_prior(degrees)
    near, far = prior.quantile(np.array([1e-50, 1e-70]))
    assert far / near == pytest.approx(10 ** (20 / degrees), rel=1e-10)
