"""Who takes part in the comparison on market states, and in which settings each is tried."""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass, field, replace

import numpy as np
import torch
import zuko
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from torch import nn

from benchmarks.density.fitting import Schedule, fit, log_prob
from glow_bt.flows import Glow, TailLayer

GAUSSIAN, MIXTURE, GLOW = "Gaussian", "Gaussian mixture", "GLOW"
# What follows our tail layer; shown beside the flows that zuko ships.
TAILED = {"MAF after our tails": "MAF", "NSF after our tails": "NSF"}
FLOWS = (GLOW, "MAF", "NSF", "RealNVP", *TAILED)
COMPONENTS = (4, 8, 16, 32, 64, 128)
COVARIANCE_FLOORS = (1e-6, 1e-3, 1e-2)
# How every flow is held back from overfitting, each way tried with each size.
WAYS = (
    {},
    {"weight_decay": 1e-3, "noise": 0.05},
    {"weight_decay": 1e-3, "noise": 0.1},
)
ONE_LEVEL = {"num_levels": 1, "num_steps": 16}


@dataclass(frozen=True)
class Candidate:
    """One family in one setting.

    Attributes:
        family: GAUSSIAN, MIXTURE or one of FLOWS.
        settings: of the model.
        training: what differs from the usual `Schedule`.
    """

    family: str
    settings: dict[str, object] = field(default_factory=dict)
    training: dict[str, float] = field(default_factory=dict)

    @property
    def label(self) -> str:
        words = {**self.settings, **self.training}
        return ", ".join(f"{key} {value}" for key, value in words.items()) or "full covariance"


@dataclass
class Fitted:
    """A candidate after training with one seed.

    Attributes:
        parameters: free numbers of the model.
        validation_nll: nats a row.
        test_log_prob: (N,) of the test rows; empty in a search.
        course: what else is known of the fit.
    """

    candidate: Candidate
    seed: int
    parameters: int
    validation_nll: float
    test_log_prob: np.ndarray
    course: dict[str, object]


class ZukoFlow(nn.Module):
    """A flow of zuko as it ships, after one of our tail layers if asked for."""

    def __init__(self, family: str, num_steps: int, hidden_dim: int, *, tails: bool) -> None:
        super().__init__()
        build = {
            "MAF": lambda **sizes: zuko.flows.MAF(16, randperm=True, **sizes),
            "NSF": lambda **sizes: zuko.flows.NSF(16, randperm=True, **sizes),
            "RealNVP": lambda **sizes: zuko.flows.RealNVP(16, randmask=True, **sizes),
        }[family]
        self.tails = TailLayer(16) if tails else None
        self.net = build(transforms=num_steps, hidden_features=[hidden_dim] * 2)

    def log_prob(self, rows: torch.Tensor) -> torch.Tensor:
        if self.tails is None:
            return self.net().log_prob(rows)
        light, log_det = self.tails(rows)
        return self.net().log_prob(light) + log_det


def candidates() -> list[Candidate]:
    """Return everything that is tried, family by family."""
    sizes = {
        GLOW: [{**ONE_LEVEL, "hidden_dim": 32, "tails": tails} for tails in (True, False)],
        "MAF": [_steps(4, 64), _steps(4, 128)],
        "NSF": [_steps(2, 32), _steps(2, 64)],
        "RealNVP": [_steps(16, 32), _steps(16, 64)],
        "MAF after our tails": [_steps(4, 128)],
        "NSF after our tails": [_steps(2, 64)],
    }
    return [
        Candidate(GAUSSIAN),
        *(
            Candidate(MIXTURE, {"components": number, "floor": floor})
            for number in COMPONENTS
            for floor in COVARIANCE_FLOORS
        ),
        *(
            Candidate(family, size, way)
            for family in FLOWS
            for size in sizes[family]
            for way in WAYS
        ),
    ]


def fitted(
    candidate: Candidate,
    blocks: dict[str, np.ndarray],
    schedule: Schedule,
    seed: int,
    *,
    test: bool,
) -> Fitted:
    """Fit on blocks["train"], judge on blocks["validation"], score blocks["test"] if asked to."""
    if candidate.family in FLOWS:
        return _fitted_flow(candidate, blocks, schedule, seed, test=test)
    return _fitted_mixture(candidate, blocks, seed, test=test)


def _steps(num_steps: int, hidden_dim: int) -> dict[str, object]:
    return {"num_steps": num_steps, "hidden_dim": hidden_dim}


def _fitted_flow(candidate, blocks, schedule: Schedule, seed: int, *, test: bool) -> Fitted:
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    rows = {name: torch.from_numpy(block) for name, block in blocks.items()}
    flow = _flow(candidate, blocks["train"].shape[1])
    if flow.tails is not None:
        flow.tails.fit(rows["train"].float())
    schedule = replace(schedule, **candidate.training)
    flow, course = fit(flow, rows["train"], rows["validation"], schedule, seed)
    return Fitted(
        candidate,
        seed,
        sum(p.numel() for p in flow.parameters()),
        -float(log_prob(flow, rows["validation"]).mean()),
        log_prob(flow, rows["test"]).numpy() if test else np.empty(0),
        {"best_epoch": course.best_epoch, "seconds": course.seconds, **asdict(schedule)},
    )


def _flow(candidate: Candidate, width: int) -> nn.Module:
    if candidate.family == GLOW:
        return Glow(width, **candidate.settings)
    family = TAILED.get(candidate.family, candidate.family)
    return ZukoFlow(family, **candidate.settings, tails=candidate.family in TAILED)


def _fitted_mixture(candidate, blocks, seed: int, *, test: bool) -> Fitted:
    """Fit by EM from two starts; one component is the Gaussian."""
    model = GaussianMixture(
        candidate.settings.get("components", 1),
        reg_covar=candidate.settings.get("floor", 1e-6),
        n_init=2,
        max_iter=200,
        random_state=seed,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(blocks["train"])
    return Fitted(
        candidate,
        seed,
        int(model._n_parameters()),
        -float(model.score(blocks["validation"])),
        model.score_samples(blocks["test"]) if test else np.empty(0),
        {"iterations": int(model.n_iter_)},
    )
