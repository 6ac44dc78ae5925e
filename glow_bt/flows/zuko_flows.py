"""Families that zuko has, behind the contract of this package (`pip install 'glow-bt[flows]'`)."""

from __future__ import annotations

import math
from abc import abstractmethod
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from glow_bt.errors import MissingExtraError
from glow_bt.flows.base import Context, Flow, PerRow, Rows, check_sizes
from glow_bt.flows.ode import Field, integrate, velocity_field
from glow_bt.flows.priors import make_prior
from glow_bt.flows.tails import TailLayer

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["CNF", "IAF", "MAF", "NSF"]

# The slope of an affine transform stays in (exp(-1/2), exp(1/2)), as that of Glow's couplings:
# with zuko's own bound of 1e-3 latents at 3 sigma became infinite data.
_LEAST_SLOPE = math.exp(-0.5)
# With this for splines float32 rows at 10 sigma come back to 1e-3, with zuko's 1e-3 to 5e-3.
_LEAST_SPLINE_SLOPE = 0.05


class _ZukoFlow(Flow):
    """A tail layer, a transform of zuko and a prior."""

    net: nn.Module

    def __init__(
        self,
        num_features: int,
        context_features: int,
        base: str,
        tails: bool,
        num_components: int,
        **sizes: int,
    ) -> None:
        super().__init__(num_features, context_features)
        check_sizes(**sizes)
        self.config: dict[str, int | str | bool] = {
            "num_features": num_features,
            **sizes,
            "context_features": context_features,
            "base": base,
            "tails": tails,
            "num_components": num_components,
        }
        self.tails = TailLayer(num_features, context_features) if tails else None
        self.prior = make_prior(base, num_features, num_components)

    def forward(self, x: Rows, context: Context | None = None) -> tuple[Rows, PerRow]:
        """Map data (N, D) to latents (N, D), with log |det dz/dx| (N,)."""
        h, log_det = self._without_tails(x, context)
        z, change = self._to_latent(h, context)
        return z, log_det + change

    def inverse(self, z: Rows, context: Context | None = None) -> tuple[Rows, PerRow]:
        """Map latents (N, D) to data (N, D), with log |det dx/dz| (N,)."""
        h, log_det = self._to_data(z, context)
        if self.tails is None:
            return h, log_det
        x, change = self.tails.inverse(h, context)
        return x, log_det + change

    def _without_tails(self, x: Rows, context: Context | None) -> tuple[Rows, PerRow]:
        return (x, x.new_zeros(x.shape[0])) if self.tails is None else self.tails(x, context)

    @abstractmethod
    def _to_latent(self, h: Rows, context: Context | None) -> tuple[Rows, PerRow]:
        """Map rows without heavy tails to latents."""

    @abstractmethod
    def _to_data(self, z: Rows, context: Context | None) -> tuple[Rows, PerRow]:
        """Undo `_to_latent`."""


class MAF(_ZukoFlow):
    """Masked autoregressive flow, Papamakarios et al. 2017 (arXiv:1705.07057).

    z_i = x_i * exp(s_i) + t_i, with (s_i, t_i) a masked network of x_1..x_(i-1); the order of
    features is reversed from one transform to the next. A density takes one pass a transform, a
    sample D passes.

    Args:
        num_features: D.
        num_steps: number of transforms.
        hidden_dim: width of the two hidden layers of each.
        context_features: C.
        base: "normal", "student_t" or "mixture".
        tails: whether a `TailLayer` comes first.
        num_components: components of base "mixture".

    Raises:
        FlowError: on a size below 1 or an unknown base.
        MissingExtraError: if zuko is not installed.
    """

    def __init__(
        self,
        num_features: int,
        num_steps: int = 4,
        hidden_dim: int = 128,
        context_features: int = 0,
        base: str = "normal",
        *,
        tails: bool = True,
        num_components: int = 4,
    ) -> None:
        super().__init__(
            num_features,
            context_features,
            base,
            tails,
            num_components,
            num_steps=num_steps,
            hidden_dim=hidden_dim,
        )
        zuko = _zuko()
        self.net = zuko.flows.MAF(
            num_features,
            context_features,
            num_steps,
            hidden_features=[hidden_dim] * 2,
            univariate=partial(zuko.transforms.MonotonicAffineTransform, slope=_LEAST_SLOPE),
        ).transform

    def _to_latent(self, h: Rows, context: Context | None) -> tuple[Rows, PerRow]:
        return _applied(self.net(context), h)

    def _to_data(self, z: Rows, context: Context | None) -> tuple[Rows, PerRow]:
        return _applied(self.net(context).inv, z)


class IAF(MAF):
    """Inverse autoregressive flow, Kingma et al. 2016 (arXiv:1606.04934).

    `MAF` the other way round: data are an autoregressive function of latents, so that a sample
    takes one pass a transform and a density, and with it training, D passes. Arguments and
    errors are those of `MAF`.
    """

    def _to_latent(self, h: Rows, context: Context | None) -> tuple[Rows, PerRow]:
        return _applied(self.net(context).inv, h)

    def _to_data(self, z: Rows, context: Context | None) -> tuple[Rows, PerRow]:
        return _applied(self.net(context), z)


