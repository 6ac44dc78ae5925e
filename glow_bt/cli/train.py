"""`glow-bt train`: bars in, model folder out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from glow_bt.cli.options import (
    ExampleCommand,
    hidden_beside,
    load_bars,
    out_option,
    output_options,
    train_config,
    training_options,
)

if TYPE_CHECKING:
    from glow_bt.artifact import TrainingRecord

__all__ = ["train"]


@click.command(
    cls=ExampleCommand,
    examples=(
        "glow-bt train btc.parquet --out models/btc",
        "glow-bt train btc.parquet --out models/btc --train-until 2024-06-01 "
        "--validation-until 2024-09-01",
        "glow-bt train btc.parquet --out models/btc-spline --coupling spline",
        "glow-bt train btc.parquet --out models/btc-maf --flow maf",
    ),
)
@click.argument("bars", type=click.Path(path_type=Path))
@out_option(None, "the model")
@click.option("--train-until", default=None, help="First stamp after the training block.")
@click.option("--validation-until", default=None, help="First stamp after the validation block.")
@click.option("--fill-gaps", is_flag=True, help="Fill holes with flat bars of zero volume.")
@training_options
@output_options
def train(
    bars: Path,
    out: Path,
    overwrite: bool,
    fill_gaps: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Train on the bars in file BARS (CSV or Parquet).

    Chronological 70/15/15 split, or by dates; the last part is measured but never learned from.
    With --config the model keeps what the file says of a search: a backtest of it counts the
    trials and tests no bar that the search used. An interrupted call goes on where it was when
    called again.
    """
    from glow_bt.artifact import check_search, refuse_existing, save_artifact
    from glow_bt.training import TrainingProgress
    from glow_bt.training import train as train_model

    config = train_config(settings)
    search = settings.get("search")
    check_search(search)
    refuse_existing(out, overwrite=overwrite)
    frame = load_bars(bars, fill_gaps)
    checkpoints = hidden_beside(out, "checkpoint")
    with TrainingProgress() as progress:
        artifact = train_model(
            frame, config, search=search, progress=progress, checkpoint_dir=checkpoints
        )
    save_artifact(artifact, out, overwrite=overwrite)
    if checkpoints.exists():
        checkpoints.rmdir()
    record = artifact.training
    if as_json:
        click.echo(json.dumps({"out": str(out), **_facts(record, config.flow)}))
        return
    _print(record)
    click.echo(f"wrote {out}")


def _facts(record: TrainingRecord, flow: str) -> dict[str, Any]:
    facts = {
        "trained_from": record.trained_from.isoformat(),
        "trained_until": record.trained_until.isoformat(),
        "bars": record.n_bars,
        "flow": flow,
        "seed": record.seed,
        "data_sha256": record.data_sha256,
        "metrics": dict(record.metrics),
    }
    return facts if record.search is None else {**facts, "search": dict(record.search)}


def _print(record: TrainingRecord) -> None:
    """Print how the training went."""
    from glow_bt.artifact import bars_until, num_trials

    metrics = record.metrics
    click.echo(f"trained on {record.n_bars} bars, {record.trained_from} to {record.trained_until}")
    if record.search is not None:
        until = bars_until(record.search)
        span = "not on record" if until is None else f"until {until}"
        click.echo(
            f"settings found by a search of {num_trials(record.search)} trials, bars {span}"
        )
    for block in ("train", "validation", "test"):
        if f"state_{block}_nll" in metrics:
            click.echo(
                f"{block:>10}: state NLL {metrics[f'state_{block}_nll']:.3f} nats, "
                f"{metrics[f'state_{block}_bits_per_dim']:.3f} bits/dim "
                f"(Gaussian {metrics[f'gaussian_{block}_nll']:.3f}); "
                f"next return's NLL {metrics[f'return_{block}_nll']:.4f}"
            )
