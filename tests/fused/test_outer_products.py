"""Gradients of matrices from blocks of rows."""

import numpy as np
import pytest

from glow_bt.fused.compiled import kept
from glow_bt.fused.outer_products import TILE, add_outer_products


@kept
def add(left, i, right, j, rows, out, at):
    add_outer_products(left, i, right, j, rows, out, at, out.shape[1:])


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("float64", 1e-12)])
def test_sums_over_rows_are_added_to_one_of_the_matrices(dtype, tolerance):
    rng = np.random.default_rng(0)
    left, right = (rng.normal(size=(count, 48)).astype(dtype) for count in (10, 14))
    out = np.ones((3, 2 * TILE, 3 * TILE), dtype)
    # The block begins at the third line of the one side and the second of the other.
    add(left.ravel(), 2 * 48, right.ravel(), 48, 48, out, out[0].size)
    expected = 1 + left[2:] @ right[1:13].T
    np.testing.assert_allclose(out[1], expected, rtol=tolerance, atol=tolerance)
    assert (out[[0, 2]] == 1).all()
