"""The frozen one-dimensional density against its module."""

import pickle
import sys
from dataclasses import fields

import numpy as np
import pytest
from scipy.stats import norm

from glow_bt.errors import FlowError
from glow_bt.flows import UnivariateFlow
from tests.contracts.registry import draw_rows
from tests.flows.univariate_samples import contexts_of, settled

SHAPES = [(0, 1), (0, 3), (2, 1), (2, 3), (7, 10)]
LEVELS = (1e-6, 0.01, 0.05, 0.5, 0.95, 1 - 1e-6)


def of(shape):
    context_features, num_members = shape
    return settled(context_features, num_members)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_is_its_module(shape):
    flow = of(shape)
    fused = flow.fused()
    y, context = draw_rows(flow, 300, seed=1)
    y[:4, 0] = y.new_tensor([0.0, 1e-20, 300.0, -4e6])
    own = fused.distribution(None if context is None else context.numpy())
    rows = y[:, 0].numpy()
    scale = flow.scale(context)
    np.testing.assert_allclose(own.scale, scale, rtol=1e-12)
    np.testing.assert_allclose(own.log_prob(rows), flow.log_prob(y, context), rtol=1e-12)
    np.testing.assert_allclose(own.latent(rows), flow(y, context)[0][:, 0], rtol=1e-11, atol=1e-13)
    # torch's normal distribution function is exact to 1e-16 of 1 only.
    np.testing.assert_allclose(own.cdf(rows), flow.cdf(y, context), rtol=1e-12, atol=1e-15)
    for p in LEVELS:
        expected = flow.quantile(p, context)
        np.testing.assert_allclose(own.quantile(p), expected, rtol=1e-12, atol=1e-13)
    for p in (0.01, 0.05, 0.5):
        # The module's quadrature does not know of the spline's kinks.
        expected = flow.expected_shortfall(p, context)
        np.testing.assert_allclose(own.shortfall(p), expected, rtol=1e-4)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_each_member_is_the_flow_of_that_member(shape):
    flows = [settled(shape[0], seed=seed) for seed in range(shape[1])]
    context = contexts_of(flows[0], 9)
    members = (
        UnivariateFlow.averaged(flows)
        .fused()
        .members(None if context is None else context.numpy())
    )
    assert len(members) == shape[1]
    for own, flow in zip(members, flows, strict=True):
        for p in LEVELS:
            expected = flow.quantile(p, context)
            np.testing.assert_allclose(own.quantile(p), expected, rtol=1e-12, atol=1e-13)


def test_quantile_error_is_the_grouped_jackknife():
    flows = [settled(2, seed=seed) for seed in range(4)]
    fused = UnivariateFlow.averaged(flows).fused()
    context = contexts_of(flows[0], 9)
    said = np.array([flow.quantile(0.05, context).numpy() for flow in flows])
    mean = said.sum(axis=0) / 4
    expected = np.sqrt(3 / 4 * ((said - mean) ** 2).sum(axis=0))
    found = fused.quantile_error(0.05, context.numpy())
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    assert (found > 0).all()


def test_the_jackknife_of_a_mean_is_its_standard_error():
    """Each member is the mean of all draws but one: the textbook's case, sd / sqrt(n)."""
    draws = np.random.default_rng(0).normal(3.0, 2.0, 12)
    flow = settled(0, 12)
    for parameter in (flow.log_scale, flow.log_excess, flow.knots):
        parameter.copy_(parameter[:1].clone().expand_as(parameter))
    left_out = (draws.sum() - draws) / 11
    flow.location.copy_(flow.location.new_tensor(left_out)[:, None])
    expected = draws.std(ddof=1) / 12**0.5 * flow.scale().item()
    np.testing.assert_allclose(flow.fused().quantile_error(0.3), expected, rtol=1e-12)


@pytest.mark.parametrize("context_features", [0, 2])
def test_one_member_says_nothing_of_its_error(context_features):
    flow = settled(context_features)
    context = contexts_of(flow, 5)
    error = flow.fused().quantile_error(0.01, None if context is None else context.numpy())
    np.testing.assert_array_equal(error, np.zeros(1 if context is None else 5))


