"""`glow-bt adapt`: a model folder and newer bars in, a new model folder out."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from glow_bt.cli.options import (
    ExampleCommand,
    load_bars,
    model_option,
    out_option,
    output_options,
)

if TYPE_CHECKING:
    from glow_bt.training import Adaptation

__all__ = ["adapt"]


@click.command(
    cls=ExampleCommand,
    examples=(
        "glow-bt adapt btc.parquet --model models/btc --out models/btc-july",
        "glow-bt adapt btc.parquet --model models/btc --out models/btc-july --steps 500 "
        "--held-out 0.3",
    ),
)
@click.argument("bars", type=click.Path(path_type=Path))
@model_option
@out_option(None, "the new model")
@click.option(
    "--steps", type=int, default=200, show_default=True, help="Upper limit on training steps."
)
@click.option(
    "--learning-rate",
    type=float,
    default=None,
    help="Adam's learning rate at the start. [default: a tenth of the trainer's]",
)
@click.option(
    "--held-out",
    type=float,
    default=0.2,
    show_default=True,
    help="Share of the new states that decide on what is kept.",
)
@click.option(
    "--seed", type=int, default=None, help="Seed of every random choice. [default: the model's]"
)
@click.option("--fill-gaps", is_flag=True, help="Fill holes with flat bars of zero volume.")
@output_options
def adapt(
    bars: Path,
    model: Path,
    out: Path,
    steps: int,
    overwrite: bool,
    fill_gaps: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Go on training a model on the bars in file BARS that come after its training.

    A flow that is worse on held-out bars is dropped and the model's own stays. If both are, no
    folder is written. The new model names the one that it comes from, and keeps what that says
    of a search behind its settings.
    """
    from glow_bt.artifact import load_artifact, refuse_existing, save_artifact
    from glow_bt.training import TrainingProgress
    from glow_bt.training import adapt as adapt_model

    refuse_existing(out, overwrite=overwrite)
    parent = load_artifact(model)
    frame = load_bars(bars, fill_gaps)
    with TrainingProgress(judged="after") as progress:
        adaptation = adapt_model(parent, frame, max_steps=steps, progress=progress, **settings)
    if adaptation.kept:
        save_artifact(adaptation.artifact, out, overwrite=overwrite)
    if as_json:
        click.echo(json.dumps(_facts(adaptation, out)))
        return
    click.echo(f"{adaptation.num_bars} bars after {parent.training.trained_until}")
    for name, flow in adaptation.flows.items():
        verdict = "kept" if flow.kept else "dropped"
        click.echo(
            f"{name}: held-out NLL {flow.nll_before:.4f} -> {flow.nll_after:.4f}, {verdict}"
        )
    if adaptation.kept:
        click.echo(f"wrote {out}")
    else:
        click.echo(f"nothing is better than {model}: it stays in use, and {out} is not written")


def _facts(adaptation: Adaptation, out: Path) -> dict[str, Any]:
    from glow_bt.artifact import fingerprint

    record = adaptation.artifact.training
    return {
        "out": str(out) if adaptation.kept else None,
        "kept": adaptation.kept,
        "flows": {
            name: {
                "nll_before": flow.nll_before,
                "nll_after": flow.nll_after if math.isfinite(flow.nll_after) else None,
                "steps": flow.num_steps,
                "kept": flow.kept,
            }
            for name, flow in adaptation.flows.items()
        },
        "latent_shift": adaptation.latent_shift,
        "new_bars": adaptation.num_bars,
        "trained_until": record.trained_until.isoformat(),
        "seed": record.seed,
        "data_sha256": record.data_sha256,
        "fingerprint": fingerprint(adaptation.artifact),
        "parent": record.parent,
    }
