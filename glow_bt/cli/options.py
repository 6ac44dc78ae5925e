"""Arguments and options that several commands share."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from glow_bt.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd

    from glow_bt.training import TrainConfig

__all__ = [
    "ExampleCommand",
    "ExampleGroup",
    "hidden_beside",
    "load_bars",
    "model_option",
    "out_option",
    "output_options",
    "train_config",
    "training_options",
]

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class ExampleCommand(click.Command):
    """A command whose help ends with examples, line by line as they are typed."""

    def __init__(self, *args: Any, examples: tuple[str, ...] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples without wrapping them."""
        super().format_epilog(ctx, formatter)
        formatter.write("\nExample:\n")
        for line in self.examples:
            formatter.write(f"  {line}\n")


class ExampleGroup(ExampleCommand, click.Group):
    """A group of commands whose help ends with examples."""


def output_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add --json."""
    return click.option(
        "--json", "as_json", is_flag=True, help="Print one JSON object instead of text."
    )(function)


def model_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add --model for a folder with a trained model."""
    return click.option(
        "--model",
        type=click.Path(path_type=Path),
        required=True,
        help="Folder that 'glow-bt train' or 'glow-bt adapt' wrote.",
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


# The families of flows, repeated here so that --help need not load torch (a test compares).
_FAMILIES = ("glow", "realnvp", "nice", "maf", "iaf", "nsf", "cnf", "flow_matching")
# Defaults are TrainConfig's, repeated here so that --help need not load it (a test compares).
_TRAINING_OPTIONS: tuple[tuple[str, str, Any, str], ...] = (
    ("--seed", "seed", 0, "Seed of every random choice."),
    ("--levels", "num_levels", None, "Levels of flows glow, realnvp and nice. [default: 3]"),
    (
        "--steps",
        "num_steps",
        None,
        "Steps (norm, mixing, coupling) a level, or transforms of flows maf, iaf and nsf. "
        "[default: 4]",
    ),
    ("--hidden", "hidden_dim", 32, "Hidden width of the state flow's networks."),
    ("--epochs", "max_epochs", 100, "Upper limit on epochs; training stops early."),
    ("--patience", "patience", 20, "Epochs without a better validation loss before stopping."),
    ("--batch-size", "batch_size", 256, "Rows a training step."),
    ("--learning-rate", "learning_rate", 2e-3, "Adam's learning rate at the start."),
    ("--noise", "noise", 0.1, "Normal noise on scaled states in training, against overfitting."),
    ("--false-alarm-rate", "false_alarm_rate", 0.05, "Held-out states outside the filter."),
    ("--horizon", "direction_horizon", 5, "Bars ahead that direction is fitted on."),
    ("--regimes", "num_regimes", 3, "Number of regimes."),
    (
        "--members",
        "return_members",
        5,
        "Members of the return flow, each of which leaves out a block of bars.",
    ),
)
_TRAINING_CHOICES: tuple[tuple[str, str, str | None, tuple[str, ...], str], ...] = (
    ("--flow", "flow", "glow", _FAMILIES, "Family of the state flow."),
    (
        "--base",
        "base",
        None,
        ("normal", "student_t", "mixture"),
        "Distribution of the latents. [default: normal]",
    ),
    (
        "--coupling",
        "coupling",
        None,
        ("affine", "additive", "spline"),
        "Coupling of flow glow. [default: affine]",
    ),
    (
        "--norm",
        "norm",
        None,
        ("actnorm", "batchnorm"),
        "Normalization in flows glow, realnvp and nice. [default: actnorm]",
    ),
    (
        "--regime-method",
        "regime_method",
        "gmm",
        ("gmm", "kmeans", "base"),
        "How regimes are found.",
    ),
)


def _horizons(ctx: click.Context, param: click.Parameter, value: str) -> tuple[int, ...]:
    """Return the whole numbers of a text such as 1,24."""
    try:
        return tuple(int(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter(
            f"expected bars ahead such as 1,24, found {value!r}", ctx, param
        ) from None


def training_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the trainer's settings, with TrainConfig's defaults."""
    function = click.option(
        "--return-horizons",
        callback=_horizons,
        metavar="BARS,...",
        default="1",
        show_default=True,
        help="Bars ahead that VaR is forecast for; 1 is always among them.",
    )(function)
    for flag, name, default, choices, text in reversed(_TRAINING_CHOICES):
        function = click.option(
            flag,
            name,
            type=click.Choice(choices),
            default=default,
            show_default=default is not None,
            help=text,
        )(function)
    for flag, name, default, text in reversed(_TRAINING_OPTIONS):
        function = click.option(
            flag,
            name,
            type=int if default is None else type(default),
            default=default,
            show_default=default is not None,
            help=text,
        )(function)
    return click.option(
        "--config",
        "config_file",
        type=click.Path(path_type=Path),
        default=None,
        help="JSON file of settings, as 'glow-bt search' writes it; options given here win.",
    )(function)


def train_config(settings: dict[str, Any]) -> TrainConfig:
    """Return the trainer's settings among a command's options.

    Those of --config come first, then what was given by name. The option itself is taken out of
    `settings`; what a file says of the search that it comes from is put there as "search".

    Raises:
        ConfigError: if the file cannot be read, or holds what is no setting.
    """
    from glow_bt.training import TrainConfig

    names = TrainConfig.names()
    file = settings.pop("config_file", None)
    given = {name: value for name, value in settings.items() if name in names}
    if file is None:
        return TrainConfig(**{name: value for name, value in given.items() if value is not None})
    config, search = _read_config(file, names)
    context = click.get_current_context()
    typed = click.core.ParameterSource.COMMANDLINE
    config |= {
        name: value
        for name, value in given.items()
        if value is not None and context.get_parameter_source(name) is typed
    }
    if search is not None:
        settings["search"] = search
    return TrainConfig(**config)


def _read_config(file: Path, names: tuple[str, ...]) -> tuple[dict[str, Any], Any]:
    """Return the settings of a file, and what it says of a search."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ConfigError(f"expected settings as a JSON file, found {file}: {error}") from error
    config = content.get("config", content) if isinstance(content, dict) else content
    unknown = [name for name in config if name not in names] if isinstance(config, dict) else []
    if not isinstance(config, dict) or unknown:
        found = ", ".join(map(repr, unknown)) or repr(config)
        raise ConfigError(f"expected settings among {', '.join(names)} in {file}, found {found}")
    return dict(config), content.get("search") if config is not content else None


def hidden_beside(out: Path, what: str) -> Path:
    """Return a hidden place beside a folder, for what an interrupted call leaves."""
    place = Path(os.path.realpath(out))
    return place.with_name(f".{place.name}.{what}")


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
