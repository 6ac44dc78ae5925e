"""The flow as a textbook writes it, scored as a trading loop calls it: one row at a time.

One module a layer, each with a `reverse` switch; the mixing matrix is put together from its
factors in every call and inverted as a whole to sample.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from benchmarks.speed.contender import (
    CLIP_NORM,
    LEARNING_RATE,
    Call,
    Contender,
    Size,
    count_parameters,
    without_gradients,
)

# Beyond it a round would take minutes, and the time a row is the same.
MOST_ROWS = 4096


class RowLoop(Contender):
    """Encodes in a Python loop over rows; samples and trains in batches, as textbooks do."""

    def __init__(self, size: Size) -> None:
        torch.manual_seed(0)
        self._model = _TextbookFlow(size)
        super().__init__("textbook, row by row", "reference", count_parameters(self._model))

    def encode(self, x: Tensor) -> Call | None:
        if len(x) > MOST_ROWS:
            return None

        def call() -> tuple[Tensor, Tensor]:
            scored = [self._model.log_prob(row[None]) for row in x]
            latents, log_probs = zip(*scored, strict=True)
            return torch.cat(latents), torch.cat(log_probs)

        return without_gradients(call)

    def sample(self, n: int) -> Call:
        return without_gradients(self._model.sample, n)

    def train(self, x: Tensor) -> Call:
        optimizer = torch.optim.Adam(self._model.parameters(), lr=LEARNING_RATE)

        def step() -> None:
            optimizer.zero_grad()
            (-self._model.log_prob(x)[1].mean()).backward()
            nn.utils.clip_grad_norm_(self._model.parameters(), CLIP_NORM)
            optimizer.step()

        return step


class _Normalize(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(width))
        self.shift = nn.Parameter(torch.zeros(width))

    def forward(self, h: Tensor, reverse: bool = False) -> tuple[Tensor, Tensor]:
        if reverse:
            return (h - self.shift) / self.log_scale.exp(), -self.log_scale.sum()
        return h * self.log_scale.exp() + self.shift, self.log_scale.sum()


class _Mix(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        p, lower, upper = torch.linalg.lu(torch.linalg.qr(torch.randn(width, width))[0])
        self.register_buffer("permutation", p)
        self.register_buffer("sign", upper.diagonal().sign())
        self.lower, self.upper = nn.Parameter(lower), nn.Parameter(upper)
        self.log_diagonal = nn.Parameter(upper.diagonal().abs().log())

    def forward(self, h: Tensor, reverse: bool = False) -> tuple[Tensor, Tensor]:
        lower = self.lower.tril(-1) + torch.eye(len(self.lower))
        upper = self.upper.triu(1) + torch.diag(self.sign * self.log_diagonal.exp())
        matrix = self.permutation @ lower @ upper
        if reverse:
            return h @ torch.inverse(matrix).T, -self.log_diagonal.sum()
        return h @ matrix.T, self.log_diagonal.sum()


class _Couple(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.passed = width // 2
        self.net = nn.Sequential(
            nn.Linear(self.passed, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, 2 * (width - self.passed)),
        )

    def forward(self, h: Tensor, reverse: bool = False) -> tuple[Tensor, Tensor]:
        passed, changed = h[:, : self.passed], h[:, self.passed :]
        raw, shift = self.net(passed).chunk(2, dim=1)
        log_scale = 2 * torch.tanh(raw)
        if reverse:
            changed = (changed - shift) * torch.exp(-log_scale)
            return torch.cat([passed, changed], dim=1), -log_scale.sum(dim=1)
        changed = changed * torch.exp(log_scale) + shift
        return torch.cat([passed, changed], dim=1), log_scale.sum(dim=1)


class _TextbookFlow(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        self.widths = size.widths()
        self.levels = nn.ModuleList(
            nn.ModuleList(
                layer
                for _ in range(size.steps)
                for layer in (_Normalize(width), _Mix(width), _Couple(width, size.hidden))
            )
            for width in self.widths
        )

    def log_prob(self, x: Tensor) -> tuple[Tensor, Tensor]:
        latents, h, total = [], x, torch.zeros(len(x))
        for number, level in enumerate(self.levels):
            for layer in level:
                h, log_det = layer(h)
                total = total + log_det
            if number < len(self.levels) - 1:
                leaving = h.shape[1] // 2
                latents.append(h[:, :leaving])
                h = h[:, leaving:]
        z = torch.cat([*latents, h], dim=1)
        return z, total - 0.5 * (z.square() + math.log(2 * math.pi)).sum(dim=1)

    def sample(self, n: int) -> Tensor:
        z = torch.randn(n, self.widths[0])
        h = z[:, z.shape[1] - self.widths[-1] :]
        for width, level in zip(reversed(self.widths), reversed(list(self.levels)), strict=True):
            if h.shape[1] < width:
                onward = h.shape[1]
                end = z.shape[1] - onward
                h = torch.cat([z[:, end - (width - onward) : end], h], dim=1)
            for layer in reversed(list(level)):
                h, _ = layer(h, reverse=True)
        return h
