"""Going on with newer bars: what is learnt, what is kept, what the new model says of itself."""

import json
import math
import sys
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from glow_bt.artifact import fingerprint, load_artifact, save_artifact
from glow_bt.artifact.manifest import tensors_of
from glow_bt.errors import ArtifactError, ConfigError, DataError, LookAheadError, TooFewBarsError
from glow_bt.features import context_rows
from glow_bt.flows import GaussianMixturePrior
from glow_bt.likelihood import LikelihoodFilter
from glow_bt.ohlcv import bars_sha256
from glow_bt.scoring import ScheduledScorer, Scorer
from glow_bt.training import adapt, train
from tests.models import (
    EACH_FAMILY,
    SMALL_BARS,
    small_artifact,
    small_config,
    sp500_bars,
    unseen_bars,
)
from tests.scoring.samples import model_of_two_horizons

WINDOW = 121
NEW = 459
# Of 459 new states 121 are purged, and 68 of the other 338 are held out.
LEARNT, HELD_OUT = 270, 68
QUICK = {"max_steps": 60, "learning_rate": 5e-3}


def with_long_wicks(bars, first, last=None):
    """Bars that reach four times as far beyond open and close, at some positions."""
    changed = bars.copy()
    body = bars[["open", "close"]]
    rows = bars.index[first:last]
    high = body.max(axis=1) * (bars["high"] / body.max(axis=1)) ** 4
    low = body.min(axis=1) * (bars["low"] / body.min(axis=1)) ** 4
    changed.loc[rows, "high"] = np.maximum(high, bars["high"])[rows]
    changed.loc[rows, "low"] = np.minimum(low, bars["low"])[rows]
    return changed


def flow_tensors(artifact):
    return {
        n: t for n, t in tensors_of(artifact).items() if n.startswith(("state_flow.", "returns_"))
    }


def same_flows(a, b):
    left, right = flow_tensors(a), flow_tensors(b)
    return all(torch.equal(left[name], right[name]) for name in left)


def decide(monkeypatch, *nlls):
    """Let the trust check find these: state before and after, return before and after."""
    found = iter(nlls)
    module = sys.modules["glow_bt.training.continuation"]
    monkeypatch.setattr(module, "mean_nll", lambda flow, block: next(found))


@pytest.fixture
def all_kept(monkeypatch):
    decide(monkeypatch, *[0.0] * 100)


@pytest.fixture(scope="module")
def drifted():
    """Bars after the training of the small model, in a market of another kind."""
    return with_long_wicks(unseen_bars(NEW), WINDOW - 1)


@pytest.fixture(scope="module")
def adaptation(drifted):
    return adapt(small_artifact(), drifted, **QUICK)


def test_in_another_market_both_flows_gain_and_are_kept(adaptation):
    state, returns = adaptation.flows["state"], adaptation.flows["return"]
    assert state.nll_after < state.nll_before - 1.0
    assert returns.nll_after < returns.nll_before
    assert adaptation.kept
    assert state.kept
    assert returns.kept
    assert not same_flows(adaptation.artifact, small_artifact())


def test_the_likelihoods_of_states_are_those_of_held_out_scores(adaptation, drifted):
    """The last 68 bars, through the scorer: nothing of the trainer's own."""
    state = adaptation.flows["state"]
    for artifact, nll in (
        (small_artifact(), state.nll_before),
        (adaptation.artifact, state.nll_after),
    ):
        scores = Scorer(artifact, allow_training_bars=True).score(drifted).iloc[-HELD_OUT:]
        scaled = scores["log_prob"] - artifact.scaler.log_det
        assert -scaled.mean() == pytest.approx(nll, rel=1e-9)


def return_nll(artifact, bars, horizon=1):
    """Mean NLL of the held-out returns, by the module."""
    stamps, array = bars.index.as_unit("ns").asi8, bars.to_numpy()
    rows = context_rows(array, stamps, 86_400.0, artifact.returns.spec)
    unit = rows.volatility[-HELD_OUT:-horizon] * np.sqrt(horizon)
    log_close = np.log(bars["close"].to_numpy())[-HELD_OUT:]
    log_return = log_close[horizon:] - log_close[:-horizon]
    log_prob = artifact.returns.flows[horizon].log_prob(
        torch.from_numpy(log_return / unit)[:, None],
        torch.from_numpy(artifact.returns.scaler.transform(rows.values)[-HELD_OUT:-horizon]),
    )
    return -(log_prob.numpy() - np.log(unit)).mean()


