"""Elementary functions of lanes, to a few units in the last place of either dtype.

Arguments are reduced by powers of two and the rest goes through a Taylor series as long as the
dtype needs. NaN and infinities come out as from NumPy, unless a docstring says otherwise.
"""

from __future__ import annotations

import math
from typing import Any

from glow_bt.fused.compiled import compiled
from glow_bt.fused.lanes import (
    multiply_add,
    polynomial,
    power_of_two,
    round_even,
    select,
    split_power,
)

__all__ = ["absolute", "exp", "expm1", "log", "log1p", "softplus", "tanh"]

_LOG2_E = 1 / math.log(2)
# log(2) in two parts; the first has so few bits that its product with an exponent is exact.
_LN2_HIGH = 0.693359375
_LN2_LOW = -2.1219444005469058277e-4
# Beyond these e^x is infinite, or 0.
_most = polynomial((89.0,), (710.0,))
_least = polynomial((-104.0,), (-746.0,))

# (exp(r) - 1 - r) / r^2 on |r| <= log(2) / 2.
_exp_rest = polynomial(
    tuple(1 / math.factorial(k) for k in range(2, 9)),
    tuple(1 / math.factorial(k) for k in range(2, 15)),
)
# (2 atanh(s) - 2 s) / s^3 as a function of s^2, on |s| <= 0.172.
_atanh_rest = polynomial(
    tuple(2 / (2 * k + 1) for k in range(1, 6)),
    tuple(2 / (2 * k + 1) for k in range(1, 12)),
)


@compiled
def _expm1_parts(x: Any) -> Any:
    """Return exp(r) - 1 and n with x = n log(2) + r."""
    n = round_even(x * _LOG2_E)
    r = multiply_add(n, -_LN2_HIGH, x)
    r = multiply_add(n, -_LN2_LOW, r)
    return multiply_add(r * r, _exp_rest(r), r), n


@compiled
def exp(x: Any) -> Any:
    """Return e^x."""
    most, least = _most(x), _least(x)
    bounded = select(x > most, most, select(x < least, least, x))
    rest, n = _expm1_parts(bounded)
    # In two steps, because 2^n alone may lie outside of the range that e^x lies in.
    half = round_even(n * 0.5)
    return (rest + 1.0) * power_of_two(half) * power_of_two(n - half)


@compiled
def expm1(x: Any) -> Any:
    """Return e^x - 1 for |x| below 80."""
    rest, n = _expm1_parts(x)
    power = power_of_two(n)
    return multiply_add(rest, power, power - 1.0)


@compiled
def tanh(x: Any) -> Any:
    """Return (e^2x - 1) / (e^2x + 1)."""
    bounded = select(x > 20.0, 20.0, select(x < -20.0, -20.0, x))
    e = expm1(bounded * 2.0)
    return e / (e + 2.0)


@compiled
def _log_near_one(f: Any) -> Any:
    """Return log(1 + f) = 2 atanh(f / (2 + f)) for 1 + f in [sqrt(1/2), sqrt(2))."""
    s = f / (f + 2.0)
    square = s * s
    return multiply_add(s * square, _atanh_rest(square), s * 2.0)


@compiled
def log(x: Any) -> Any:
    """Return the natural logarithm, for normal x > 0."""
    m, n = split_power(x)
    rest = multiply_add(n, _LN2_LOW, _log_near_one(m - 1.0))
    return select(x < math.inf, multiply_add(n, _LN2_HIGH, rest), x)


@compiled
def log1p(x: Any) -> Any:
    """Return log(1 + x) for x >= 0."""
    y = x + 1.0
    lost = x - (y - 1.0)
    m, n = split_power(y)
    # From 2^100 on nothing is lost, and 2^-n may be out of range.
    f = multiply_add(lost, power_of_two(select(n > 100.0, -100.0, n * -1.0)), m - 1.0)
    rest = multiply_add(n, _LN2_LOW, _log_near_one(f))
    return select(x < math.inf, multiply_add(n, _LN2_HIGH, rest), x)


@compiled
def absolute(x: Any) -> Any:
    """Return |x|."""
    return select(x < 0.0, x * -1.0, x)


@compiled
def softplus(x: Any) -> Any:
    """Return log(1 + e^x)."""
    positive = select(x < 0.0, 0.0, x)
    return positive + log1p(exp(absolute(x) * -1.0))
