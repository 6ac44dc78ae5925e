import functools
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.integrate import dblquad

from glow_bt.errors import (
    ArtifactError,
    ConfigError,
    DataError,
    FlowError,
    LookAheadError,
    TooFewBarsError,
)
from glow_bt.folds import split_at
from glow_bt.risk import Forecasts
from glow_bt.risk.portfolio import portfolio_risk
from glow_bt.risk.spherical import SphericalT
from glow_bt.risk.stress import stress_result, stress_scenarios
from glow_bt.training import TrainConfig
from glow_bt.training.joint_returns import JointReturns, StateSettings, joint_log_returns
from glow_bt.training.portfolio import PortfolioModel
from glow_bt.training.portfolio_config import PortfolioConfig
from glow_bt.training.portfolio_folder import load_portfolio, save_portfolio
from glow_bt.training.spherical_glow import SphericalGlow, TrainedGlow

SMALL = PortfolioConfig(
    train=TrainConfig(
        num_levels=1, num_steps=1, hidden_dim=4, max_epochs=2, learning_rate=1e-3, noise=0.0
    ),
    training_rows=400,
    num_flows=2,
    num_scenarios=512,
)
NUM_BARS, TRAINED = 320, 260
WEIGHTS = [0.6, -0.3]


def closes_as_bars(closes):
    stamps = pd.date_range("2020-01-01", periods=len(closes), freq="1h", tz="UTC")
    columns = dict.fromkeys(("open", "high", "low", "close"), closes) | {"volume": 1.0}
    return pd.DataFrame(columns, index=stamps.rename("timestamp"))


@functools.cache
def market(width=2, num_bars=NUM_BARS, seed=0):
    """Correlated heavy-tailed assets whose volatility changes slowly, of very unlike sizes."""
    rng = np.random.default_rng(seed)
    shared = rng.standard_t(5, size=(num_bars, 1))
    own = rng.standard_t(5, size=(num_bars, width))
    volatility = np.exp(0.5 * np.sin(np.arange(num_bars) / 40))[:, None]
    returns = volatility * (0.8 * shared + 0.6 * own) * 0.01 * (1 + np.arange(width))
    closes = 100 * np.exp(np.cumsum(returns, axis=0))
    return {name: closes_as_bars(own) for name, own in zip("abcdef", closes.T, strict=False)}


def cut(bars, stop):
    return {name: own.iloc[:stop] for name, own in bars.items()}


@functools.cache
def model(width=2):
    return PortfolioModel.fit(cut(market(width), TRAINED), SMALL)


def history(width=2):
    return model(width).read(market(width))


TEST = slice(TRAINED - 1, NUM_BARS - 1)


def test_forecasts_are_those_of_the_scenarios():
    found = model().forecast(WEIGHTS, (0.05, 0.95), history(), TEST)
    assert isinstance(found, Forecasts)
    assert len(found) == NUM_BARS - TRAINED
    scenarios = model().scenarios(history(), TEST)
    assert scenarios.shape == (NUM_BARS - TRAINED, 512, 2)
    risk = portfolio_risk(scenarios, WEIGHTS, 0.05)
    np.testing.assert_array_equal(found.quantile(0.05), risk.var.value)
    np.testing.assert_allclose(found.shortfall(0.05), risk.cvar.value)
    closes = np.column_stack([own["close"] for own in market().values()])
    simple = closes[TRAINED:] / closes[TRAINED - 1 : -1] - 1
    np.testing.assert_allclose(found.returns, simple @ WEIGHTS)
    assert np.isnan(found.log_prob).all()
    assert 0.2 < found.pit.mean() < 0.8


def test_a_bar_to_come_has_scenarios_too():
    last = model().scenarios(history())
    assert last.shape == (1, 512, 2)
    shorter = model().read(cut(market(), NUM_BARS - 1))
    np.testing.assert_array_equal(
        model().scenarios(shorter), model().scenarios(history(), slice(NUM_BARS - 2, NUM_BARS - 1))
    )


