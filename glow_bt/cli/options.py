"""Arguments and options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import pandas as pd

    from glow_bt.training import TrainConfig

__all__ = ["load_bars", "out_option", "output_options", "train_config", "training_options"]

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def output_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add --json."""
    return click.option(
        "--json", "as_json", is_flag=True, help="Print one JSON object instead of text."
    )(function)


def out_option(default: str | None, what: str) -> Decorator:
    """Add --out and --overwrite for a folder that must not exist yet."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        function = click.option(
            "--overwrite", is_flag=True, help="Replace the folder if it exists."
        )(function)
        # A default of None would count as given.
        presence: dict[str, Any] = (
            {"required": True} if default is None else {"default": default, "show_default": True}
        )
        return click.option(
            "--out", type=click.Path(path_type=Path), help=f"Folder for {what}.", **presence
        )(function)

    return decorate


_TRAINING_OPTIONS: tuple[tuple[str, str, Any, str], ...] = (
    ("--seed", "seed", int, "Seed of every random choice."),
    ("--levels", "num_levels", int, "Levels of the state flow."),
    ("--steps", "num_steps", int, "Steps (ActNorm, 1x1 convolution, coupling) a level."),
    ("--hidden", "hidden_dim", int, "Hidden width of the couplings."),
    ("--epochs", "max_epochs", int, "Upper limit on epochs; training stops early."),
    ("--patience", "patience", int, "Epochs without a better validation NLL before stopping."),
    ("--batch-size", "batch_size", int, "Rows a training step."),
    ("--learning-rate", "learning_rate", float, "Adam's learning rate at the start."),
    ("--false-alarm-rate", "false_alarm_rate", float, "Held-out states outside the filter."),
    ("--horizon", "direction_horizon", int, "Bars ahead that direction is fitted on."),
    ("--regimes", "num_regimes", int, "Number of regimes."),
)


def training_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the trainer's settings, with TrainConfig's defaults."""
    for flag, name, kind, text in reversed(_TRAINING_OPTIONS):
        function = click.option(flag, name, type=kind, default=None, help=text)(function)
    for flag, name, choices, text in (
        ("--base", "base", ("normal", "student_t", "mixture"), "Distribution of the latents."),
        ("--regime-method", "regime_method", ("gmm", "kmeans", "base"), "How regimes are found."),
    ):
        function = click.option(flag, name, type=click.Choice(choices), default=None, help=text)(
            function
        )
    return function


def train_config(settings: dict[str, Any]) -> TrainConfig:
    """Return the trainer's settings from those options that were given."""
    from glow_bt.training import TrainConfig

    given = {
        name: value
        for name, value in settings.items()
        if name in TrainConfig.names() and value is not None
    }
    return TrainConfig(**given)


def load_bars(path: Path, fill_gaps: bool = False) -> pd.DataFrame:
    """Read bars, and report holes on standard error (or fill them when asked)."""
    from glow_bt import ohlcv

    bars = ohlcv.read_bars(path)
    gaps = ohlcv.find_gaps(bars)
    if gaps:
        missing = sum(gap.missing for gap in gaps)
        then = "filled with flat bars" if fill_gaps else "left as they are; --fill-gaps fills them"
        click.echo(
            f"note: {path} has {len(gaps)} gaps ({missing} bars), first after {gaps[0].after}; "
            f"{then}",
            err=True,
        )
    return ohlcv.fill_gaps(bars) if gaps and fill_gaps else bars
