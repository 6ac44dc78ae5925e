import pytest
import torch

from glow_bt.errors import FlowError
from glow_bt.flows import ActNorm


def rows_around_7(count=1000):
    generator = torch.Generator().manual_seed(0)
    return 7 + 3 * torch.randn(count, 4, generator=generator, dtype=torch.float64)


def test_the_first_batch_comes_out_with_mean_0_and_deviation_1():
    layer = ActNorm(4).double()
    x = rows_around_7()
    z, log_det = layer(x)
    torch.testing.assert_close(z.mean(dim=0), torch.zeros(4).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(z.std(dim=0), torch.ones(4).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(layer.bias, -x.mean(dim=0) / x.std(dim=0))
    torch.testing.assert_close(layer.log_scale, -x.std(dim=0).log())
    torch.testing.assert_close(log_det, -x.std(dim=0).log().sum().expand(1000))


def test_later_batches_change_nothing():
    layer = ActNorm(4).double()
    layer(rows_around_7())
    before = {key: value.clone() for key, value in layer.state_dict().items()}
    layer(100 * rows_around_7())
    assert all(torch.equal(layer.state_dict()[key], value) for key, value in before.items())


def test_that_it_was_initialized_is_part_of_its_state():
    layer = ActNorm(4).double()
    assert not layer.state_dict()["initialized"]
    layer(rows_around_7())
    assert layer.state_dict()["initialized"]


@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_an_untrained_layer_refuses_to_work_in_eval_mode(direction):
    layer = ActNorm(4).double().eval()
    with pytest.raises(FlowError, match=r"seen a training batch.*call train\(\)"):
        getattr(layer, direction)(rows_around_7())
    assert not layer.initialized


def test_an_untrained_layer_has_no_inverse_in_train_mode():
    layer = ActNorm(4).double().train()
    with pytest.raises(FlowError, match="untrained"):
        layer.inverse(rows_around_7())


def test_one_row_is_not_enough_to_start_from():
    layer = ActNorm(4).double()
    with pytest.raises(FlowError, match="at least 2 rows, found 1"):
        layer(rows_around_7(1))
    assert not layer.initialized


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_damaged_first_batch_leaves_no_trace(bad):
    layer = ActNorm(4).double()
    x = rows_around_7()
    x[3, 2] = bad
    with pytest.raises(FlowError, match="finite first training batch"):
        layer(x)
    assert not layer.initialized
    assert torch.equal(layer.bias, torch.zeros(4).double())


def test_a_constant_feature_stays_finite():
    layer = ActNorm(4).double()
    x = rows_around_7()
    x[:, 1] = 5.0
    z, log_det = layer(x)
    assert torch.isfinite(z).all()
    assert torch.isfinite(log_det).all()