def test_nothing_at_a_bar_depends_on_later_ones():
    bars = {name: own.copy() for name, own in market().items()}
    for own in bars.values():
        own.iloc[300:] *= 3.0
    changed, same = model().read(bars), slice(TRAINED - 1, 299)
    np.testing.assert_array_equal(
        model().scenarios(changed, same), model().scenarios(history(), same)
    )
    np.testing.assert_array_equal(
        model().log_prob(changed, same), model().log_prob(history(), same)
    )


def test_a_fit_sees_its_own_rows_only():
    joint = JointReturns.of_bars(market())
    bars = {name: own.copy() for name, own in market().items()}
    for own in bars.values():
        own.iloc[TRAINED:] *= 3.0
    fold = split_at(NUM_BARS - 1, 200, TRAINED - 1, purge=0)
    one = PortfolioModel.fit_rows(joint, fold, SMALL)
    two = PortfolioModel.fit_rows(JointReturns.of_bars(bars), fold, SMALL)
    assert one.radius == two.radius
    assert one.validation_nll == two.validation_nll
    for first, second in zip(one.flows, two.flows, strict=True):
        for name, tensor in first.state_dict().items():
            assert torch.equal(tensor, second.state_dict()[name]), name


def test_the_density_integrates_to_one():
    bar = model().next_bar(history())
    spread = np.sqrt(np.diag(bar.root @ bar.root.T)) * 12
    total, _ = dblquad(
        lambda y, x: np.exp(bar.encode([[x, y]])[1][0]),
        -spread[0],
        spread[0],
        -spread[1],
        spread[1],
        epsabs=1e-2,
    )
    assert total == pytest.approx(1, abs=0.02)


def test_the_next_bar_is_the_model_at_that_row():
    row = 290
    bar = model().next_bar(history(), row)
    returns = history().returns[row : row + 1]
    z, log_prob = bar.encode(returns)
    expected = model().log_prob(history(), slice(row, row + 1))
    assert log_prob[0] == pytest.approx(expected[0])
    back, log_det = bar.inverse(z)
    np.testing.assert_allclose(back, returns)
    assert log_det[0] == pytest.approx(np.linalg.slogdet(bar.root)[1])
    drawn = bar.sample(4000, seed=3)
    bank = model().scenarios(history(), slice(row, row + 1))[0]
    np.testing.assert_allclose(
        np.quantile(drawn, [0.1, 0.9], axis=0), np.quantile(bank, [0.1, 0.9], axis=0), rtol=0.2
    )
    with pytest.raises(FlowError, match="bar that has its own"):
        bar.sample(3, context=[[0.0]])


def test_the_next_bar_can_be_stressed():
    bar = model().next_bar(history())
    plain = stress_scenarios(bar, 200, (0.002, 0.02))
    wide = stress_scenarios(bar, 200, plain.band, inflation=1.5)
    calm = portfolio_risk(model().scenarios(history())[0], WEIGHTS, 0.05)
    for found in (plain, wide):
        assert found.band.holds(found.log_prob).all()
        result = stress_result(found.draws, WEIGHTS, 0.1, importance=found.importance)
        assert result.worst <= result.shortfall < calm.var.value[0]


def test_the_trained_glow_has_the_density_that_was_trained(float64):
    radius = SphericalT(4.0, 0.8)
    flow = SphericalGlow(radius, 3, 2, num_levels=1, num_steps=2, hidden_dim=8)
    x, context = torch.randn(50, 3), torch.randn(50, 2)
    flow.objective(x, context)
    for parameter in flow.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    flow.eval()
    trained = TrainedGlow(flow.plain().fused(), radius)
    np.testing.assert_allclose(
        trained.log_prob(x.numpy(), context.numpy()), -flow.objective(x, context).detach().numpy()
    )
    z = radius.inverse(np.random.default_rng(0).standard_normal((5, 3)))
    drawn = trained.draw(radius.forward(z)[0], context[0].numpy())
    back, _ = flow(torch.from_numpy(drawn), context[:1].expand(5, 2))
    np.testing.assert_allclose(back.detach().numpy(), z, rtol=1e-6)