def test_the_likelihoods_of_returns_are_in_units_of_log_returns(adaptation, drifted):
    returns = adaptation.flows["return"]
    for artifact, nll in (
        (small_artifact(), returns.nll_before),
        (adaptation.artifact, returns.nll_after),
    ):
        assert nll == pytest.approx(return_nll(artifact, drifted), rel=1e-9)


def test_every_horizon_goes_on_by_itself(drifted):
    parent = model_of_two_horizons()
    adaptation = adapt(parent, drifted, **QUICK)
    assert list(adaptation.flows) == ["state", "return", "return_5"]
    for horizon, name in ((1, "return"), (5, "return_5")):
        flow, child = adaptation.flows[name], adaptation.artifact
        assert flow.nll_before == pytest.approx(return_nll(parent, drifted, horizon), rel=1e-9)
        assert flow.kept == (child.returns.flows[horizon] is not parent.returns.flows[horizon])
        kept = flow.nll_after if flow.kept else flow.nll_before
        assert kept == pytest.approx(return_nll(child, drifted, horizon), rel=1e-9)
        assert child.training.metrics[f"{name}_kept"] == flow.kept


@pytest.mark.parametrize("kept", [1, 5])
def test_one_horizon_may_be_kept_without_the_other(kept, monkeypatch):
    after = {1: [0.9, 1.1], 5: [1.1, 0.9]}[kept]
    decide(monkeypatch, 1.0, 1.1, 1.0, after[0], 1.0, after[1])
    parent = model_of_two_horizons()
    child = adapt(parent, unseen_bars(NEW), max_steps=5).artifact
    for horizon in (1, 5):
        same = child.returns.flows[horizon] is parent.returns.flows[horizon]
        assert same == (horizon != kept)
    assert child.state_flow is parent.state_flow


def test_what_follows_a_new_state_flow_and_what_stays(adaptation, drifted):
    parent, child = small_artifact(), adaptation.artifact
    scores = Scorer(child, allow_training_bars=True).score(drifted).iloc[-HELD_OUT:]
    expected = LikelihoodFilter.fit(scores["log_prob"].to_numpy(), 0.05)
    np.testing.assert_allclose(child.likelihood.quantiles, expected.quantiles, rtol=1e-12)
    for part in ("spec", "scaler", "direction", "regimes", "return_probe"):
        assert getattr(child, part) is getattr(parent, part)
    for part in ("spec", "scaler"):
        assert getattr(child.returns, part) is getattr(parent.returns, part)
    latents = [
        Scorer(model, allow_training_bars=True).latents(drifted).to_numpy()[-HELD_OUT:]
        for model in (parent, child)
    ]
    shift = np.sqrt(((latents[1] - latents[0]) ** 2).mean())
    assert adaptation.latent_shift == pytest.approx(shift, rel=1e-9)
    agreement = (parent.regime_of(latents[0]) == parent.regime_of(latents[1])).mean()
    assert child.training.metrics["regime_agreement"] == agreement


def test_the_record_says_where_the_model_comes_from(adaptation, drifted):
    parent, child = small_artifact().training, adaptation.artifact.training
    new = drifted.iloc[-NEW:]
    assert adaptation.num_bars == NEW
    assert child.parent == fingerprint(small_artifact())
    assert child.trained_from == parent.trained_from
    assert child.trained_until == new.index[-1]
    assert child.n_bars == parent.n_bars + NEW
    assert child.data_sha256 == bars_sha256(new)
    assert child.seed == parent.seed
    own = {**QUICK, "held_out": 0.2}
    assert child.config == {**parent.config, "adapt": own}
    for name, flow in adaptation.flows.items():
        measured = {
            "held_out_nll_before": flow.nll_before,
            "held_out_nll_after": flow.nll_after,
            "kept": 1.0,
            "steps": 60.0,
        }
        assert (
            measured.items()
            <= {
                key.removeprefix(f"{name}_"): value for key, value in child.metrics.items()
            }.items()
        )
        # 270 rows are 5 steps of 64 or fewer; 269 of them know their next return.
        assert len(child.history[name]["train_nll"]) == 12
    assert child.metrics["latent_shift"] == adaptation.latent_shift


