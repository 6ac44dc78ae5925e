"""`glow-bt simulate`: synthetic paths of log returns, and how true they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from glow_bt.cli.options import ExampleCommand, load_bars, output_options
from glow_bt.errors import ConfigError, ResultsError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

    from glow_bt.artifact.paths import PathModel
    from glow_bt.risk.fidelity import FidelityReport
    from glow_bt.training import TrainConfig

__all__ = ["simulate"]

# With --report: share of the bars that a second model learns from, and its paths.
_FITTED_SHARE = 0.4
_REPORT_PATHS = 200
_LISTED = 8


@click.command(
    cls=ExampleCommand,
    examples=(
        "glow-bt simulate btc.parquet --out paths.parquet --paths 1000 --bars 240",
        "glow-bt simulate btc.parquet --out wild.parquet --regime 2 --model models/btc",
    ),
)
@click.argument("bars", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="Parquet file of log returns, a row a bar and a column a path.",
)
@click.option("--overwrite", is_flag=True, help="Replace the file if it exists.")
@click.option(
    "--paths", "num_paths", type=int, default=1000, show_default=True, help="Number of paths."
)
@click.option(
    "--bars", "num_bars", type=int, default=250, show_default=True, help="Bars of each path."
)
@click.option("--regime", type=int, default=None, help="Start in bars of it; needs --model.")
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    default=None,
    help="Folder of the model that tells regimes. [default: start at the last bar]",
)
@click.option("--report", is_flag=True, help="Compare paths of the first 40 % with the rest.")
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Seed of every random choice."
)
@click.option("--fill-gaps", is_flag=True, help="Fill holes with flat bars of zero volume.")
@output_options
def simulate(
    bars: Path,
    out: Path,
    overwrite: bool,
    num_paths: int,
    num_bars: int,
    regime: int | None,
    model: Path | None,
    report: bool,
    seed: int,
    fill_gaps: bool,
    as_json: bool,
) -> None:
    """Fit a path model to the bars in file BARS (CSV or Parquet), and draw paths from it.

    Paths go on from the last bar, or from bars of one regime. A path's context is its own past
    returns, so that volatility clusters; how often the model's limit cut it is told.
    """
    from glow_bt.training import TrainConfig

    _check(out, overwrite, num_paths, num_bars, regime, model)
    config = TrainConfig(seed=seed)
    frame = load_bars(bars, fill_gaps)
    labels = None if model is None else _labels(model, frame)
    fitted = _fitted(frame, config)
    start: Any = frame if labels is None else _windows(frame, labels, regime, fitted.window)
    paths = fitted.simulate(num_paths, num_bars, start=start, seed=seed)
    _write(paths.returns, out)
    facts = {
        "out": str(out),
        "paths": num_paths,
        "bars": num_bars,
        "regime": regime,
        "seed": seed,
        "trained_until": fitted.trained_until.isoformat(),
        "max_volatility": fitted.max_volatility,
        "capped_paths": paths.capped_paths,
        "capped_bars": paths.capped_bars,
    }
    fidelity = _fidelity(frame, config) if report else None
    if as_json:
        more = {} if fidelity is None else {"fidelity": fidelity.to_dict()}
        click.echo(json.dumps(facts | more))
        return
    click.echo(
        f"{num_paths} paths of {num_bars} bars; the limit of volatility cut "
        f"{paths.capped_bars:.2%} of bars, in {paths.capped_paths:.1%} of paths"
    )
    if fidelity is not None:
        _print_fidelity(fidelity)
    click.echo(f"wrote {out}")


def _check(
    out: Path,
    overwrite: bool,
    num_paths: int,
    num_bars: int,
    regime: int | None,
    model: Path | None,
) -> None:
    """Refuse a wrong call before any work."""
    for option, count in (("--paths", num_paths), ("--bars", num_bars)):
        if count < 1:
            raise ConfigError(f"expected {option} of at least 1, found {count}")
    if (regime is None) != (model is None):
        raise ConfigError(
            "expected --regime and --model together, found only one of them; regimes are those "
            "of a model that 'glow-bt train' wrote"
        )
    if out.suffix != ".parquet":
        raise ConfigError(f"expected --out with the ending .parquet, found {out.name}")
    if out.exists() and not overwrite:
        raise ResultsError(f"expected a new file, found {out} there already; use --overwrite")


def _labels(model: Path, bars: pd.DataFrame) -> npt.NDArray[np.int64]:
    from glow_bt.artifact import load_artifact
    from glow_bt.artifact.path_starts import regime_labels

    return regime_labels(load_artifact(model), bars)


def _windows(
    bars: pd.DataFrame, labels: npt.NDArray[np.int64], regime: int | None, window: int
) -> npt.NDArray[np.float64]:
    from glow_bt.artifact.path_starts import NO_REGIME, regime_windows

    return regime_windows(bars, labels, NO_REGIME if regime is None else regime, window)


def _fitted(bars: pd.DataFrame, config: TrainConfig) -> PathModel:
    from glow_bt.cli.risk_output import risk_progress
    from glow_bt.training.paths import fit_paths

    with risk_progress() as progress:
        return fit_paths(bars, config, progress=lambda done, total: progress("flow", done, total))


def _write(returns: npt.NDArray[np.float64], out: Path) -> None:
    import pandas as pd

    from glow_bt.placing import new_file

    names = [f"path_{k}" for k in range(len(returns))]
    with new_file(out) as temporary:
        pd.DataFrame(returns.T, columns=names).to_parquet(temporary)


def _fidelity(bars: pd.DataFrame, config: TrainConfig) -> FidelityReport:
    """Compare paths of a model of the first bars with the returns after them."""
    import numpy as np

    from glow_bt.risk.fidelity import fidelity_report

    stop = round(_FITTED_SHARE * len(bars))
    known, rest = bars.iloc[:stop], bars.iloc[stop - 1 :]
    real = np.diff(np.log(rest["close"].to_numpy()))
    model = _fitted(known, config)
    paths = model.simulate(_REPORT_PATHS, len(real), start=known, seed=config.seed)
    return fidelity_report(paths.returns, real, seed=config.seed)


def _print_fidelity(report: FidelityReport) -> None:
    """Print what held-out returns and paths of an earlier model have in common."""
    click.echo(
        f"fidelity, {report.num_real:,} held-out returns beside {report.num_paths} paths of a "
        "model of the bars before them:"
    )
    for own in report.statistics[:10]:
        mark = "" if own.inside else "  outside"
        click.echo(
            f"{own.name:>20}: real {own.real:9.4g} [{own.low:9.4g}, {own.high:9.4g}], "
            f"paths {own.synthetic:9.4g}, rank {own.rank:.2f}{mark}"
        )
    outside = report.outside
    listed = ", ".join(outside[:_LISTED]) + (", ..." if len(outside) > _LISTED else "")
    click.echo(
        f"{len(outside)} of {len(report.statistics)} statistics outside the intervals"
        f"{': ' if listed else ''}{listed}; KS {report.ks_statistic:.4f}"
    )
