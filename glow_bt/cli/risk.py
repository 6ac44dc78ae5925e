"""`glow-bt risk`: forecasts of risk by the flow and by classical models, back-tested."""

from __future__ import annotations

import json
from pathlib import Path

import click

from glow_bt.cli.options import ExampleCommand, load_bars, out_option, output_options
from glow_bt.errors import ConfigError

__all__ = ["risk", "two_sided"]

# Tail probabilities of VaR and shortfall, both tails.
_LEVELS = (0.01, 0.025, 0.05)


@click.command(
    cls=ExampleCommand,
    examples=(
        "glow-bt risk btc.parquet --out results/btc-risk",
        "glow-bt risk btc.parquet --out results/btc-risk --baseline garch_t --baseline fhs",
    ),
)
@click.argument("bars", type=click.Path(path_type=Path))
@out_option(None, "risk.html, risk.json and forecasts.parquet")
@click.option("--folds", type=int, default=8, show_default=True, help="Test spans.")
@click.option(
    "--test-fraction",
    type=float,
    default=0.6,
    show_default=True,
    help="Share of the bars, the last ones, that is tested.",
)
@click.option(
    "--baseline",
    "baselines",
    multiple=True,
    metavar="NAME",
    help="A model to compare with, such as garch_t; may be repeated. [default: all]",
)
@click.option(
    "--level",
    "tails",
    type=float,
    multiple=True,
    default=_LEVELS,
    show_default=True,
    help="Tail probability in (0, 0.5), tested in both tails; may be repeated.",
)
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Seed of every random choice."
)
@click.option(
    "--members",
    type=int,
    default=5,
    show_default=True,
    help="Members of the return flow, each of which leaves out a block of bars.",
)
@click.option("--fill-gaps", is_flag=True, help="Fill holes with flat bars of zero volume.")
@click.option("--title", default=None, help="Heading of the page; default: the file's name.")
@output_options
def risk(
    bars: Path,
    out: Path,
    overwrite: bool,
    folds: int,
    test_fraction: float,
    baselines: tuple[str, ...],
    tails: tuple[float, ...],
    seed: int,
    members: int,
    fill_gaps: bool,
    title: str | None,
    as_json: bool,
) -> None:
    """Forecast VaR and expected shortfall of the next bar, and back-test them.

    Walk-forward over the bars in file BARS (CSV or Parquet): the return flow, as it is and
    recalibrated online, beside GARCH and other classical models, all out of sample.
    """
    from glow_bt.cli.risk_output import print_risk, risk_progress
    from glow_bt.evaluation.risk_folder import refuse_existing, write_risk
    from glow_bt.evaluation.risk_study import check_baselines, run_risk_study
    from glow_bt.training import TrainConfig

    levels = two_sided(tails)
    names = check_baselines(baselines or None)
    config = TrainConfig(seed=seed, return_members=members)
    refuse_existing(out, overwrite)
    frame = load_bars(bars, fill_gaps)
    with risk_progress() as progress:
        study = run_risk_study(
            frame,
            n_folds=folds,
            test_fraction=test_fraction,
            levels=levels,
            baselines=names,
            seed=seed,
            config=config,
            progress=progress,
        )
    run = write_risk(out, study, title=title or bars.name, overwrite=overwrite)
    if as_json:
        click.echo(json.dumps({"out": str(out), **run.report}))
        return
    print_risk(run.report)
    click.echo(f"wrote {out / 'risk.html'} and {out / 'risk.json'}")


def two_sided(tails: tuple[float, ...]) -> tuple[float, ...]:
    """Return levels of both tails, ascending: p and 1 - p of each probability.

    Raises:
        ConfigError: if one is outside (0, 0.5).
    """
    for tail in tails:
        if not 0 < tail < 0.5:
            raise ConfigError(
                f"expected a level in (0, 0.5), found {tail:g}; give the probability of a "
                "violation, 0.01 for a 99 % VaR, both tails are tested"
            )
    lower = sorted(set(tails))
    return (*lower, *(round(1 - tail, 12) for tail in reversed(lower)))