def test_a_rate_that_ruins_the_flows_leaves_the_parent():
    parent = small_artifact()
    before = fingerprint(parent)
    adaptation = adapt(parent, unseen_bars(700), learning_rate=1.0, max_steps=60)
    assert not adaptation.kept
    assert adaptation.artifact is parent
    assert fingerprint(parent) == before
    assert adaptation.latent_shift == 0.0
    for flow in adaptation.flows.values():
        assert flow.nll_after > flow.nll_before
        assert not flow.kept


def test_a_fit_that_ends_nowhere_is_dropped():
    adaptation = adapt(small_artifact(), unseen_bars(NEW), learning_rate=1e30, max_steps=10)
    assert adaptation.artifact is small_artifact()
    assert adaptation.flows["state"].nll_after == math.inf


@pytest.mark.parametrize(
    ("nlls", "kept"),
    [
        ([1.0, 0.9, 1.0, 0.9], ["state", "return"]),
        ([1.0, 1.0, 1.0, 1.0], ["state", "return"]),
        ([1.0, 0.9, 1.0, 1.1], ["state"]),
        ([1.0, 1.1, 1.0, 0.9], ["return"]),
        ([1.0, math.nan, 1.0, 0.9], ["return"]),
        ([1.0, math.inf, 1.0, 1.0001], []),
        ([math.inf, math.inf, math.inf, 1.0], ["return"]),
    ],
)
def test_each_flow_is_kept_if_it_is_not_worse(nlls, kept, monkeypatch):
    decide(monkeypatch, *nlls)
    parent = small_artifact()
    adaptation = adapt(parent, unseen_bars(NEW), max_steps=5)
    child = adaptation.artifact
    assert [name for name, flow in adaptation.flows.items() if flow.kept] == kept
    assert adaptation.kept == (child is not parent) == bool(kept)
    assert (child.state_flow is parent.state_flow) == ("state" not in kept)
    assert (child.returns.flows[1] is parent.returns.flows[1]) == ("return" not in kept)
    assert (child.likelihood is parent.likelihood) == ("state" not in kept)
    assert (adaptation.latent_shift == 0.0) == ("state" not in kept)
    history = child.training.history
    assert ("return" in history) == ("return" in kept)
    if "state" not in kept:
        assert history["state"] == parent.training.history["state"]
    for member in ("return_1_1", "return_1_2"):
        assert history[member] == parent.training.history[member]


def watched(bars, **options):
    """Adapt, and return the course of the training as well."""
    course = []
    adaptation = adapt(
        small_artifact(),
        bars,
        **QUICK,
        progress=lambda name, epoch, *_: course.append((name, asdict(epoch))),
        **options,
    )
    return adaptation, course


def test_held_out_bars_decide_and_teach_nothing(adaptation, drifted):
    """A market that is as before from the bar after the last learnt one: the parent knows it."""
    last_learnt = WINDOW - 1 + LEARNT
    back = with_long_wicks(unseen_bars(NEW), WINDOW - 1, last_learnt)
    assert back.iloc[:last_learnt].equals(drifted.iloc[:last_learnt])
    again, course = watched(drifted)
    other, other_course = watched(back)
    assert course == other_course
    assert {name for name, _ in course} == {"state", "return"}
    assert fingerprint(again.artifact) == fingerprint(adaptation.artifact)
    assert again.flows["state"].kept
    assert not other.flows["state"].kept


