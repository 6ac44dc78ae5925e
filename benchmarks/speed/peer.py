"""Another library's flow as a contender."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from benchmarks.speed.contender import (
    INITIAL_ROWS,
    Call,
    Contender,
    Size,
    count_parameters,
    through_compiler,
    training_step,
    without_gradients,
)


class Library(Protocol):
    """What a module of a peer gives: normflows_peer, nflows_peer, zuko_peer.

    Attributes:
        VARIANTS: ways to build the flow, by name; the first trains fastest.
    """

    VARIANTS: tuple[str, ...]

    def build(self, size: Size, variant: str) -> nn.Module:
        """Return the flow."""

    def encode(self, model: nn.Module) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        """Return a function from rows to latents and log-densities.

        Whatever the library can prepare or cache for a frozen model is prepared here.
        """

    def sample(self, model: nn.Module) -> Callable[[int], Tensor]:
        """Return a function that draws rows."""

    def patch(self, model: nn.Module) -> None:
        """Take out of a model that has seen data what makes torch.compile break its graph."""


class Peer(Contender):
    """A flow of another library, in eval mode to encode and sample.

    Args:
        name: as printed.
        library: that has it.
        variant: one of the library's VARIANTS.
        size: to build it to.
        compiled: only a training step, through torch.compile.
        patched: after `Library.patch`; then it is no longer the library as it comes, and no
            peer but a reference.
    """

    def __init__(
        self,
        name: str,
        library: Library,
        variant: str,
        size: Size,
        *,
        compiled: bool = False,
        patched: bool = False,
    ) -> None:
        self._library, self._variant, self._size = library, variant, size
        self._compiled, self._patched = compiled, patched
        group = "reference" if patched else "peer"
        super().__init__(name, group, count_parameters(library.build(size, variant)))

    def encode(self, x: Tensor) -> Call | None:
        if self._compiled:
            return None
        model = self._model().eval()
        with torch.inference_mode():
            encode = self._library.encode(model)
        return without_gradients(encode, x)

    def sample(self, n: int) -> Call | None:
        if self._compiled:
            return None
        model = self._model().eval()
        with torch.inference_mode():
            sample = self._library.sample(model)
        return without_gradients(sample, n)

    def train(self, x: Tensor) -> Call:
        model = self._model()

        def log_prob(rows: Tensor) -> Tensor:
            return self._library.encode(model)(rows)[1]

        if self._patched:
            self._library.patch(model)
        if self._compiled:
            log_prob = through_compiler(log_prob)
        return training_step(model.parameters(), log_prob, x)

    def _model(self) -> nn.Module:
        """Return a model in training mode whose layers have seen data."""
        torch.manual_seed(0)
        model = self._library.build(self._size, self._variant).train()
        with torch.no_grad():
            self._library.encode(model)(torch.randn(INITIAL_ROWS, self._size.features))
        return model
