"""Synthetic heavy tails: features of Student's t, the last one a noisy copy of its neighbour.

x_1 .. x_(d-1) are independent Student's t with nu degrees of freedom, x_d = x_(d-1) + N(0, 1);
5,000 rows in order 40/20/40 for training, validation and test (Hickling & Prangle 2024,
arXiv:2406.16971, sec. 5). The entropy is known, and with it the least possible NLL.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.special import betaln, digamma
from scipy.stats import norm
from scipy.stats import t as student_t

from benchmarks.density.reports import Report, mean_and_spread, table
from glow_bt.errors import TrainingError
from glow_bt.flows import Glow, TailLayer
from glow_bt.training import TrainConfig
from glow_bt.training.loop import Block, fit_flow

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

SUMMARY = __doc__
ROWS = 5000
SPLITS = [2000, 3000]
NUS = (0.5, 1.0, 2.0, 30.0)
WIDTHS = (5, 50)
# NLL per dimension at d = 50 as published (Hickling & Prangle 2024), by nu.
PUBLISHED = {
    "Gaussian base, NSF": {0.5: "diverges", 1.0: "diverges", 2.0: "2.02"},
    "gTAF": {0.5: "7.49", 1.0: "2.65", 2.0: "1.99"},
    "mTAF": {0.5: "5.22", 1.0: "2.62", 2.0: "1.98"},
    "COMET": {0.5: "3.74", 1.0: "2.55", 2.0: "1.97"},
    "TTF": {0.5: "3.68", 1.0: "2.54", 2.0: "1.98"},
}
USUAL = {"num_levels": 3, "num_steps": 4, "hidden_dim": 32}  # the trainer's own
ONE_LEVEL = {"num_levels": 1, "num_steps": 4, "hidden_dim": 32}
DECAY = {"weight_decay": 0.1}  # ten times the trainer's


@dataclass(frozen=True)
class Model:
    """A Glow and how it is trained."""

    glow: dict[str, object]
    training: dict[str, float] = field(default_factory=dict)


# All of these are tried on each data set; the best on its validation block is "chosen".
TAILED = {
    "Glow, the trainer's settings": Model(USUAL),
    "Glow, 1 level": Model(ONE_LEVEL, DECAY),
    "Glow, 1 level, spline": Model(ONE_LEVEL | {"coupling": "spline"}),
}
UNTAILED = {
    "Glow without tails, Gaussian base": Model(ONE_LEVEL | {"tails": False}, DECAY),
    "Glow without tails, Student-t base": Model(
        ONE_LEVEL | {"tails": False, "base": "student_t"}, DECAY
    ),
}
MARGINS = "Tail layer alone, as fitted"
CHOSEN = "Glow, chosen on validation"
ROW_ORDER = [MARGINS, *TAILED, CHOSEN, *UNTAILED]


@dataclass
class Outcome:
    """What one model came to on one data set.

    Attributes:
        validation_nll: nats per dimension.
        test_nll: the same on the test rows.
        excess: test_nll minus that of the true density on the same rows.
        index: tail indices, quartiles over sides and features; empty without a tail layer.
    """

    validation_nll: float = math.inf
    test_nll: float = math.inf
    excess: float = math.inf
    index: list[float] = field(default_factory=list)


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--seeds", type=int, default=4, help="data sets a cell (default 4)")
    parser.add_argument("--epochs", type=int, default=60, help="most epochs (default 60)")


def run(options: Namespace) -> Report:
    torch.set_num_threads(1)
    cells = {}
    for width in WIDTHS:
        for nu in NUS:
            runs = [outcomes(nu, width, seed, options.epochs) for seed in range(options.seeds)]
            cells[width, nu] = {name: [run[name] for run in runs] for name in runs[0]}
            for name in ROW_ORDER:
                print(
                    f"d {width}, nu {nu:g}: {name}: {spread(cells[width, nu], name)}", flush=True
                )
    return report(cells, options.seeds)


def outcomes(nu: float, width: int, seed: int, epochs: int) -> dict[str, Outcome]:
    """Return every model's outcome on one data set; the seed is that of data and weights."""
    blocks = np.split(draw(nu, width, seed), SPLITS)
    entropy = -true_log_density(blocks[2], nu).mean() / width
    x = [torch.tensor(block) for block in blocks]
    margins = TailLayer(width).double()
    margins.fit(x[0])
    found = {MARGINS: score(margins, x, entropy)}
    for name, model in {**TAILED, **UNTAILED}.items():
        found[name] = trained(model, x, entropy, seed, epochs)
    best = min(TAILED, key=lambda name: found[name].validation_nll)
    found[CHOSEN] = found[best]
    return found


def trained(
    model: Model, x: list[torch.Tensor], entropy: float, seed: int, epochs: int
) -> Outcome:
    """Train in float32 as the trainer does and score in float64."""
    torch.manual_seed(seed)
    width = x[0].shape[1]
    flow = Glow(width, **model.glow)
    log_scale = 0.0
    if flow.tails is not None:
        flow.tails.fit(x[0])
    else:  # give it rows of unit size, as a tail layer would
        quartiles = torch.quantile(x[0], x[0].new_tensor([0.25, 0.5, 0.75]), dim=0)
        scale = (quartiles[2] - quartiles[0]) / 1.349
        x = [(block - quartiles[1]) / scale for block in x]
        log_scale = float(scale.log().mean())
    train, validation, _ = (Block(block.float()) for block in x)
    config = TrainConfig(seed=seed, max_epochs=epochs, patience=10, **model.training)
    try:
        fit_flow(flow, train, validation, config)
    except TrainingError:
        return Outcome()
    return score(flow.double(), x, entropy, log_scale)


