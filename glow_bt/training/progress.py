"""A progress bar for training, on a terminal only."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn

from glow_bt.terminal import TerminalDisplay, terminal_progress
from glow_bt.training.loop import Epoch

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["TrainingProgress"]


class TrainingProgress(TerminalDisplay):
    """Shows epochs and losses of each flow while it trains, and bits per dimension of an NLL.

    Nothing is shown where the console is not a terminal.

    Args:
        console: where to; default standard error.
        judged: what the second loss is of.

    Example:
        >>> with TrainingProgress() as progress:  # doctest: +SKIP
        ...     artifact = train(bars, config, progress=progress)
    """

    def __init__(self, console: Console | None = None, judged: str = "held out") -> None:
        progress = terminal_progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:.0f}/{task.total:.0f} epochs"),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
            console=console,
        )
        super().__init__(progress)
        self._judged = judged
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, flow: str, epoch: Epoch, max_epochs: int, num_features: int) -> None:
        """Show one epoch of the flow of that name."""
        if flow not in self._tasks:
            self._tasks[flow] = self._progress.add_task(flow, total=max_epochs, state="")
        name, bits = epoch.objective, ""
        if name == "nll":
            bits = f", {epoch.validation_loss / (num_features * math.log(2)):.3f} bits/dim"
            name = "NLL"
        skipped = f", {epoch.skipped_steps} steps skipped" if epoch.skipped_steps else ""
        self._progress.update(
            self._tasks[flow],
            completed=epoch.number,
            state=f"{name} {epoch.train_loss:.3f} / {epoch.validation_loss:.3f} {self._judged}"
            f"{bits}{skipped}",
        )

    def labelled(self, label: str) -> Callable[[str, Epoch, int, int], None]:
        """Return a callback that puts a label before each flow's name."""

        def show(flow: str, epoch: Epoch, max_epochs: int, num_features: int) -> None:
            self(f"{label}{flow}", epoch, max_epochs, num_features)

        return show
