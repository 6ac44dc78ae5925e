import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from glow_bt.errors import FlowError
from glow_bt.flows import ActNorm, BatchNorm, Glow, InvertibleConv1x1, Reverse, TailLayer
from glow_bt.flows.coupling import Affine, Spline
from tests.contracts.registry import draw_rows, fitted


@pytest.mark.parametrize(
    ("width", "num_levels", "latent_sizes"),
    [
        (1, 3, [1]),
        (2, 3, [1, 1]),
        (3, 3, [1, 1, 1]),
        (5, 3, [2, 1, 2]),
        (5, 1, [5]),
        (14, 3, [7, 3, 4]),
        (16, 3, [8, 4, 4]),
        (33, 3, [16, 8, 9]),
        (33, 8, [16, 8, 4, 2, 1, 1, 1]),
    ],
)
def test_each_level_sends_half_of_its_features_out(width, num_levels, latent_sizes):
    flow = Glow(width, num_levels, num_steps=1, hidden_dim=4)
    sizes = [split.num_latent for split in flow.splits]
    assert [*sizes, width - sum(sizes)] == latent_sizes
    assert len(flow.levels) == len(latent_sizes)
    z, _ = flow(torch.randn(8, width))
    assert z.shape == (8, width)


def test_latents_of_the_first_level_come_first():
    flow = Glow(8, num_levels=2, num_steps=1, hidden_dim=4)
    x = torch.randn(64, 8)
    z, _ = flow(x)
    h, _ = flow.levels[0](flow.tails(x)[0])
    torch.testing.assert_close(z[:, :4], h[:, :4])  # the split starts with a standard prior
    torch.testing.assert_close(z[:, 4:], flow.levels[1](h[:, 4:])[0])


def test_a_fresh_flow_rotates_and_standardises():
    x, _ = draw_rows(Glow(6), 2000, seed=1)
    flow = Glow(6, num_levels=2, num_steps=2, hidden_dim=8, tails=False).double()
    z, _ = flow(10 + 5 * x)
    torch.testing.assert_close(z.mean(dim=0), torch.zeros(6).double(), rtol=0, atol=1e-6)
    assert ((z.std(dim=0) - 1).abs() < 0.5).all()


def test_a_fitted_flow_beats_a_gaussian_on_rows_it_has_not_seen():
    flow = fitted("glow-5")
    x, _ = draw_rows(flow, 4000, seed=11)
    gaussian = multivariate_normal(x.mean(dim=0), np.cov(x.T)).logpdf(x)
    assert flow.log_prob(x).mean() > gaussian.mean() + 0.2


def test_a_context_that_tells_something_is_used():
    flow = fitted("glow-5-context")
    x, context = draw_rows(flow, 4000, seed=11)
    shuffled = context[torch.randperm(4000)]
    assert flow.log_prob(x, context).mean() > flow.log_prob(x, shuffled).mean() + 0.1


def test_settings_rebuild_the_same_flow():
    flow = Glow(5, 2, 3, 8, 1, "mixture", coupling="additive", tails=False, num_components=2)
    again = Glow(**flow.config)
    assert again.config == flow.config
    shapes = {key: value.shape for key, value in flow.state_dict().items()}
    assert {key: value.shape for key, value in again.state_dict().items()} == shapes


def test_settings_choose_the_parts():
    flow = Glow(5, 1, 1, 8)
    assert isinstance(flow.tails, TailLayer)
    level = flow.levels[0]
    parts = [type(part) for part in (level.norm, level.mixing, level.coupling)]
    assert parts == [ActNorm, InvertibleConv1x1, Affine]
    settings = {"coupling": "spline", "permutation": "reverse", "norm": "batchnorm"}
    flow = Glow(5, 1, 1, 8, tails=False, **settings)
    assert flow.tails is None
    level = flow.levels[0]
    parts = [type(part) for part in (level.norm, level.mixing, level.coupling)]
    assert parts == [BatchNorm, Reverse, Spline]


def test_a_single_feature_is_not_mixed():
    assert Glow(1, 1, 2, 8).levels[0].mixing is None


def test_condition_numbers_of_all_convolutions_are_watched():
    flow = Glow(6, num_levels=2, num_steps=3, hidden_dim=4)
    assert flow.condition_numbers() == pytest.approx([1.0] * 6, abs=1e-4)
    convolution = next(m for m in flow.modules() if isinstance(m, InvertibleConv1x1))
    with torch.no_grad():
        convolution.log_s[0, 0] += np.log(1000.0)
    assert flow.condition_numbers()[0] == pytest.approx(convolution.condition_numbers()[0])
    assert flow.condition_numbers()[0] > 100
    assert Glow(6, permutation="reverse").condition_numbers() == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_features": 0}, "num_features of at least 1, found 0"),
        ({"num_levels": 0}, "num_levels of at least 1, found 0"),
        ({"num_steps": -1}, "num_steps of at least 1, found -1"),
        ({"hidden_dim": 0}, "hidden_dim of at least 1, found 0"),
        ({"context_features": -1}, "context_features of at least 0, found -1"),
        ({"base": "cauchy"}, "base 'normal', 'student_t' or 'mixture', found 'cauchy'"),
        ({"base": "mixture", "num_components": 0}, "at least 1 mixture component, found 0"),
        ({"coupling": "cubic"}, "coupling to be one of affine, additive, spline, found 'cubic'"),
        ({"norm": "layer"}, "norm to be one of actnorm, batchnorm, found 'layer'"),
        ({"permutation": "swap"}, "permutation to be one of conv1x1, reverse, found 'swap'"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
    with pytest.raises(FlowError, match=message):
        Glow(**({"num_features": 4} | settings))
