"""`glow-bt demo`, `backtest`, `walk-forward` and `report`: models over bars they have not seen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from glow_bt.cli.contenders import contenders, fee_of, leverage_of, trading_options
from glow_bt.cli.engines import engine_of, engine_options, print_seeds, seeds_of, train_folds
from glow_bt.cli.options import (
    ExampleCommand,
    hidden_beside,
    load_bars,
    model_option,
    out_option,
    output_options,
    train_config,
    training_options,
)
from glow_bt.errors import ConfigError
from glow_bt.policy import PolicyParams

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from glow_bt.artifact import Artifact
    from glow_bt.evaluation.run_folder import Run
    from glow_bt.evaluation.walk_forward import FoldModel
    from glow_bt.training import TrainConfig

__all__ = ["backtest", "demo", "report", "walk_forward"]

_DEMO_FOLDS = 5
_FOLDS = 4


@click.command(
    cls=ExampleCommand,
    examples=(
        "glow-bt demo",
        "glow-bt demo --sample nasdaq --out results/nasdaq --seed 1",
        "glow-bt demo --flow nsf --out results/demo-nsf",
    ),
)
@out_option("results/demo", "the results")
@click.option(
    "--sample",
    type=click.Choice(["sp500", "nasdaq"]),
    default="sp500",
    show_default=True,
    help="Embedded daily bars, 1999-2018.",
)
@click.option("--folds", type=int, default=_DEMO_FOLDS, show_default=True, help="Test spans.")
@trading_options
@training_options
@engine_options
@output_options
def demo(sample: str, out: Path, overwrite: bool, as_json: bool, **options: Any) -> None:
    """Run the whole job on embedded bars: train, backtest with costs, tearsheet.

    Walk-forward over real S&P 500 days: each model is trained on its own past only. Needs no
    network and takes about two minutes.
    """
    from datafeeds.samples import load_sample

    _refuse_early(out, overwrite, options)
    title = {"sp500": "S&P 500, daily", "nasdaq": "NASDAQ Composite, daily"}[sample]
    _walk_forward(load_sample(sample), title, out, overwrite, as_json, options, "demo")


@click.command(
    "walk-forward",
    cls=ExampleCommand,
    examples=(
        "glow-bt walk-forward btc.parquet --folds 4 --out results/btc",
        "glow-bt walk-forward btc.parquet --test-every 3MS --rolling --out results/btc-quarters",
        "glow-bt walk-forward btc.parquet --seeds 3 --jobs -1 --out results/btc-seeds",
        "glow-bt walk-forward btc.parquet --engine dask --dask-address tcp://10.0.0.1:8786 "
        "--out results/btc",
    ),
)
@click.argument("bars", type=click.Path(path_type=Path))
@out_option(None, "the results")
@click.option(
    "--folds", type=int, default=None, show_default=str(_FOLDS), help="Test spans of equal length."
)
@click.option(
    "--test-fraction", type=float, default=0.6, show_default=True, help="Share that is tested."
)
@click.option(
    "--test-every",
    metavar="BARS|PERIOD",
    default=None,
    help="Instead of --folds, the length of a test span: in bars, as 720, or by the calendar in "
    "UTC, as 90D, 3MS or QS. The last may be shorter.",
)
@click.option(
    "--rolling",
    is_flag=True,
    help="Train each fold on as many bars as the first has, not on all of its past.",
)
@click.option(
    "--purge",
    type=int,
    default=None,
    show_default="longest feature window, the least that is allowed",
    help="Bars left unused before each validation and each test span.",
)
@click.option(
    "--embargo",
    type=int,
    default=0,
    show_default=True,
    help="Bars left unused behind the block that a member of the return flow leaves out; nothing "
    "else is trained on bars after a held-out one.",
)
@click.option("--fill-gaps", is_flag=True, help="Fill holes with flat bars of zero volume.")
@click.option("--title", default=None, help="Heading of the pages; default: the file's name.")
@click.option(
    "--seeds",
    type=int,
    default=1,
    show_default=True,
    help="Seeds, from --seed on; of several, each has a run folder beside means and spreads.",
)
@trading_options
@training_options
@engine_options
@output_options
def walk_forward(
    bars: Path, out: Path, overwrite: bool, fill_gaps: bool, as_json: bool, **options: Any
) -> None:
    """Train fold by fold on the bars in file BARS and run one backtest over all test spans.

    Folds and seeds are independent of each other, and are trained in as many processes as
    --jobs says, or on a cluster. Every model is kept as soon as it is trained; an interrupted
    call goes on where it was when called again.
    """
    _refuse_early(out, overwrite, options)
    frame = load_bars(bars, fill_gaps)
    _walk_forward(
        frame, options["title"] or bars.name, out, overwrite, as_json, options, "walk-forward"
    )


@click.command(
    cls=ExampleCommand,
    examples=("glow-bt backtest btc.parquet --model models/btc --out results/btc",),
)
@click.argument("bars", type=click.Path(path_type=Path))
@model_option
@out_option(None, "the results")
@click.option("--fill-gaps", is_flag=True, help="Fill holes with flat bars of zero volume.")
@click.option("--title", default=None, help="Heading of the pages; default: the file's name.")
@click.option("--seed", type=int, default=0, help="Accepted for uniformity; nothing is random.")
@trading_options
@output_options
def backtest(
    bars: Path,
    model: Path,
    out: Path,
    overwrite: bool,
    fill_gaps: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Run a trained model over the bars in file BARS that come after its training."""
    from glow_bt.artifact import load_artifact

    _refuse_early(out, overwrite, options)
    frame = load_bars(bars, fill_gaps)
    artifact = load_artifact(model)
    run = _write(
        frame, artifact, options["title"] or bars.name, out, overwrite, options, "backtest"
    )
    _print(run.metrics, out, as_json)


