"""Elementary functions of lanes against NumPy's in longer numbers."""

import numpy as np
import pytest
from numba import njit

from glow_bt.fused import elementary
from glow_bt.fused.lanes import VECTOR_BYTES, load, store

NAMES = ("exp", "expm1", "log", "log1p", "softplus", "tanh")
_exp, _expm1, _log = elementary.exp, elementary.expm1, elementary.log
_log1p, _softplus, _tanh = elementary.log1p, elementary.softplus, elementary.tanh


@njit(error_model="numpy")
def apply_all(x, y):
    for i in range(0, x.size, VECTOR_BYTES // x.itemsize):
        value = load(x, i)
        store(y[0], i, _exp(value))
        store(y[1], i, _expm1(value))
        store(y[2], i, _log(value))
        store(y[3], i, _log1p(value))
        store(y[4], i, _softplus(value))
        store(y[5], i, _tanh(value))


def arguments(dtype):
    """Return numbers of every size in the range of each function."""
    rng = np.random.default_rng(0)
    small = 10.0 ** rng.uniform(-12, 1.8, 20_000) * rng.choice([-1, 1], 20_000)
    large = 10.0 ** rng.uniform(-37, 38, 20_000)
    wide = rng.uniform(-700, 700, 20_000) if dtype == np.float64 else rng.uniform(-87, 87, 20_000)
    return {
        "exp": np.concatenate([small, wide]),
        "expm1": small,
        "log": np.concatenate([large, 1 + 1e-3 * rng.normal(size=20_000)]),
        "log1p": large,
        "softplus": small,
        "tanh": np.concatenate([small, wide]),
    }


def computed(x):
    x = np.ascontiguousarray(np.resize(x, -(-x.size // 16) * 16))
    y = np.empty((len(NAMES), x.size), x.dtype)
    apply_all(x, y)
    return dict(zip(NAMES, y, strict=True)), x


REFERENCES = {
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "softplus": lambda x: np.logaddexp(x, np.longdouble(0)),
    "tanh": np.tanh,
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_functions_are_exact_to_a_few_units_in_the_last_place(dtype):
    for name, numbers in arguments(dtype).items():
        values, x = computed(numbers.astype(dtype))
        expected = REFERENCES[name](x.astype(np.longdouble))
        last_place = np.spacing(np.abs(expected).astype(dtype))
        assert np.max(np.abs(values[name] - expected) / last_place) < 4, name


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_no_number_stays_none(dtype):
    values, _ = computed(np.full(16, np.nan, dtype))
    assert all(np.isnan(value).all() for value in values.values())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_infinities_come_out_as_from_numpy(dtype):
    values, _ = computed(np.full(16, np.inf, dtype))
    for name in ("exp", "log", "log1p", "softplus"):
        assert np.isposinf(values[name]).all(), name
    assert (values["tanh"] == 1).all()
    values, _ = computed(np.full(16, -np.inf, dtype))
    assert (values["exp"] == 0).all()
    assert (values["softplus"] == 0).all()
    assert (values["tanh"] == -1).all()
