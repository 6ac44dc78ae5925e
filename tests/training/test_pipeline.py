import json
from dataclasses import replace
from itertools import permutations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import multivariate_normal, norm

from glow_bt.artifact.manifest import manifest_of, tensors_of
from glow_bt.direction import DirectionReadout
from glow_bt.errors import ConfigError, DataError, FeatureError, TooFewBarsError
from glow_bt.features import (
    DEFAULT_SPEC,
    ContextSpec,
    FeatureSpec,
    compute_features,
    context_rows,
    volatility_array,
)
from glow_bt.flows import make_flow, tails_of
from glow_bt.folds import chronological_split
from glow_bt.likelihood import LikelihoodFilter
from glow_bt.ohlcv import bars_sha256
from glow_bt.training import TrainConfig, train
from glow_bt.training.returns import ReturnFitter
from tests.models import SMALL_BARS, SMALL_CONFIG, small_artifact, small_config, sp500_bars
from tests.short_training import STEPS

PURGE = DEFAULT_SPEC.min_bars
CONTEXT = ContextSpec().min_bars
HASH = {"training.data_sha256"}
FOLD = chronological_split(SMALL_BARS, purge=PURGE, fractions=SMALL_CONFIG.fractions)
QUICK = small_config(max_epochs=1)


@pytest.fixture(scope="module")
def bars():
    return sp500_bars(0, SMALL_BARS)


@pytest.fixture(scope="module")
def quick(bars):
    return train(bars, QUICK)


@pytest.fixture(scope="module")
def two(bars):
    return train(bars, replace(QUICK, return_horizons=(1, 5)))


def moved(bars, positions, factor=1.7):
    """Other prices and volumes on some bars, each still a valid bar."""
    changed = bars.copy()
    changed.iloc[positions] *= [factor] * 4 + [2.0]
    return changed


def differences(a, b):
    """Names of tensors and manifest entries that are not the same to the bit."""
    left, right = tensors_of(a), tensors_of(b)
    assert left.keys() == right.keys()
    names = {name for name in left if not torch.equal(left[name], right[name])}
    flat = [pd.json_normalize(manifest_of(m)).iloc[0].to_dict() for m in (a, b)]
    changed = {key for key in flat[0] | flat[1] if flat[0].get(key) != flat[1].get(key)}
    # A hash of all the rest, which differs if anything does.
    assert ("fingerprint" in changed) == bool(names | changed)
    return (names | changed) - {"fingerprint"}


def states_of(bars, artifact):
    """Scaled states by the public route, and the position of the first in the bars."""
    features = compute_features(bars, artifact.spec).to_numpy()[PURGE - 1 :]
    return (features - artifact.scaler.centre) / artifact.scaler.scale


def rows_of(block):
    return np.arange(max(block.start, PURGE - 1), block.stop) - (PURGE - 1)


@pytest.mark.parametrize("name", ["train", "validation", "test"])
def test_state_nll_is_that_of_normal_latents_and_the_jacobian(bars, quick, name):
    rows = torch.from_numpy(states_of(bars, quick)[rows_of(getattr(FOLD, name))]).requires_grad_()
    z, _ = quick.state_flow(rows)
    # Rows do not touch one another, so D backward passes give all Jacobians.
    jacobian = torch.stack(
        [torch.autograd.grad(z[:, i].sum(), rows, retain_graph=True)[0] for i in range(16)], dim=1
    )
    log_det = np.linalg.slogdet(jacobian.numpy())[1]
    nll = -(norm.logpdf(z.detach().numpy()).sum(axis=1) + log_det).mean()
    metrics = quick.training.metrics
    assert metrics[f"state_{name}_nll"] == pytest.approx(nll, rel=1e-9)
    assert metrics[f"state_{name}_bits_per_dim"] == pytest.approx(nll / 16 / np.log(2), rel=1e-9)


def return_rows(bars, artifact, horizon=1):
    """Scaled contexts, units and returns of every bar that has both, from bar 120 on."""
    stamps, array = bars.index.as_unit("ns").asi8, bars.to_numpy()
    rows = context_rows(array, stamps, 86_400.0, artifact.returns.spec)
    scaler = artifact.returns.scaler
    contexts = torch.from_numpy((rows.values - scaler.centre) / scaler.scale)[:-horizon]
    log_close = np.log(bars["close"].to_numpy())[CONTEXT - 1 :]
    unit = rows.volatility[:-horizon] * np.sqrt(horizon)
    return contexts, unit, log_close[horizon:] - log_close[:-horizon]


