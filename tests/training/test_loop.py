import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from glow_bt.errors import TrainingError
from glow_bt.flows import Flow, Glow, NormalPrior, UnivariateFlow
from glow_bt.training import TrainConfig, fit_flow
from glow_bt.training.checkpoint import Checkpoint
from glow_bt.training.loop import Block, mean_nll


def config(**changes):
    """Settings without an average of the weights, unless asked for."""
    settings = {"max_epochs": 6, "patience": 50, "batch_size": 32, "learning_rate": 1e-2}
    settings["ema_decay"] = 0.0
    return TrainConfig(**settings | changes)


def sample(rows, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 2, generator=generator)
    x[:, 1] = 0.5 * x[:, 0].square() + 0.3 * x[:, 1]
    return Block(x)


def seeded(build, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def small_glow(seed=0, hidden_dim=16):
    return seeded(lambda: Glow(2, num_levels=1, num_steps=2, hidden_dim=hidden_dim), seed)


def weights_of(flow):
    return {name: t.detach().clone() for name, t in flow.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class Recorder:
    """Keeps the weights that a flow has after each epoch."""

    def __init__(self, flow):
        self.flow = flow
        self.weights = []

    def __call__(self, epoch):
        self.weights.append(weights_of(self.flow))
        assert epoch.number == len(self.weights)


class Affine(Flow):
    """z = (x - m) * exp(-s), and a fault in rows above 50."""

    def __init__(self, fault=None):
        super().__init__(1)
        self.m = nn.Parameter(torch.zeros(1))
        self.s = nn.Parameter(torch.zeros(1))
        self.prior = NormalPrior(1)
        self.fault = fault

    def forward(self, x, context=None):
        log_det = -self.s.expand(len(x))
        if self.fault is not None and bool((x > 50).any()):
            log_det = log_det + self.fault(self.s)
        return (x - self.m) * (-self.s).exp(), log_det

    def inverse(self, z, context=None):
        return z * self.s.exp() + self.m, self.s.expand(len(z))


FAULTS = {
    "loss is NaN": lambda s: s * math.nan,
    "loss is infinite": lambda s: s.exp() * math.inf,
    # The value is 0 and the gradient 0/0.
    "gradient is NaN": lambda s: (0.0 * s).abs().sqrt(),
}


def test_the_best_epoch_comes_back_as_a_real_copy():
    # Fifty weights a row: validation soon gets worse, while training goes on.
    flow = small_glow(hidden_dim=64)
    recorder = Recorder(flow)
    settings = config(max_epochs=30, learning_rate=3e-2, batch_size=8)
    fit = fit_flow(flow, sample(24), sample(200, seed=1), settings, report=recorder)
    nll = [epoch.validation_loss for epoch in fit.epochs]
    assert fit.best_epoch < len(fit.epochs)
    assert same(weights_of(flow), recorder.weights[fit.best_epoch - 1])
    assert not same(weights_of(flow), recorder.weights[-1])
    assert fit.best_loss == nll[fit.best_epoch - 1] == mean_nll(flow, sample(200, seed=1))
    assert min(nll) > fit.best_loss - 2e-4
    assert not flow.training


def test_training_improves_the_likelihood_of_unseen_rows():
    flow = small_glow()
    fit = fit_flow(flow, sample(600), sample(300, seed=1), config(max_epochs=20))
    assert fit.best_loss < fit.epochs[0].validation_loss - 0.1
    history = fit.history()
    assert history["validation_nll"] == [epoch.validation_loss for epoch in fit.epochs]
    assert history["train_nll"][-1] < history["train_nll"][0]


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_batch_that_explodes_is_skipped_and_counted(fault):
    generator = torch.Generator().manual_seed(0)
    x = 3.0 + 2.0 * torch.randn(321, 1, generator=generator)
    x[100] = 100.0
    flow = Affine(fault)
    fit = fit_flow(flow, Block(x), Block(x[:100]), config(max_epochs=40, learning_rate=0.05))
    assert [epoch.skipped_steps for epoch in fit.epochs] == [1] * 40
    assert fit.skipped_steps == 40
    assert all(math.isfinite(epoch.train_loss) for epoch in fit.epochs)
    assert float(flow.m.detach()) == pytest.approx(3.0, abs=0.4)
    assert float(flow.s.detach().exp()) == pytest.approx(2.0, abs=0.3)


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_without_a_single_sound_step_there_is_no_model(fault):
    x = torch.full((64, 1), 100.0)
    sound = torch.zeros(50, 1)
    # The untrained weights have a finite validation NLL here: it must not count.
    with pytest.raises(TrainingError, match=r"none in 6 epochs \(12 steps skipped\); lower"):
        fit_flow(Affine(fault), Block(x), Block(sound), config())


@pytest.mark.parametrize("nll", [math.nan, math.inf, -math.inf])
def test_a_validation_nll_that_is_not_finite_is_never_the_best(nll):
    x = torch.zeros(64, 1)
    poisoned = torch.full((50, 1), 100.0)
    flow = Affine(lambda s: s.detach() * 0.0 - nll)
    with pytest.raises(TrainingError, match="found none in 3 epochs"):
        fit_flow(flow, Block(x), Block(poisoned), config(patience=3))


def test_training_stops_when_validation_does_not_improve():
    fit = fit_flow(
        small_glow(hidden_dim=64),
        sample(24),
        sample(200, seed=1),
        config(max_epochs=500, patience=5, learning_rate=3e-2, batch_size=8),
    )
    assert len(fit.epochs) == fit.best_epoch + 5


def test_a_row_left_over_is_no_batch():
    flow = seeded(lambda: Glow(2, num_levels=1, num_steps=2, hidden_dim=8, norm="batchnorm"))
    fit = fit_flow(flow, sample(65), sample(50, seed=1), config(max_epochs=2))
    assert fit.skipped_steps == 0
    assert math.isfinite(fit.best_loss)


def test_the_learning_rate_falls_to_0_like_a_cosine():
    settings = config(max_epochs=8, learning_rate=1e-6, patience=8)
    fit = fit_flow(small_glow(), sample(64), sample(64, seed=1), settings)
    rates = [epoch.learning_rate for epoch in fit.epochs]
    expected = [1e-6 * (1 + math.cos(math.pi * n / 8)) / 2 for n in range(8)]
    assert rates == pytest.approx(expected)


def test_what_is_kept_is_the_average_of_the_weights():
    settings = config(max_epochs=1, ema_decay=0.99, batch_size=8, learning_rate=1e-2)
    averaged, last = small_glow(), small_glow()
    fit_flow(averaged, sample(40), sample(50, seed=1), settings)
    fit_flow(last, sample(40), sample(50, seed=1), replace(settings, ema_decay=0.0))
    assert not same(weights_of(averaged), weights_of(last))


def test_noise_keeps_a_density_from_peaking_at_single_rows():
    def peak(noise):
        flow = small_glow(hidden_dim=64)
        rows = sample(24)
        fit_flow(
            flow,
            rows,
            rows,
            config(max_epochs=150, learning_rate=3e-2, batch_size=24, patience=150),
            noise=noise,
        )
        return mean_nll(flow, rows)

    assert peak(0.0) < peak(0.5) - 0.3


@pytest.mark.parametrize("limit", [1e-3, 1e3])
def test_gradients_are_clipped(limit):
    flow = small_glow()
    fit_flow(flow, sample(64), sample(64, seed=1), config(max_epochs=1, clip_norm=limit))
    norm = math.sqrt(sum(float(p.grad.square().sum()) for p in flow.parameters()))
    if limit < 1:
        assert norm == pytest.approx(limit, rel=1e-2)
    else:
        assert 0.01 < norm < limit


def test_weight_decay_pulls_on_networks_and_not_on_the_density():
    class Flat(Affine):
        """No gradient reaches any parameter: what moves them is decay alone."""

        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(1, 4))
            nn.init.ones_(self.m)

        def forward(self, x, context=None):
            everything = sum(p.sum() for p in self.parameters())
            return x, torch.zeros(len(x)) + 0.0 * everything

    flow = Flat()
    before = weights_of(flow)
    fit_flow(flow, Block(torch.zeros(64, 1)), Block(torch.zeros(9, 1)), config(weight_decay=0.1))
    after = weights_of(flow)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"net.0.weight"}
    assert float(after["net.0.weight"].abs().sum()) < float(before["net.0.weight"].abs().sum())


