"""Vectors of numbers as values of compiled code: one machine register, one row a lane.

Loops over rows are written with these, so that they run on the widest registers of the machine
whatever the compiler makes of a loop. `Lanes` add, subtract, multiply, divide and compare with
each other and with plain numbers; the functions below do the rest.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, lower_cast, models, register_model

__all__ = [
    "VECTOR_BYTES",
    "Lanes",
    "Mask",
    "element_type",
    "fill",
    "filled",
    "load",
    "multiply_add",
    "pointer_to",
    "polynomial",
    "power_of_two",
    "round_even",
    "select",
    "split_power",
    "square_root",
    "store",
    "sum_of_lanes",
    "vector_of",
]

# 64 bytes where the machine has registers of that size; elsewhere 32, in two halves if need be.
VECTOR_BYTES = 64 if llvm.get_host_cpu_features().get("avx512f", False) else 32

Codegen = Callable[..., Any]


class Lanes(types.Type):
    """A register of float32 or float64 numbers."""

    def __init__(self, dtype: types.Float) -> None:
        self.dtype = dtype
        self.count = VECTOR_BYTES * 8 // dtype.bitwidth
        super().__init__(name=f"Lanes({dtype}, {self.count})")


class Mask(types.Type):
    """A truth value a lane."""

    def __init__(self, count: int) -> None:
        self.count = count
        super().__init__(name=f"Mask({count})")


def element_type(dtype: types.Float) -> ir.Type:
    """Return LLVM's type of a number."""
    return ir.FloatType() if dtype.bitwidth == 32 else ir.DoubleType()


def vector_of(lanes: Lanes) -> ir.VectorType:
    """Return LLVM's type of a register."""
    return ir.VectorType(element_type(lanes.dtype), lanes.count)


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, lanes: Lanes) -> None:
        super().__init__(manager, lanes, vector_of(lanes))


@register_model(Mask)
class _MaskModel(models.PrimitiveModel):
    def __init__(self, manager: Any, mask: Mask) -> None:
        super().__init__(manager, mask, ir.VectorType(ir.IntType(1), mask.count))


def fill(builder: ir.IRBuilder, value: ir.Value, kind: ir.VectorType) -> ir.Value:
    """Emit a register that holds one number in every lane."""
    nowhere = ir.Constant(kind, ir.Undefined)
    first = builder.insert_element(nowhere, value, ir.IntType(32)(0))
    order = ir.Constant(ir.VectorType(ir.IntType(32), kind.count), [0] * kind.count)
    return builder.shuffle_vector(first, nowhere, order)


def pointer_to(context: Any, builder: Any, kind: types.Array, array: Any, at: Any) -> Any:
    """Emit the address of an element of a flat array."""
    return builder.gep(context.make_array(kind)(context, builder, array).data, [at])


@lower_cast(types.Float, Lanes)
def _fill_cast(context: Any, builder: Any, source: Any, target: Lanes, value: Any) -> Any:
    number = context.cast(builder, value, source, target.dtype)
    return fill(builder, number, vector_of(target))


@lower_cast(types.Integer, Lanes)
def _fill_cast_integer(context: Any, builder: Any, source: Any, target: Lanes, value: Any) -> Any:
    number = context.cast(builder, value, source, target.dtype)
    return fill(builder, number, vector_of(target))


def _define_operator(symbol: Any, result: Callable[[Lanes], types.Type], emit: Codegen) -> None:
    """Let an operator take two registers, or one and a plain number."""

    @infer_global(symbol)
    class _Operator(AbstractTemplate):
        def generic(self, args: tuple[types.Type, ...], kws: dict[str, Any]) -> Any:
            lanes = next((arg for arg in args if isinstance(arg, Lanes)), None)
            if lanes is None or kws or len(args) != 2:
                return None
            return signature(result(lanes), lanes, lanes)

    @lower_builtin(symbol, Lanes, Lanes)
    def _lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return emit(builder, *args)


for _symbol, _method in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _define_operator(
        _symbol, lambda lanes: lanes, lambda b, x, y, name=_method: getattr(b, name)(x, y)
    )
for _symbol, _sign in ((operator.lt, "<"), (operator.gt, ">"), (operator.ge, ">=")):
    _define_operator(
        _symbol,
        lambda lanes: Mask(lanes.count),
        lambda b, x, y, sign=_sign: b.fcmp_ordered(sign, x, y),
    )


@intrinsic
def load(typing: Any, array: Any, at: Any) -> Any:
    """Return the numbers of a flat array from index `at` on."""
    lanes = Lanes(array.dtype)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        address = pointer_to(context, builder, sig.args[0], *args)
        return builder.load(
            builder.bitcast(address, vector_of(lanes).as_pointer()), align=_align(lanes)
        )

    return lanes(array, types.int64), codegen


