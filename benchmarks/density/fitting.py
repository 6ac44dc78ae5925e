"""One training loop for every flow of a comparison.

Adam on a cosine that ends at 0, clipped gradients, Gaussian noise on the rows if asked for, and
an exponential moving average of the weights, which is what is validated and kept.
"""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass, field

import torch

from glow_bt.errors import TrainingError

_CLIP_NORM = 5.0
_START_ROWS = 4096  # what data-dependent layers see before the first step
_SCORED_AT_ONCE = 4096


@dataclass(frozen=True)
class Schedule:
    """How a flow is trained.

    Attributes:
        epochs: passes over the training rows.
        batch_size: rows a step; what is left over at the end of a pass is not used in it.
        learning_rate: of Adam in the first step.
        weight_decay: of the networks' weight matrices.
        noise: deviation of Gaussian noise added to training rows, drawn anew in each pass.
        averaging: share of the old average that a step keeps.
    """

    epochs: int
    batch_size: int
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    noise: float = 0.0
    averaging: float = 0.995


@dataclass
class Course:
    """What a fit came to; NLLs are means in nats a row, one an epoch."""

    validation_nll: list[float] = field(default_factory=list)
    train_nll: list[float] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def best_epoch(self) -> int:
        """The epoch, from 1, with the least validation NLL."""
        return 1 + min(range(len(self.validation_nll)), key=self.validation_nll.__getitem__)

    @property
    def best_nll(self) -> float:
        return self.validation_nll[self.best_epoch - 1]


def fit(flow, train: torch.Tensor, validation: torch.Tensor, schedule: Schedule, seed: int):
    """Train; return the averaged flow of the best epoch, in float64, and the fit's course.

    Args:
        flow: a float32 module with log_prob(rows) -> (N,).
        train: (N, D) rows.
        validation: (M, D) rows, which choose the epoch.
        schedule: how.
        seed: of order and noise.

    Raises:
        TrainingError: if no epoch gave a finite validation NLL.
    """
    began = time.perf_counter()
    train, validation = train.float(), validation.float()
    generator = torch.Generator().manual_seed(seed)
    flow.train()
    with torch.no_grad():
        flow.log_prob(train[_order(train, generator)[:_START_ROWS]])
    average = copy.deepcopy(flow)
    course, best = Course(), None
    for train_nll in _epochs(flow, average, train, schedule, generator):
        course.train_nll.append(train_nll)
        nll = -float(log_prob(average, validation).mean())
        course.validation_nll.append(nll if math.isfinite(nll) else math.inf)
        if math.isfinite(nll) and course.best_epoch == len(course.validation_nll):
            best = copy.deepcopy(average.state_dict())
    if best is None:
        raise TrainingError(
            f"expected a finite validation NLL in one of {schedule.epochs} epochs, found none; "
            "lower the learning rate"
        )
    average.load_state_dict(best)
    course.seconds = time.perf_counter() - began
    return average.double().eval(), course


@torch.no_grad()
def log_prob(flow, rows: torch.Tensor) -> torch.Tensor:
    """Return the log-density of rows (N, D), in blocks, as float64 (N,)."""
    flow.eval()
    return torch.cat([flow.log_prob(block).double() for block in rows.split(_SCORED_AT_ONCE)])


def _epochs(flow, average, train: torch.Tensor, schedule: Schedule, generator):
    """Train and average; yield the mean NLL of each pass."""
    optimizer = _adam(flow, schedule)
    batches = len(train) // schedule.batch_size
    step, last = 0, schedule.epochs * batches
    for _ in range(schedule.epochs):
        flow.train()
        total = 0.0
        for index in _order(train, generator).split(schedule.batch_size)[:batches]:
            for group in optimizer.param_groups:
                group["lr"] = 0.5 * schedule.learning_rate * (1 + math.cos(math.pi * step / last))
            total += _step(flow, optimizer, _noisy(train[index], schedule.noise, generator))
            step += 1
            # Short memory at first, so that the average does not hang on the start.
            kept = min(schedule.averaging, step / (step + 9))
            with torch.no_grad():
                torch._foreach_lerp_(list(average.parameters()), list(flow.parameters()), 1 - kept)
        yield total / batches


def _step(flow, optimizer: torch.optim.Adam, rows: torch.Tensor) -> float:
    """Take one step, unless its loss or gradient is not finite; return the NLL."""
    optimizer.zero_grad()
    loss = -flow.log_prob(rows).mean()
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(flow.parameters(), _CLIP_NORM)
    if torch.isfinite(loss) and torch.isfinite(norm):
        optimizer.step()
    return float(loss.detach())


def _order(train: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return torch.randperm(len(train), generator=generator)


def _noisy(rows: torch.Tensor, noise: float, generator: torch.Generator) -> torch.Tensor:
    return rows + noise * torch.randn(rows.shape, generator=generator) if noise else rows


def _adam(flow, schedule: Schedule) -> torch.optim.Adam:
    weights = [p for name, p in flow.named_parameters() if name.endswith(".weight")]
    others = [p for name, p in flow.named_parameters() if not name.endswith(".weight")]
    groups = [
        {"params": weights, "weight_decay": schedule.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.Adam(groups, lr=schedule.learning_rate, fused=True)
