"""Training that begins at the weights of an earlier model."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar, cast

import numpy as np
import pandas as pd
import torch

from glow_bt.artifact import Artifact, TrainingRecord
from glow_bt.errors import ConfigError, LookAheadError
from glow_bt.features import FeatureSpec, Scaler
from glow_bt.flows import Flow, describe_flow, make_flow, tails_of
from glow_bt.folds import Fold
from glow_bt.ohlcv import bar_interval, utc_stamp
from glow_bt.training.config import TrainConfig
from glow_bt.training.fitter import new_state_flow

__all__ = ["check_start", "state_flow_at", "trainable"]

_Built = TypeVar("_Built", bound=Flow)


def check_start(
    start: Artifact, config: TrainConfig, spec: FeatureSpec, bars: pd.DataFrame, fold: Fold
) -> None:
    """Refuse a model that training on a fold of these bars must not or cannot begin at.

    Its weights may have learnt from no bar after the fold's training block, or validation would
    judge what it has seen. They are not asked for the bars that they were chosen by: the
    validation block before may reach into this one.

    Raises:
        ConfigError: if features, state flow or bar interval are others.
        LookAheadError: if it has learnt from later bars.
    """
    if start.spec != spec:
        raise ConfigError(
            f"expected a model to start from with the features {list(spec.names)} of the same "
            f"windows, found {list(start.spec.names)}; start from another one or anew"
        )
    asked = describe_flow(new_state_flow(config, len(spec.names)))
    found = describe_flow(start.state_flow)
    if asked != found:
        differing = [name for name in asked | found if asked.get(name) != found.get(name)]
        raise ConfigError(
            "expected a model to start from with the state flow that is asked for, "
            f"{_named(asked, differing)}, found {_named(found, differing)}; give its settings, "
            "or start anew"
        )
    seconds = bar_interval(bars).total_seconds()
    if start.training.bar_seconds != seconds:
        raise ConfigError(
            f"expected a model to start from of bars of {seconds:g} seconds, found one of "
            f"{start.training.bar_seconds:g}; start from another one or anew"
        )
    learnt, border = _learnt_before(start.training), bars.index[fold.train.stop]
    if learnt > border:
        raise LookAheadError(
            f"expected a model to start from that has learnt from bars before {border}, where "
            f"the training block ends, found one with bars until {learnt}; start from an earlier "
            "one or anew"
        )


def state_flow_at(flow: Flow, old: Scaler, new: Scaler) -> Flow:
    """Return a float32 copy of a state flow to train on, for states of another scaler.

    A flow whose first layer scales (see `glow_bt.flows.TailLayer`) takes the change of units
    into it, so that its density of raw states stays what it was. Others keep their numbers.

    Args:
        flow: a trained one.
        old: scaler of the states that it was trained on.
        new: scaler of those that it is to be trained on.
    """
    copy = trainable(flow, cast("Callable[[], Flow]", partial(make_flow, **describe_flow(flow))))
    tails = tails_of(copy)
    if tails is None or tails.location is None or tails.log_scale is None:
        return copy
    factor = torch.from_numpy(np.divide(old.scale, new.scale))
    offset = torch.from_numpy(np.subtract(old.centre, new.centre) / np.asarray(new.scale))
    with torch.no_grad():
        tails.location.copy_(factor * tails.location.double() + offset)
        tails.log_scale.copy_(tails.log_scale.double() + factor.log())
    return copy


def trainable(flow: _Built, build: Callable[[], _Built]) -> _Built:
    """Return a float32 copy whose parameters are trained or not as in a newly built flow."""
    # Building a flow draws its starting weights, which must not move the caller's stream.
    with torch.random.fork_rng(devices=[]):
        copy = build()
    copy.load_state_dict(flow.state_dict())
    return copy


def _learnt_before(record: TrainingRecord) -> pd.Timestamp:
    """Return a stamp before which all bars lie that a model's weights have learnt from."""
    border = record.config.get("train_until")
    if border is None or "adapt" in record.config:
        # By shares it is not on record where the validation block begins.
        return record.trained_until
    return utc_stamp(border)


def _named(settings: dict[str, object], names: list[str]) -> str:
    return ", ".join(f"{name}={settings.get(name)!r}" for name in names)
