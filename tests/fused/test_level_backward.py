"""A level's gradients against differences of its latents."""

import numpy as np
import pytest

from glow_bt.fused.level_backward import backward
from glow_bt.fused.level_forward import forward, saved_size
from glow_bt.fused.level_layout import GradientLines, Layout, tiled
from tests.fused.test_level_forward import latents
from tests.fused.test_level_layout import level_of


def gradients(x, context, maps, shifts, bounds, z_grad, log_det_grad):
    layout = Layout.of(maps, context.shape[1])
    saved = np.empty(saved_size(layout, len(x), 8))
    forward(x, context, maps, shifts, layout, bounds, saved, np.empty_like(x), np.empty(len(x)))
    x_grad, context_grad = np.empty_like(x), np.empty_like(context)
    map_grads = tuple(np.zeros(tiled(m.shape)) for m in maps)
    shift_grads = tuple(np.zeros_like(s) for s in shifts)
    lines = GradientLines.of(layout)
    given = z_grad, log_det_grad[:, None], maps, layout, lines, bounds, saved
    backward(*given, x_grad, context_grad, map_grads, shift_grads)
    map_grads = tuple(
        grad[:, : m.shape[1], : m.shape[2]] for grad, m in zip(map_grads, maps, strict=True)
    )
    return x_grad, context_grad, *map_grads, *shift_grads


@pytest.mark.parametrize(("scale_bound", "groups"), [(0.5, 2), (0.0, 1)])
def test_a_small_move_of_everything_changes_the_loss_as_the_gradients_say(scale_bound, groups):
    rng = np.random.default_rng(2)
    maps, shifts = level_of(5, 3, 6, 3 * groups)
    given = [rng.normal(size=(80, 5)), rng.normal(size=(80, 3)), *maps, *shifts]
    z_grad, log_det_grad = rng.normal(size=(80, 5)), rng.normal(size=80)
    bounds = (3.0, scale_bound)

    def loss(x, context, *parameters):
        z, log_det = latents(x, context, parameters[:4], parameters[4:], bounds)
        return (z * z_grad).sum() + (log_det * log_det_grad).sum()

    found = gradients(given[0], given[1], maps, shifts, bounds, z_grad, log_det_grad)
    for n, grad in enumerate(found):
        move = 1e-7 * rng.normal(size=grad.shape)
        up, down = (loss(*given[:n], given[n] + sign * move, *given[n + 1 :]) for sign in (1, -1))
        assert (grad * move).sum() == pytest.approx((up - down) / 2, rel=1e-5, abs=1e-12)
