"""Any flow's objective minimised by Adam: maximum likelihood, but for flow matching."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from glow_bt.errors import TrainingError
from glow_bt.flows import Flow
from glow_bt.training.average import WeightAverage
from glow_bt.training.checkpoint import Checkpoint
from glow_bt.training.config import TrainConfig

__all__ = ["Block", "Epoch", "FitResult", "fit_flow", "mean_loss", "mean_nll"]

_EVALUATION_ROWS = 4096
# A gain in validation loss below this is noise and resets no patience.
_MIN_GAIN = 1e-4


@dataclass(frozen=True, eq=False)
class Block:
    """Rows x (N, D) and, for a conditional flow, their contexts (N, C)."""

    x: Tensor
    context: Tensor | None = None

    @property
    def context_width(self) -> int:
        """C, 0 without contexts."""
        return 0 if self.context is None else self.context.shape[1]

    def rows(self, index: Tensor | slice) -> Block:
        """Return some of the rows."""
        return Block(self.x[index], None if self.context is None else self.context[index])


@dataclass(frozen=True)
class Epoch:
    """What one pass over the training block came to.

    A loss is the mean of the flow's objective: the NLL in nats a row, but for flow matching.

    Attributes:
        number: from 1.
        train_loss: over the pass.
        validation_loss: of the weights after the pass, averaged if `ema_decay` is set.
        learning_rate: at the start of the pass.
        skipped_steps: steps whose loss or gradient was not finite.
        objective: what the losses are: "nll", or "loss" for another objective.
    """

    number: int
    train_loss: float
    validation_loss: float
    learning_rate: float
    skipped_steps: int
    objective: str = "nll"


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
    def best_loss(self) -> float:
        """Validation loss of the best epoch; infinite before there is one."""
        return self.epochs[self.best_epoch - 1].validation_loss if self.best_epoch else math.inf

    @property
    def skipped_steps(self) -> int:
        """Steps that were skipped because their loss or gradient was not finite."""
        return sum(epoch.skipped_steps for epoch in self.epochs)

    def history(self) -> dict[str, list[float]]:
        """Return both losses by epoch, named after the objective, such as train_nll."""
        name = self.epochs[0].objective
        return {
            f"train_{name}": [epoch.train_loss for epoch in self.epochs],
            f"validation_{name}": [epoch.validation_loss for epoch in self.epochs],
        }


def fit_flow(
    flow: Flow,
    train: Block,
    validation: Block,
    config: TrainConfig,
    *,
    noise: float = 0.0,
    report: Callable[[Epoch], None] | None = None,
    checkpoint: Checkpoint | None = None,
) -> FitResult:
    """Minimise the flow's objective; the flow ends with its best epoch's weights.

    Adam with clipped gradients and a learning rate that falls to 0 like a cosine over
    `config.max_epochs`. What is judged after each epoch, and kept, are the weights or, with
    `config.ema_decay`, a running average of them (see `WeightAverage`); training stops when the
    validation loss has not improved for `config.patience` epochs. A step whose loss or gradient is
    not finite is skipped and counted. With a checkpoint, the state is saved after each epoch and
    an interrupted fit goes on to the same result.

    Args:
        flow: trained in place.
        train: what is learnt from.
        validation: what the best epoch is chosen by.
        config: the trainer's settings.
        noise: deviation of normal noise on the rows in training, in their units; it keeps the
            density from peaking at single rows.
        report: called after each epoch.
        checkpoint: where to save.

    Raises:
        TrainingError: if no epoch took a step and gave a finite validation loss.
    """
    fit = _Fit(flow, train, validation, config, noise)
    saved = checkpoint.load() if checkpoint else None
    if saved is None or not fit.restore(*saved):
        fit.start()
    while not fit.is_over():
        epoch = fit.run_epoch()
        if checkpoint is not None:
            checkpoint.save(*fit.state())
        if report is not None:
            report(epoch)
    result = fit.result
    if not result.best_epoch:
        raise TrainingError(
            f"expected a finite validation {flow.objective_name} in some epoch, found none in "
            f"{len(result.epochs)} epochs ({result.skipped_steps} steps skipped); lower the "
            "learning rate and look for extreme values in the bars"
        )
    flow.load_state_dict(fit.best)
    flow.eval()
    return result


@torch.no_grad()
def mean_nll(flow: Flow, block: Block) -> float:
    """Return the mean negative log-likelihood of a block, in nats a row."""
    return -_mean(flow, block, flow.log_prob)


@torch.no_grad()
def mean_loss(flow: Flow, block: Block, seed: int) -> float:
    """Return the mean objective of a block; what it draws, it draws from the seed."""
    generator = torch.Generator().manual_seed(seed)
    return _mean(flow, block, lambda x, context: flow.objective(x, context, generator))


def _mean(flow: Flow, block: Block, value_of: Callable[[Tensor, Tensor | None], Tensor]) -> float:
    flow.eval()
    total = 0.0
    for start in range(0, len(block.x), _EVALUATION_ROWS):
        rows = block.rows(slice(start, start + _EVALUATION_ROWS))
        total += float(value_of(rows.x, rows.context).double().sum())
    return total / len(block.x)


class _Fit:
    """A fit under way: everything that an interrupted one has to find again."""

    def __init__(
        self, flow: Flow, train: Block, validation: Block, config: TrainConfig, noise: float
    ) -> None:
        self.flow = flow
        self.train = train
        self.validation = validation
        self.config = config
        self.noise = noise
        self.weights = list(flow.parameters())
        self.optimizer = _adam(flow, config)
        steps = math.ceil(len(train.x) / config.batch_size)
        self.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(
            self.optimizer, T_max=config.max_epochs * steps
        )
        self.generator = torch.Generator().manual_seed(config.seed)
        self.average = WeightAverage(flow, config.ema_decay)
        self.result = FitResult()
        self.best: dict[str, Tensor] = {}

    @torch.no_grad()
    def start(self) -> None:
        """Let data-dependent layers see a large random batch before the first step."""
        self.flow.train()
        order = torch.randperm(len(self.train.x), generator=self.generator)
        rows = self.train.rows(order[:_EVALUATION_ROWS])
        self.flow.objective(rows.x, rows.context, self.generator)
        self.average.restore(self.flow.state_dict(), 0)

    def is_over(self) -> bool:
        epochs = len(self.result.epochs)
        stalled = epochs - self.result.best_epoch >= self.config.patience
        return stalled or epochs >= self.config.max_epochs

    def run_epoch(self) -> Epoch:
        rate = self.optimizer.param_groups[0]["lr"]
        train_loss, skipped = self._take_steps()
        averaged = self.average.averaged(self.flow)
        # The same draws after every epoch, so that epochs can be compared.
        validation_loss = mean_loss(averaged, self.validation, self.config.seed)
        number = len(self.result.epochs) + 1
        epoch = Epoch(number, train_loss, validation_loss, rate, skipped, self.flow.objective_name)
        # Without a step (the training loss is NaN) the weights have learnt nothing.
        usable = math.isfinite(train_loss) and math.isfinite(validation_loss)
        if usable and validation_loss < self.result.best_loss - _MIN_GAIN:
            self.best = {name: t.detach().clone() for name, t in self.average.state().items()}
            self.result.best_epoch = epoch.number
        self.result.epochs.append(epoch)
        return epoch

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return what `restore` needs, as tensors and JSON values."""
        optimizer = self.optimizer.state_dict()
        tensors = {f"weights.{name}": t for name, t in self.flow.state_dict().items()}
        tensors |= {f"average.{name}": t for name, t in self.average.state().items()}
        tensors |= {f"best.{name}": t for name, t in self.best.items()}
        for index, moments in optimizer["state"].items():
            tensors |= {f"optimizer.{index}.{name}": t for name, t in moments.items()}
        tensors["generator"] = self.generator.get_state()
        return tensors, {
            "epochs": [asdict(epoch) for epoch in self.result.epochs],
            "best_epoch": self.result.best_epoch,
            "scheduler": self.scheduler.state_dict(),
            "groups": optimizer["param_groups"],
            "averaged_steps": self.average.num_steps,
        }

    def restore(self, tensors: dict[str, Tensor], progress: dict[str, Any]) -> bool:
        """Go on from a saved state; False, and no change, if it is that of another flow."""
        weights = _under("weights.", tensors)
        if _shapes(weights) != _shapes(self.flow.state_dict()):
            return False
        self.flow.load_state_dict(weights)
        self.average.restore(_under("average.", tensors), progress["averaged_steps"])
        self.best = _under("best.", tensors)
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _under("optimizer.", tensors).items():
            index, moment = name.split(".")
            moments.setdefault(int(index), {})[moment] = tensor
        self.optimizer.load_state_dict({"state": moments, "param_groups": progress["groups"]})
        self.scheduler.load_state_dict(progress["scheduler"])
        self.generator.set_state(tensors["generator"])
        self.result = FitResult(
            [Epoch(**epoch) for epoch in progress["epochs"]], progress["best_epoch"]
        )
        return True

    def _take_steps(self) -> tuple[float, int]:
        """Go through the training block once; return its mean loss and the steps skipped."""
        self.flow.train()
        total, seen, skipped = 0.0, 0, 0
        order = torch.randperm(len(self.train.x), generator=self.generator)
        batches = torch.split(order, self.config.batch_size)
        if len(batches) > 1 and len(batches[-1]) == 1:
            batches = batches[:-1]  # a single row has no moments for a batch norm
        for index in batches:
            rows = self.train.rows(index)
            self.optimizer.zero_grad()
            x = self._blurred(rows.x)
            loss = self.flow.objective(x, rows.context, self.generator).mean()
            loss.backward()  # type: ignore[no-untyped-call]
            norm = torch.nn.utils.clip_grad_norm_(
                self.weights, self.config.clip_norm, foreach=True
            )
            if not (torch.isfinite(loss) and torch.isfinite(norm)):
                skipped += 1
                continue
            self.optimizer.step()
            self.scheduler.step()
            self.average.update(self.flow)
            total += float(loss.detach()) * len(index)
            seen += len(index)
        return (total / seen if seen else math.nan), skipped

    def _blurred(self, x: Tensor) -> Tensor:
        if not self.noise:
            return x
        return x + self.noise * torch.randn(x.shape, generator=self.generator, dtype=x.dtype)


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


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def _shapes(tensors: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}
