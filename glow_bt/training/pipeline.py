"""From bars to an artifact."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

import glow_bt
from glow_bt.artifact import Artifact, ReturnModel, TrainingRecord, check_search, fingerprint
from glow_bt.direction import DirectionReadout
from glow_bt.errors import ConfigError
from glow_bt.features import DEFAULT_SPEC, FeatureSpec, Scaler
from glow_bt.flows import Flow, GaussianMixturePrior, Glow, family_libraries
from glow_bt.folds import Fold
from glow_bt.likelihood import LikelihoodFilter
from glow_bt.ohlcv import bar_interval, bars_sha256, validate_bars
from glow_bt.regimes import Regimes, match_labels, order_labels
from glow_bt.threads import one_thread
from glow_bt.training.checkpoint import Checkpoint
from glow_bt.training.config import TrainConfig
from glow_bt.training.data import TrainingData, divide, prepare
from glow_bt.training.fitter import FlowFitter, Progress
from glow_bt.training.loop import FitResult
from glow_bt.training.measure import gaussian_nll, measure, measure_returns
from glow_bt.training.returns import member_names
from glow_bt.training.warm_start import check_start, state_flow_at

__all__ = ["library_versions", "probes", "regimes_of", "train"]

Floats = npt.NDArray[np.float64]

_PROBES = 16
_LIBRARIES = ("torch", "numpy", "pandas", "scipy", "scikit-learn", "safetensors")


def train(
    bars: pd.DataFrame,
    config: TrainConfig | None = None,
    *,
    spec: FeatureSpec | None = None,
    previous: Artifact | None = None,
    start: Artifact | None = None,
    search: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    checkpoint_dir: str | os.PathLike[str] | None = None,
) -> Artifact:
    """Train the flows and fit everything that the runtime reads from them.

    The scaler, the state flow, the direction's slope and the regimes see the training block; early
    stopping, filter thresholds, confidence ranks and how far the direction is believed see the
    validation block; the test block is only measured. The flow of returns learns from all bars
    before the test block, by cross-validation (see `glow_bt.training.returns`). Torch runs on one
    thread, and its global random state is left as it was.

    A model to start from gives the state flow its weights, and no more: all else is fitted to
    these bars. The members of the return flow begin anew, for each leaves out a block of bars to
    be judged by, and those of an earlier model have learnt from most of it.

    Args:
        bars: a bar frame (see `glow_bt.ohlcv`).
        config: settings; default `TrainConfig()`.
        spec: features of a market state; default the 16 of `DEFAULT_SPEC`.
        previous: the model before this one, whose regime labels the new ones are matched to.
            Without it regimes are numbered by volatility, the calmest first.
        start: an earlier model at whose state flow training begins; default a new flow.
        search: record of the search that found the settings (see
            `glow_bt.artifact.search_record`), for whoever tests the model; default that of
            `start`. Nothing is learnt from it.
        progress: called after each epoch (see `TrainingProgress`).
        checkpoint_dir: where to save after each epoch; an interrupted call with the same bars
            and settings goes on from there, to the same result.

    Returns:
        The artifact, with flows in float64.

    Raises:
        DataError: if the bars break their contract.
        TooFewBarsError: if a block is too short; says how many bars are needed.
        ConfigError: if the dates or the purge cannot work, `previous` has other features or
            another number of regimes, `start` other features, another state flow or another bar
            interval, or `search` is no record of a search.
        LookAheadError: if `start` has learnt from bars after the training block.
        FeatureError: if a feature is constant in the training block.
        MissingExtraError: if the family of the state flow needs a package that is not installed.
        TrainingError: if no epoch gave a finite likelihood.
    """
    config = config or TrainConfig()
    family_libraries(config.flow)  # refuses before any work
    spec = spec or DEFAULT_SPEC
    _check_previous(previous, config, spec)
    if search is None and start is not None:
        search = start.training.search
    check_search(search)
    bars = validate_bars(bars)
    fold = divide(bars, config, spec)
    if start is not None:
        check_start(start, config, spec, bars, fold)
    data = prepare(bars, config, spec)
    checkpoint_of = _checkpoint_maker(checkpoint_dir, bars, config, spec, start)
    fitter = FlowFitter(config, progress, checkpoint_of)
    with one_thread():
        artifact = _train_fold(bars, data, fold, config, spec, previous, start, fitter)
    fitter.remove_checkpoints()
    if search is None:
        return artifact
    return replace(artifact, training=replace(artifact.training, search=dict(search)))


def _train_fold(
    bars: pd.DataFrame,
    data: TrainingData,
    fold: Fold,
    config: TrainConfig,
    spec: FeatureSpec,
    previous: Artifact | None,
    start: Artifact | None,
    fitter: FlowFitter,
) -> Artifact:
    train_rows, validation_rows = data.rows(fold.train), data.rows(fold.validation)
    scaler = Scaler.fit(data.features[train_rows], spec.names)
    x = scaler.transform(data.features)
    gaussian = gaussian_nll(x[train_rows])
    begin = None if start is None else state_flow_at(start.state_flow, start.scaler, scaler)
    state_flow, state_fit = fitter.fit_state_flow(x[train_rows], x[validation_rows], begin)
    returns, held_out_returns = fitter.fit_returns(bars.iloc[: fold.validation.stop])
    # Products of another number of rows differ in their last bits: none that come later take part.
    latents, log_prob = _encode(state_flow, x[: validation_rows.stop])
    held_out = log_prob[validation_rows] + scaler.log_det
    metrics = (
        measure(state_flow, x, data, fold, gaussian)
        | measure_returns(returns, held_out_returns, bars, fold)
        | _describe("state", state_fit)
        | _conditioning(state_flow)
    )
    history = {"state": state_fit.history()} | {
        name: fit.history()
        for name, fit in zip(
            member_names(config),
            (fit for held_out in held_out_returns.values() for fit in held_out.fits),
            strict=True,
        )
    }
    return Artifact(
        spec=spec,
        scaler=scaler,
        state_flow=state_flow,
        returns=returns,
        likelihood=LikelihoodFilter.fit(held_out, config.false_alarm_rate),
        direction=DirectionReadout.fit(
            *_direction_rows(latents, data, fold.train, config),
            *_direction_rows(latents, data, fold.validation, config),
            config.direction_horizon,
        ),
        regimes=_fit_regimes(state_flow, latents, data, train_rows, config, previous),
        probe=probes(x[validation_rows]),
        return_probe=probes(_contexts(returns, bars.iloc[: fold.validation.stop])),
        training=_record(bars, fold, config, metrics, history, start),
    )


def _contexts(returns: ReturnModel, bars: pd.DataFrame) -> Floats:
    """Return the scaled contexts (N, C) of bars that have a full window."""
    array, stamps_ns = returns.inputs(bars)
    return returns.contexts(array, stamps_ns).values


def _check_previous(previous: Artifact | None, config: TrainConfig, spec: FeatureSpec) -> None:
    if previous is None:
        return
    found = previous.regimes.num_regimes
    if found != config.num_regimes or previous.spec != spec:
        raise ConfigError(
            f"expected a previous model of the same features with {config.num_regimes} regimes, "
            f"found {found} regimes of {list(previous.spec.names)}; train without it"
        )


def _fit_regimes(
    state_flow: Flow,
    latents: Floats,
    data: TrainingData,
    train_rows: slice,
    config: TrainConfig,
    previous: Artifact | None,
) -> Regimes:
    """Cluster training latents, or take the flow's own mixture, and give lasting names."""
    z = latents[train_rows]
    if isinstance(state_flow.prior, GaussianMixturePrior) and config.regime_method == "base":
        regimes = regimes_of(state_flow.prior)
    else:
        regimes = Regimes.fit(z, config.num_regimes, config.regime_method, config.seed)
    labels = regimes.assign(z)
    if previous is None:
        volatility = data.volatility[train_rows]
        return regimes.relabelled(order_labels(labels, volatility, config.num_regimes))
    old_z, _ = _encode(previous.state_flow, previous.scaler.transform(data.features[train_rows]))
    reference = previous.regimes.assign(old_z)
    return regimes.relabelled(match_labels(reference, labels, config.num_regimes))


