"""The arithmetic alone: the matrix products of the same flow, into memory set aside before."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.speed.contender import Call, Contender, Size, without_gradients

# left (N, I), right (I, O) and where their product goes.
Product = tuple[Tensor, Tensor, Tensor]

# More rows at once fall out of the cache: a fifth slower at 33,000.
BLOCK_ROWS = 1024


class BareProducts(Contender):
    """torch.mm(out=) for each of the flow's matrices, block after block of rows; nothing else.

    A step has the 1x1 convolution and the three matrices of its coupling's network. On the way
    back, for training, each matrix takes two more products: its own gradient and its input's.
    """

    def __init__(self, size: Size) -> None:
        super().__init__("bare matrix products", "reference")
        self._shapes = [shape for width in size.widths() for shape in _shapes(width, size)]

    def encode(self, x: Tensor) -> Call:
        return self.sample(len(x))

    def sample(self, n: int) -> Call:
        blocks, rest = divmod(n, BLOCK_ROWS)
        whole = _forward(self._shapes, BLOCK_ROWS) * blocks if blocks else []
        return without_gradients(_multiply, whole + (_forward(self._shapes, rest) if rest else []))

    def train(self, x: Tensor) -> Call:
        forward = _forward(self._shapes, len(x))
        return without_gradients(_multiply, [*forward, *_backward(forward)])


def _shapes(width: int, size: Size) -> list[tuple[int, int]]:
    passed, hidden = width // 2, size.hidden
    net = [(passed, hidden), (hidden, hidden), (hidden, 2 * (width - passed))]
    return [(width, width), *net] * size.steps


def _multiply(products: list[Product]) -> None:
    for left, right, out in products:
        torch.mm(left, right, out=out)


def _forward(shapes: list[tuple[int, int]], n: int) -> list[Product]:
    """Return the products of one pass; blocks of rows are shared, as they would be in a pass."""
    blocks = {width: torch.randn(n, width) for shape in shapes for width in shape}
    outs = {width: torch.empty(n, width) for width in blocks}
    return [(blocks[i], torch.randn(i, o), outs[o]) for i, o in shapes]


def _backward(forward: list[Product]) -> list[Product]:
    blocks = {out.shape: torch.randn_like(out) for _, _, out in forward}
    outs = {
        part.shape: torch.empty_like(part) for left, right, _ in forward for part in (left, right)
    }
    products = []
    for left, right, out in reversed(forward):
        gradient = blocks[out.shape]
        products.append((left.T, gradient, outs[right.shape]))
        products.append((gradient, right.T, outs[left.shape]))
    return products
