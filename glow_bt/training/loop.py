"""Maximum likelihood by Adam, for any flow."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor

from glow_bt.errors import TrainingError
from glow_bt.flows import Flow
from glow_bt.training.checkpoint import Checkpoint
from glow_bt.training.config import TrainConfig

__all__ = ["Block", "Epoch", "FitResult", "fit_flow", "mean_nll"]

_EVALUATION_ROWS = 4096
# A gain in validation NLL below this is noise and resets no patience.
_MIN_GAIN = 1e-4


@dataclass(frozen=True, eq=False)
class Block:
    """Rows x (N, D) and, for a conditional flow, their contexts (N, C)."""

    x: Tensor
    context: Tensor | None = None

    def rows(self, index: Tensor | slice) -> Block:
        """Return some of the rows."""
        return Block(self.x[index], None if self.context is None else self.context[index])


@dataclass(frozen=True)
class Epoch:
    """What one pass over the training block came to.

    Attributes:
        number: from 1.
        train_nll: mean over the pass, nats a row.
        validation_nll: after the pass, nats a row.
        learning_rate: in the pass.
        skipped_steps: steps whose loss or gradient was not finite.
    """

    number: int
    train_nll: float
    validation_nll: float
    learning_rate: float
    skipped_steps: int


@dataclass
class FitResult:
    """A fit's course.

    Attributes:
        epochs: one entry an epoch.
        best_epoch: the epoch whose weights the flow holds now.
    """

    epochs: list[Epoch] = field(default_factory=list)
    best_epoch: int = 0

    @property
    def best_nll(self) -> float:
        """Validation NLL of the best epoch; infinite before there is one."""
        return self.epochs[self.best_epoch - 1].validation_nll if self.best_epoch else math.inf

    @property
    def skipped_steps(self) -> int:
        """Steps that were skipped because their loss or gradient was not finite."""
        return sum(epoch.skipped_steps for epoch in self.epochs)

    def history(self) -> dict[str, list[float]]:
        """Return train and validation NLL by epoch."""
        return {
            "train_nll": [epoch.train_nll for epoch in self.epochs],
            "validation_nll": [epoch.validation_nll for epoch in self.epochs],
        }


def fit_flow(
    flow: Flow,
    train: Block,
    validation: Block,
    config: TrainConfig,
    *,
    report: Callable[[Epoch], None] | None = None,
    checkpoint: Checkpoint | None = None,
) -> FitResult:
    """Minimise the negative log-likelihood; the flow ends with its best epoch's weights.

    Adam with clipped gradients; the learning rate halves when validation NLL stalls, and
    training stops when it has not improved for `config.patience` epochs. A step whose loss or
    gradient is not finite is skipped and counted. With a checkpoint, the state is saved after
    each epoch and an interrupted fit goes on to the same result.

    Raises:
        TrainingError: if no epoch gave a finite validation NLL.
    """
    optimizer = _adam(flow, config)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.5, patience=config.plateau_patience, threshold=_MIN_GAIN
    )
    generator = torch.Generator().manual_seed(config.seed)
    result = FitResult()
    best: dict[str, Tensor] = {}
    resumed = checkpoint.load(flow, optimizer, generator) if checkpoint else None
    if resumed is not None:
        progress, best = resumed
        result.epochs = [Epoch(**epoch) for epoch in progress["epochs"]]
        result.best_epoch = progress["best_epoch"]
        scheduler.load_state_dict(progress["scheduler"])
    else:
        _initialize(flow, train, generator)
    while len(result.epochs) < config.max_epochs and not _stalled(result, config):
        rate = optimizer.param_groups[0]["lr"]
        train_nll, skipped = _run_epoch(flow, train, optimizer, generator, config)
        epoch = Epoch(len(result.epochs) + 1, train_nll, mean_nll(flow, validation), rate, skipped)
        scheduler.step(epoch.validation_nll)
        if epoch.validation_nll < result.best_nll - _MIN_GAIN:
            best = {name: t.detach().clone() for name, t in flow.state_dict().items()}
            result.best_epoch = epoch.number
        result.epochs.append(epoch)
        if report is not None:
            report(epoch)
        if checkpoint is not None:
            progress = {
                "epochs": [asdict(e) for e in result.epochs],
                "best_epoch": result.best_epoch,
                "scheduler": scheduler.state_dict(),
            }
            checkpoint.save(flow.state_dict(), best, optimizer, generator, progress)
    if not result.best_epoch:
        raise TrainingError(
            "expected a finite validation NLL in some epoch, found none in "
            f"{len(result.epochs)} epochs ({result.skipped_steps} steps skipped); lower the "
            "learning rate and look for extreme values in the bars"
        )
    flow.load_state_dict(best)
    flow.eval()
    return result


@torch.no_grad()
def mean_nll(flow: Flow, block: Block) -> float:
    """Return the mean negative log-likelihood of a block, in nats a row."""
    flow.eval()
    total = 0.0
    for start in range(0, len(block.x), _EVALUATION_ROWS):
        rows = block.rows(slice(start, start + _EVALUATION_ROWS))
        total -= float(flow.log_prob(rows.x, rows.context).double().sum())
    return total / len(block.x)


def _adam(flow: Flow, config: TrainConfig) -> torch.optim.Adam:
    """Return Adam with weight decay on the networks' weight matrices only.

    Decay on the rest (scales, rotations, tail indices) would pull the density itself.
    """
    decayed: list[Tensor] = []
    plain: list[Tensor] = []
    for name, parameter in flow.named_parameters():
        is_weight = "net." in name and name.endswith(".weight")
        (decayed if is_weight else plain).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return torch.optim.Adam(groups, lr=config.learning_rate, fused=True)


@torch.no_grad()
def _initialize(flow: Flow, train: Block, generator: torch.Generator) -> None:
    """Let data-dependent layers see a large random batch before the first step."""
    flow.train()
    order = torch.randperm(len(train.x), generator=generator)[:_EVALUATION_ROWS]
    rows = train.rows(order)
    flow.log_prob(rows.x, rows.context)


def _run_epoch(
    flow: Flow,
    train: Block,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
    config: TrainConfig,
) -> tuple[float, int]:
    flow.train()
    total, seen, skipped = 0.0, 0, 0
    order = torch.randperm(len(train.x), generator=generator)
    for index in torch.split(order, config.batch_size):
        rows = train.rows(index)
        optimizer.zero_grad()
        loss = -flow.log_prob(rows.x, rows.context).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(flow.parameters(), config.clip_norm)
        if not (torch.isfinite(loss) and torch.isfinite(norm)):
            skipped += 1
            continue
        optimizer.step()
        total += float(loss.detach()) * len(index)
        seen += len(index)
    return (total / seen if seen else math.nan), skipped


def _stalled(result: FitResult, config: TrainConfig) -> bool:
    return len(result.epochs) - result.best_epoch >= config.patience