@intrinsic
def filled(typing: Any, array: Any, value: Any) -> Any:
    """Return one number in every lane, of the dtype of an array."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return fill(builder, args[1], vector_of(sig.return_type))

    return Lanes(array.dtype)(array, array.dtype), codegen


@intrinsic
def store(typing: Any, array: Any, at: Any, value: Any) -> Any:
    """Write numbers into a flat array from index `at` on."""
    lanes = Lanes(array.dtype)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        address = pointer_to(context, builder, sig.args[0], *args[:2])
        target = builder.bitcast(address, vector_of(lanes).as_pointer())
        builder.store(args[2], target, align=_align(lanes))
        return context.get_dummy_value()

    return types.void(array, types.int64, lanes), codegen


@intrinsic
def select(typing: Any, mask: Any, yes: Any, no: Any) -> Any:
    """Return `yes` where the mask holds, else `no`; one of them may be a plain number."""
    lanes = yes if isinstance(yes, Lanes) else no

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.select(*args)

    return lanes(mask, lanes, lanes), codegen


@intrinsic
def square_root(typing: Any, x: Any) -> Any:
    """Return the square root, correctly rounded."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _call(builder, "sqrt", args)

    return x(x), codegen


@intrinsic
def sum_of_lanes(typing: Any, x: Any) -> Any:
    """Return the sum of all lanes, a number."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        kind = args[0].type
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(kind.element, [kind.element, kind]),
            f"llvm.vector.reduce.fadd.v{kind.count}f{sig.args[0].dtype.bitwidth}",
        )
        # Halves are added, then halves of these; in order it would take one lane at a time.
        start = ir.Constant(kind.element, 0.0)
        return builder.call(function, [start, args[0]], fastmath=("reassoc",))

    return x.dtype(x), codegen


@intrinsic
def multiply_add(typing: Any, x: Any, y: Any, z: Any) -> Any:
    """Return x * y + z, rounded once where the machine can."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _call(builder, "fmuladd", args)

    return x(x, x, x), codegen


@intrinsic
def round_even(typing: Any, x: Any) -> Any:
    """Return the nearest whole number, for |x| below 2^22."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        shift = _constant(sig.args[0], _whole_shift(sig.args[0]))
        return builder.fsub(builder.fadd(args[0], shift), shift)

    return x(x), codegen


@intrinsic
def power_of_two(typing: Any, n: Any) -> Any:
    """Return 2^n for whole n in the range of exponents; anything if n is NaN."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        lanes = sig.args[0]
        mantissa, whole = _mantissa_bits(lanes), _integers(lanes)
        # After this addition the last bits of the number are those of n.
        shifted = builder.fadd(args[0], _constant(lanes, _whole_shift(lanes)))
        bits = builder.bitcast(shifted, whole)
        bits = builder.shl(bits, _constant_integer(whole, mantissa))
        one = builder.bitcast(_constant(lanes, 1.0), whole)
        return builder.bitcast(builder.add(bits, one), vector_of(lanes))

    return n(n), codegen


@intrinsic
def split_power(typing: Any, x: Any) -> Any:
    """Return (m, n) with x = m * 2^n, m in [sqrt(1/2), sqrt(2)) and n whole, for normal x > 0."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        lanes = sig.args[0]
        whole = _integers(lanes)
        shift = _constant_integer(whole, _mantissa_bits(lanes))
        bits = builder.bitcast(args[0], whole)
        offset = builder.bitcast(_constant(lanes, 0.5**0.5), whole)
        n = builder.ashr(builder.sub(bits, offset), shift)
        m = builder.bitcast(builder.sub(bits, builder.shl(n, shift)), vector_of(lanes))
        return context.make_tuple(
            builder, sig.return_type, (m, builder.sitofp(n, vector_of(lanes)))
        )

    return types.UniTuple(x, 2)(x), codegen


def polynomial(single: tuple[float, ...], double: tuple[float, ...]) -> Any:
    """Return a function of lanes: sum_k c_k x^k by Horner's rule.

    Args:
        single: c_0, c_1, ... for float32.
        double: c_0, c_1, ... for float64.
    """

    @intrinsic
    def evaluate(typing: Any, x: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            lanes = sig.args[0]
            coefficients = single if lanes.dtype.bitwidth == 32 else double
            total = _constant(lanes, coefficients[-1])
            for coefficient in reversed(coefficients[:-1]):
                total = _call(builder, "fmuladd", (total, args[0], _constant(lanes, coefficient)))
            return total

        return x(x), codegen

    return evaluate


def _call(builder: ir.IRBuilder, name: str, args: Any) -> ir.Value:
    kind = args[0].type
    bits = 32 if isinstance(kind.element, ir.FloatType) else 64
    function = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(kind, [kind] * len(args)),
        f"llvm.{name}.v{kind.count}f{bits}",
    )
    return builder.call(function, args)


def _align(lanes: Lanes) -> int:
    return int(lanes.dtype.bitwidth // 8)


def _constant(lanes: Lanes, value: float) -> ir.Constant:
    return ir.Constant(vector_of(lanes), [value] * lanes.count)


def _integers(lanes: Lanes) -> ir.VectorType:
    return ir.VectorType(ir.IntType(lanes.dtype.bitwidth), lanes.count)


def _constant_integer(kind: ir.VectorType, value: int) -> ir.Constant:
    return ir.Constant(kind, [value] * kind.count)


def _mantissa_bits(lanes: Lanes) -> int:
    return 23 if lanes.dtype.bitwidth == 32 else 52


def _whole_shift(lanes: Lanes) -> float:
    """Return 1.5 * 2^mantissa: numbers around it are whole, negative ones below it too."""
    return 1.5 * 2.0 ** _mantissa_bits(lanes)