@click.command(cls=ExampleCommand, examples=("glow-bt report results/btc",))
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.option("--seed", type=int, default=0, help="Accepted for uniformity; nothing is random.")
@output_options
def report(run_dir: Path, seed: int, as_json: bool) -> None:
    """Write index.html, tearsheet.html and model.html of a finished run anew; print its table.

    For a folder of run folders, write index.html: a list of them all.
    """
    from glow_bt.evaluation.run_folder import read_run, write_pages
    from glow_bt.evaluation.run_list import is_list_of_runs, write_run_list

    if is_list_of_runs(run_dir):
        count = write_run_list(run_dir)
        page = run_dir / "index.html"
        click.echo(json.dumps({"out": str(page), "runs": count}) if as_json else f"wrote {page}")
        return
    run = read_run(run_dir)
    write_pages(run)
    _print(run.metrics, run_dir, as_json)


def _walk_forward(
    bars: pd.DataFrame,
    title: str,
    out: Path,
    overwrite: bool,
    as_json: bool,
    options: dict[str, Any],
    command: str,
) -> None:
    from glow_bt.evaluation.seeds import write_seeds
    from glow_bt.evaluation.unit_store import UnitStore
    from glow_bt.evaluation.walk_forward import divide_walk_forward

    engine = engine_of(options)
    store, reuse = options.pop("store", None), options.pop("reuse", False)
    config = train_config(options)
    seeds = seeds_of(config, options.pop("seeds", 1))
    if (horizon := options["var_horizon"]) not in config.return_horizons:
        raise ConfigError(
            f"expected --var-horizon among the horizons that are trained, "
            f"{', '.join(map(str, config.return_horizons))}, found {horizon}; "
            f"give --return-horizons {horizon}"
        )
    if reuse and store is None:
        raise ConfigError("expected --store with --reuse, found none; say where the models are")
    folds = divide_walk_forward(bars, config, **_fold_settings(options))
    options["folds"] = len(folds)
    hidden = hidden_beside(out, "models")
    units, models = train_folds(bars, folds, seeds, store or hidden, engine, reuse)

    def write(config: TrainConfig, place: Path, overwrite: bool = False) -> Run:
        own = {**options, "seed": config.seed}
        found = models[config.seed]
        return _write(bars, found, title, place, overwrite, own, command, config)

    if len(seeds) == 1:
        _print(write(config, out, overwrite).metrics, out, as_json)
    else:
        summary = write_seeds(
            out,
            list(seeds),
            lambda seed, place: write(seeds[seed], place).metrics,
            title=title,
            command=command,
        )
        print_seeds(summary, out, as_json)
    if store is None:
        UnitStore(hidden).discard(units)


def _fold_settings(options: dict[str, Any]) -> dict[str, Any]:
    """Return how the bars are divided; an option that was not given leaves no trace."""
    test_every = options.pop("test_every", None)
    n_folds = options["folds"]
    folds = {
        "n_folds": _FOLDS if n_folds is None and test_every is None else n_folds,
        "test_fraction": options.get("test_fraction", 0.6),
        "expanding": not options.get("rolling", False),
    }
    if test_every is None:
        return folds
    options["test_every"] = test_every  # part of the manifest
    return {**folds, "test_every": int(test_every) if test_every.isdecimal() else test_every}


def _write(
    bars: pd.DataFrame,
    models: Sequence[FoldModel] | Artifact,
    title: str,
    out: Path,
    overwrite: bool,
    options: dict[str, Any],
    command: str,
    config: TrainConfig | None = None,
) -> Run:
    """Backtest and write the run folder; options["search"] is what a search tried before."""
    from glow_bt.evaluation.run_folder import num_trials, write_run
    from glow_bt.evaluation.study import run_study
    from glow_bt.training import TrainConfig

    search = options.get("search")
    left_out = {"search", *TrainConfig.names()}
    study = run_study(
        bars,
        models,
        contenders(options, bars, models),
        cash=options["cash"],
        slippage_bps=options["slippage_bps"],
        liquidity=options["liquidity"],
        leverage=leverage_of(options),
        num_trials=num_trials(search),
    )
    return write_run(
        out,
        study,
        models,
        bars,
        title=title,
        command=command,
        trading={
            **{name: value for name, value in options.items() if name not in left_out},
            "fee": fee_of(options),
        },
        config=config,
        search=search,
        overwrite=overwrite,
    )


def _refuse_early(out: Path, overwrite: bool, options: dict[str, Any]) -> None:
    """Refuse before hours of work, not after."""
    from glow_bt.evaluation.backtest import check_money
    from glow_bt.evaluation.run_folder import refuse_existing

    limits = ("risk_budget", "es_budget", "error_margin", "leverage_cap", "dead_band")
    PolicyParams(**{name: options[name] for name in limits})
    check_money(options["cash"], options["slippage_bps"])
    refuse_existing(out, overwrite)


def _print(metrics: dict[str, Any], out: Path, as_json: bool) -> None:
    from glow_bt.cli.output import print_study

    if as_json:
        click.echo(json.dumps({"out": str(out), **metrics}))
        return
    print_study(metrics)
    click.echo(f"wrote {out / 'index.html'}, which links tearsheet.html and model.html")
