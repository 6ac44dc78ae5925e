"""The kernels of a level in training, compiled or loaded from disk before their first use."""

from __future__ import annotations

import contextlib
from functools import cache
from typing import Any

import numpy as np
from numba import float32, float64, int64, types

from glow_bt.fused.level_backward import backward
from glow_bt.fused.level_forward import forward
from glow_bt.fused.level_layout import MAPS, GradientLines, Layout

__all__ = ["prepare"]


@cache
def prepare(dtype: np.dtype[Any]) -> None:
    """Load both kernels for a dtype from disk, or compile them (some seconds) and keep them."""
    kind = float32 if dtype == np.float32 else float64
    line, rows = kind[::1], kind[:, ::1]
    maps = types.UniTuple(kind[:, :, ::1], MAPS)
    shifts = types.UniTuple(rows, MAPS)
    layout = types.NamedUniTuple(int64, len(Layout._fields), Layout)
    lines = types.NamedUniTuple(int64, len(GradientLines._fields), GradientLines)
    bounds = types.UniTuple(float64, 2)
    ahead = (rows, rows, maps, shifts, layout, bounds, line, rows, line)
    back = (rows, rows, maps, layout, lines, bounds, line, rows, rows, maps, shifts)
    kernels: tuple[tuple[Any, Any], ...] = (forward, ahead), (backward, back)
    for kernel, arguments in kernels:
        # Code that cannot be kept, as on a full disk, runs all the same.
        with contextlib.suppress(OSError):
            kernel.compile(arguments)
