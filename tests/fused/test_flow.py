"""Frozen flows against the modules that they were made from."""

import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from glow_bt.errors import FlowError
from glow_bt.flows import Glow
from glow_bt.flows.freeze import freeze_glow
from glow_bt.fused import FusedFlow
from tests.contracts.registry import FLOWS, build, draw_rows

GLOWS = [name for name in FLOWS if isinstance(build(name), Glow)]
# Rounding of the dtype, times what a deep flow makes of it.
CLOSE = {"float64": 1e-12, "float32": 2e-5}


def settled(flow, seed=0):
    """Return the flow with weights of ordinary size, as after training, in float64."""
    torch.manual_seed(seed)
    x, context = draw_rows(flow, 256, seed, torch.float32)
    with torch.no_grad():
        flow.train().log_prob(x, context)
        for parameter in flow.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return flow.eval().double().requires_grad_(False)


def frozen(flow, dtype="float64"):
    return FusedFlow(freeze_glow(flow), dtype)


def rows_of(flow, count, seed=1):
    return tuple(None if t is None else t.numpy() for t in draw_rows(flow, count, seed))


@pytest.fixture(scope="module")
def flow():
    return settled(build("glow-5-context"))


@pytest.fixture(scope="module")
def fused(flow):
    return frozen(flow)


def error(found, expected):
    return np.max(np.abs(found - expected) / (1 + np.abs(expected)))


@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize("name", GLOWS)
def test_a_frozen_flow_is_its_module(name, dtype):
    flow = settled(build(name))
    fused = frozen(flow, dtype)
    x, context = draw_rows(flow, 83, seed=1)
    z, _ = flow(x, context)
    sides = [None if t is None else t.numpy() for t in (x, context, z)]
    found_z, log_prob = fused.encode(*sides[:2])
    assert found_z.dtype == log_prob.dtype == np.dtype(dtype)
    assert error(found_z, z.numpy()) < CLOSE[dtype]
    assert error(log_prob, flow.log_prob(x, context).numpy()) < CLOSE[dtype]
    back, log_det = flow.inverse(z, context)
    found_back, found_log_det = fused.inverse(sides[2], sides[1])
    assert error(found_back, back.numpy()) < CLOSE[dtype]
    assert error(found_log_det, log_det.numpy()) < CLOSE[dtype]
    assert error(fused.decode(found_z, sides[1]), sides[0]) < 10 * CLOSE[dtype]


@pytest.mark.parametrize("name", GLOWS)
def test_a_row_does_not_depend_on_its_batch(name):
    flow = settled(build(name))
    fused = frozen(flow)
    x, context = rows_of(flow, 70)  # two whole blocks and a bit
    z, log_prob = fused.encode(x, context)
    decoded = fused.decode(z, context)
    for rows in ([0], [69], [3, 5], range(20, 50)):
        picked = list(rows)
        some = None if context is None else context[picked]
        found_z, found_log_prob = fused.encode(x[picked], some)
        assert error(found_z, z[picked]) < 1e-10
        assert error(found_log_prob, log_prob[picked]) < 1e-10
        assert error(fused.decode(z[picked], some), decoded[picked]) < 1e-10


@settings(max_examples=25, deadline=None)
@given(
    width=st.integers(1, 40),
    contexts=st.integers(0, 5),
    hidden=st.integers(1, 70),
    levels=st.integers(1, 4),
    coupling=st.sampled_from(["affine", "additive", "spline"]),
    count=st.integers(1, 140),
)
def test_any_size_is_exact(width, contexts, hidden, levels, coupling, count):
    flow = settled(
        Glow(width, levels, 1, hidden, contexts, coupling=coupling, permutation="conv1x1")
    )
    fused = frozen(flow)
    x, context = draw_rows(flow, count, seed=2)
    sides = [None if t is None else t.numpy() for t in (x, context)]
    z, log_prob = fused.encode(*sides)
    assert error(z, flow(x, context)[0].numpy()) < 1e-11
    assert error(log_prob, flow.log_prob(x, context).numpy()) < 1e-11
    assert error(fused.decode(z, sides[1]), sides[0]) < 1e-9


@pytest.mark.parametrize("dtype", CLOSE)
def test_small_and_far_rows_are_exact(dtype):
    flow = settled(build("glow-16"))
    sizes = np.array([[0.0], [1e-8], [1e-4], [10.0], [50.0], [1e4], [1e12]])
    x = sizes * np.random.default_rng(0).standard_normal((7, 16))
    z, log_prob = frozen(flow, dtype).encode(x)
    rows = torch.tensor(x)
    assert error(z, flow(rows)[0].numpy()) < CLOSE[dtype]
    assert error(log_prob, flow.log_prob(rows).numpy()) < CLOSE[dtype]


@pytest.mark.parametrize("name", ["glow-2", "glow-2-student_t", "glow-2-mixture"])
def test_samples_follow_the_base(name):
    flow = settled(build(name))
    fused = frozen(flow)
    z, _ = fused.encode(fused.sample(20_000, seed=5))
    prior = flow.prior
    for i in range(2):
        if name == "glow-2":
            below = stats.norm.cdf(z[:, i])
        elif name == "glow-2-student_t":
            below = stats.t.cdf(z[:, i], df=prior.log_df.exp().numpy()[i])
        else:
            means, scales = prior.means[:, i].numpy(), prior.log_scales[:, i].exp().numpy()
            below = stats.norm.cdf(z[:, [i]], means, scales) @ prior.logits.softmax(0).numpy()
        assert stats.kstest(below, "uniform").pvalue > 1e-3