def test_the_same_seed_gives_the_same_numbers_to_the_bit_and_another_seed_others():
    def run(seed):
        flow = small_glow()
        fit = fit_flow(flow, sample(200), sample(50, seed=1), config(seed=seed))
        return weights_of(flow), fit

    first, again, other = run(1), run(1), run(2)
    assert same(first[0], again[0])
    assert first[1] == again[1]
    assert not same(first[0], other[0])


def test_torchs_global_random_state_is_not_touched():
    before = torch.get_rng_state()
    fit_flow(small_glow(), sample(100), sample(50, seed=1), config(max_epochs=2))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_conditional_flow_is_fitted_with_its_contexts():
    generator = torch.Generator().manual_seed(0)
    context = torch.randn(1500, 1, generator=generator)
    y = (0.7 * context).exp() * torch.randn(1500, 1, generator=generator)
    flow = seeded(lambda: UnivariateFlow(1, hidden_dim=16))
    flow.initialize(y[:1000])
    train, validation = (
        Block(y[rows], context[rows]) for rows in (slice(1000), slice(1000, 1500))
    )
    fit_flow(flow, train, validation, config(max_epochs=30))
    ratio = flow.scale(torch.tensor([[1.0]])) / flow.scale(torch.tensor([[-1.0]]))
    assert float(ratio.log()) == pytest.approx(1.4, abs=0.2)


