import json
import math
from argparse import ArgumentParser

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from torch import nn

pytest.importorskip("zuko", reason="needs zuko: pip install 'glow-bt[bench]'")

from benchmarks.density import market as benchmark
from benchmarks.density.candidates import (
    FLOWS,
    GAUSSIAN,
    GLOW,
    MIXTURE,
    TAILED,
    Candidate,
    Fitted,
    ZukoFlow,
    candidates,
    fitted,
)
from benchmarks.density.fitting import Schedule, fit, log_prob
from benchmarks.density.reports import _json_ready
from datafeeds.samples import load_sample
from glow_bt.errors import TrainingError
from glow_bt.flows import Glow

SMALL = Candidate(GLOW, {"num_levels": 1, "num_steps": 2, "hidden_dim": 8})
SHORT = Schedule(epochs=2, batch_size=64)


@pytest.fixture
def blocks():
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(4, 4))
    draws = {"train": 1000, "validation": 500, "test": 500}
    return {name: rng.normal(size=(n, 4)) @ mixing for name, n in draws.items()}


def rows(blocks, *names):
    return [torch.from_numpy(blocks[name]) for name in names]


def result(family, validation_nll, seed=0, test=(0.0,), label=0):
    candidate = Candidate(family, {"number": label})
    return Fitted(candidate, seed, 10, validation_nll, np.array(test), {})


def test_a_fit_comes_near_the_density_of_a_gaussian(blocks):
    torch.manual_seed(0)
    schedule = Schedule(epochs=8, batch_size=64, learning_rate=1e-2)
    flow, course = fit(
        Glow(4, 1, 2, 8, tails=False), *rows(blocks, "train", "validation"), schedule, seed=0
    )
    train = blocks["train"]
    truth = multivariate_normal(train.mean(axis=0), np.cov(train.T)).logpdf(blocks["test"])
    found = log_prob(flow, torch.from_numpy(blocks["test"]))
    assert found.dtype == torch.float64
    assert float(found.mean()) == pytest.approx(truth.mean(), abs=0.1)
    assert len(course.train_nll) == len(course.validation_nll) == 8


def test_a_fit_keeps_the_best_epoch_and_repeats(blocks):
    def once():
        torch.manual_seed(3)
        schedule = Schedule(epochs=4, batch_size=64, learning_rate=0.05, noise=0.1)
        return fit(Glow(4, 1, 2, 8), *rows(blocks, "train", "validation"), schedule, seed=3)

    flow, course = once()
    kept = -float(log_prob(flow, torch.from_numpy(blocks["validation"])).mean())
    assert kept == pytest.approx(min(course.validation_nll), abs=1e-4)
    assert course.best_epoch == 1 + int(np.argmin(course.validation_nll))
    assert once()[1].validation_nll == course.validation_nll


class Shift(nn.Module):
    """A unit Gaussian around a learned place; remembers every place that a step started from."""

    def __init__(self):
        super().__init__()
        self.place = nn.Parameter(torch.zeros(1))
        self.places = []

    def log_prob(self, x):
        if self.training and torch.is_grad_enabled():
            self.places.append(self.place.item())
        return -0.5 * (x - self.place).square().sum(dim=1)

    def __deepcopy__(self, memo):
        copy = Shift()
        copy.load_state_dict(self.state_dict())
        return copy


def test_what_is_kept_is_an_average_with_a_short_memory_at_first():
    x = torch.full((40, 1), 5.0)
    schedule = Schedule(epochs=1, batch_size=4, learning_rate=0.1, averaging=0.3)
    flow = Shift()
    average, _ = fit(flow, x, x, schedule, seed=0)
    after = [*flow.places[1:], flow.place.item()]
    expected = 0.0
    for step, place in enumerate(after, start=1):
        kept = min(0.3, step / (step + 9))
        expected = kept * expected + (1 - kept) * place
    assert len(after) == 10
    assert average.place.item() == pytest.approx(expected, rel=1e-5)


def test_the_learning_rate_falls_to_nothing():
    x = torch.full((400, 1), 5.0)
    flow = Shift()
    fit(flow, x, x, Schedule(epochs=1, batch_size=4, learning_rate=1e-3), seed=0)
    steps = np.diff(flow.places)
    # Far from its goal Adam moves by the learning rate.
    assert steps[0] == pytest.approx(1e-3, rel=1e-3)
    assert steps[50] == pytest.approx(0.5e-3, rel=0.1)
    assert 0 < steps[-1] < 1e-5


def test_a_fit_without_a_finite_likelihood_is_an_error(blocks):
    train, validation = rows(blocks, "train", "validation")
    validation = validation * math.nan
    with pytest.raises(TrainingError, match="found none"):
        fit(Shift(), train, validation, SHORT, seed=0)