def test_training_finds_the_scale_of_each_asset_and_their_correlation():
    scenarios = model().scenarios(history(), TEST)
    spread = np.quantile(scenarios, 0.84, axis=1) / history().volatility[TEST]
    np.testing.assert_allclose(spread.mean(axis=0), 0.9, atol=0.15)
    signs = np.sign(scenarios).reshape(-1, 2)
    assert 0.3 < np.corrcoef(signs.T)[0, 1] < 0.7  # 2 / pi * arcsin(0.64) = 0.44


@pytest.mark.parametrize("width", [1, 3])
def test_one_asset_or_several_will_do(width):
    found = model(width).forecast(np.ones(width), (0.05,), history(width), TEST)
    assert np.isfinite(found.quantiles).all()
    assert np.isfinite(model(width).log_prob(history(width), TEST)).all()


def test_leverage_is_chosen_by_likelihood():
    rng = np.random.default_rng(1)
    variance, rows = 1.0, []
    for shock in rng.standard_normal((1500, 2)):
        returns = np.sqrt(variance) * shock
        rows.append(returns)
        falls = np.square(np.minimum(returns, 0)).mean()
        variance = 0.85 * variance + 0.05 + 0.2 * falls
    closes = 100 * np.exp(np.cumsum(0.005 * np.array(rows), axis=0))
    bars = {name: closes_as_bars(own) for name, own in zip("ab", closes.T, strict=True)}
    config = replace(SMALL, num_flows=1, training_rows=0)
    assert PortfolioModel.fit(bars, config).config.state.leverage >= 0.6
    mirrored = {name: closes_as_bars(1e4 / own["close"].to_numpy()) for name, own in bars.items()}
    assert PortfolioModel.fit(mirrored, config).config.state.leverage == 0


def test_states_of_other_settings_are_made_anew():
    raw = JointReturns.of_bars(market(), StateSettings(leverage=0.5, decay=0.9))
    np.testing.assert_array_equal(model().log_prob(raw, TEST), model().log_prob(history(), TEST))


def test_a_halted_asset_has_forecasts():
    bars = {name: own.copy() for name, own in market().items()}
    bars["a"].iloc[280:310] = bars["a"].iloc[280].to_numpy()
    found = model().forecast(WEIGHTS, (0.05,), model().read(bars), TEST)
    assert np.isfinite(found.quantiles).all()
    assert (found.quantiles < 0).all()


def test_a_model_survives_its_folder(tmp_path):
    save_portfolio(model(), tmp_path / "model")
    again = load_portfolio(tmp_path / "model")
    assert again.config == model().config
    assert again.trained_until == model().trained_until
    np.testing.assert_array_equal(
        again.scenarios(history(), TEST), model().scenarios(history(), TEST)
    )
    np.testing.assert_array_equal(
        again.log_prob(history(), TEST), model().log_prob(history(), TEST)
    )
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == [
        "manifest.json",
        "model.safetensors",
    ]
    with pytest.raises(ArtifactError, match="expected a new portfolio model folder"):
        save_portfolio(model(), tmp_path / "model")
    save_portfolio(model(), tmp_path / "model", overwrite=True)


def test_damaged_folders_are_refused(tmp_path):
    with pytest.raises(ArtifactError, match=r"found no manifest\.json that can be read"):
        load_portfolio(tmp_path / "none")
    folder = tmp_path / "model"
    save_portfolio(model(), folder)
    tensors = folder / "model.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-8] + bytes(8))
    with pytest.raises(ArtifactError, match="not the one that the manifest has the hash of"):
        load_portfolio(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["model_sha256"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match="found a damaged one"):
        load_portfolio(folder)
    manifest["portfolio_schema_version"] = 99
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match="schema version 1, found 99"):
        load_portfolio(folder)