def test_the_mean_nll_does_not_depend_on_how_rows_are_blocked(monkeypatch):
    flow = small_glow().double()
    block = Block(sample(100).x.double())
    flow.train()
    flow.log_prob(block.x)
    whole = mean_nll(flow, block)
    monkeypatch.setattr("glow_bt.training.loop._EVALUATION_ROWS", 7)
    assert mean_nll(flow, block) == pytest.approx(whole, rel=1e-12)
    assert whole == pytest.approx(-float(flow.log_prob(block.x).mean().detach()), rel=1e-12)


class KilledError(Exception):
    pass


@pytest.mark.parametrize("killed_after", [1, 4, 11])
def test_an_interrupted_fit_goes_on_to_the_same_result(tmp_path, killed_after):
    settings = config(max_epochs=14, learning_rate=3e-2, batch_size=8, ema_decay=0.9)
    blocks = sample(40), sample(50, seed=1)
    checkpoint = Checkpoint(tmp_path / "fit.safetensors", "key")

    def kill(epoch):
        if epoch.number == killed_after:
            raise KilledError

    with pytest.raises(KilledError):
        fit_flow(small_glow(), *blocks, settings, report=kill, checkpoint=checkpoint)
    resumed, whole = small_glow(seed=9), small_glow()
    reported = []
    fit = fit_flow(resumed, *blocks, settings, report=reported.append, checkpoint=checkpoint)
    reference = fit_flow(whole, *blocks, settings)
    assert [epoch.number for epoch in reported] == list(range(killed_after + 1, 15))
    assert fit == reference
    assert len({epoch.learning_rate for epoch in fit.epochs}) > 1
    assert same(weights_of(resumed), weights_of(whole))


def test_a_finished_fit_is_not_run_again(tmp_path):
    checkpoint = Checkpoint(tmp_path / "fit.safetensors", "key")
    blocks = sample(40), sample(50, seed=1)
    first, second = small_glow(), small_glow(seed=3)
    fit = fit_flow(first, *blocks, config(), checkpoint=checkpoint)
    again = fit_flow(second, *blocks, config(), report=pytest.fail, checkpoint=checkpoint)
    assert again == fit
    assert same(weights_of(first), weights_of(second))


def test_a_checkpoint_of_another_flow_is_passed_over(tmp_path):
    checkpoint = Checkpoint(tmp_path / "fit.safetensors", "key")
    blocks = sample(40), sample(50, seed=1)
    fit_flow(small_glow(hidden_dim=8), *blocks, config(), checkpoint=checkpoint)
    flow, whole = small_glow(), small_glow()
    assert fit_flow(flow, *blocks, config(), checkpoint=checkpoint) == fit_flow(
        whole, *blocks, config()
    )
    assert same(weights_of(flow), weights_of(whole))