def test_a_search_does_not_look_at_the_test_block(blocks):
    first = fitted(SMALL, blocks, SHORT, 0, test=False)
    blocks["test"] = np.full((7, 4), np.nan)
    second = fitted(SMALL, blocks, SHORT, 0, test=False)
    assert first.validation_nll == second.validation_nll
    assert first.test_log_prob.size == 0


def test_one_component_is_the_gaussian(blocks):
    found = fitted(Candidate(GAUSSIAN), blocks, SHORT, 0, test=True)
    train = blocks["train"]
    truth = multivariate_normal(train.mean(axis=0), np.cov(train.T, bias=True))
    np.testing.assert_allclose(found.test_log_prob, truth.logpdf(blocks["test"]), atol=1e-4)
    assert found.parameters == 4 + 10


@pytest.mark.parametrize("family", ["MAF", "NSF", "RealNVP"])
def test_tails_before_a_flow_of_zuko_count_in_the_density(family):
    torch.manual_seed(0)
    flow = ZukoFlow(family, num_steps=1, hidden_dim=8, tails=True).double()
    x = 3 * torch.randn(3, 16, dtype=torch.float64)
    flow.tails.fit(x)

    def lighten(row):
        return flow.tails(row[None])[0][0]

    jacobians = [torch.autograd.functional.jacobian(lighten, row) for row in x]
    log_dets = torch.stack([torch.linalg.slogdet(j).logabsdet for j in jacobians])
    expected = flow.net().log_prob(torch.stack([lighten(row) for row in x])) + log_dets
    torch.testing.assert_close(flow.log_prob(x), expected, atol=1e-9, rtol=0.0)


def test_every_flow_is_tried_in_the_same_ways():
    tried = candidates()
    ways = {
        family: {tuple(c.training.items()) for c in tried if c.family == family}
        for family in FLOWS
    }
    assert set(ways) == {c.family for c in tried} - {GAUSSIAN, MIXTURE}
    assert all(found == ways[GLOW] for found in ways.values())
    assert len(tried) == len({(c.family, c.label) for c in tried})
    assert set(TAILED) < set(FLOWS)


def test_the_choice_is_by_validation():
    families = benchmark.FAMILIES
    results = [result(f, nll, label=nll) for f in families for nll in (3.0, 1.0, 2.0)]
    assert [c.label for c in benchmark.chosen(results)] == ["number 1.0"] * len(families)


def test_a_mixture_of_seeds_is_one_of_densities():
    densities = np.array([[0.2, 0.4], [0.6, 0.1]])
    fits = [result(GLOW, 0.0, test=np.log(row)) for row in densities]
    expected = -np.log(densities.mean(axis=0)).mean()
    assert benchmark.ensemble_nll(fits) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("rival", "expected"),
    [
        ([1.5, 1.6], "+0.500, GLOW lower"),
        ([0.5, 0.6], "-0.500, the other lower"),
        ([1.10, 1.24], "+0.120, within spread"),
    ],
)
def test_a_verdict_needs_more_than_both_spreads(rival, expected):
    assert benchmark.verdict([1.0, 1.1], rival) == expected


def test_states_are_divided_in_time_and_scaled_by_the_past():
    bars = load_sample("sp500").iloc[-1500:]
    whole = benchmark.market("days", bars)
    changed = bars.copy()
    changed.iloc[1300:, :4] *= 1.5
    other = benchmark.market("days", changed)
    for block in ("train", "validation"):
        np.testing.assert_array_equal(whole.blocks[block], other.blocks[block])
    assert not np.array_equal(whole.blocks["test"], other.blocks["test"])
    assert whole.sha256 != other.sha256
    np.testing.assert_allclose(np.median(whole.blocks["train"], axis=0), 0.0, atol=1e-12)
    # 1,500 bars with 61 of warm-up, and 62 lost before validation and before test.
    assert [len(x) for x in whole.blocks.values()] == [1050 - 61, 225 - 62, 225 - 62]


def test_a_short_run_makes_a_page(monkeypatch):
    monkeypatch.delenv(benchmark.BTC_VARIABLE, raising=False)
    monkeypatch.setattr(benchmark, "FAMILIES", (GAUSSIAN, GLOW))
    monkeypatch.setattr(benchmark, "DAILY", {"days": "sp500"})
    monkeypatch.setattr(benchmark, "candidates", lambda: [Candidate(GAUSSIAN), SMALL])
    parser = ArgumentParser()
    benchmark.add_arguments(parser)
    report = benchmark.run(parser.parse_args(["--quick", "--seeds", "2", "--jobs", "1"]))
    assert any("smoke test" in note for note in report.notes)
    assert any("left out" in note for note in report.notes)
    final = report.numbers["markets"]["days"]["final"]
    assert [len(final[family]["fits"]) for family in (GAUSSIAN, GLOW)] == [1, 2]
    nll = [run["test_nll"] for run in final[GLOW]["fits"]]
    assert f"{np.mean(nll):.3f}" in report.tables["days, test NLL"]
    assert json.dumps(_json_ready(report.numbers), allow_nan=False)
