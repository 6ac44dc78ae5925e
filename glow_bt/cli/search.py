"""`glow-bt search`: settings of the trainer, sought on validation spans only."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from glow_bt.cli.options import (
    ExampleCommand,
    load_bars,
    output_options,
    train_config,
    training_options,
)
from glow_bt.errors import TooFewBarsError

__all__ = ["search"]


@click.command(
    cls=ExampleCommand,
    examples=(
        "glow-bt search btc.parquet --out searches/btc --trials 30",
        "glow-bt search btc.parquet --out searches/btc --trials 60  # goes on to 60",
        "glow-bt walk-forward btc.parquet --config searches/btc/best.json --out results/btc",
    ),
)
@click.argument("bars", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder for best.json, trials.csv and gains.npz; an earlier search in it goes on.",
)
@click.option("--trials", type=int, default=30, show_default=True, help="Trials in the end.")
@click.option(
    "--objective",
    type=click.Choice(["likelihood", "quantile-loss"]),
    default="likelihood",
    show_default=True,
    help="What is sought on validation spans.",
)
@click.option(
    "--space",
    default="default",
    show_default=True,
    metavar="FILE|default",
    help='What is searched: such as {"hidden_dim": [16, 32], "noise": {"low": 0, "high": 1}}.',
)
@click.option(
    "--spans", type=int, default=3, show_default=True, help="Validation spans of a trial."
)
@click.option(
    "--test-fraction",
    type=float,
    default=0.6,
    show_default=True,
    help="Share of the bars that walk-forward will test; the search never sees them.",
)
@click.option("--fill-gaps", is_flag=True, help="Fill holes with flat bars of zero volume.")
@training_options
@output_options
def search(
    bars: Path,
    out: Path,
    trials: int,
    objective: str,
    space: str,
    spans: int,
    test_fraction: float,
    fill_gaps: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Seek the trainer's settings on bars before the first test span of the file BARS.

    Every trial is trained and judged on walk-forward folds of those bars. The number of trials,
    the last bar that they used, and the probability that their best is overfitted go into
    best.json, and from there with --config into a walk-forward's manifest or a trained model.
    Neither a walk-forward nor a backtest of that model tests a bar that the search used.
    """
    from glow_bt.training import TrainingProgress
    from glow_bt.training.search import search as seek
    from glow_bt.training.search import untested_bars
    from glow_bt.training.search_space import SearchSpace

    config = train_config(settings)
    ranges = None if space == "default" else SearchSpace.read(Path(space))
    past = untested_bars(load_bars(bars, fill_gaps), test_fraction)
    with _few_bars_told(spans, test_fraction), TrainingProgress() as progress:
        result = seek(
            past,
            out,
            trials=trials,
            objective=objective,
            space=ranges,
            config=config,
            n_folds=spans,
            seed=config.seed,
            progress=progress,
            told=None if as_json else _tell,
        )
    best = {name: getattr(result.config, name) for name in result.trials.columns[2:]}
    if as_json:
        click.echo(json.dumps({"out": str(out), "best": best, **result.record()}))
        return
    click.echo(f"best of {len(result.trials)} trials: {result.value:.5g} a bar with {best}")
    if math.isnan(result.pbo):
        click.echo("probability of overfitting: not known from fewer than two complete trials")
    else:
        click.echo(f"probability that the best is overfitted (CSCV): {result.pbo:.2f}")
    click.echo(f"wrote {out / 'best.json'}")


def _tell(number: int, state: str, value: float) -> None:
    gain = "" if math.isnan(value) else f", {value:.5g} a bar"
    click.echo(f"trial {number}: {state}{gain}", err=True)


@contextmanager
def _few_bars_told(spans: int, test_fraction: float) -> Iterator[None]:
    """Say which bars are too few: not those of the whole file."""
    try:
        yield
    except TooFewBarsError as error:
        what = (
            f"a search of {spans} validation spans in the {1 - test_fraction:.0%} of the bars "
            "before the tests (--test-fraction)"
        )
        raise TooFewBarsError(error.needed, error.found, what) from error