@pytest.mark.parametrize("horizon", [1, 5])
def test_return_nll_of_the_test_is_that_of_log_returns_in_their_own_units(bars, two, horizon):
    contexts, unit, returns = return_rows(bars, two, horizon)
    block = range(FOLD.test.start - (CONTEXT - 1), FOLD.test.stop - (CONTEXT - 1) - horizon)
    rows = slice(block.start, block.stop)
    y = torch.from_numpy(returns[rows] / unit[rows])[:, None]
    z, log_det = two.returns.flows[horizon](y, contexts[rows])
    density = norm.logpdf(z[:, 0].numpy()) + log_det.numpy() - np.log(unit[rows])
    name = "return" if horizon == 1 else "return_5"
    expected = -density.mean()
    assert two.training.metrics[f"{name}_test_nll"] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("block", ["train", "validation"])
def test_return_nll_before_the_test_is_that_of_members_that_left_the_rows_out(bars, two, block):
    """Fitted anew: to all bars before the test, whatever their block, and to the bit."""
    known = bars.iloc[: FOLD.validation.stop]
    stamps = known.index.as_unit("ns").asi8
    config = replace(QUICK, return_horizons=(1, 5))
    model, held_out = ReturnFitter(config).fit(
        known.to_numpy(), stamps, 86_400.0, ContextSpec.of(known, 86_400.0)
    )
    for horizon, name in ((1, "return"), (5, "return_5")):
        for key, tensor in model.flows[horizon].state_dict().items():
            assert torch.equal(tensor, two.returns.flows[horizon].state_dict()[key])
        own = getattr(FOLD, block)
        rows = slice(max(own.start - CONTEXT + 1, 0), own.stop - CONTEXT + 1 - horizon)
        expected = -held_out[horizon].log_prob[rows].mean()
        found = two.training.metrics[f"{name}_{block}_nll"]
        assert found == pytest.approx(expected, rel=1e-12)


def test_the_density_of_returns_integrates_to_1(bars, quick):
    contexts, _, _ = return_rows(bars, quick)
    grid = torch.linspace(-60, 60, 12_001, dtype=torch.float64)[:, None]
    z, log_det = quick.returns.flows[1](grid, contexts[:1].expand(len(grid), -1))
    density = norm.logpdf(z[:, 0].numpy()) + log_det.numpy()
    assert np.trapezoid(np.exp(density), dx=0.01) == pytest.approx(1.0, abs=1e-3)
    assert (np.diff(z[:, 0].numpy()) > 0).all()


def test_gaussian_nll_is_scipys(bars, quick):
    x = states_of(bars, quick)
    train_x, test_x = x[rows_of(FOLD.train)], x[rows_of(FOLD.test)]
    gaussian = multivariate_normal(train_x.mean(axis=0), np.cov(train_x.T))
    expected = -gaussian.logpdf(test_x).mean()
    assert quick.training.metrics["gaussian_test_nll"] == pytest.approx(expected, rel=1e-9)


def test_filter_and_direction_are_those_of_their_blocks(bars, quick):
    x = states_of(bars, quick)
    reading = quick.read(x)
    held_out = reading.log_prob[rows_of(FOLD.validation)] + quick.scaler.log_det
    expected = LikelihoodFilter.fit(held_out, QUICK.false_alarm_rate)
    np.testing.assert_allclose(quick.likelihood.quantiles, expected.quantiles, rtol=1e-12)

    log_close = np.log(bars["close"].to_numpy())
    volatility = volatility_array(bars["close"].to_numpy(), quick.spec)
    parts = []
    for block in (FOLD.train, FOLD.validation):
        rows = rows_of(block)[:-5]
        at = rows + PURGE - 1
        assert at.max() + 5 == block.stop - 1
        parts += [reading.latents[rows], (log_close[at + 5] - log_close[at]) / volatility[at]]
    scaled = [part if part.ndim == 2 else part / np.sqrt(5) for part in parts]
    expected = DirectionReadout.fit(*scaled, 5)
    np.testing.assert_allclose(quick.direction.coefficients, expected.coefficients, rtol=1e-6)
    assert quick.direction.intercept == pytest.approx(expected.intercept, rel=1e-9)
    assert quick.direction.slope_belief == pytest.approx(expected.slope_belief, abs=1e-6)


def test_the_record_says_what_was_used(bars, quick):
    record = quick.training
    assert record.trained_from == bars.index[0]
    assert record.trained_until == bars.index[FOLD.validation.stop - 1]
    assert record.n_bars == FOLD.validation.stop == 560
    assert record.bar_seconds == 86_400
    assert record.data_sha256 == bars_sha256(bars.iloc[:560])
    assert TrainConfig(**json.loads(json.dumps(record.config))) == QUICK
    assert record.seed == QUICK.seed
    assert {"glow_bt", "torch", "numpy", "python"} <= record.versions.keys()
    assert len(record.history["state"]["validation_nll"]) == record.metrics["state_epochs"] == 1
    assert record.metrics["state_skipped_steps"] == 0
    assert record.metrics["max_condition_number"] >= 1
    assert 16 <= len(quick.probe) <= 31
    assert 16 <= len(quick.return_probe) <= 31


