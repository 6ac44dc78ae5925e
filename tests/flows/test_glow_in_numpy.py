"""GLOW a second time, in numpy and from the stored tensors alone; both have to agree."""

import numpy as np
import pytest

from tests.contracts.registry import draw_rows, fitted


def tail_layer(x, context, state):
    m, s = (np.tile(state[f"tails.{name}"], (len(x), 1)) for name in ("location", "log_scale"))
    left, right = (np.tile(side, (len(x), 1)) for side in state["tails.log_excess"])
    if context.shape[1]:
        moves = np.split(network(context, state, "tails.net"), 4, axis=1)
        m = m + 0.5 * np.tanh(moves[0] / 0.5) * np.exp(s)
        s = s + np.tanh(moves[1])
        left = left + 0.5 * np.tanh(moves[2] / 0.5)
        right = right + 0.5 * np.tanh(moves[3] / 0.5)
    u = (x - m) / np.exp(s)
    index = 0.1 + np.exp(np.where(u < 0, left, right))
    z = np.sign(u) * np.sqrt(index * np.log1p(u**2 / index))
    return z, (np.log(u / z / (1 + u**2 / index)) - s).sum(axis=1)


def network(condition, state, name):
    """Linear layers with ReLUs between, over inputs drawn in to a root mean square of 3."""
    if f"{name}.value" in state:
        return np.tile(state[f"{name}.value"], (len(condition), 1))
    h = condition / np.sqrt(1 + (condition**2).mean(axis=1, keepdims=True) / 9)
    layers = sorted(key for key in state if key.startswith(name) and key.endswith("weight"))
    for key in layers:
        h = h @ state[key].T + state[key.replace("weight", "bias")]
        if key != layers[-1]:
            h = np.maximum(h, 0)
    return h


def affine(y, condition, state, name):
    raw, shift = np.split(network(condition, state, f"{name}.net"), 2, axis=1)
    log_scale = 0.5 * np.tanh(raw / 0.5)
    return y * np.exp(log_scale) + shift, log_scale.sum(axis=1)


def stacked_network(condition, state, name, step):
    if f"{name}.constant" in state:
        return np.tile(state[f"{name}.constant"][step], (len(condition), 1))
    h = condition / np.sqrt(1 + (condition**2).mean(axis=1, keepdims=True) / 9)
    for layer in range(3):
        h = h @ state[f"{name}.net.{layer}.weight"][step]
        h = h + state[f"{name}.net.{layer}.bias"][step]
        h = np.maximum(h, 0) if layer < 2 else h
    return h


def mixing_matrix(state, name, step, width):
    if f"{name}.permutation" not in state:
        return np.eye(width)[::-1] if width > 1 else np.eye(1)
    diagonal = np.exp(state[f"{name}.log_s"][step])
    lower = np.tril(state[f"{name}.lower"][step], -1) + np.eye(width)
    upper = np.triu(state[f"{name}.upper"][step], 1) + np.diag(diagonal)
    return state[f"{name}.permutation"][step] @ lower @ upper


def normalisation(state, name, step):
    log_scale, bias = state[f"{name}.log_scale"][step], state[f"{name}.bias"][step]
    if f"{name}.running_var" not in state:
        return np.exp(log_scale), bias
    scale = np.exp(log_scale) / np.sqrt(state[f"{name}.running_var"][step] + 1e-5)
    return scale, bias - state[f"{name}.running_mean"][step] * scale