class NSF(_ZukoFlow):
    """Neural spline flow, autoregressive, Durkan et al. 2019 (arXiv:1906.04032).

    As `MAF`, with monotonic rational-quadratic splines on [-5, 5] in place of affine maps;
    outside a row passes unchanged.

    Args:
        num_features: D.
        num_steps: number of transforms.
        hidden_dim: width of the two hidden layers of each.
        context_features: C.
        base: "normal", "student_t" or "mixture".
        num_bins: pieces of a spline.
        tails: whether a `TailLayer` comes first.
        num_components: components of base "mixture".

    Raises:
        FlowError: on a size below 1 or an unknown base.
        MissingExtraError: if zuko is not installed.
    """

    def __init__(
        self,
        num_features: int,
        num_steps: int = 4,
        hidden_dim: int = 128,
        context_features: int = 0,
        base: str = "normal",
        *,
        num_bins: int = 8,
        tails: bool = True,
        num_components: int = 4,
    ) -> None:
        super().__init__(
            num_features,
            context_features,
            base,
            tails,
            num_components,
            num_steps=num_steps,
            hidden_dim=hidden_dim,
            num_bins=num_bins,
        )
        self.net = (
            _zuko()
            .flows.NSF(
                num_features,
                context_features,
                num_bins,
                slope=_LEAST_SPLINE_SLOPE,
                transforms=num_steps,
                hidden_features=[hidden_dim] * 2,
            )
            .transform
        )

    def _to_latent(self, h: Rows, context: Context | None) -> tuple[Rows, PerRow]:
        return _applied(self.net(context), h)

    def _to_data(self, z: Rows, context: Context | None) -> tuple[Rows, PerRow]:
        return _applied(self.net(context).inv, z)


class CNF(_ZukoFlow):
    """Continuous flow (neural ODE), Grathwohl et al. 2019 (FFJORD, arXiv:1810.01367).

    z is the solution of dh/dt = v(t, h, c) at time 1 with h(0) = x, v being zuko's network, with
    SiLU between its layers. zuko's adaptive solver takes one step length for all rows of a
    batch, so that a row's density would depend on its company: `glow_bt.flows.ode` solves the
    equation instead, with the exact divergence.

    Args:
        num_features: D.
        hidden_dim: width of the network's two hidden layers.
        context_features: C.
        base: "normal", "student_t" or "mixture".
        tails: whether a `TailLayer` comes first.
        num_components: components of base "mixture".
        solver_steps: steps of the solver, of 12 evaluations each; training takes half of them.

    Raises:
        FlowError: on a size below 1 or an unknown base.
        MissingExtraError: if zuko is not installed.
    """

    def __init__(
        self,
        num_features: int,
        hidden_dim: int = 128,
        context_features: int = 0,
        base: str = "normal",
        *,
        tails: bool = True,
        num_components: int = 4,
        solver_steps: int = 8,
    ) -> None:
        super().__init__(
            num_features,
            context_features,
            base,
            tails,
            num_components,
            hidden_dim=hidden_dim,
            solver_steps=solver_steps,
        )
        self.solver_steps = solver_steps
        self.net = (
            _zuko()
            .flows.CNF(
                num_features,
                context_features,
                hidden_features=[hidden_dim] * 2,
                activation=nn.SiLU,
            )
            .transform
        )

    def objective(
        self,
        x: Rows,
        context: Context | None = None,
        generator: torch.Generator | None = None,
    ) -> PerRow:
        """Return -log_prob (N,), in half of the solver's steps."""
        self.check_rows(x, context)
        h, log_det = self._without_tails(x, context)
        steps = (self.solver_steps + 1) // 2
        z, change = integrate(self._field(context), h, 0.0, 1.0, steps)
        return -(self.prior.log_prob(z) + log_det + change)

    def _to_latent(self, h: Rows, context: Context | None) -> tuple[Rows, PerRow]:
        return integrate(self._field(context), h, 0.0, 1.0, self.solver_steps)

    def _to_data(self, z: Rows, context: Context | None) -> tuple[Rows, PerRow]:
        return integrate(self._field(context), z, 1.0, 0.0, self.solver_steps)

    def _field(self, context: Context | None) -> Field:
        network: Any = self.net
        layers = [(layer.weight, layer.bias) for layer in list(network.ode)[::2]]
        return velocity_field(layers, self.num_features, context)


def _applied(transform: Any, rows: Rows) -> tuple[Rows, PerRow]:  # noqa: ANN401
    if not len(rows):  # zuko's networks take no empty batch
        return rows, rows.new_zeros(0)
    moved: tuple[Rows, PerRow] = transform.call_and_ladj(rows)
    return moved


def _zuko() -> ModuleType:
    try:
        import zuko
    except ModuleNotFoundError as error:
        raise MissingExtraError("zuko", "flows", "this family of flows") from error
    module: ModuleType = zuko
    return module
