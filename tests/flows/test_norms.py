import pytest
import torch

from glow_bt.errors import FlowError
from glow_bt.flows import ActNorm, BatchNorm, Glow, GlowLevel


def rows_around_7(count=1000):
    generator = torch.Generator().manual_seed(0)
    return 7 + 3 * torch.randn(count, 4, generator=generator, dtype=torch.float64)


def normalised(x, log_scale, shift):
    return x * log_scale.exp() + shift


def level(norm="actnorm"):
    return GlowLevel(4, 3, 8, norm=norm).double()


@pytest.mark.parametrize("norm", [ActNorm, BatchNorm])
def test_a_training_batch_comes_out_with_mean_0_and_deviation_1(norm):
    layer = norm(1, 4).double()
    x = rows_around_7()
    assert layer.observes()
    z = normalised(x, *layer.observe(0, x))
    torch.testing.assert_close(z.mean(dim=0), torch.zeros(4).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(z.std(dim=0), torch.ones(4).double(), rtol=0, atol=1e-5)


def test_an_actnorm_keeps_what_the_first_batch_told_it():
    layer = ActNorm(1, 4).double()
    x = rows_around_7()
    layer.observe(0, x)
    log_scale, shift = layer.constants()
    torch.testing.assert_close(shift[0], -x.mean(dim=0) / x.std(dim=0))
    torch.testing.assert_close(log_scale[0], -x.std(dim=0).log())
    assert not layer.observes()


def test_each_step_of_a_level_starts_from_what_comes_to_it():
    steps = level()
    x = rows_around_7()
    steps(x)
    # Couplings start as the identity, and rotated standardised rows need no other scale on
    # average: what moves is the first step.
    log_scales, _ = steps.norm.constants()
    assert (log_scales[0] < -1).all()
    assert (log_scales[1:].abs() < 0.2).all()
    z, log_det = steps(x)
    expected = log_scales.sum() + steps.mixing.log_s.sum()
    torch.testing.assert_close(log_det, expected.expand(1000))
    assert z.mean(dim=0).abs().max() < 1e-12


def test_the_first_batch_gives_the_density_that_it_sets():
    flow = Glow(4, num_levels=2, num_steps=2, hidden_dim=8).double()
    x = rows_around_7()
    torch.testing.assert_close(flow.log_prob(x), flow.log_prob(x), rtol=0, atol=1e-12)


def test_later_batches_change_nothing():
    steps = level()
    steps(rows_around_7())
    before = {key: value.clone() for key, value in steps.state_dict().items()}
    steps(100 * rows_around_7())
    assert all(torch.equal(steps.state_dict()[key], value) for key, value in before.items())


def test_that_it_was_initialized_is_part_of_its_state():
    steps = level()
    assert not steps.state_dict()["norm.initialized"]
    steps(rows_around_7())
    assert steps.state_dict()["norm.initialized"]


@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_an_untrained_level_refuses_to_work_in_eval_mode(direction):
    steps = level().eval()
    with pytest.raises(FlowError, match=r"seen a training batch.*call train\(\)"):
        getattr(steps, direction)(rows_around_7())
    assert not steps.norm.initialized


def test_an_untrained_level_has_no_inverse_in_train_mode():
    with pytest.raises(FlowError, match="untrained"):
        level().train().inverse(rows_around_7())


@pytest.mark.parametrize("norm", ["actnorm", "batchnorm"])
def test_one_row_is_not_enough_to_start_from(norm):
    steps = level(norm)
    with pytest.raises(FlowError, match="at least 2 rows, found 1"):
        steps(rows_around_7(1))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_damaged_first_batch_leaves_no_trace(bad):
    steps = level()
    x = rows_around_7()
    x[3, 2] = bad
    with pytest.raises(FlowError, match="finite first training batch"):
        steps(x)
    assert not steps.norm.initialized
    assert torch.equal(steps.norm.bias, torch.zeros(3, 4).double())


@pytest.mark.parametrize("norm", ["actnorm", "batchnorm"])
def test_a_constant_feature_stays_finite(norm):
    x = rows_around_7()
    x[:, 1] = 5.0
    z, log_det = level(norm)(x)
    assert torch.isfinite(z).all()
    assert torch.isfinite(log_det).all()


def test_running_averages_tend_to_the_moments_of_the_batches():
    layer = BatchNorm(2, 4).double()
    x = rows_around_7()
    for _ in range(200):
        layer.observe(1, x)
    log_scale, shift = layer.constants()
    torch.testing.assert_close(log_scale[1], -x.std(dim=0).log(), rtol=0, atol=1e-5)
    torch.testing.assert_close(shift[1], -x.mean(dim=0) / x.std(dim=0), rtol=0, atol=1e-5)
    assert torch.equal(layer.running_mean[0], torch.zeros(4).double())


def test_batch_norm_learns_through_the_moments_of_its_batch():
    layer = BatchNorm(1, 4).double()
    x = rows_around_7(5).requires_grad_()

    def normalise(rows):
        return normalised(rows, *layer.observe(0, rows))

    assert torch.autograd.gradcheck(normalise, x)


def test_a_batch_whose_moments_overflow_leaves_the_running_averages():
    norm = BatchNorm(1, 2)
    norm.observe(0, torch.randn(64, 2))
    mean, var = norm.running_mean.clone(), norm.running_var.clone()
    far = torch.randn(64, 2)
    far[3, 0] = 1e30
    norm.observe(0, far)
    assert torch.equal(norm.running_mean, mean)
    assert torch.equal(norm.running_var, var)
