"""Flow matching: a velocity learned by regression, a density by solving its equation."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from glow_bt.flows.base import Context, Flow, PerRow, Rows, check_sizes
from glow_bt.flows.ode import Field, integrate, time_features, velocity_field
from glow_bt.flows.priors import NormalPrior
from glow_bt.flows.tails import TailLayer

__all__ = ["FlowMatching"]

_FREQUENCIES = 3


class FlowMatching(Flow):
    """Straight paths from noise to data, Lipman et al. 2022, sec. 4.1 (arXiv:2210.02747).

    A point that moves from noise e ~ N(0, I) at time 0 to a row x at time 1 along a straight
    line has velocity x - e. The network v learns the mean of these by regression,

        objective   |v(t, (1 - t) e + t x, c) - (x - e)|^2,   t ~ U(0, 1)

    (their optimal-transport path with sigma_min = 0). The flow is the solution of
    dx/dt = v(t, x, c): from 1 to 0 for the latent, from 0 to 1 for samples. Its likelihood is
    exact but for the solver's error: with 8 steps, on fitted flows of market states, below 1e-8
    in the round trip and in log_det.

    The objective says nothing on a layer before it, so the tail layer stays as fitted to data.

    Args:
        num_features: D.
        hidden_dim: width of the network's two hidden layers.
        context_features: C.
        tails: whether a `TailLayer` comes first.
        solver_steps: steps of the solver, of 12 evaluations each.

    Raises:
        FlowError: on a size below 1.
    """

    objective_name = "loss"

    def __init__(
        self,
        num_features: int,
        hidden_dim: int = 128,
        context_features: int = 0,
        *,
        tails: bool = True,
        solver_steps: int = 8,
    ) -> None:
        super().__init__(num_features, context_features)
        check_sizes(hidden_dim=hidden_dim, solver_steps=solver_steps)
        self.config: dict[str, int | bool] = {
            "num_features": num_features,
            "hidden_dim": hidden_dim,
            "context_features": context_features,
            "tails": tails,
            "solver_steps": solver_steps,
        }
        self.solver_steps = solver_steps
        self.tails = TailLayer(num_features, trained=False) if tails else None
        inputs = 2 * _FREQUENCIES + num_features + context_features
        self.net = nn.ModuleList(
            [
                nn.Linear(inputs, hidden_dim),
                nn.Linear(hidden_dim, hidden_dim),
                nn.Linear(hidden_dim, num_features),
            ]
        )
        self.prior = NormalPrior(num_features)

    def forward(self, x: Rows, context: Context | None = None) -> tuple[Rows, PerRow]:
        """Map data (N, D) to the noise that it came from."""
        h, log_det = (x, x.new_zeros(x.shape[0])) if self.tails is None else self.tails(x)
        z, change = integrate(self._field(context), h, 1.0, 0.0, self.solver_steps)
        return z, log_det + change

    def inverse(self, z: Rows, context: Context | None = None) -> tuple[Rows, PerRow]:
        """Map noise (N, D) to data."""
        h, log_det = integrate(self._field(context), z, 0.0, 1.0, self.solver_steps)
        if self.tails is None:
            return h, log_det
        x, change = self.tails.inverse(h)
        return x, log_det + change

    def objective(
        self,
        x: Rows,
        context: Context | None = None,
        generator: torch.Generator | None = None,
    ) -> PerRow:
        """Return the squared error of each row's velocity at a random time, shape (N,).

        Times are stratified: one in each of N equal parts of (0, 1), in random order.
        """
        self.check_rows(x, context)
        with torch.no_grad():
            data = x if self.tails is None else self.tails(x)[0]
        count = x.shape[0]
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        part = torch.randperm(count, generator=generator, device=x.device)
        inside = torch.rand(count, generator=generator, dtype=x.dtype, device=x.device)
        time = (part + inside)[:, None] / count
        velocity = self._velocity(time, (1 - time) * noise + time * data, context)
        return (velocity - (data - noise)).square().sum(dim=1)

    def _field(self, context: Tensor | None) -> Field:
        layers = cast("list[nn.Linear]", list(self.net))
        weights = [(layer.weight, layer.bias) for layer in layers]
        return velocity_field(weights, self.num_features, context)

    def _velocity(self, time: Tensor, x: Tensor, context: Tensor | None) -> Tensor:
        parts = [time_features(time, _FREQUENCIES), x]
        h = torch.cat(parts if context is None else [*parts, context], dim=1)
        first, second, last = self.net
        velocity: Tensor = last(nn.functional.silu(second(nn.functional.silu(first(h)))))
        return velocity