def test_samples_repeat_by_seed(fused):
    context = np.ones((1, 3))
    first = fused.sample(50, context, seed=1)
    assert first.shape == (50, 5)
    np.testing.assert_array_equal(first, fused.sample(50, context.repeat(50, axis=0), seed=1))
    assert not np.any(first == fused.sample(50, context, seed=2))
    with pytest.raises(FlowError, match="at least 1 row, found n=0"):
        fused.sample(0, context)


def test_a_copy_is_the_flow(flow, fused):
    x, context = rows_of(flow, 30)
    for copy in (deepcopy(fused), pickle.loads(pickle.dumps(fused))):  # noqa: S301
        np.testing.assert_array_equal(copy.encode(x, context)[1], fused.encode(x, context)[1])


def test_a_fresh_process_needs_no_torch(flow, fused, tmp_path):
    x, context = rows_of(flow, 30)
    (tmp_path / "flow.pickle").write_bytes(pickle.dumps((fused, x, context)))
    code = (
        "import pickle, sys, numpy\n"
        "fused, x, context = pickle.load(open('flow.pickle', 'rb'))\n"
        "numpy.save('found.npy', fused.encode(x, context)[1])\n"
        "assert not {'torch', 'pandas'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "found.npy"), fused.encode(x, context)[1])


def test_threads_share_a_flow(flow, fused):
    blocks = [rows_of(flow, 200, seed) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda block: fused.encode(*block)[1], blocks * 5))
    for block, log_prob in zip(blocks * 5, found, strict=True):
        np.testing.assert_array_equal(log_prob, fused.encode(*block)[1])


def test_whatever_numpy_takes_is_taken(flow, fused):
    x, context = rows_of(flow, 9)
    x, context = x.round(3), context.round(3)
    expected = fused.encode(x, context)[1]
    read_only = x.copy()
    read_only.flags.writeable = False
    for given_x in (x.tolist(), np.asfortranarray(x), np.repeat(x, 2, axis=0)[::2], read_only,
                    torch.tensor(x), x.astype(">f8")):  # fmt: skip
        np.testing.assert_array_equal(fused.encode(given_x, context)[1], expected)
    np.testing.assert_array_equal(x, read_only)  # what is given stays as it is
    whole = np.arange(10).reshape(2, 5)
    np.testing.assert_array_equal(
        fused.encode(whole, context[:2])[0], fused.encode(whole.astype(float), context[:2])[0]
    )
    z, log_prob = fused.encode(np.empty((0, 5)), np.empty((0, 3)))
    assert z.shape == (0, 5)
    assert log_prob.shape == (0,)


@pytest.mark.parametrize(
    ("x", "context", "message"),
    [
        (np.zeros((4, 6)), np.zeros((4, 3)), r"expected rows of shape \(N, 5\), found \(4, 6\)"),
        (np.zeros(5), np.zeros((1, 3)), r"expected rows of shape \(N, 5\), found \(5,\)"),
        (np.zeros((4, 5)), None, r"expected a context of shape \(N, 3\), found none"),
        (np.zeros((4, 5)), np.zeros((4, 2)), r"expected contexts of shape \(N, 3\), found"),
        (np.zeros((4, 5)), np.zeros((3, 3)), "found 3 contexts for 4 rows"),
        ([["a"] * 5], np.zeros((1, 3)), "expected rows of real numbers, found an array of <U1"),
        ([[1, 2], [3]], np.zeros((1, 3)), r"expected rows of shape \(N, 5\), found setting"),
        (np.zeros((4, 5), complex), np.zeros((4, 3)), "found an array of complex128"),
        (None, np.zeros((4, 3)), "found an array of object"),
    ],
)
def test_rubbish_is_refused(fused, x, context, message):
    with pytest.raises(FlowError, match=message):
        fused.encode(x, context)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("count", [1, 200])
def test_rows_that_are_not_finite_are_named(flow, fused, value, count):
    x, context = rows_of(flow, count)
    x[count - 1, 2] = value
    with pytest.raises(FlowError, match=f"expected finite rows, found 1 .* first row {count - 1}"):
        fused.encode(x, context)
    with pytest.raises(FlowError, match=f"finite latents, found 1 .* first row {count - 1}"):
        fused.decode(x, context)
    x, context = rows_of(flow, count)
    context[count - 1, 0] = value
    with pytest.raises(FlowError, match=f"finite contexts, found 1 .* first row {count - 1}"):
        fused.encode(x, context)


def test_a_density_is_never_nan():
    flow = settled(build("glow-2-no-tails"))
    flow.levels[0].norm.log_scale += 5.0
    fused = frozen(flow)
    x = np.zeros((70, 2))
    x[66] = 1e308  # infinity less infinity on the way
    with pytest.raises(FlowError, match="overflows, row 66"):
        fused.encode(x)


def test_what_float32_cannot_hold_is_refused():
    fused = frozen(settled(build("glow-2")), "float32")
    with pytest.raises(FlowError, match="expected finite rows, found 1"):
        fused.encode([[1e300, 0.0]])


def test_a_context_too_many_is_refused():
    fused = frozen(settled(build("glow-2")))
    with pytest.raises(FlowError, match="expected no context"):
        fused.encode(np.zeros((3, 2)), np.zeros((3, 1)))


@pytest.mark.parametrize("dtype", ["float16", "int64", "complex128", "nonsense", int])
def test_other_dtypes_are_refused(fused, dtype):
    with pytest.raises(FlowError, match="expected dtype 'float64' or 'float32'"):
        FusedFlow(freeze_glow(settled(build("glow-2"))), dtype)


def test_an_untrained_flow_is_refused():
    with pytest.raises(FlowError, match="untrained"):
        freeze_glow(build("glow-5"))