def test_held_out_bars_change_no_weight(drifted, all_kept):
    first = WINDOW - 1 + LEARNT
    changed = drifted.copy()
    changed.iloc[first:] *= [1.7] * 4 + [2.0]
    mine, theirs = (adapt(small_artifact(), bars, max_steps=20) for bars in (drifted, changed))
    assert same_flows(mine.artifact, theirs.artifact)
    assert not np.array_equal(mine.artifact.probe, theirs.artifact.probe)
    changed = drifted.copy()
    changed.iloc[first - 1] *= [1.1] * 4 + [2.0]
    assert not same_flows(mine.artifact, adapt(small_artifact(), changed, max_steps=20).artifact)


def test_bars_before_the_warm_up_change_not_a_bit(adaptation, drifted):
    older = pd.concat([sp500_bars(0, 500).loc[: drifted.index[0]].iloc[:-1], drifted])
    again = adapt(small_artifact(), older, **QUICK)
    assert fingerprint(again.artifact) == fingerprint(adaptation.artifact)


def test_the_seed_decides_and_torchs_own_state_is_left_alone(adaptation, drifted):
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    torch.manual_seed(5)
    moved = torch.get_rng_state()
    again = adapt(small_artifact(), drifted, **QUICK)
    assert torch.equal(torch.get_rng_state(), moved)
    assert torch.get_num_threads() == threads
    torch.set_rng_state(state)
    assert fingerprint(again.artifact) == fingerprint(adaptation.artifact)
    other = adapt(small_artifact(), drifted, **QUICK, seed=3)
    assert other.artifact.training.seed == 3
    assert not same_flows(other.artifact, adaptation.artifact)


@pytest.mark.parametrize(("max_steps", "taken"), [(1, 1), (4, 4), (5, 5), (14, 10)])
def test_the_step_budget_is_never_exceeded(max_steps, taken):
    flows = adapt(small_artifact(), unseen_bars(NEW), max_steps=max_steps).flows
    assert [flow.num_steps for flow in flows.values()] == [taken, taken]


def test_a_budget_below_one_pass_goes_to_the_latest_rows(all_kept):
    """Two steps are 128 states; with their windows they reach back to 248 bars."""
    bars = unseen_bars(NEW)
    first = WINDOW - 1 + LEARNT - 128 - (WINDOW - 1)
    results = []
    for position in (None, first - 2, first + 1):
        changed = bars.copy()
        if position is not None:
            changed.iloc[:position] *= [1.3] * 4 + [2.0]
        results.append(adapt(small_artifact(), changed, max_steps=2).artifact)
    untouched, older, newer = results
    np.testing.assert_allclose(
        *(
            np.concatenate([t.numpy().ravel() for t in flow_tensors(m).values()])
            for m in (untouched, older)
        ),
        atol=1e-6,
    )
    assert not same_flows(untouched, newer)


def test_a_chain_names_its_parents_folder_by_folder(adaptation, drifted, tmp_path):
    longer = with_long_wicks(unseen_bars(2 * NEW), WINDOW - 1)
    pd.testing.assert_frame_equal(longer.iloc[: len(drifted)], drifted)
    second = adapt(adaptation.artifact, longer, max_steps=30)
    assert second.kept
    models = [small_artifact(), adaptation.artifact, second.artifact]
    for number, model in enumerate(models):
        save_artifact(model, tmp_path / str(number))
    manifests = [
        json.loads((tmp_path / str(number) / "manifest.json").read_text()) for number in range(3)
    ]
    names = [manifest["fingerprint"] for manifest in manifests]
    assert len(set(names)) == 3
    assert [manifest["training"]["parent"] for manifest in manifests] == [None, *names[:2]]
    record = second.artifact.training
    assert record.n_bars == small_artifact().training.n_bars + 2 * NEW
    assert record.trained_from == small_artifact().training.trained_from
    assert record.trained_until == longer.index[-1]
    # A tenth of the trainer's, however long the chain.
    assert record.config["adapt"]["learning_rate"] == pytest.approx(5e-4)


