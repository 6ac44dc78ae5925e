"""A level's latents against its formulas in NumPy."""

import numpy as np
import pytest

from glow_bt.fused.level_forward import forward, saved_size
from glow_bt.fused.level_layout import Layout
from tests.fused.test_level_layout import level_of


def latents(x, context, maps, shifts, bounds):
    h, log_det, passed = x, np.zeros(len(x)), x.shape[1] // 2
    for step in range(len(maps[0])):
        (matrix, *layers), (shift, *biases) = (
            [stack[step] for stack in stacks] for stacks in (maps, shifts)
        )
        g = h @ matrix + shift
        c = np.concatenate([g[:, :passed], context], axis=1)
        u = c / np.sqrt(1 + np.mean(c**2, axis=1, keepdims=True) / bounds[0] ** 2)
        for layer, bias in zip(layers[:2], biases[:2], strict=True):
            u = np.maximum(u @ layer + bias, 0)
        raw = u @ layers[2] + biases[2]
        log_s = np.zeros_like(g[:, passed:])
        if bounds[1]:
            raw_s, raw = np.split(raw, 2, axis=1)
            log_s = bounds[1] * np.tanh(raw_s / bounds[1])
        h = np.concatenate([g[:, :passed], g[:, passed:] * np.exp(log_s) + raw], axis=1)
        log_det = log_det + log_s.sum(axis=1)
    return h, log_det


@pytest.mark.parametrize("count", [1, 64, 150])
@pytest.mark.parametrize(("scale_bound", "groups"), [(0.5, 2), (0.0, 1)])
def test_latents_are_those_of_the_formulas(count, scale_bound, groups):
    maps, shifts = level_of(7, 2, 12, 4 * groups)
    rng = np.random.default_rng(1)
    x, context = rng.normal(size=(count, 7)), rng.normal(size=(count, 2))
    layout = Layout.of(maps, 2)
    saved = np.empty(saved_size(layout, count, 8))
    z, log_det = np.empty_like(x), np.empty(count)
    bounds = (3.0, scale_bound)
    forward(x, context, maps, shifts, layout, bounds, saved, z, log_det)
    expected = latents(x, context, maps, shifts, bounds)
    for found, wanted in zip((z, log_det), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-10)
