"""From trained modules to the plain arrays of `glow_bt.fused`."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor, nn

from glow_bt.flows import members, nets, spline, tails, univariate
from glow_bt.flows.coupling import COUPLINGS, ConditionalAffine, Coupling
from glow_bt.flows.priors import GaussianMixturePrior, Prior, StudentTPrior
from glow_bt.fused.knots import KnotSpline
from glow_bt.fused.parts import (
    AffineMap,
    Array,
    BasePart,
    CouplingPart,
    GlowParts,
    LevelPart,
    MixtureBase,
    NetPart,
    NormalBase,
    SplineSettings,
    StepPart,
    StudentTBase,
    TailMoves,
    TailPart,
)
from glow_bt.fused.univariate import UnivariateParts

if TYPE_CHECKING:
    from glow_bt.flows.glow import Glow
    from glow_bt.flows.level import GlowLevel
    from glow_bt.flows.split import Split
    from glow_bt.flows.tails import TailLayer
    from glow_bt.flows.univariate import UnivariateFlow

__all__ = ["freeze_glow", "freeze_tails", "freeze_univariate"]


@torch.no_grad()
def freeze_glow(flow: Glow) -> GlowParts:
    """Return the parts of a trained Glow; the flow itself stays as it is.

    Norms are folded into the matrices after them, in float64 whatever the flow's dtype.

    Raises:
        FlowError: if an ActNorm has not seen data.
    """
    splits: list[Split | None] = [*cast("list[Split]", list(flow.splits)), None]
    levels = cast("list[GlowLevel]", list(flow.levels))
    return GlowParts(
        num_features=flow.num_features,
        context_features=flow.context_features,
        tails=None if flow.tails is None else freeze_tails(flow.tails),
        levels=tuple(
            LevelPart(_steps(level), None if split is None else _affine(split.standardize))
            for level, split in zip(levels, splits, strict=True)
        ),
        top=_affine(flow.top),
        base=_base(flow.prior),
    )


@torch.no_grad()
def freeze_tails(layer: TailLayer) -> TailPart:
    """Return the parts of a tail layer."""
    zeros = layer.log_excess[0].new_zeros(layer.num_features)
    moves = None
    if layer.net is not None:
        moves = TailMoves(
            _net(layer.net), tails.LOCATION_BOUND, tails.LOG_SCALE_BOUND, tails.LOG_INDEX_BOUND
        )
    return TailPart(
        location=_array(zeros if layer.location is None else layer.location),
        log_scale=_array(zeros if layer.log_scale is None else layer.log_scale),
        log_excess=_array(layer.log_excess),
        min_index=layer.min_index,
        moves=moves,
    )


@torch.no_grad()
def freeze_univariate(flow: UnivariateFlow) -> UnivariateParts:
    """Return the parts of a `UnivariateFlow`, with all of its members."""
    layers = cast("list[nets.StackedLinear]", list(flow.net.layers))
    count = flow.config["num_members"]
    line = (np.zeros((count, 0)), np.zeros(count))
    if flow.net.line is not None:
        line = (_array(flow.net.line.weight[..., 0]), _array(flow.net.line.bias[:, 0]))
    return UnivariateParts(
        layers=tuple((_array(layer.weight), _array(layer.bias)) for layer in layers),
        line=line,
        location=_array(flow.location[:, 0]),
        log_scale=_array(flow.log_scale[:, 0]),
        log_excess=_array(flow.log_excess),
        splines=tuple(_knot_spline(raw) for raw in flow.knots),
        spline=_knot_spline(flow.knots.double().mean(dim=0)),
        context_bound=members.CONTEXT_BOUND,
        log_scale_bound=univariate.LOG_SCALE_BOUND,
        log_index_bound=univariate.LOG_INDEX_BOUND,
        min_index=univariate.MIN_INDEX,
    )


def _knot_spline(raw: Tensor) -> KnotSpline:
    return KnotSpline(*(_array(knots) for knots in spline.spline_knots(raw.double())))


def _steps(level: GlowLevel) -> tuple[StepPart, ...]:
    log_scales, shifts = (values.double() for values in level.norm.constants())
    num_steps, width = shifts.shape
    eye = torch.eye(width, dtype=torch.float64)
    mixing = None if level.mixing is None else deepcopy(level.mixing).double()
    weights = eye.expand(num_steps, width, width) if mixing is None else mixing.weights()
    steps = []
    solve = None if mixing is None else mixing.solver()
    for k, net in enumerate(level.nets.unbind()):
        scale = log_scales[k].exp()
        unmixed = eye if solve is None else solve(eye, k).T
        inverse = unmixed / scale[:, None]
        mixed = weights[k] @ shifts[k]
        steps.append(
            StepPart(
                forward=AffineMap(_array(weights[k] * scale), _array(mixed)),
                inverse=AffineMap(_array(inverse), _array(-shifts[k] / scale)),
                log_det=float(log_scales[k].sum() + torch.linalg.slogdet(weights[k])[1]),
                coupling=_coupling(level.coupling, _stacked(net)),
            )
        )
    return tuple(steps)


def _coupling(kind: Coupling, net: NetPart) -> CouplingPart:
    (name,) = (name for name, coupling in COUPLINGS.items() if coupling is kind)
    settings = None
    if name == "spline":
        settings = SplineSettings(
            spline.NUM_BINS, spline.HALF_WIDTH, spline.MIN_SHARE, spline.MIN_SLOPE
        )
    return CouplingPart(name, net, nets.LOG_SCALE_BOUND, settings)


def _affine(part: ConditionalAffine) -> CouplingPart:
    return CouplingPart("affine", _net(part.net), nets.LOG_SCALE_BOUND)


def _net(module: nn.Module) -> NetPart:
    """Return the parts of what `conditioner` makes."""
    if isinstance(module, nn.Sequential):
        linear = [layer for layer in module if isinstance(layer, nn.Linear)]
        maps = [AffineMap(_array(layer.weight), _array(layer.bias)) for layer in linear]
        return NetPart(tuple(maps), nets.INPUT_BOUND)
    (constant,) = module.parameters()
    return _constant(constant)


def _stacked(parameters: tuple[Tensor, ...]) -> NetPart:
    """Return the parts of one of the networks of a `StackedNet`."""
    if len(parameters) == 1:
        return _constant(parameters[0])
    maps = [
        AffineMap(_array(weight.T), _array(bias))
        for weight, bias in zip(parameters[::2], parameters[1::2], strict=True)
    ]
    return NetPart(tuple(maps), nets.INPUT_BOUND)


def _constant(value: Tensor) -> NetPart:
    matrix = value.new_zeros(len(value), 0)
    return NetPart((AffineMap(_array(matrix), _array(value)),), nets.INPUT_BOUND)


def _base(prior: Prior) -> BasePart:
    if isinstance(prior, StudentTPrior):
        return StudentTBase(_array(prior.log_df.double().exp()))
    if isinstance(prior, GaussianMixturePrior):
        log_weights = prior.logits.double().log_softmax(dim=0)
        return MixtureBase(_array(log_weights), _array(prior.means), _array(prior.log_scales))
    return NormalBase()


def _array(values: Tensor) -> Array:
    array: Array = values.detach().double().cpu().contiguous().numpy().copy()
    return array