def test_an_adapted_model_scores_the_same_after_loading(adaptation, tmp_path):
    save_artifact(adaptation.artifact, tmp_path / "model")
    loaded = load_artifact(tmp_path / "model")
    assert fingerprint(loaded) == fingerprint(adaptation.artifact)
    bars = sp500_bars(560 + NEW - WINDOW + 1, 560 + NEW + 100)
    mine, theirs = Scorer(adaptation.artifact).score(bars), Scorer(loaded).score(bars)
    pd.testing.assert_frame_equal(mine, theirs, check_exact=True)
    assert np.isfinite(theirs.iloc[-100:]).all(axis=None)


def test_parent_and_child_follow_one_another_in_a_schedule(adaptation):
    bars = unseen_bars(NEW + 100)
    border = bars.index[WINDOW - 1 + NEW]
    parent, child = small_artifact(), adaptation.artifact
    schedule = [(bars.index[WINDOW - 1], parent), (border, child)]
    scores = ScheduledScorer(schedule).score(bars)
    early = Scorer(parent).score(bars).loc[: border - pd.Timedelta("1s")]
    late = Scorer(child).score(bars.iloc[NEW:]).loc[border:]
    pd.testing.assert_frame_equal(scores.loc[: early.index[-1]], early)
    np.testing.assert_allclose(scores.loc[border:], late, rtol=1e-9)
    with pytest.raises(LookAheadError, match="found one trained until"):
        ScheduledScorer([(child.training.trained_until, child)])


@pytest.mark.parametrize("family", EACH_FAMILY)
def test_every_family_goes_on(family, tmp_path, all_kept):
    config = small_config(flow=family, max_epochs=1, num_levels=None, num_steps=None)
    parent = train(sp500_bars(0, SMALL_BARS), config)
    bars = unseen_bars(380)
    child = adapt(parent, bars, max_steps=4).artifact
    assert not same_flows(child, parent)
    assert {n: t.dtype for n, t in flow_tensors(child).items()} == {
        n: t.dtype for n, t in flow_tensors(parent).items()
    }
    save_artifact(child, tmp_path / "model")
    loaded = load_artifact(tmp_path / "model")
    assert loaded.training.parent == fingerprint(parent)
    again = adapt(load_artifact(tmp_path / "model"), unseen_bars(760), max_steps=1)
    assert again.artifact.training.parent == fingerprint(child)


def test_the_record_of_a_search_goes_with_the_model(all_kept):
    search = {"trials": 3, "bars_until": "2000-01-03T00:00:00+00:00"}
    record = replace(small_artifact().training, search=search)
    parent = replace(small_artifact(), training=record)
    child = adapt(parent, unseen_bars(NEW), max_steps=1).artifact
    assert child.training.parent == fingerprint(parent)
    assert child.training.search == search


def test_tails_that_the_trainer_left_as_fitted_stay(all_kept):
    config = small_config(flow="flow_matching", num_levels=None, num_steps=None, max_epochs=1)
    parent = train(sp500_bars(0, SMALL_BARS), config)
    child = adapt(parent, unseen_bars(NEW), max_steps=10, learning_rate=0.1).artifact
    before, after = flow_tensors(parent), flow_tensors(child)
    tails = [name for name in before if name.startswith("state_flow.tails.")]
    assert tails
    assert all(torch.equal(before[name], after[name]) for name in tails)


def test_regimes_of_a_mixture_base_follow_it_and_keep_their_numbers(all_kept):
    config = small_config(base="mixture", regime_method="base")
    parent = train(sp500_bars(0, SMALL_BARS), config)
    turned = replace(parent, regimes=parent.regimes.relabelled(np.array([2, 0, 1])))
    for model in (parent, turned):
        child = adapt(model, unseen_bars(NEW), max_steps=40).artifact
        prior = child.state_flow.prior
        assert isinstance(prior, GaussianMixturePrior)
        means = child.regimes.means
        assert {*map(tuple, means)} == {*map(tuple, prior.means.numpy())}
        assert not np.array_equal(means, model.regimes.means)
        moved = np.abs(means[:, None] - model.regimes.means[None]).sum(axis=2)
        np.testing.assert_array_equal(moved.argmin(axis=1), [0, 1, 2])
        assert child.training.metrics["regime_agreement"] > 0.7


