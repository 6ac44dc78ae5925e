"""Members that each leave out a block of returns, and what they make together."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from glow_bt.errors import DataError, FeatureError, TooFewBarsError
from glow_bt.features import ContextSpec, Scaler, context_rows
from glow_bt.flows import UnivariateFlow
from glow_bt.training import TrainConfig
from glow_bt.training import returns as module
from glow_bt.training.checkpoint import Checkpoint
from glow_bt.training.loop import FitResult
from glow_bt.training.returns import ReturnFitter, member_names, return_bars_needed
from tests.models import sp500_bars

SPEC = ContextSpec()
DAY = 86_400.0
CONFIG = TrainConfig(return_members=3, return_horizons=(1, 5), return_hidden_dim=4)


def arrays(count=500, first=0):
    bars = sp500_bars(first, first + count)
    return bars.to_numpy(), bars.index.as_unit("ns").asi8


def fit(bars, config=CONFIG, **options):
    return ReturnFitter(config, **options).fit(*bars, DAY, SPEC)


@pytest.fixture(autouse=True)
def _few_steps(monkeypatch):
    """Members learn for a short while only, but where a test asks for more."""
    monkeypatch.setattr(module, "_STEPS", 12)


@pytest.fixture(scope="module")
def bars():
    return arrays()


@pytest.fixture(scope="module")
def fitted(bars):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_STEPS", 12)
        return fit(bars)


@pytest.fixture
def told(monkeypatch):
    """What each member was given to learn from and to be judged by, in order."""
    calls = []

    def note(flow, train, validation, config, *, report, checkpoint):
        calls.append((train, validation, config))
        return FitResult()

    monkeypatch.setattr(module, "fit_flow", note)
    return calls


def rows_of(bars, horizon):
    """Contexts and scaled returns by the public route."""
    array, stamps = bars
    rows = context_rows(array, stamps, DAY, SPEC)
    log_close = np.log(array[SPEC.min_bars - 1 :, 3])
    unit = rows.volatility[:-horizon] * np.sqrt(horizon)
    return rows, (log_close[horizon:] - log_close[:-horizon]) / unit, unit


@pytest.mark.parametrize("horizon", [1, 5])
def test_each_member_learns_from_no_target_of_the_block_that_judges_it(bars, told, horizon):
    """Target t is made of the returns t + 1 .. t + h: none of them is in both."""
    fit(bars)
    _, y, _ = rows_of(bars, horizon)
    members = told[:3] if horizon == 1 else told[3:]
    judged_rows = []
    for train, judged, _ in members:
        learnt = np.flatnonzero(np.isin(y.astype(np.float32), train.x.numpy()))
        block = np.flatnonzero(np.isin(y.astype(np.float32), judged.x.numpy()))
        assert len(learnt) == len(train.x)
        assert len(block) == len(judged.x)
        made_of = {t + i for t in learnt for i in range(horizon)}
        assert not made_of & {t + i for t in block for i in range(horizon)}
        # And no more is left out than has to be.
        assert len(y) - len(learnt) - len(block) <= 2 * (horizon - 1)
        judged_rows.append(block)
    np.testing.assert_array_equal(np.concatenate(judged_rows), np.arange(len(y)))


@pytest.mark.parametrize("horizon", [1, 5])
def test_an_embargo_leaves_out_rows_behind_the_block_that_judges(bars, told, horizon):
    fit(bars, replace(CONFIG, embargo=20))
    fit(bars)
    _, y, _ = rows_of(bars, horizon)
    first = 0 if horizon == 1 else 3
    for k in range(3):
        with_embargo, without = told[first + k][0], told[6 + first + k][0]
        lost = np.flatnonzero(
            np.isin(y.astype(np.float32), without.x.numpy())
            & ~np.isin(y.astype(np.float32), with_embargo.x.numpy())
        )
        stop = np.array_split(np.arange(len(y)), 3)[k][-1] + horizon  # behind the purge
        assert lost.tolist() == list(range(stop, min(stop + 20, len(y))))


@pytest.mark.parametrize("members", [2, 3, 5, 9])
@pytest.mark.parametrize("embargo", [0, 40, 700])
def test_the_bars_asked_for_leave_each_member_half_of_the_least_rows(members, embargo, told):
    config = replace(CONFIG, return_members=members, embargo=embargo)
    fit(arrays(return_bars_needed(SPEC, config)), config)
    assert min(len(train.x) for train, _, _ in told) >= module.MIN_RETURN_ROWS // 2
    with pytest.raises(TooFewBarsError):
        fit(arrays(return_bars_needed(SPEC, config) - 1), config)


def test_contexts_stand_beside_the_returns_that_follow_them(bars, told):
    model, _ = fit(bars)
    rows, y, _ = rows_of(bars, 1)
    train, judged, _ = told[0]
    scaled = (rows.values - model.scaler.centre) / model.scaler.scale
    np.testing.assert_allclose(judged.context, scaled[: len(judged.x)], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(train.context, scaled[len(judged.x) : -1], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(judged.x[:, 0], y[: len(judged.x)], rtol=1e-6)
    np.testing.assert_allclose(model.scaler.centre, np.median(rows.values, axis=0))


def test_steps_and_decay_hang_on_the_rows(bars, told, monkeypatch):
    monkeypatch.setattr(module, "_STEPS", 1500)
    fit(bars, replace(CONFIG, seed=4))
    monkeypatch.setattr(module, "_STEPS", 1000)
    monkeypatch.setattr(module, "_BATCH_ROWS", 2)
    fit(bars, replace(CONFIG, seed=4, max_epochs=7, weight_decay=3.0, ema_decay=0.9))
    for (train, _, few), (_, _, many) in zip(told[:6], told[6:], strict=True):
        assert (few.max_epochs, few.patience) == (1500, 150)
        assert (many.max_epochs, many.patience) == (10, 8)  # at least, however many rows
        for own in (few, many):
            assert own.weight_decay == pytest.approx(6 / len(train.x))
            assert own.ema_decay == 0.0
    seeds = {own.seed for _, _, own in told}
    assert len(seeds) == 2  # one a horizon


@pytest.mark.parametrize("horizon", [1, 5])
def test_the_flow_is_the_average_of_its_members_and_they_judge_what_they_left_out(
    bars, fitted, horizon
):
    model, held_out = fitted
    flow, own = model.flows[horizon], held_out[horizon]
    assert flow.config == {"context_features": 22, "hidden_dim": 4, "num_members": 3}
    assert {p.dtype for p in flow.parameters()} == {torch.float64}
    assert not any(p.requires_grad for p in flow.parameters())
    assert len(own.fits) == 3
    rows, y, unit = rows_of(bars, horizon)
    contexts = torch.from_numpy(model.scaler.transform(rows.values)[:-horizon])
    state = flow.state_dict()
    for k, block in enumerate(np.array_split(np.arange(len(y)), 3)):
        member = UnivariateFlow(22, 4).double()
        member.load_state_dict({n: t[[k]] for n, t in state.items()}, strict=False)
        with torch.no_grad():
            z, log_det = member(torch.from_numpy(y[block])[:, None], contexts[block])
        np.testing.assert_allclose(own.latents[block], z[:, 0], rtol=0, atol=1e-9)
        density = -0.5 * z[:, 0] ** 2 - 0.5 * np.log(2 * np.pi) + log_det
        expected = density.numpy() - np.log(unit[block])
        np.testing.assert_allclose(own.log_prob[block], expected, rtol=1e-9)


def test_a_left_out_block_teaches_the_other_members_only(bars, fitted, monkeypatch):
    """Returns of the first block change; how its own member fares in training does not.

    Contexts that reach back into it are kept as they were, and the scaler with them.
    """
    whole = context_rows(*bars, DAY, SPEC)
    monkeypatch.setattr(module, "context_rows", lambda *_: whole)
    array, first = bars[0].copy(), SPEC.min_bars - 1
    array[first : first + 60, :4] *= np.exp(np.linspace(0.0, 0.4, 60))[:, None]
    array[first + 60 :, :4] *= np.exp(0.4)
    _, after = fit((array, bars[1]))
    for horizon in (1, 5):
        moved = [
            max(
                abs(a.train_loss - b.train_loss)
                for a, b in zip(own.epochs, other.epochs, strict=True)
            )
            for own, other in zip(fitted[1][horizon].fits, after[horizon].fits, strict=True)
        ]
        assert moved[0] < 1e-6
        assert min(moved[1:]) > 1e-3


def same(a, b):
    return all(
        torch.equal(t, b.flows[h].state_dict()[n])
        for h, flow in a.flows.items()
        for n, t in flow.state_dict().items()
    )


def test_the_seed_decides_to_the_bit_and_global_random_states_are_left_alone(bars, fitted):
    torch.manual_seed(11)
    before, legacy = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
    again, held_out = fit(bars)
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(np.random.get_state()[1], legacy[1])  # noqa: NPY002
    assert same(again, fitted[0])
    for horizon in (1, 5):
        np.testing.assert_array_equal(held_out[horizon].latents, fitted[1][horizon].latents)
    assert not same(fit(bars, replace(CONFIG, seed=1))[0], again)


def test_a_horizon_is_fitted_as_it_would_be_beside_others(bars, fitted):
    model, _ = fit(bars, replace(CONFIG, return_horizons=(1,)))
    for name, tensor in model.flows[1].state_dict().items():
        assert torch.equal(tensor, fitted[0].flows[1].state_dict()[name])


def test_members_report_by_name_and_when_they_are_done(bars):
    heard, done = [], []
    fit(
        bars,
        report=lambda name, epoch, limit: heard.append((name, epoch.number, limit)),
        member_done=lambda: done.append(len(heard)),
    )
    names = member_names(CONFIG)
    assert names == [f"return_{h}_{k}" for h in (1, 5) for k in (1, 2, 3)]
    assert heard == [(name, number, 12) for name in names for number in range(1, 13)]
    assert done == [12, 24, 36, 48, 60, 72]


class StopError(Exception):
    """Ends a fit early."""


@pytest.mark.parametrize("killed", ["return_1_1", "return_1_3", "return_5_2"])
def test_a_killed_fit_goes_on_to_the_same_model(bars, fitted, tmp_path, killed):
    def checkpoint_of(name):
        return Checkpoint(tmp_path / name, "key")

    def stop(name, epoch, limit):
        if (name, epoch.number) == (killed, 5):
            raise StopError

    heard = []
    with pytest.raises(StopError):
        fit(bars, report=stop, checkpoint_of=checkpoint_of)
    resumed, _ = fit(
        bars,
        report=lambda name, epoch, limit: heard.append((name, epoch.number)),
        checkpoint_of=checkpoint_of,
    )
    assert heard[0] == (killed, 6)
    assert same(resumed, fitted[0])


@pytest.mark.parametrize(
    ("members", "horizons"), [(2, (1,)), (110, (1,)), (2, (1, 150)), (3, (1, 400)), (5, (1, 24))]
)
def test_so_many_bars_as_the_error_says_suffice(members, horizons, monkeypatch):
    monkeypatch.setattr(module, "_STEPS", 1)
    monkeypatch.setattr(module, "_LEAST_EPOCHS", 1)
    config = TrainConfig(return_members=members, return_horizons=horizons, return_hidden_dim=2)
    with pytest.raises(TooFewBarsError, match="learning the density of returns needs") as error:
        fit(arrays(100), config)
    needed = error.value.needed
    assert needed == return_bars_needed(SPEC, config)
    with pytest.raises(TooFewBarsError):
        fit(arrays(needed - 1), config)
    model, held_out = fit(arrays(needed), config)
    assert model.horizons == horizons
    for horizon in horizons:
        assert len(held_out[horizon].latents) == needed - 120 - horizon >= 200
        assert np.isfinite(held_out[horizon].log_prob).all()


def test_every_member_keeps_at_least_100_rows(told):
    for members, longest in [(2, 1), (2, 300), (3, 300), (4, 100), (30, 24)]:
        config = TrainConfig(return_members=members, return_horizons=(1, longest))
        told.clear()
        fit(arrays(return_bars_needed(SPEC, config)), config)
        assert min(len(train.x) for train, _, _ in told) >= 100
        assert min(len(judged.x) for _, judged, _ in told) >= 1


def halted(bars, count, first=300):
    """The same bars with `count` closes in a row equal to the one before, and no range."""
    array = bars[0].copy()
    array[first : first + count, :4] = array[first - 1, 3]
    return array, bars[1]


def test_a_market_that_is_halted_for_a_while_is_learnt(bars):
    model, held_out = fit(halted(bars, 20))
    assert np.isfinite(held_out[1].log_prob).all()
    array, stamps = halted(bars, 20)
    distribution = model.distribution(model.contexts(array, stamps))
    assert np.isfinite(distribution.quantile(0.01)).all()
    assert (distribution.quantile(0.01) < 0).all()


def test_a_market_that_stands_still_is_refused(bars):
    array, stamps = bars
    still = array.copy()
    still[:, :4] = 100.0
    with pytest.raises(DataError, match=r"closes that move, found 379 of 379 equal to the one"):
        fit((still, stamps))
    # The returns from bar 120 on count: up to half of them may be 0.
    half = array.copy()
    half[121::2, :4] = half[120:-1:2, :4]
    with pytest.raises(DataError, match="found 190 of 379 equal"):
        fit((half, stamps))
    half[499, :4] *= 1.01
    with np.errstate(all="raise"):
        fit((half, stamps))


def test_a_number_of_the_context_that_never_varies_is_refused(bars):
    array, stamps = bars
    flat = array.copy()
    flat[:, 4] = 7.0
    with pytest.raises(FeatureError, match="expected features that vary, found volume_last"):
        fit((flat, stamps))
    spec = ContextSpec(volume=False)
    model, _ = ReturnFitter(CONFIG).fit(flat, stamps, DAY, spec)
    assert len(model.scaler.names) == 19


def relabelled(bars, index):
    """Real days as bars of another kind of market."""
    return bars[0][: len(index)], index[: len(bars[0])].as_unit("ns").asi8


def hours_of(kind):
    if kind != "exchange":
        return pd.date_range("2024-01-01", periods=500, freq=kind, tz="UTC")
    hours = pd.date_range("2024-01-01", periods=5000, freq="h", tz="UTC")
    opened = (hours.hour >= 14) & (hours.hour < 21) & (hours.day_of_week < 5)
    return hours[opened][:500]


@pytest.mark.parametrize("kind", ["h", "4h", "6h", "8h", "12h", "exchange"])
def test_a_calendar_of_few_hours_or_no_weekends_is_learnt(bars, kind):
    """Some of its waves never move at such bars, or by rounding only."""
    index = hours_of(kind)
    array, stamps = relabelled(bars, index)
    seconds = 3600.0 * {"4h": 4, "6h": 6, "8h": 8, "12h": 12}.get(kind, 1)
    spec = ContextSpec(calendar=True)
    model, _ = ReturnFitter(CONFIG).fit(array, stamps, seconds, spec)
    rows = model.contexts(array, stamps)
    assert np.abs(rows.values[:, -13:]).max() < 20
    assert np.isfinite(model.distribution(rows).quantile(0.01)).all()
    fixed = [n for n, s in zip(spec.names, model.scaler.scale, strict=True) if s == 1.0]
    assert ("day_sin_3" in fixed) == (kind in {"4h", "8h", "12h"})
    assert ("weekend" in fixed) == (kind == "exchange")
    if kind == "h":
        values = context_rows(array, stamps, seconds, spec).values
        assert model.scaler == Scaler.fit(values, spec.names)