def spline(y, raw):
    """Durkan et al. 2019, eq. 4, value by value."""
    shares = [0.03 + 0.76 * np.exp(r) / np.exp(r).sum() for r in (raw[:8], raw[8:16])]
    x_knots, y_knots = (np.concatenate([[-4], 8 * s.cumsum() - 4]) for s in shares)
    unit = np.log(np.expm1(0.9))
    slopes = np.concatenate([[1], 0.1 + np.log1p(np.exp(raw[16:] + unit)), [1]])
    if abs(y) >= 4:
        return y, 0.0
    k = np.searchsorted(x_knots[1:-1], y, side="right")
    width, height = x_knots[k + 1] - x_knots[k], y_knots[k + 1] - y_knots[k]
    rise, t = height / width, (y - x_knots[k]) / width
    bottom = rise + (slopes[k] + slopes[k + 1] - 2 * rise) * t * (1 - t)
    value = y_knots[k] + height * (rise * t**2 + slopes[k] * t * (1 - t)) / bottom
    top = slopes[k + 1] * t**2 + 2 * rise * t * (1 - t) + slopes[k] * (1 - t) ** 2
    return value, np.log(rise**2 * top / bottom**2)


def couple(y, raw, kind):
    """Return the changed half and the log_det of changing it."""
    width = y.shape[1]
    if kind == "additive":
        return y + raw, 0.0
    change = 0.0
    if kind == "spline":
        knots = raw[:, 2 * width :].reshape(len(y), width, 23)
        pairs = [
            [spline(v, k) for v, k in zip(*row, strict=True)] for row in zip(y, knots, strict=True)
        ]
        y, log_slope = np.moveaxis(np.array(pairs), 2, 0)
        change = log_slope.sum(axis=1)
    log_scale = 0.5 * np.tanh(raw[:, :width] / 0.5)
    y = y * np.exp(log_scale) + raw[:, width : 2 * width]
    return y, change + log_scale.sum(axis=1)


def glow(x, context, state, config):
    """Return z (N, D) and log_det (N,)."""
    context = np.empty((len(x), 0)) if context is None else context
    h, log_det = tail_layer(x, context, state) if config["tails"] else (x, np.zeros(len(x)))
    latents = []
    num_levels = len({key.split(".")[1] for key in state if key.startswith("levels")})
    for level in range(num_levels):
        name = f"levels.{level}"
        half = h.shape[1] // 2
        for step in range(config["num_steps"]):
            scale, shift = normalisation(state, f"{name}.norm", step)
            matrix = mixing_matrix(state, f"{name}.mixing", step, h.shape[1])
            h = (h * scale + shift) @ matrix.T
            log_det = log_det + np.log(scale).sum() + np.linalg.slogdet(matrix).logabsdet
            condition = np.concatenate([h[:, :half], context], axis=1)
            raw = stacked_network(condition, state, f"{name}.nets", step)
            changed, change = couple(h[:, half:], raw, config["coupling"])
            h, log_det = np.concatenate([h[:, :half], changed], axis=1), log_det + change
        if level < num_levels - 1:
            leaving, h = np.split(h, [h.shape[1] // 2], axis=1)
            condition = np.concatenate([h, context], axis=1)
            z, change = affine(leaving, condition, state, f"splits.{level}.standardize")
            latents.append(z)
            log_det = log_det + change
    z, change = affine(h, context, state, "top")
    return np.concatenate([*latents, z], axis=1), log_det + change


@pytest.mark.parametrize(
    "name",
    [
        "glow-1",
        "glow-1-context",
        "glow-2-no-tails",
        "glow-5-context",
        "glow-6-additive",
        "glow-6-reverse",
        "glow-2-nice",
        "glow-6-batchnorm",
        "glow-6-spline",
        "glow-1-spline",
        "glow-16-spline-context",
        "glow-16",
        "glow-33-context",
    ],
)
def test_both_give_the_same_latents_and_log_dets(name):
    flow = fitted(name)
    x, context = draw_rows(flow, 300, seed=2)
    x[:20] *= 10
    z, log_det = flow(x, context)
    expected_z, expected_log_det = glow(
        x.numpy(),
        None if context is None else context.numpy(),
        {key: value.numpy() for key, value in flow.state_dict().items()},
        flow.config,
    )
    np.testing.assert_allclose(z, expected_z, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(log_det, expected_log_det, rtol=1e-12, atol=1e-12)