def test_batch_norm_meets_no_single_row(all_kept):
    """442 new bars leave 257 rows to learn from: 4 batches of 64, and 1 row."""
    parent = train(sp500_bars(0, SMALL_BARS), small_config(norm="batchnorm", max_epochs=1))
    adaptation = adapt(parent, unseen_bars(442), max_steps=8)
    assert adaptation.flows["state"].num_steps == 8


def needed_bars(bars, **options):
    with pytest.raises(TooFewBarsError) as error:
        adapt(small_artifact(), bars, **options)
    assert error.value.found < error.value.needed
    assert str(small_artifact().training.trained_until) in str(error.value)
    return error.value.needed


@settings(max_examples=10)
@given(st.floats(0.05, 0.9))
def test_so_many_new_bars_as_the_error_says_suffice(held_out):
    needed = needed_bars(unseen_bars(10), held_out=held_out)
    options = {"held_out": held_out, "max_steps": 1}
    adaptation = adapt(small_artifact(), unseen_bars(needed), **options)
    assert adaptation.num_bars == needed
    assert needed_bars(unseen_bars(needed - 1), **options) == needed


def test_by_default_374_new_bars_suffice_and_a_missing_warm_up_costs_as_many_more():
    assert needed_bars(sp500_bars(0, 600)) == 374
    assert needed_bars(sp500_bars(0, 300)) == 374
    assert needed_bars(sp500_bars(0, 0)) == 374 + WINDOW - 1
    alone = unseen_bars(500).iloc[WINDOW - 1 :]
    assert needed_bars(alone.iloc[:100]) == 374 + WINDOW - 1
    assert adapt(small_artifact(), alone.iloc[: 374 + WINDOW - 1], max_steps=1).num_bars == 494


def test_longer_horizons_need_more_new_bars_and_so_many_as_the_error_says_suffice():
    parent = model_of_two_horizons()
    with pytest.raises(TooFewBarsError) as error:
        adapt(parent, unseen_bars(200), max_steps=1)
    needed = error.value.needed
    assert needed > 374
    assert set(adapt(parent, unseen_bars(needed), max_steps=1).flows) == {
        *("state", "return", "return_5")
    }
    with pytest.raises(TooFewBarsError):
        adapt(parent, unseen_bars(needed - 1), max_steps=1)


def test_bars_that_break_their_contract_are_refused():
    bars = unseen_bars(NEW)
    with pytest.raises(DataError, match="expected finite values"):
        adapt(small_artifact(), bars.assign(close=np.nan))
    with pytest.raises(DataError, match="expected"):
        adapt(small_artifact(), bars.iloc[::-1])
    with pytest.raises(DataError, match="expected"):
        adapt(small_artifact(), bars.drop(columns="volume"))


def test_bars_of_another_interval_are_refused():
    bars = unseen_bars(NEW)
    bars.index = pd.date_range(bars.index[-1], periods=len(bars), freq="h", name="timestamp")
    alone = bars[bars.index > small_artifact().training.trained_until]
    for few in (alone, alone.iloc[:2]):
        with pytest.raises(
            ArtifactError, match=r"expected bars every 1 day, .* found bars every 1 hour;"
        ):
            adapt(small_artifact(), few)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"max_steps": 0}, "expected max_steps to be a whole number of at least 1, found 0"),
        ({"max_steps": 2.5}, "expected max_steps to be a whole number"),
        ({"max_steps": True}, "expected max_steps to be a whole number"),
        ({"held_out": 0.0}, r"expected held_out inside \(0, 1\), found 0.0"),
        ({"held_out": 1.0}, "expected held_out inside"),
        ({"held_out": math.nan}, "expected held_out inside"),
        ({"held_out": "half"}, "expected held_out inside"),
        ({"learning_rate": 0.0}, "expected learning_rate inside"),
        ({"learning_rate": math.inf}, "expected learning_rate inside"),
        ({"seed": -1}, "expected seed to be a whole number"),
        ({"seed": 2**40}, "expected a seed of at most"),
    ],
)
def test_a_setting_that_cannot_work_is_refused_before_the_bars(options, told):
    with pytest.raises(ConfigError, match=told):
        adapt(small_artifact(), None, **options)
