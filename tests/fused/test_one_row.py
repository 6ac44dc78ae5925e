"""One row by itself, in compiled code, against many in NumPy."""

import math

import numpy as np
import pytest

from glow_bt.errors import FlowError
from glow_bt.fused import SkewedTails, one_row
from tests.flows.univariate_samples import INDICES, contexts_of, settled, tails_of

KERNELS = ("mean_beyond", "parameters", "quantile_spread", "quantiles", "values_at")
FIGURES = ("scale", "left", "right")


def twice(own):
    """Return the row two times, which goes through NumPy."""
    rows = (np.repeat(getattr(own, name), 2) for name in FIGURES)
    return SkewedTails(*rows, own.location, own.spline)


@pytest.mark.parametrize(("left", "right"), INDICES)
def test_values_at_latents_are_those_of_numpy(left, right):
    own = tails_of(left, right, 0.01)
    spline = own.spline
    knots = [*spline.y, *np.nextafter(spline.y, 9), *np.nextafter(spline.y, -9)]
    z = np.array([*np.linspace(-9, 9, 181), *own.kinks, *knots, -30, 30, 1e-200, math.nan])
    expected = twice(own).at_latent(z)[0]
    np.testing.assert_allclose(own.at_latent(z), expected[None], rtol=1e-13, atol=1e-18)
    np.testing.assert_array_equal(own.at_latent(z[None]), own.at_latent(z))
    np.testing.assert_array_equal(
        own.at_latent(np.array([z, z])), np.repeat([own.at_latent(z)[0]], 2, 0)
    )


@pytest.mark.parametrize("p", [1e-6, 0.01, 0.5, 0.975])
def test_quantiles_and_shortfalls_are_those_of_numpy(p):
    own = tails_of(2.0, 6.0, 0.01)
    both = twice(own)
    np.testing.assert_array_equal(both.quantile(p), np.repeat(own.quantile(p), 2))
    np.testing.assert_allclose(own.shortfall(p), both.shortfall(p)[:1], rtol=1e-13)


@pytest.mark.parametrize("shape", [(2, 1), (7, 10)], ids=str)
def test_parameters_and_errors_of_one_context_are_those_among_many(shape):
    flow = settled(*shape)
    fused, context = flow.fused(), 3 * contexts_of(flow, 40).numpy()
    together, errors = fused.distribution(context), fused.quantile_error(0.02, context)
    for i in range(40):
        row = context[i : i + 1]
        for name in FIGURES:
            expected = getattr(together, name)[i]
            np.testing.assert_allclose(
                getattr(fused.distribution(row), name), expected, rtol=1e-13
            )
        np.testing.assert_allclose(fused.quantile_error(0.02, row), errors[i], rtol=1e-10)


def test_an_error_is_that_of_its_own_level_and_context_whatever_was_asked_before():
    flow = settled(2, 3)
    fused, context = flow.fused(), contexts_of(flow, 2).numpy()
    asked = [(p, i) for p in (0.01, 0.2) for i in (0, 1)]
    alone = [flow.fused().quantile_error(p, context[i : i + 1])[0] for p, i in asked]
    assert len(set(alone)) == 4
    for k in (0, 1, 3, 2, 0, 3):
        p, i = asked[k]
        fused.distribution(context[1:])
        assert fused.quantile_error(p, context[i : i + 1])[0] == alone[k]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_context_that_is_not_finite_is_refused(bad):
    fused = settled(2, 3).fused()
    for ask in (fused.distribution, lambda row: fused.quantile_error(0.1, row)):
        with pytest.raises(FlowError, match="expected finite contexts, found row 0"):
            ask([[0.0, bad]])
        assert np.isfinite(fused.distribution([[0.0, 1.0]]).scale).all()


def test_no_array_that_users_give_makes_a_kernel_compile_anew():
    fused = settled(2, 3).fused()
    for context in (np.ones((1, 2)), np.ones((2, 1)).T, np.ones((1, 4))[:, ::2], [[1, 1]]):
        if isinstance(context, np.ndarray):
            context.flags.writeable = False
        own = fused.distribution(context)
        fused.quantile_error(0.01, context)
    for name in FIGURES:
        getattr(own, name).flags.writeable = False
    own = own.rows(slice(None, None, -1))
    z = np.linspace(-3, 3, 9)[::2]
    z.flags.writeable = False
    for values in (own.at_latent(z), own.at_latent(np.arange(3)), own.quantile(0.1)):
        assert np.isfinite(values).all()
    own.shortfall(0.1)
    assert [len(getattr(one_row, name).signatures) for name in KERNELS] == [1] * len(KERNELS)