def test_bars_after_validation_change_nothing_but_the_measurements_of_the_test(bars, quick):
    other = train(moved(bars, slice(FOLD.validation.stop, None)), QUICK)
    changed = differences(quick, other)
    assert changed
    assert all("_test_" in name for name in changed)


def test_without_any_bars_after_validation_the_model_is_the_same(bars, quick):
    dates = {
        "train_until": bars.index[FOLD.train.stop].isoformat(),
        "validation_until": bars.index[FOLD.validation.stop].isoformat(),
    }
    other = train(bars.iloc[: FOLD.validation.stop], replace(QUICK, **dates))
    changed = differences(quick, other)
    assert {name for name in changed if "_test_" not in name} == {
        "training.config.train_until",
        "training.config.validation_until",
    }


def test_validation_bars_change_no_parameter_that_training_bars_set(bars, quick):
    other = train(moved(bars, slice(FOLD.validation.start, None)), QUICK)
    changed = differences(quick, other)
    set_by_training = (
        *("scaler", "state_flow.", "regimes."),
        *("direction.coefficients", "direction.covariance", "direction.centre"),
    )
    assert not [name for name in changed if name.startswith(set_by_training)]
    assert {"likelihood.quantiles", "probe.states"} <= changed


def test_nothing_reaches_over_the_border_of_a_block(bars):
    """With a purge above the longest window, bars stay that no window and no return may see."""
    config = replace(QUICK, purge=PURGE + 18)
    unseen = range(FOLD.train.stop, FOLD.train.stop + 19)
    assert unseen.stop == FOLD.train.stop + config.purge - (PURGE - 1)
    own = train(bars, config)
    changed = differences(own, train(moved(bars, list(unseen)), config))
    assert all("return" in name or name == "probe.contexts" for name in changed - HASH)
    assert {"returns_1.location"} | HASH <= changed  # which learns from every bar before the test
    after = [FOLD.validation.stop + i for i in range(19)]
    assert differences(own, train(moved(bars, after), config)) <= {
        "training.metrics.return_test_nll"  # whose contexts reach back further than the purge
    }


