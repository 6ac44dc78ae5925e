"""The two contracts of this package: a bijection of rows, and a density made of one.

To add a layer: subclass `Bijection`, write `forward` and `inverse`, and add one line to the
registry in tests/contracts/registry.py, which puts it through every law.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from glow_bt.errors import FlowError

if TYPE_CHECKING:
    from glow_bt.flows.priors import Prior

__all__ = ["Bijection", "Flow", "check_sizes", "refuse_nan"]

Rows = Float[Tensor, "n d"]
Context = Float[Tensor, "n c"]
PerRow = Float[Tensor, " n"]


class Bijection(nn.Module, ABC):
    """An invertible map of rows, given a context: market -> latent.

    A row's result depends on that row and its context alone, never on the rest of the batch,
    and ``log_det`` holds one value a row. All state lives in parameters and buffers.

    Attributes:
        num_features: D, width of a row.
        context_features: C, width of its context; 0 for none.
    """

    def __init__(self, num_features: int, context_features: int = 0) -> None:
        super().__init__()
        if num_features < 1:
            raise FlowError(f"expected num_features of at least 1, found {num_features}")
        if context_features < 0:
            raise FlowError(f"expected context_features of at least 0, found {context_features}")
        self.num_features = num_features
        self.context_features = context_features

    @abstractmethod
    def forward(self, x: Rows, context: Context | None = None) -> tuple[Rows, PerRow]:
        """Map data to latents.

        Args:
            x: (N, D).
            context: (N, C), or None when C is 0.

        Returns:
            z (N, D) and log_det (N,) = log |det dz/dx|.
        """

    @abstractmethod
    def inverse(self, z: Rows, context: Context | None = None) -> tuple[Rows, PerRow]:
        """Map latents to data.

        Returns:
            x (N, D) and log_det (N,) = log |det dx/dz|.
        """


class Flow(Bijection):
    """A density: a bijection to latents whose distribution is `prior`.

    log p(x | c) = log prior(z) + log |det dz/dx| (Papamakarios et al. 2021, sec. 2.1,
    arXiv:1912.02762).
    """

    prior: Prior
    # What `objective` is: "nll" for the negative log-likelihood, "loss" for anything else.
    objective_name: ClassVar[str] = "nll"

    def log_prob(self, x: Rows, context: Context | None = None) -> PerRow:
        """Return the log-density of each row in nats, shape (N,).

        Raises:
            FlowError: on a wrong width, a missing context, a row that is not finite, or one so
                far out that its density comes out as NaN.
        """
        log_prob = self._unchecked_log_prob(x, context)
        refuse_nan(log_prob, x)
        return log_prob

    def objective(
        self,
        x: Rows,
        context: Context | None = None,
        generator: torch.Generator | None = None,
    ) -> PerRow:
        """Return what training minimises, one value a row (N,); here -log_prob, in nats.

        Unlike `log_prob` it may be NaN: training skips such steps and counts them.

        Args:
            x: (N, D).
            context: (N, C), or None when C is 0.
            generator: source of randomness, for a family whose objective draws any.
        """
        return -self._unchecked_log_prob(x, context)

    def _unchecked_log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        self.check_rows(x, context)
        z, log_det = self.forward(x, context)
        return self.prior.log_prob(z) + log_det

    def sample(
        self,
        n: int,
        context: Float[Tensor, "m c"] | None = None,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Rows:
        """Draw n rows, shape (N, D), without gradients.

        Args:
            n: number of rows.
            context: (N, C), one a row; (1, C) is repeated.
            temperature: factor on the spread of the latents; below 1 draws nearer the mode
                (Kingma & Dhariwal 2018, sec. 6).
            generator: source of randomness; default torch's global one.
        """
        if n < 1:
            raise FlowError(f"expected to draw at least 1 row, found n={n}")
        if not temperature > 0:
            raise FlowError(f"expected a temperature above 0, found {temperature}")
        if context is not None and context.shape[0] == 1:
            context = context.expand(n, -1)
        with torch.no_grad():
            z = self.prior.sample(n, temperature, generator)
            self.check_rows(z, context)
            x, _ = self.inverse(z, context)
        return x

    def check_rows(self, x: Tensor, context: Tensor | None) -> None:
        """Refuse rows that the flow cannot take.

        Raises:
            FlowError: naming what was expected and the first offending row.
        """
        dtype = self.prior.dtype
        _check_block(x, self.num_features, dtype, "rows")
        if self.context_features == 0:
            if context is not None:
                raise FlowError(
                    "expected no context for a flow of context_features=0, found one of shape "
                    f"{tuple(context.shape)}; build the flow with "
                    f"context_features={context.shape[-1]}"
                )
            return
        if context is None:
            raise FlowError(
                f"expected a context of shape (N, {self.context_features}), found none"
            )
        _check_block(context, self.context_features, dtype, "contexts")
        if context.shape[0] != x.shape[0]:
            raise FlowError(
                f"expected one context a row, found {context.shape[0]} contexts "
                f"for {x.shape[0]} rows"
            )


def check_sizes(**sizes: object) -> None:
    """Refuse a size that is no whole number of at least 1.

    Raises:
        FlowError: naming the first such size.
    """
    for name, size in sizes.items():
        if not isinstance(size, int) or size < 1:
            raise FlowError(
                f"expected {name} of at least 1, found {size!r}; give a whole number from 1 on"
            )


def refuse_nan(values: Tensor, x: Tensor, what: str = "density") -> None:
    """Refuse results that are NaN, one value (N,) for each row x (N, D).

    Raises:
        FlowError: naming the first such row.
    """
    # The sum of others can be NaN too, of infinite ones.
    if not torch.isnan(values.sum()):
        return
    bad = torch.isnan(values)
    if bad.any():
        row = int(bad.nonzero()[0])
        raise FlowError(
            f"expected a {what} of every row, found NaN for {int(bad.sum())}, first row {row}: "
            f"{x[row].tolist()}; it lies beyond what {x.dtype} can compute, remove it"
        )


def _check_block(x: Tensor, width: int, dtype: torch.dtype, what: str) -> None:
    if x.ndim != 2 or x.shape[1] != width:
        raise FlowError(f"expected {what} of shape (N, {width}), found {tuple(x.shape)}")
    if x.dtype != dtype:
        raise FlowError(
            f"expected {what} of the flow's {dtype}, found {x.dtype}; convert one of them"
        )
    # One sum tells most often that all is finite, at a fraction of a full mask.
    if torch.isfinite(x.sum()):
        return
    bad = ~torch.isfinite(x).all(dim=1)
    if bad.any():
        row = int(bad.nonzero()[0])
        raise FlowError(
            f"expected finite {what}, found {int(bad.sum())} that are not, first row {row}: "
            f"{x[row].tolist()}; remove or repair it"
        )