def test_a_fresh_flow_has_the_identity_for_a_body():
    fused = UnivariateFlow(2, num_members=2).fused()
    own = fused.distribution(np.zeros((1, 2)))
    for p in LEVELS:
        z = norm.ppf(p)
        index = own.left[0]
        expected = np.copysign(np.sqrt(index * np.expm1(z * z / index)), z)
        np.testing.assert_allclose(own.quantile(p), expected, rtol=1e-12, atol=1e-15)


def test_contexts_far_out_are_clipped():
    fused = settled(2, 3).fused()
    far, near = ([[1e6, -9.0], [0.5, 4.5]], [[4.0, -4.0], [0.5, 4.0]])
    np.testing.assert_array_equal(fused.distribution(far).scale, fused.distribution(near).scale)
    np.testing.assert_array_equal(fused.distribution(far).left, fused.distribution(near).left)


def test_a_context_has_the_same_distribution_in_any_company():
    fused = settled(7, 10).fused()
    context = np.random.default_rng(0).normal(size=(9000, 7))  # more than two blocks
    together = fused.distribution(context)
    for i in (0, 4095, 4096, 8999):
        alone = fused.distribution(context[i : i + 1])
        for name in ("scale", "left", "right"):
            expected = getattr(together, name)[i]
            np.testing.assert_allclose(getattr(alone, name), expected, rtol=1e-12)


def test_no_contexts_have_no_distributions():
    fused = settled(2, 3).fused()
    assert len(fused.distribution(np.empty((0, 2)))) == 0
    assert fused.quantile_error(0.1, np.empty((0, 2))).shape == (0,)


def test_a_float32_flow_is_frozen_in_float64():
    flow = settled(2, 3).float()
    fused = flow.fused()
    for field in fields(fused.parts):
        value = getattr(fused.parts, field.name)
        if isinstance(value, np.ndarray):
            assert value.dtype == np.float64
    context = contexts_of(flow, 5)
    expected = flow.double().quantile(0.01, context)
    found = fused.distribution(context.numpy()).quantile(0.01)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_freezing_is_a_copy():
    flow = settled(2, 3)
    fused = flow.fused()
    before = fused.distribution(np.ones((1, 2))).quantile(0.01)
    for parameter in flow.parameters():
        parameter.zero_()
    np.testing.assert_array_equal(fused.distribution(np.ones((1, 2))).quantile(0.01), before)


def test_rubbish_is_refused():
    fused = settled(2, 3).fused()
    assert (fused.context_features, fused.num_members) == (2, 3)
    for ask in (fused.distribution, fused.members, lambda c=None: fused.quantile_error(0.1, c)):
        with pytest.raises(FlowError, match=r"context of shape \(N, 2\), found none"):
            ask()
        for wrong, found in ((np.zeros((4, 3)), r"\(4, 3\)"), (np.zeros(2), r"\(2,\)"), (1.0, "")):
            with pytest.raises(FlowError, match=rf"context of shape \(N, 2\), found {found}"):
                ask(wrong)
        with pytest.raises(FlowError, match=r"finite contexts, found row 1: \[0.0, nan\]"):
            ask([[0.0, 0.0], [0.0, np.nan]])
        with pytest.raises(FlowError, match="finite contexts, found row 0"):
            ask([[np.inf, 0.0]])
    with pytest.raises(FlowError, match="expected no context, found one"):
        settled(0).fused().distribution(np.zeros((1, 2)))
    with pytest.raises(FlowError, match="probability inside"):
        fused.quantile_error(1.0, np.zeros((1, 2)))


def test_contexts_that_are_no_numbers_are_refused():
    with pytest.raises(FlowError, match="context"):
        settled(3).fused().distribution([["a", "b", "c"]])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_copy_is_the_flow(shape):
    fused = of(shape).fused()
    context = np.ones((4, shape[0])) if shape[0] else None
    copy = pickle.loads(pickle.dumps(fused))  # noqa: S301
    expected = fused.distribution(context).quantile(0.01)
    np.testing.assert_array_equal(copy.distribution(context).quantile(0.01), expected)
    np.testing.assert_array_equal(
        copy.quantile_error(0.01, context), fused.quantile_error(0.01, context)
    )


def test_its_modules_do_not_need_torch():
    for name in ("univariate", "skewed_tails", "knots"):
        assert "torch" not in vars(sys.modules[f"glow_bt.fused.{name}"])