@torch.no_grad()
def score(flow, x: list[torch.Tensor], entropy: float, log_scale: float = 0.0) -> Outcome:
    """Return the NLL per dimension of a flow, or of a tail layer under a normal latent."""
    nll = [-log_prob(flow, block) / block.shape[1] + log_scale for block in x]
    layer = flow if isinstance(flow, TailLayer) else flow.tails
    quartiles = [] if layer is None else np.quantile(layer.index, [0.25, 0.5, 0.75]).tolist()
    return Outcome(nll[1], nll[2], nll[2] - entropy, quartiles)


def log_prob(flow, x: torch.Tensor) -> float:
    if isinstance(flow, TailLayer):
        z, log_det = flow(x)
        return float((log_det + torch.from_numpy(norm.logpdf(z)).sum(dim=1)).mean())
    return float(flow.log_prob(x).mean())


def draw(nu: float, width: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.standard_t(nu, size=(ROWS, width))
    x[:, -1] = x[:, -2] + rng.normal(size=ROWS)
    return x


def true_log_density(x: np.ndarray, nu: float) -> np.ndarray:
    rest = student_t.logpdf(x[:, :-1], nu).sum(axis=1)
    return rest + norm.logpdf(x[:, -1] - x[:, -2])


def floor(nu: float, width: int) -> float:
    """Return the entropy per dimension."""
    half = (nu + 1) / 2
    of_t = half * (digamma(half) - digamma(nu / 2)) + math.log(nu) / 2 + betaln(nu / 2, 0.5)
    of_normal = 0.5 * math.log(2 * math.pi * math.e)
    return ((width - 1) * of_t + of_normal) / width


def spread(cell: dict[str, list[Outcome]], name: str, what: str = "test_nll") -> str:
    return mean_and_spread([getattr(outcome, what) for outcome in cell[name]])


def report(cells, seeds: int) -> Report:
    tables = {}
    for width in reversed(WIDTHS):
        tables[f"d = {width}, test NLL per dimension"] = nll_table(cells, width)
        tables[f"d = {width}, above the true density on the same test rows"] = excess_table(
            cells, width
        )
    tables["Tail indices after training, quartiles over features and sides"] = index_table(cells)
    numbers = {
        "seeds": seeds,
        "published_d_50": {n: {f"{nu:g}": v for nu, v in r.items()} for n, r in PUBLISHED.items()},
        "cells": [
            {
                "d": width,
                "nu": nu,
                "floor": floor(nu, width),
                "models": {name: [asdict(o) for o in cell[name]] for name in ROW_ORDER},
            }
            for (width, nu), cell in cells.items()
        ],
    }
    return Report("Density benchmark: synthetic heavy tails", notes(seeds), tables, numbers)


def notes(seeds: int) -> list[str]:
    return [
        "x_1 .. x_(d-1) independent Student's t with nu degrees of freedom, x_d = x_(d-1) + "
        "N(0, 1); 5,000 rows in order 40/20/40 for training, validation and test. Nats per "
        f"dimension, lower is better, mean ± standard deviation over {seeds} seeds (each of "
        "data and weights). The floor is the exact entropy.",
        "Scale and tail indices are estimated from the training rows; nu is told to no model of "
        'ours. "Chosen on validation" is, for each data set, that of the three Glows above it '
        "with the least validation NLL. One level has 4 steps, hidden width 32 and, but for "
        "splines, ten times the trainer's weight decay. Flows without a tail layer are of one "
        "level and are given rows scaled by quartiles.",
        "Published figures are those of Hickling & Prangle (arXiv:2406.16971) on data sets of "
        "the same making; we did not run them. In their public code mTAF and COMET are told nu.",
    ]


def nll_table(cells, width: int) -> str:
    rows = [["floor", *(f"{floor(nu, width):.3f}" for nu in NUS)]]
    rows += [[name, *(spread(cells[width, nu], name) for nu in NUS)] for name in ROW_ORDER]
    if width == 50:
        rows += [
            [f"published: {name}", *(figures.get(nu, "") for nu in NUS)]
            for name, figures in PUBLISHED.items()
        ]
    return table(["model", *(f"nu = {nu:g}" for nu in NUS)], rows)


def excess_table(cells, width: int) -> str:
    rows = [
        [name, *(spread(cells[width, nu], name, "excess") for nu in NUS)] for name in ROW_ORDER
    ]
    return table(["model", *(f"nu = {nu:g}" for nu in NUS)], rows)


def index_table(cells) -> str:
    rows = []
    for width in WIDTHS:
        for name in (MARGINS, CHOSEN):
            means = (
                np.mean([outcome.index for outcome in cells[width, nu][name]], axis=0)
                for nu in NUS
            )
            quartiles = [" / ".join(f"{value:.3g}" for value in mean) for mean in means]
            rows.append([f"d = {width}: {name}", *quartiles])
    return table(["model", *(f"nu = {nu:g}" for nu in NUS)], rows)