def test_dates_mean_the_positions_of_the_first_bars_after_the_blocks(bars, quick):
    # A Sunday: the first bar after it is Monday's.
    stamp = bars.index[FOLD.train.stop + 3]
    sunday = stamp - pd.Timedelta(days=1)
    train_stop = int(bars.index.searchsorted(sunday))
    config = replace(
        QUICK,
        train_until=sunday.isoformat(),
        validation_until=bars.index[FOLD.validation.stop].tz_localize(None).isoformat(),
    )
    artifact = train(bars, config)
    assert artifact.training.trained_until == quick.training.trained_until
    scaler = artifact.scaler
    expected = np.median(compute_features(bars).to_numpy()[PURGE - 1 : train_stop], axis=0)
    np.testing.assert_allclose(scaler.centre, expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("purge", [0, PURGE - 1])
def test_a_purge_below_the_longest_window_is_refused(bars, purge):
    with pytest.raises(ConfigError, match=f"purge of at least {PURGE} bars.*found {purge}; raise"):
        train(bars, small_config(purge=purge))


def test_the_same_seed_gives_the_same_model_to_the_bit_and_another_seed_another(bars, quick):
    assert not differences(quick, train(bars, QUICK))
    changed = differences(quick, train(bars, replace(QUICK, seed=1)))
    assert {
        "state_flow.levels.0.nets.net.1.weight",
        "returns_1.net.layers.1.weight",
    } <= changed
    assert not any(name.startswith("scaler") for name in changed)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_number_of_threads_changes_nothing_and_is_given_back(bars, quick, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert not differences(quick, train(bars, QUICK))
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_global_random_states_are_left_alone(bars):
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
    train(bars, replace(QUICK, base="mixture"))
    assert torch.equal(torch.get_rng_state(), torch_before)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_before[1])  # noqa: NPY002


def test_progress_hears_of_every_epoch_of_every_flow(bars):
    heard = []
    config = small_config(max_epochs=2)
    artifact = train(bars, config, progress=lambda *told: heard.append(told))
    epochs = {"state": 2}
    for name in ("return_1_1", "return_1_2"):
        epochs[name] = len(artifact.training.history[name]["validation_nll"])
    assert [(flow, epoch.number) for flow, epoch, _, _ in heard] == [
        (name, number + 1) for name, count in epochs.items() for number in range(count)
    ]
    assert {(limit, width) for flow, _, limit, width in heard if flow == "state"} == {(2, 16)}
    limits = {(limit, width) for flow, _, limit, width in heard if flow != "state"}
    assert limits == {(STEPS, 1)}  # steps of 512 rows; there are fewer rows
    assert set(artifact.training.history) == set(epochs)


def mean_volatility(artifact, bars):
    """Mean volatility of the training bars of each regime."""
    rows = rows_of(FOLD.train)
    labels = artifact.read(states_of(bars, artifact)[rows]).regime
    volatility = volatility_array(bars["close"].to_numpy(), artifact.spec)[rows + PURGE - 1]
    return [volatility[labels == k].mean() for k in range(artifact.regimes.num_regimes)]


@pytest.mark.parametrize("method", ["gmm", "kmeans"])
def test_regime_0_is_the_calmest(bars, method):
    means = mean_volatility(train(bars, replace(QUICK, regime_method=method)), bars)
    assert means == sorted(means)


@pytest.fixture(scope="module")
def mixture(bars):
    return train(bars, small_config(base="mixture", regime_method="base", max_epochs=2))


def test_regimes_of_the_base_are_its_components_in_order_of_volatility(bars, mixture):
    means = mean_volatility(mixture, bars)
    assert np.isfinite(means).all()
    assert means == sorted(means)
    z = mixture.read(states_of(bars, mixture)).latents
    posterior = mixture.state_flow.prior.posterior(torch.from_numpy(z)).numpy()
    renamed = [
        order
        for order in permutations(range(3))
        if np.allclose(mixture.regimes.posterior(z), posterior[:, order], atol=1e-12)
    ]
    assert len(renamed) == 1
    np.testing.assert_array_equal(
        np.array(renamed[0])[mixture.regime_of(z)], posterior.argmax(axis=1)
    )


@pytest.mark.parametrize("method", ["gmm", "base"])
def test_labels_of_a_retrained_model_are_matched_to_those_of_the_one_before(bars, mixture, method):
    previous = small_artifact() if method == "gmm" else mixture
    config = small_config(seed=3, base="mixture", regime_method=method)
    later = sp500_bars(40, SMALL_BARS + 40)
    artifact = train(later, config, previous=previous)
    train_rows = rows_of(FOLD.train)
    old = previous.read(states_of(later, previous)[train_rows]).regime
    new = artifact.read(states_of(later, artifact)[train_rows]).regime
    kept = (old == new).mean()
    assert kept == max((np.array(order)[new] == old).mean() for order in permutations(range(3)))
    assert kept > 1 / 3


def test_a_previous_model_that_cannot_be_matched_is_refused_before_training(bars):
    def fail(*told):
        raise AssertionError("trained")

    with pytest.raises(ConfigError, match=r"previous model .* with 4 regimes, found 3 regimes"):
        train(bars, small_config(num_regimes=4), previous=small_artifact(), progress=fail)
    spec = FeatureSpec(long=80)
    with pytest.raises(ConfigError, match="previous model of the same features"):
        train(bars, small_config(), spec=spec, previous=small_artifact(), progress=fail)


def test_another_spec_has_its_own_features_and_purge(bars):
    spec = FeatureSpec(medium=12, long=40)
    artifact = train(bars, small_config(max_epochs=1), spec=spec)
    assert artifact.spec == spec
    assert artifact.scaler.names == spec.names
    assert artifact.training.n_bars == 560


def test_a_column_that_says_nothing_is_refused(bars):
    with pytest.raises(FeatureError, match="features that vary, found volume_1"):
        train(bars.assign(volume=1.0), QUICK)


def test_bars_that_break_the_contract_are_refused(bars):
    with pytest.raises(DataError, match="ascending order"):
        train(bars.iloc[::-1], QUICK)


def test_the_bars_asked_for_suffice(bars):
    config = small_config(max_epochs=1, fractions=(0.7, 0.15, 0.15))
    with pytest.raises(TooFewBarsError, match=r"split .* found 700; give 52 more bars") as error:
        train(bars, config)
    assert train(sp500_bars(0, error.value.needed), config)
    with pytest.raises(TooFewBarsError):
        train(sp500_bars(0, error.value.needed - 1), config)


def test_hardly_any_bars_at_all(bars):
    with pytest.raises(TooFewBarsError, match="needs at least 752 bars, found 10"):
        train(bars.iloc[:10], TrainConfig())


def test_a_state_flow_without_tails_is_trained_too(bars, monkeypatch):
    def without_tails(family, num_features, **settings):
        return make_flow(family, num_features, tails=False, **settings)

    monkeypatch.setattr("glow_bt.training.fitter.make_flow", without_tails)
    artifact = train(bars, QUICK)
    assert tails_of(artifact.state_flow) is None
    assert np.isfinite(artifact.training.metrics["state_test_nll"])
