"""One line for each layer and each configuration of a flow; every line is put through every law.

What is tested are not fresh layers but fitted ones: each is trained for some steps on correlated,
heavy-tailed rows of unit scale (a layer under a normal prior), once a test run.
"""

import functools
from copy import deepcopy
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import torch

from glow_bt.flows import (
    Flow,
    Glow,
    GlowLevel,
    NormalPrior,
    Split,
    TailLayer,
    UnivariateFlow,
    make_flow,
)
from tests.models import ZUKO_FAMILIES

_TRAIN_ROWS = 1024
_BATCH = 256
_STEPS = 50


def _glow(width, context=0, steps=2, **settings):
    return lambda: Glow(
        width, num_steps=steps, hidden_dim=16, context_features=context, **settings
    )


def _family(family, width, context=0, **settings):
    return lambda: make_flow(family, width, context, hidden_dim=16, **settings)


def _level(width, context=0, **settings):
    return lambda: GlowLevel(width, 3, 16, context, **settings)


FLOWS = {
    "glow-1": _glow(1),
    "glow-2": _glow(2),
    "glow-3": _glow(3),
    "glow-5": _glow(5),
    "glow-8": _glow(8),
    "glow-14": _glow(14, steps=4),
    "glow-16": _glow(16, steps=4),
    "glow-33": _glow(33, steps=4),
    "glow-1-context": _glow(1, context=3),
    "glow-2-context": _glow(2, context=3),
    "glow-3-context": _glow(3, context=3),
    "glow-5-context": _glow(5, context=3),
    "glow-8-context": _glow(8, context=3),
    "glow-14-context": _glow(14, context=3, steps=4),
    "glow-16-context": _glow(16, context=3, steps=4),
    "glow-33-context": _glow(33, context=3, steps=4),
    "glow-1-student_t": _glow(1, base="student_t", tails=False),
    "glow-2-student_t": _glow(2, base="student_t", tails=False),
    "glow-6-student_t": _glow(6, base="student_t"),
    "glow-1-mixture": _glow(1, base="mixture"),
    "glow-2-mixture": _glow(2, base="mixture", num_components=3),
    "glow-6-mixture": _glow(6, context=1, base="mixture"),
    "glow-2-no-tails": _glow(2, tails=False),
    "glow-6-additive": _glow(6, coupling="additive"),
    "glow-6-reverse": _glow(6, permutation="reverse"),
    "glow-1-spline": _glow(1, coupling="spline"),
    "glow-2-spline": _glow(2, coupling="spline"),
    "glow-6-spline": _glow(6, coupling="spline"),
    "glow-16-spline-context": _glow(16, context=3, steps=4, coupling="spline"),
    "glow-6-batchnorm": _glow(6, norm="batchnorm"),
    "glow-2-realnvp": _glow(2, permutation="reverse", norm="batchnorm", tails=False),
    "glow-2-nice": _glow(2, coupling="additive", permutation="reverse", tails=False),
    "glow-5-one-level": _glow(5, num_levels=1),
    "nice-6": _family("nice", 6, num_steps=2),
    "realnvp-6": _family("realnvp", 6, num_steps=2),
    "maf-1": _family("maf", 1),
    "maf-2-context": _family("maf", 2, context=3, num_steps=2),
    "maf-6-mixture": _family("maf", 6, base="mixture"),
    "iaf-2": _family("iaf", 2, num_steps=2),
    "iaf-5-context": _family("iaf", 5, context=3, tails=False),
    "nsf-1-context": _family("nsf", 1, context=3),
    "nsf-5": _family("nsf", 5, num_steps=2),
    "cnf-1-student_t": _family("cnf", 1, base="student_t", tails=False),
    "cnf-6-context": _family("cnf", 6, context=3),
    "flow_matching-1-no-tails": _family("flow_matching", 1, tails=False),
    "flow_matching-3-context": _family("flow_matching", 3, context=3),
    "flow_matching-6": _family("flow_matching", 6),
    "univariate": lambda: UnivariateFlow(0),
    "univariate-context": lambda: UnivariateFlow(3, hidden_dim=16),
    "univariate-members": lambda: UnivariateFlow(3, hidden_dim=8, num_members=3),
}
LAYERS = {
    "level": _level(5),
    "level-context": _level(5, context=2),
    "level-1-context": _level(1, context=2),
    "level-additive": _level(5, coupling="additive"),
    "level-spline": _level(5, coupling="spline"),
    "level-spline-context": _level(5, context=2, coupling="spline"),
    "level-reverse": _level(5, permutation="reverse"),
    "level-batchnorm": _level(5, norm="batchnorm"),
    "split": lambda: Split(5),
    "split-context": lambda: Split(5, context_features=2),
    "tails": lambda: TailLayer(5),
    "tails-context": lambda: TailLayer(5, context_features=2),
}
if find_spec("zuko") is None:
    FLOWS = {
        name: build for name, build in FLOWS.items() if name.split("-")[0] not in ZUKO_FAMILIES
    }
