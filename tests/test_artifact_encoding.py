"""The way that states take through a model's flows."""

import pickle

import numpy as np
import pytest
import torch

from glow_bt.artifact.encoding import encoder_of
from glow_bt.errors import FlowError
from glow_bt.flows import NormalPrior
from glow_bt.flows.base import Flow
from tests.contracts.registry import draw_rows, fitted
from tests.models import small_artifact


class Watched(Flow):
    """The identity; it notes how torch runs it."""

    def __init__(self):
        super().__init__(2)
        self.prior = NormalPrior(2).double()
        self.blocks = []

    def forward(self, x, context=None):
        assert torch.get_num_threads() == 1
        if (x > 100).any():
            raise FlowError("far out")
        self.blocks.append(len(x))
        return x, x.new_zeros(len(x))

    def inverse(self, z, context=None):
        return self.forward(z)


@pytest.fixture(params=[1, 2])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", ["glow-16", "glow-6-student_t", "flow_matching-1-no-tails"])
def test_it_is_what_the_module_says(name):
    flow = fitted(name)
    x, _ = draw_rows(flow, 300, seed=2)
    latents, log_prob = encoder_of(flow)(x.numpy())
    with torch.no_grad():
        z, _ = flow(x)
        np.testing.assert_allclose(latents, z, rtol=0, atol=1e-12)
        np.testing.assert_allclose(log_prob, flow.log_prob(x), rtol=0, atol=1e-11)


def test_a_module_runs_in_blocks_on_one_thread_and_gives_the_users_back(threads):
    flow = Watched()
    states = np.random.default_rng(0).normal(size=(10_000, 2))
    states.flags.writeable = False  # as a frame's values are
    latents, _ = encoder_of(flow)(states)
    np.testing.assert_array_equal(latents, states)
    assert flow.blocks == [4096, 4096, 1808]
    assert torch.get_num_threads() == threads
    with pytest.raises(FlowError, match="far out"):
        encoder_of(flow)(states + 200)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("name", ["glow-5", "flow_matching-6"])
def test_no_density_is_nan_without_a_word(name):
    flow = fitted(name)
    states = np.zeros((5000, flow.num_features))
    states[4500] = 1.7e308
    with pytest.raises(FlowError, match=r"row 4500: \[1.7e\+308"):
        encoder_of(flow)(states)


@pytest.mark.parametrize("name", ["glow-5", "flow_matching-1-no-tails"])
def test_rubbish_is_refused_either_way(name):
    flow = fitted(name)
    encode = encoder_of(flow)
    states = np.zeros((5, flow.num_features))
    states[3] = np.nan
    with pytest.raises(FlowError, match="first row 3"):
        encode(states)
    with pytest.raises(FlowError, match=rf"shape \(N, {flow.num_features}\)"):
        encode(np.zeros((5, flow.num_features + 1)))


def test_an_artifact_that_has_scored_can_be_sent_to_another_process():
    artifact = small_artifact()
    reading = artifact.read(artifact.probe)
    again = pickle.loads(pickle.dumps(artifact)).read(artifact.probe)  # noqa: S301
    np.testing.assert_array_equal(again.log_prob, reading.log_prob)
    np.testing.assert_array_equal(again.latents, reading.latents)


def test_a_return_model_that_has_forecast_can_be_sent_to_another_process():
    model, contexts = small_artifact().returns, small_artifact().return_probe
    quantile = model.fused(1).distribution(contexts).quantile(0.01)
    again = pickle.loads(pickle.dumps(model))  # noqa: S301
    np.testing.assert_array_equal(again.fused(1).distribution(contexts).quantile(0.01), quantile)
