"""GLOW a second time, in numpy and from the stored tensors alone; both have to agree."""

import numpy as np
import pytest

from tests.contracts.registry import draw_rows, fitted


def tail_layer(x, state):
    log_excess = state["tails.log_excess"]
    index = np.where(x < 0, *(0.1 + np.exp(log_excess)))
    z = np.sign(x) * np.sqrt(index * np.log1p(x**2 / index))
    return z, np.log(x / z / (1 + x**2 / index)).sum(axis=1)


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


def convolution(x, state, name):
    diagonal = state[f"{name}.sign"] * np.exp(state[f"{name}.log_s"])
    lower = np.tril(state[f"{name}.lower"], -1) + np.eye(len(diagonal))
    upper = np.triu(state[f"{name}.upper"], 1) + np.diag(diagonal)
    matrix = state[f"{name}.permutation"] @ lower @ upper
    return x @ matrix.T, np.linalg.slogdet(matrix).logabsdet


def layer(h, context, state, name):
    """Apply the layer whose tensors begin with this name, found out from what they are."""
    half = h.shape[1] // 2
    condition = np.concatenate([h[:, :half], context], axis=1)
    if f"{name}.initialized" in state:
        log_scale = state[f"{name}.log_scale"]
        return h * np.exp(log_scale) + state[f"{name}.bias"], log_scale.sum()
    if f"{name}.permutation" in state:
        return convolution(h, state, name)
    if any(key.startswith(f"{name}.affine") for key in state):
        changed, log_det = affine(h[:, half:], condition, state, f"{name}.affine")
        return np.concatenate([h[:, :half], changed], axis=1), log_det
    if any(key.startswith(f"{name}.net") for key in state):
        changed = h[:, half:] + network(condition, state, f"{name}.net")
        return np.concatenate([h[:, :half], changed], axis=1), 0.0
    return h[:, ::-1], 0.0


def glow(x, context, state, num_levels, num_layers):
    """Return z (N, D) and log_det (N,)."""
    context = np.empty((len(x), 0)) if context is None else context
    h, log_det = tail_layer(x, state) if "tails.log_excess" in state else (x, np.zeros(len(x)))
    latents = []
    for level in range(num_levels):
        for i in range(num_layers[level]):
            h, change = layer(h, context, state, f"levels.{level}.layers.{i}")
            log_det = log_det + change
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
        num_levels=len(flow.levels),
        num_layers=[len(level.layers) for level in flow.levels],
    )
    np.testing.assert_allclose(z, expected_z, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(log_det, expected_log_det, rtol=1e-12, atol=1e-12)