def regimes_of(prior: GaussianMixturePrior) -> Regimes:
    """Return a mixture base's components as regimes: the posterior is the same."""
    return Regimes(
        weights=prior.logits.softmax(dim=0).numpy(),
        means=prior.means.numpy(),
        scales=prior.log_scales.exp().numpy(),
    )


def _direction_rows(
    latents: Floats, data: TrainingData, block: range, config: TrainConfig
) -> tuple[Floats, Floats]:
    """Return latents and forward returns of a block; no forward return leaves the block."""
    rows = data.rows(block, ahead=config.direction_horizon)
    return latents[rows], data.forward_return[rows]


def probes(held_out: Floats) -> Floats:
    """Return some 16 to 31 states, evenly spread over the held-out ones."""
    return np.ascontiguousarray(held_out[:: max(len(held_out) // _PROBES, 1)])


@torch.no_grad()
def _encode(flow: Flow, x: Floats) -> tuple[Floats, Floats]:
    z, log_det = flow(torch.from_numpy(np.ascontiguousarray(x)))
    return z.numpy(), (flow.prior.log_prob(z) + log_det).numpy()


def _record(
    bars: pd.DataFrame,
    fold: Fold,
    config: TrainConfig,
    metrics: dict[str, float],
    history: dict[str, dict[str, list[float]]],
    start: Artifact | None,
) -> TrainingRecord:
    used = bars.iloc[fold.train.start : fold.validation.stop]
    return TrainingRecord(
        trained_from=pd.Timestamp(used.index[0]),
        trained_until=pd.Timestamp(used.index[-1]),
        n_bars=len(used),
        bar_seconds=bar_interval(used).total_seconds(),
        data_sha256=bars_sha256(used),
        seed=config.seed,
        config=config.to_dict(),
        metrics=metrics,
        history=history,
        versions=library_versions(config.flow),
        parent=None if start is None else fingerprint(start),
    )


def _describe(name: str, fit: FitResult) -> dict[str, float]:
    return {
        f"{name}_best_epoch": float(fit.best_epoch),
        f"{name}_epochs": float(len(fit.epochs)),
        f"{name}_skipped_steps": float(fit.skipped_steps),
    }


def _conditioning(flow: Flow) -> dict[str, float]:
    """Return how far from singular the worst 1x1 convolution is, for a flow that has them."""
    if not isinstance(flow, Glow):
        return {}
    return {"max_condition_number": max(flow.condition_numbers(), default=1.0)}


def _checkpoint_maker(
    folder: str | os.PathLike[str] | None,
    bars: pd.DataFrame,
    config: TrainConfig,
    spec: FeatureSpec,
    start: Artifact | None,
) -> Callable[[str], Checkpoint | None]:
    if folder is None:
        return lambda _: None
    settings: dict[str, Any] = {
        "config": config.to_dict(),
        "spec": spec.to_dict(),
        "versions": library_versions(config.flow),
        "bars": bars_sha256(bars),
        "start": None if start is None else fingerprint(start),
    }
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    return lambda name: Checkpoint(Path(folder) / f"{name}.checkpoint.safetensors", key)


def library_versions(family: str) -> dict[str, str]:
    """Return the versions of everything that a model of this family depends on."""
    found = {name: version(name) for name in (*_LIBRARIES, *family_libraries(family))}
    return {"glow_bt": glow_bt.__version__, "python": platform.python_version(), **found}
