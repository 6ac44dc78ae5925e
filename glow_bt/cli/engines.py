"""Options of the commands that train many models: where, into which folder, how many seeds."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn

from glow_bt.errors import ConfigError
from glow_bt.terminal import TerminalDisplay, terminal_progress

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from glow_bt.evaluation.engines import Engine
    from glow_bt.evaluation.units import Unit
    from glow_bt.evaluation.walk_forward import FoldModel
    from glow_bt.folds import Fold
    from glow_bt.training import Epoch, TrainConfig

__all__ = [
    "FoldsProgress",
    "engine_of",
    "engine_options",
    "seeds_of",
    "train_folds",
]

# Those of `glow_bt.evaluation.engines`, repeated here so that --help need not load joblib.
_ENGINES = ("local", "dask", "ray")


def engine_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add where folds are trained and what is kept of them."""
    for option in (
        click.option(
            "--reuse",
            is_flag=True,
            help="Train nothing: take every model from --store, or say what is missing.",
        ),
        click.option(
            "--store",
            type=click.Path(path_type=Path),
            default=None,
            help="Folder that keeps every trained model under the hash of what it was made from, "
            "for later calls; default: a hidden one beside the results until they are there.",
        ),
        click.option(
            "--dask-address",
            default=None,
            metavar="ADDRESS",
            help="Scheduler whose workers train, such as tcp://10.0.0.1:8786; default: workers "
            "on this machine.",
        ),
        click.option(
            "--jobs",
            type=int,
            default=1,
            show_default=True,
            help="Processes that train at a time, one thread each; -1 for one a processor.",
        ),
        click.option(
            "--engine",
            type=click.Choice(_ENGINES),
            default="local",
            show_default=True,
            help="Where folds are trained; dask and ray are extras. The results are the same.",
        ),
    ):
        function = option(function)
    return function


def engine_of(options: dict[str, Any]) -> Engine:
    """Take the engine out of a command's options: results do not depend on it."""
    from glow_bt.evaluation.engines import Engine

    return Engine(
        name=options.pop("engine", "local"),
        jobs=options.pop("jobs", 1),
        dask_address=options.pop("dask_address", None),
    )


def seeds_of(config: TrainConfig, count: int) -> dict[int, TrainConfig]:
    """Return settings by seed, from the seed of a config on.

    Raises:
        ConfigError: if there is to be none.
    """
    if count < 1:
        raise ConfigError(f"expected a number of seeds from 1 on, found {count}")
    return {seed: replace(config, seed=seed) for seed in range(config.seed, config.seed + count)}


def train_folds(
    histories: Mapping[str, pd.DataFrame],
    folds: Mapping[str, list[Fold]],
    seeds: Mapping[int, TrainConfig],
    store: Path,
    engine: Engine,
    *,
    reuse: bool,
    warm_start: bool,
) -> tuple[list[Unit], dict[tuple[str, int], list[FoldModel]]]:
    """Train every fold of every symbol and seed in one session, with progress.

    Args:
        histories: valid bars by symbol.
        folds: divisions of them.
        seeds: settings by seed.
        store: folder that keeps the models.
        engine: where to train.
        reuse: whether all models must be in the store.
        warm_start: whether folds start at the model of the fold before.

    Returns:
        The units, and the models by symbol and seed.
    """
    from glow_bt.evaluation.unit_store import UnitStore
    from glow_bt.evaluation.units import plan_units
    from glow_bt.evaluation.walk_forward import fold_models, train_units

    units = {
        (symbol, seed): plan_units(
            bars, folds[symbol], config, symbol=symbol, warm_start=warm_start
        )
        for symbol, bars in histories.items()
        for seed, config in seeds.items()
    }
    planned = [unit for own in units.values() for unit in own]
    if others := UnitStore(store).others(planned):
        click.echo(
            f"note: {store} holds {len(others)} models of other settings or bars, which are "
            "left alone",
            err=True,
        )
    with FoldsProgress() as progress:
        trained = train_units(
            histories,
            planned,
            store=store,
            engine=engine,
            progress=progress,
            train_missing=not reuse,
        )
    found = iter(trained)
    return planned, {
        (symbol, seed): fold_models(histories[symbol], own, [next(found) for _ in own])
        for (symbol, seed), own in units.items()
    }


class FoldsProgress(TerminalDisplay):
    """Shows how many models are trained and how long the rest will take.

    Nothing is shown where the console is not a terminal.

    Args:
        console: where to; default standard error.

    Example:
        >>> with FoldsProgress() as progress:  # doctest: +SKIP
        ...     models = train_walk_forward(bars, config, progress=progress)
    """

    def __init__(self, console: Console | None = None) -> None:
        progress = terminal_progress(
            TextColumn("models"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
            TextColumn("{task.fields[state]}"),
            console=console,
        )
        super().__init__(progress)
        self._task: TaskID | None = None
        self._total = self._kept = self._done = 0
        self._begun = time.monotonic()

    def begin(self, total: int, kept: int) -> None:
        """Show how many models there are, and how many were trained before."""
        self._total, self._kept, self._done = total, kept, 0
        self._begun = time.monotonic()
        self._task = self._progress.add_task("", total=total, completed=kept, left="", state="")

    def epoch(self, label: str, flow: str, epoch: Epoch, max_epochs: int) -> None:
        """Show an epoch of a model that is trained in this process."""
        if self._task is not None:
            state = (
                f"{label}: {flow} {epoch.number}/{max_epochs} epochs, "
                f"{epoch.train_loss:.3f} / {epoch.validation_loss:.3f} held out"
            )
            self._progress.update(self._task, state=state)

    def done(self, label: str) -> None:
        """Show a model that is trained."""
        if self._task is None:
            return
        self._done += 1
        each = (time.monotonic() - self._begun) / self._done
        seconds = round(each * (self._total - self._kept - self._done))
        left = f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02} left"
        self._progress.update(
            self._task, completed=self._kept + self._done, left=left, state=label
        )