def test_bars_of_the_training_interval_are_refused_unless_asked_for():
    early = slice(TRAINED - 3, TRAINED)
    with pytest.raises(LookAheadError, match="until which the model was trained"):
        model().forecast(WEIGHTS, (0.05,), history(), early)
    model().forecast(WEIGHTS, (0.05,), history(), early, allow_training_bars=True)


def test_weights_and_assets_that_do_not_match_are_refused():
    with pytest.raises(DataError, match="expected 2 weights, one an asset, found 3"):
        model().forecast([1, 2, 3], (0.05,), history(), TEST)
    with pytest.raises(DataError, match="expected bars of a, b in this order, found b, a"):
        model().read({"b": market()["b"], "a": market()["a"]})
    with pytest.raises(ConfigError, match="expected levels in ascending order"):
        model().forecast(WEIGHTS, (0.5,), history(), TEST)


def test_bars_that_do_not_belong_together_are_refused():
    with pytest.raises(DataError, match="at least one asset, found none"):
        joint_log_returns({})
    with pytest.raises(DataError, match=r"equal stamps, found 1 in only one of a and b"):
        joint_log_returns({"a": market()["a"], "b": market()["b"].drop(market()["b"].index[7])})
    with pytest.raises(TooFewBarsError, match="at least 2 bars, found 1"):
        joint_log_returns(cut(market(), 1))
    with pytest.raises(TooFewBarsError, match="at least 52 bars, found 51"):
        JointReturns.of_bars(cut(market(), 51))
    constant = market() | {"c": closes_as_bars(np.full(NUM_BARS, 5.0))}
    with pytest.raises(DataError, match="move in the first 50 bars, found c constant"):
        JointReturns.of_bars(constant)


def test_too_few_bars_to_train_are_refused():
    with pytest.raises(TooFewBarsError, match="the train block of a portfolio"):
        PortfolioModel.fit(cut(market(), 100), SMALL)
    fold = split_at(NUM_BARS - 1, 200, 210, purge=0)
    with pytest.raises(TooFewBarsError, match="the validation block of a portfolio"):
        PortfolioModel.fit_rows(JointReturns.of_bars(market()), fold, SMALL)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (StateSettings, {"decay": 1.0}, r"decay inside \(0, 1\), found 1"),
        (StateSettings, {"shrinkage": 1.0}, r"shrinkage inside \[0, 1\)"),
        (StateSettings, {"fast_decay": 0.96}, "fast_decay below decay below slow_decay"),
        (StateSettings, {"fast_share": 0.8}, "of at most 1 together"),
        (PortfolioConfig, {"num_flows": 3}, "num_flows that is a power of 2, found 3"),
        (PortfolioConfig, {"num_scenarios": 0}, "num_scenarios that is a power of 2, found 0"),
        (PortfolioConfig, {"num_scenarios": 2}, "at least a scenario a flow"),
        (PortfolioConfig, {"training_rows": -1}, "training_rows of 0 or more"),
        (PortfolioConfig, {"validation_fraction": 1.0}, r"inside \(0, 1\), found 1"),
        (PortfolioConfig, {"leverages": ()}, r"leverages inside \[0, 1\)"),
        (PortfolioConfig, {"train": TrainConfig(flow="nice")}, "family 'glow', found 'nice'"),
    ],
)
def test_settings_that_cannot_work_are_refused(kind, settings, message):
    with pytest.raises(ConfigError, match=message):
        kind(**settings)


def test_settings_survive_json():
    config = replace(SMALL, state=StateSettings(asset_context=True), keep_market=False)
    assert PortfolioConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_each_assets_own_ratios_may_join_the_context():
    config = replace(SMALL, state=StateSettings(asset_context=True), num_flows=1)
    own = PortfolioModel.fit(cut(market(), TRAINED), config)
    assert own.read(market()).context.shape == (NUM_BARS, 4 + 2 * 2)
    assert np.isfinite(own.log_prob(own.read(market()), TEST)).all()
