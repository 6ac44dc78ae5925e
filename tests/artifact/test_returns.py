"""The density of coming returns, as an artifact holds it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from glow_bt.errors import ArtifactError, ConfigError, DataError
from glow_bt.features import ContextSpec
from glow_bt.flows import UnivariateFlow
from tests.models import unseen_bars
from tests.scoring.samples import arrays, model_of_funding, model_of_two_horizons, with_funding


@pytest.fixture(scope="module")
def model():
    return model_of_two_horizons().returns


@pytest.fixture(scope="module")
def rows(model):
    stamps, bars = arrays(unseen_bars(30))
    return model.contexts(bars, stamps)


@pytest.mark.parametrize("horizon", [1, 5])
def test_a_return_is_volatility_times_the_root_of_the_horizon_times_the_flow(model, rows, horizon):
    distribution = model.distribution(rows, horizon)
    returns = 0.01 * np.linspace(-2, 2, len(distribution))
    y = torch.from_numpy(returns / (rows.volatility * np.sqrt(horizon)))[:, None]
    z, log_det = model.flows[horizon](y, torch.from_numpy(rows.values))
    np.testing.assert_allclose(distribution.latent(returns), z[:, 0], rtol=0, atol=1e-10)
    density = -0.5 * z[:, 0] ** 2 - 0.5 * np.log(2 * np.pi) + log_det
    expected = density.numpy() - np.log(rows.volatility * np.sqrt(horizon))
    np.testing.assert_allclose(distribution.log_prob(returns), expected, rtol=1e-9)


@pytest.mark.parametrize("horizon", [1, 5])
def test_the_error_of_a_quantile_is_in_units_of_log_returns(model, rows, horizon):
    own = model.fused(horizon).quantile_error(0.01, rows.values)
    unit = rows.volatility * np.sqrt(horizon)
    np.testing.assert_allclose(model.quantile_error(rows, 0.01, horizon), own * unit, rtol=1e-12)


def test_horizons_and_window_are_those_of_the_parts(model):
    assert model.horizons == (1, 5)
    assert replace(model, flows=dict(reversed(model.flows.items()))).horizons == (1, 5)
    assert model.min_bars == model.spec.min_bars == 121


@pytest.mark.parametrize("ask", ["distribution", "quantile_error", "fused"])
def test_a_horizon_that_was_not_trained_is_refused(model, rows, ask):
    arguments = {
        "distribution": (rows, 3),
        "quantile_error": (rows, 0.01, 3),
        "fused": (3,),
    }
    with pytest.raises(ConfigError, match=r"among 1, 5 bars.*found 3; train with --return-hor"):
        getattr(model, ask)(*arguments[ask])


def test_inputs_are_the_columns_of_the_spec_in_order():
    bars = with_funding(unseen_bars(3))
    array, stamps = model_of_funding().returns.inputs(bars.iloc[:, ::-1])
    np.testing.assert_array_equal(array, bars.to_numpy())
    np.testing.assert_array_equal(stamps, bars.index.as_unit("ns").asi8)
    array, _ = model_of_two_horizons().returns.inputs(bars)
    assert array.shape[1] == 5
    with pytest.raises(DataError, match="expected bars with funding_rate"):
        model_of_funding().returns.inputs(bars.drop(columns="funding_rate"))


def test_parts_for_other_contexts_make_no_model(model):
    with pytest.raises(ArtifactError, match=r"expected flows and a scaler of the context \["):
        replace(model, spec=ContextSpec(calendar=True))
    with pytest.raises(ArtifactError, match=r"found widths \[3, 22\]"):
        replace(model, flows={**model.flows, 2: UnivariateFlow(3)})
    with pytest.raises(ArtifactError, match=r"found widths \[\]"):
        replace(model, flows={})
