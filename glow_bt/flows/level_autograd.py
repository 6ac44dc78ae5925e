"""Training steps of a level through compiled code: one node of autograd in place of hundreds.

At the sizes of market states PyTorch spends a training step between operations rather than in
them. So in training the steps of a level go through the kernels of `glow_bt.fused`, forward and
back; the modules stay what they are checked against, and what serves everywhere else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from glow_bt.flows import nets
from glow_bt.flows.coupling import Additive, Affine, Coupling

if TYPE_CHECKING:
    from collections.abc import Callable

    from glow_bt.flows.nets import StackedNet
    from glow_bt.fused.level_layout import Arrays

__all__ = ["is_compiled_for", "take_steps"]

Array = npt.NDArray[np.floating[Any]]

# Bounds on the log-scales of the couplings that kernels know; 0 where there are none.
_SCALE_BOUNDS: dict[type[Coupling], float] = {Affine: nets.LOG_SCALE_BOUND, Additive: 0.0}
_DTYPES = (torch.float32, torch.float64)


def is_compiled_for(
    x: Tensor, context: Tensor | None, coupling: Coupling, networks: StackedNet
) -> bool:
    """Return whether `take_steps` can take these rows: plain tensors of one dtype on the CPU.

    Not without gradients, where nothing has to be saved; not within torch.compile, which compiles
    the modules, nor within transforms such as torch.func.vmap, which have to see operations.
    """
    if not torch.is_grad_enabled() or torch.compiler.is_compiling():
        return False
    if type(coupling) not in _SCALE_BOUNDS or networks.in_features == 0:
        return False
    weight = next(networks.parameters())
    blocks = [x, weight] if context is None else [x, weight, context]
    return (
        not torch._C._are_functorch_transforms_active()
        and x.dtype in _DTYPES
        and all(type(block) in (Tensor, nn.Parameter) for block in blocks)
        and all(block.dtype == x.dtype and block.device.type == "cpu" for block in blocks)
    )


def take_steps(
    x: Tensor,
    context: Tensor | None,
    matrices: Tensor,
    shifts: Tensor,
    coupling: Coupling,
    networks: StackedNet,
) -> tuple[Tensor, Tensor]:
    """Take rows through all steps of a level, see `glow_bt.fused.level_forward`.

    Args:
        x: (N, D).
        context: (N, C) or None.
        matrices: (K, D, D), of the affine maps before the couplings.
        shifts: (K, D).
        coupling: affine or additive.
        networks: of the couplings.

    Returns:
        z (N, D) and log_det (N,) without what the affine maps add. Both are differentiable once,
        in everything.
    """
    bound = _SCALE_BOUNDS[type(coupling)]
    given = x.new_empty(len(x), 0) if context is None else context
    parameters = (matrices, shifts, *networks.parameters())
    taken = _Steps.apply(x, given, bound, *parameters)  # type: ignore[no-untyped-call]
    return cast("tuple[Tensor, Tensor]", taken)


class _Steps(Function):
    """The steps of a level; parameters come as matrix, shift, matrix, shift, ..."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        x: Tensor,
        context: Tensor,
        scale_bound: float,
        *parameters: Tensor,
    ) -> tuple[Tensor, Tensor]:
        from glow_bt.fused.level_forward import forward, saved_size
        from glow_bt.fused.level_kernels import prepare
        from glow_bt.fused.level_layout import Layout

        rows, contexts = _array(x), _array(context)
        maps, shifts = _arrays(parameters[::2]), _arrays(parameters[1::2])
        prepare(rows.dtype)
        layout = Layout.of(maps, contexts.shape[1])
        bounds = nets.INPUT_BOUND, scale_bound
        saved = np.empty(saved_size(layout, len(rows), rows.itemsize), rows.dtype)
        z, log_det = np.empty_like(rows), np.empty_like(rows, shape=len(rows))
        forward(rows, contexts, maps, shifts, layout, bounds, saved, z, log_det)
        ctx.save_for_backward(*parameters)
        ctx.layout, ctx.bounds = layout, bounds
        ctx.activations, ctx.context = saved, contexts
        return torch.from_numpy(z), torch.from_numpy(log_det)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any,  # noqa: ANN401
        z_grad: Tensor,
        log_det_grad: Tensor,
    ) -> tuple[Tensor | None, ...]:
        from glow_bt.fused.level_backward import backward
        from glow_bt.fused.level_layout import GradientLines, tiled

        rows, changes = _array(z_grad), _array(log_det_grad)[:, None]
        maps = _arrays(ctx.saved_tensors[::2])
        x_grad, context_grad = np.empty_like(rows), np.empty_like(ctx.context)
        map_grads = _each(lambda matrix: np.zeros(tiled(matrix.shape), matrix.dtype), maps)
        shift_grads = _each(np.zeros_like, _arrays(ctx.saved_tensors[1::2]))
        backward(
            rows,
            changes,
            maps,
            ctx.layout,
            GradientLines.of(ctx.layout),
            ctx.bounds,
            ctx.activations,
            x_grad,
            context_grad,
            map_grads,
            shift_grads,
        )
        grads: list[Tensor | None] = [
            torch.from_numpy(x_grad),
            torch.from_numpy(context_grad),
            None,
        ]
        for matrix, map_grad, shift_grad in zip(maps, map_grads, shift_grads, strict=True):
            _, inputs, outputs = matrix.shape
            grads.append(torch.from_numpy(map_grad)[:, :inputs, :outputs])
            grads.append(torch.from_numpy(shift_grad))
        return tuple(grads)


def _array(tensor: Tensor) -> Array:
    array: Array = tensor.detach().contiguous().numpy()
    return array


def _arrays(tensors: tuple[Tensor, ...]) -> Arrays:
    first, second, third, fourth = map(_array, tensors)
    return first, second, third, fourth


def _each(function: Callable[[Array], Array], arrays: Arrays) -> Arrays:
    first, second, third, fourth = map(function, arrays)
    return first, second, third, fourth