NAMES = [*FLOWS, *LAYERS]


@dataclass(frozen=True)
class Tolerance:
    """How exactly the laws hold: for a closed form, to rounding."""

    log_det: float = 1e-8
    round_trip: float = 1e-9
    far_round_trip: float = 1e-6
    integral: float = 1e-6


# The solution of an equation in steps is exact to the solver's error only, which grows with the
# distance from the origin.
_SOLVED = Tolerance(log_det=1e-7, round_trip=1e-5, far_round_trip=1e-4)
# A spline's density has kinks at its knots, where a sum over a grid loses digits.
TOLERANCES = {"cnf": _SOLVED, "flow_matching": _SOLVED, "nsf": Tolerance(integral=1e-5)}


def tolerance(name):
    """Return how exactly the laws hold for the line of that name."""
    return TOLERANCES.get(name.split("-")[0], Tolerance())


class Layer(Flow):
    """One layer under a normal prior: the least that makes a density of it."""

    def __init__(self, layer):
        super().__init__(layer.num_features, layer.context_features)
        self.layer = layer
        self.prior = NormalPrior(layer.num_features)

    def forward(self, x, context=None):
        return self.layer(x, context)

    def inverse(self, z, context=None):
        return self.layer.inverse(z, context)


def build(name, seed=0):
    """Return the flow of that name, or the layer as a flow, with fresh parameters."""
    torch.manual_seed(seed)
    return FLOWS[name]() if name in FLOWS else Layer(LAYERS[name]())


@functools.cache
def fitted(name, dtype=torch.float64):
    """Return the flow of that name after some training, in eval mode; not to be changed."""
    if dtype is not torch.float64:
        return deepcopy(fitted(name)).to(dtype)
    flow = build(name)
    x, context = draw_rows(flow, _TRAIN_ROWS, seed=1, dtype=torch.float32)
    for layer in flow.modules():
        if isinstance(layer, TailLayer):
            layer.fit(x)
    # Flow matching leaves its tail layer as fitted.
    parameters = [p for p in flow.parameters() if p.requires_grad]
    if not parameters:  # a fixed permutation
        return flow.eval().double()
    optimizer = torch.optim.Adam(parameters, lr=1e-2, fused=True)
    generator = torch.Generator().manual_seed(0)
    for step in range(_STEPS):
        rows = torch.arange(step * _BATCH, (step + 1) * _BATCH) % _TRAIN_ROWS
        given = None if context is None else context[rows]
        loss = flow.objective(x[rows], given, generator).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 10.0)
        optimizer.step()
    return flow.eval().double().requires_grad_(False)


def draw_rows(flow, count, seed, dtype=torch.float64):
    """Return rows (N, D) of correlated Student's t with 3 degrees of freedom, and contexts.

    Deviations are 1. A context (N, C) moves location and scale of its row; without one it is
    None.
    """
    width, num_contexts = flow.num_features, flow.context_features
    rng = np.random.default_rng(seed)
    mixing = np.eye(width) + np.random.default_rng(0).normal(size=(width, width)) / width**0.5
    x = rng.standard_t(3, size=(count, width)) @ mixing.T
    x[:, -1] *= np.exp(0.5 * np.tanh(x[:, 0]))
    x /= (3 * (mixing**2).sum(axis=1)) ** 0.5
    context = rng.normal(size=(count, num_contexts))
    if num_contexts:
        x = x * np.exp(0.3 * np.tanh(context[:, :1])) + 0.3 * context[:, -1:]
    context = torch.tensor(context, dtype=dtype) if num_contexts else None
    return torch.tensor(x, dtype=dtype), context


def first_context(flow, seed=2):
    """Return one context (1, C) to condition on, or None."""
    return draw_rows(flow, 1, seed)[1]
