"""`glow-bt demo`, `backtest`, `walk-forward` and `report`: models over bars they have not seen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from glow_bt.cli.contenders import POLICY_OPTIONS, trading_options
from glow_bt.cli.engines import engine_options
from glow_bt.cli.options import (
    ExampleCommand,
    load_bars,
    model_option,
    out_option,
    output_options,
    training_options,
)
from glow_bt.cli.walks import FOLDS, History, print_run, read_histories, walk, write_study
from glow_bt.policy import PolicyParams

if TYPE_CHECKING:
    import pandas as pd

    from glow_bt.artifact import Artifact

__all__ = ["backtest", "demo", "report", "walk_forward"]

_DEMO_FOLDS = 5


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
    history = History("", title, load_sample(sample))
    walk([history], title, out, overwrite, as_json, options, "demo")


@click.command(
    "walk-forward",
    cls=ExampleCommand,
    examples=(
        "glow-bt walk-forward btc.parquet --folds 4 --out results/btc",
        "glow-bt walk-forward btc.parquet --test-every 3MS --rolling --out results/btc-quarters",
        "glow-bt walk-forward btc.parquet --seeds 3 --jobs -1 --out results/btc-seeds",
        "glow-bt walk-forward btc.parquet eth.parquet sol.parquet --jobs -1 --out results/many",
        "glow-bt walk-forward btc.parquet --engine dask --dask-address tcp://10.0.0.1:8786 "
        "--out results/btc",
    ),
)
@click.argument("bars", type=click.Path(path_type=Path), nargs=-1, required=True)
@out_option(None, "the results")
@click.option(
    "--folds", type=int, default=None, show_default=str(FOLDS), help="Test spans of equal length."
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
@click.option(
    "--warm-start",
    is_flag=True,
    help="Begin each fold's state flow at the one of the fold before instead of at random: "
    "often quicker, and with --rolling better, as it remembers older bars. Folds of a seed then "
    "wait for one another.",
)
@click.option("--fill-gaps", is_flag=True, help="Fill holes with flat bars of zero volume.")
@click.option(
    "--title",
    default=None,
    help="Heading of the pages; default: the file's name. Of several files it heads the page over "
    "all, and each run's heading is it and the file's name.",
)
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
    bars: tuple[Path, ...],
    out: Path,
    overwrite: bool,
    fill_gaps: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Train fold by fold on the bars in file BARS and run one backtest over all test spans.

    Several files are as many symbols: each is walked over by itself and has a run folder of its
    file's name, beside a page and a JSON file over all of them, with means and spreads.

    Symbols, folds and seeds are independent of each other (but for folds with --warm-start), and
    are trained in as many processes as --jobs says, or on a cluster. Every model is kept as soon
    as it is trained; an interrupted call goes on where it was when called again.
    """
    _refuse_early(out, overwrite, options)
    title = options["title"]
    histories = read_histories(bars, title, fill_gaps)
    walk(histories, title, out, overwrite, as_json, options, "walk-forward")


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
    """Run a trained model over the bars in file BARS that come after its training.

    Of a model whose settings a search found, the trials are counted, and bars that the search
    used are refused.
    """
    from glow_bt.artifact import load_artifact

    _refuse_early(out, overwrite, options)
    frame = load_bars(bars, fill_gaps)
    artifact = load_artifact(model)
    _refuse_searched_bars(frame, artifact, options)
    title = options["title"] or bars.name
    run = write_study(frame, artifact, title, out, overwrite, options, "backtest")
    print_run(run.metrics, out, as_json)


@click.command(cls=ExampleCommand, examples=("glow-bt report results/btc",))
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.option("--seed", type=int, default=0, help="Accepted for uniformity; nothing is random.")
@output_options
def report(run_dir: Path, seed: int, as_json: bool) -> None:
    """Write index.html, tearsheet.html and model.html of a finished run anew; print its table.

    For a folder of run folders, write index.html: a list of them all, and for one of several
    seeds or symbols their means and spreads too.
    """
    from glow_bt.cli.output import print_several
    from glow_bt.evaluation.run_folder import read_run, write_pages
    from glow_bt.evaluation.run_list import is_list_of_runs, write_run_list
    from glow_bt.evaluation.several import kind_of, write_overview

    if kind_of(run_dir) is not None:
        print_several(write_overview(run_dir), run_dir, as_json)
        return

    if is_list_of_runs(run_dir):
        count = write_run_list(run_dir)
        page = run_dir / "index.html"
        click.echo(json.dumps({"out": str(page), "runs": count}) if as_json else f"wrote {page}")
        return
    run = read_run(run_dir)
    write_pages(run)
    print_run(run.metrics, run_dir, as_json)


def _refuse_early(out: Path, overwrite: bool, options: dict[str, Any]) -> None:
    """Refuse before hours of work, not after."""
    from glow_bt.evaluation.backtest import check_money
    from glow_bt.evaluation.run_folder import refuse_existing

    PolicyParams(**{name: options[name] for name in POLICY_OPTIONS})
    check_money(options["cash"], options["slippage_bps"])
    refuse_existing(out, overwrite)


def _refuse_searched_bars(bars: pd.DataFrame, artifact: Artifact, options: dict[str, Any]) -> None:
    """Refuse before the backtest what its folder would refuse after it."""
    from glow_bt.evaluation.searched import refuse_searched
    from glow_bt.evaluation.study import unseen_span

    search = artifact.training.search
    if search is None:
        return
    late = options["var_horizon"] if options["recalibrate"] else 0
    warm_up = artifact.min_bars - 1 + late
    refuse_searched(search, unseen_span(bars, artifact, late).index[warm_up], warm_up=warm_up)
