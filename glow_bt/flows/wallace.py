"""A normalizing transform of Student's t, t -> z, in both directions.

z = sign(t) * sqrt(a * log(1 + t^2/a)) is next to normal where t has a degrees of freedom: Wallace
1959 (Ann. Math. Stat. 30, 1124), without its constant factor. It takes one logarithm and one
root, and its inverse one exponential and one root, where the exact transform needs two special
functions and their inverses.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["compress", "stretch"]

# Beyond this ratio r, log(1 + r^2) is 2 log(r) to the last bit of either dtype, and r^2 may
# overflow.
_FAR = 1e8


def compress(t: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Return z = sign(t) * sqrt(a * log(1 + t^2/a)) and log dz/dt, elementwise.

    Exact to rounding up to a hundredth of the type's largest number: with r = |t| / sqrt(a),
    near = min(r, 1e8) and far = max(r / 1e8, 1), w = log1p(near^2) + 2 log(far),
    root = sqrt(w / near^2), z = t / far * root and log dz/dt = log(far / root) - w.
    """
    ratio = t.abs() / index.sqrt()
    square = ratio.clamp(max=_FAR).square()
    far = (ratio / _FAR).clamp_min(1.0)
    log_far = far.log()
    w = square.log1p() + 2 * log_far
    # log1p(q) / q tends to 1 at 0, and is 1 to the last bit below eps.
    eps = torch.finfo(t.dtype).eps
    root = torch.where(square > eps, w / square.clamp_min(eps), 1.0).sqrt()
    return t / far * root, log_far - root.log() - w


def stretch(z: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Return t = sign(z) * sqrt(a * (exp(z^2/a) - 1)) and log dt/dz, elementwise.

    With w = z^2/a and root = sqrt((1 - exp(-w)) / w): t = z * exp(w/2) * root and
    log dt/dz = w/2 - log(root). Only t itself can overflow.
    """
    w = z.square() / index
    eps = torch.finfo(w.dtype).eps
    root = torch.where(w > eps, -torch.expm1(-w) / w.clamp_min(eps), 1.0).sqrt()
    return z * torch.exp(0.5 * w) * root, 0.5 * w - root.log()
