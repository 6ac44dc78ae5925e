"""Pictures of the flow behind a model: its latent space and its training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from glow_bt.errors import DataError, TooFewBarsError
from glow_bt.evaluation.canvas import (
    Picture,
    canvas,
    finite,
    label_panel,
    legend_above,
    regime_colour,
    regime_handles,
    regimes_in,
    sentences,
)

__all__ = ["latent_picture", "training_picture"]

Floats = NDArray[np.float64]
_MOST_DOTS = 4000
_MOST_LABELS = 8


def latent_picture(latents: pd.DataFrame, bounds: Sequence[pd.Timestamp] = ()) -> Picture:
    """Latent states of the last model on their two principal axes, coloured by regime.

    Args:
        latents: columns z1, z2, ... and regime, by bar open. Rows with NaN are left out.
        bounds: stamps at which a new model takes over; latents of different models have
            different axes, so only those of the last one are shown.

    Raises:
        TooFewBarsError: if there are fewer than two of them.
    """
    shown = latents if not len(bounds) else latents[latents.index >= bounds[-1]]
    shown = shown.dropna()
    points, share = _principal_axes(shown.drop(columns="regime").to_numpy(dtype=np.float64))
    regime = shown["regime"].to_numpy(dtype=np.float64)
    stride = max(1, -(-len(points) // _MOST_DOTS))
    with canvas(5.0, width=8.6, right=1.7, dates=False) as drawn:
        axes = drawn.axes[0]
        for number in regimes_in(regime):
            rows = np.flatnonzero(regime == number)[::stride]
            axes.plot(
                points[rows, 0], points[rows, 1], "o", color=regime_colour(number),
                markersize=4, alpha=0.6, markeredgewidth=0,
            )  # fmt: skip
        axes.set_aspect("equal", adjustable="datalim")
        axes.set_xlabel("first principal axis")
        axes.set_ylabel("second principal axis")
        axes.legend(handles=regime_handles(regime), loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return drawn.picture(
        "latents",
        title="Latent space",
        caption=sentences(
            f"{len(points):,} market states as the flow maps them to its latent space, seen along "
            f"the two directions in which they vary most ({share:.0%} of the variance), in the "
            "colour of their regime. A perfect flow makes one round cloud.",
            "Only the last model's bars: each model has latent axes of its own."
            if len(bounds)
            else "",
            f"One state in {stride} is drawn." if stride > 1 else "",
        ),
    )


def training_picture(training: Sequence[Mapping[str, Any]]) -> Picture:
    """Training and validation loss by epoch, one pair of curves a fold, the best epoch marked.

    Args:
        training: for each fold a label and the lists train_nll and validation_nll, one value
            an epoch; or train_loss and validation_loss, for a flow whose objective is not the
            likelihood.

    Raises:
        DataError: if a list is missing or the two differ in length.
    """
    likelihood = all("train_nll" in history for history in training)
    colours = colormaps["viridis"](np.linspace(0.0, 0.85, len(training)))
    with canvas(3.0, dates=False) as drawn:
        axes = drawn.axes[0]
        everything = [np.empty(0)]
        for number, (history, colour) in enumerate(zip(training, colours, strict=True)):
            train, validation = _losses(history)
            epochs = np.arange(1, len(train) + 1)
            axes.plot(epochs, train, color=colour, linestyle="--", linewidth=0.9)
            named = len(training) <= _MOST_LABELS or number in {0, len(training) - 1}
            label = str(history["label"]) if named else None
            axes.plot(epochs, validation, color=colour, label=label)
            if np.isfinite(validation).any():
                best = int(np.nanargmin(validation))
                axes.plot(epochs[best], validation[best], "o", color=colour, markersize=6)
            everything += [train, validation]
        cut = _cut_first_epochs(axes, np.concatenate(everything))
        axes.set_xlabel("epoch")
        label_panel(axes, "NLL, nats a bar" if likelihood else "training objective")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        legend_above(axes)
    return drawn.picture(
        "training",
        title="Training",
        caption=sentences(
            f"Mean {'negative log-likelihood' if likelihood else 'objective'} by epoch, lower is "
            "better: dashed on the training bars, solid on the validation bars that follow them. "
            "The dot is the best epoch, whose weights were kept.",
            "The far higher values of early epochs are cut off." if cut else "",
        ),
    )


def _losses(history: Mapping[str, Any]) -> tuple[Floats, Floats]:
    name = "loss" if "train_loss" in history else "nll"
    if not {"label", f"train_{name}", f"validation_{name}"} <= history.keys():
        raise DataError(
            f"expected a training history with a label, train_{name} and validation_{name}, found "
            f"{', '.join(history)}; give what the trainer recorded"
        )
    train, validation = finite(history[f"train_{name}"]), finite(history[f"validation_{name}"])
    if train.shape != validation.shape or train.ndim != 1:
        raise DataError(
            f"expected train_{name} and validation_{name} equally long, one value an epoch, found "
            f"shapes {train.shape} and {validation.shape}"
        )
    return train, validation


def _cut_first_epochs(axes: Axes, nll: Floats) -> bool:
    """Keep the first epochs' losses from squeezing all others; whether any was cut off."""
    known = nll[np.isfinite(nll)]
    if not known.size:
        return False
    low, usual = known.min(), np.quantile(known, 0.75)
    top = usual + (usual - low)
    if known.max() <= top:
        return False
    axes.set_ylim(low - 0.05 * (top - low), top)
    return True


def _principal_axes(latents: Floats) -> tuple[Floats, float]:
    """Coordinates (N, 2) on the two directions of most variance, and their share of it."""
    if len(latents) < 2:
        raise TooFewBarsError(2, len(latents), "a picture of the latent space")
    centred = latents - latents.mean(axis=0)
    variances, directions = np.linalg.eigh(np.atleast_2d(np.cov(centred.T)))
    directions = directions[:, ::-1][:, :2]
    # An axis has no sign of its own: the largest component is made positive.
    largest = np.abs(directions).argmax(axis=0)
    directions = directions * np.sign(directions[largest, np.arange(directions.shape[1])])
    points = np.zeros((len(latents), 2))
    points[:, : directions.shape[1]] = centred @ directions
    return points, float(variances[::-1][:2].sum() / variances.sum())
