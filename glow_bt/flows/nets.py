"""The small networks inside couplings."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

__all__ = [
    "INPUT_BOUND",
    "LOG_SCALE_BOUND",
    "StackedLinear",
    "StackedNet",
    "bounded_input",
    "bounded_log_scale",
    "conditioner",
    "soft_bound",
]

# Together these two bounds keep a trained float32 flow invertible to 1e-3 at 10 sigma: they hold
# back how fast far-out rows grow from layer to layer, and how strongly networks react to them.
# Without bounds errors of 1e9 were measured there; with twice the first and an elementwise tanh
# for the second 2e-2, with these below 8e-4, all at the same held-out likelihood.
LOG_SCALE_BOUND = 0.5
INPUT_BOUND = 3.0


def soft_bound(x: Tensor, bound: float) -> Tensor:
    """Return bound * tanh(x / bound): near the identity around 0, inside (-bound, bound)."""
    return bound * torch.tanh(x / bound)


def bounded_log_scale(raw: Tensor) -> Tensor:
    """Return the log-scale of a layer from a network's output, inside (-1/2, 1/2)."""
    return soft_bound(raw, LOG_SCALE_BOUND)


def bounded_input(condition: Tensor) -> Tensor:
    """Return c / sqrt(1 + mean(c^2) / b^2), rows (N, K) drawn into a ball.

    Near the identity for rows of a root mean square well below b = 3, below b everywhere.
    """
    mean_square = condition.square().mean(dim=1, keepdim=True)
    return condition * torch.rsqrt(1.0 + mean_square / INPUT_BOUND**2)


def conditioner(
    in_features: int, hidden_dim: int, out_features: int, hidden_layers: int = 2
) -> nn.Module:
    """Return a ReLU network (N, in) -> (N, out) whose output starts at zero.

    Input rows far out are drawn in (`bounded_input`), so that outputs stay bounded and change
    little there. Starting at zero makes the coupling above it start as the identity (Kingma &
    Dhariwal 2018, sec. 3.3). With hidden_layers=0 it is linear; with in_features=0 a learned
    constant.
    """
    if in_features == 0:
        return _Constant(out_features)
    layers: list[nn.Module] = [_BoundedInput()]
    width = in_features
    for _ in range(hidden_layers):
        layers += [nn.Linear(width, hidden_dim), nn.ReLU()]
        width = hidden_dim
    last = nn.Linear(width, out_features)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(*layers, last)


class StackedNet(nn.Module):
    """K networks as `conditioner` makes them, with two hidden layers and stacked parameters.

    Few large parameters in place of many small ones: a training step spends its time in the
    matrix products, not in touching tensors.

    Args:
        num_nets: K.
        in_features: width of the condition; with 0 each network is a learned constant.
        hidden_dim: width of the hidden layers.
        out_features: width of the output.
    """

    def __init__(
        self, num_nets: int, in_features: int, hidden_dim: int, out_features: int
    ) -> None:
        super().__init__()
        self.in_features = in_features
        widths = [in_features, hidden_dim, hidden_dim, out_features] if in_features else []
        layers = [StackedLinear(num_nets, *pair) for pair in itertools.pairwise(widths)]
        self.net = nn.ModuleList(layers)
        if in_features == 0:
            self.constant = nn.Parameter(torch.zeros(num_nets, out_features))
        else:
            nn.init.zeros_(layers[-1].weight)
            nn.init.zeros_(layers[-1].bias)

    def unbind(self) -> list[tuple[Tensor, ...]]:
        """Return the parameters of each network, for `apply_one`."""
        if self.in_features == 0:
            return [(constant,) for constant in self.constant.unbind()]
        stacks = [stack.unbind() for stack in self.net.parameters()]
        return list(zip(*stacks, strict=True))

    @staticmethod
    def apply_one(parameters: tuple[Tensor, ...], condition: Tensor) -> Tensor:
        """Return the output (N, out) of the network with these parameters."""
        if len(parameters) == 1:
            return parameters[0].expand(condition.shape[0], -1)
        w1, b1, w2, b2, w3, b3 = parameters
        hidden = torch.addmm(b1, bounded_input(condition), w1).relu()
        hidden = torch.addmm(b2, hidden, w2).relu()
        return torch.addmm(b3, hidden, w3)


class StackedLinear(nn.Module):
    """K linear maps, weights (K, in, out) and biases (K, out), starting as nn.Linear does."""

    def __init__(self, num_nets: int, in_features: int, out_features: int) -> None:
        super().__init__()
        bound = in_features**-0.5
        weight = torch.empty(num_nets, in_features, out_features).uniform_(-bound, bound)
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.empty(num_nets, out_features).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """Return (K, N, out) of rows (K, N, in), each by its own map."""
        return torch.baddbmm(self.bias[:, None, :], x, self.weight)


class _BoundedInput(nn.Module):
    """`bounded_input` as a layer."""

    def forward(self, condition: Tensor) -> Tensor:
        return bounded_input(condition)


class _Constant(nn.Module):
    """The same learned row for every input row."""

    def __init__(self, out_features: int) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.zeros(out_features))

    def forward(self, condition: Tensor) -> Tensor:
        return self.value.expand(condition.shape[0], -1)
