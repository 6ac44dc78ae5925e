"""What an artifact holds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from glow_bt.artifact.encoding import Encoder, encoder_of
from glow_bt.artifact.returns import ReturnModel
from glow_bt.artifact.search_record import check_search
from glow_bt.direction import DirectionReadout
from glow_bt.errors import ArtifactError
from glow_bt.features import FeatureSpec, Scaler
from glow_bt.flows import Flow
from glow_bt.likelihood import LikelihoodFilter
from glow_bt.regimes import Regimes

__all__ = ["Artifact", "Reading", "TrainingRecord"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class TrainingRecord:
    """Where a model comes from.

    Attributes:
        trained_from: stamp (bar open, UTC) of the first bar used.
        trained_until: stamp of the last bar used in any way, validation included.
        n_bars: bars in that interval, those lost to the purge included.
        bar_seconds: interval of the bars.
        data_sha256: hash of the bars in that interval (`glow_bt.ohlcv.bars_sha256`); of an
            adapted model, of those that its parent had not seen.
        seed: seed of every random choice.
        config: the trainer's settings; of an adapted model its parent's, and under "adapt" those
            of `glow_bt.training.adapt`.
        metrics: what was measured, in nats unless named otherwise.
        history: per flow, lists of training and validation loss by epoch: train_nll and
            validation_nll, or train_loss and validation_loss where it is no likelihood.
        versions: of the libraries involved.
        parent: fingerprint (`glow_bt.artifact.fingerprint`) of the artifact that this one was
            adapted from or started at; None for one that was trained from the start.
        search: record of the search that found the settings (see
            `glow_bt.artifact.search_record`); None if nothing is known of one. Who tests the
            model counts its trials, and leaves out the bars that it used.

    Raises:
        ArtifactError: if the interval has no time zone or no length, or the parent is no
            fingerprint.
        ConfigError: if what is said of a search cannot be.
    """

    trained_from: pd.Timestamp
    trained_until: pd.Timestamp
    n_bars: int
    bar_seconds: float
    data_sha256: str
    seed: int
    config: Mapping[str, Any]
    metrics: Mapping[str, float]
    history: Mapping[str, Mapping[str, list[float]]]
    versions: Mapping[str, str]
    parent: str | None = None
    search: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        aware = self.trained_from.tzinfo is not None and self.trained_until.tzinfo is not None
        if not (aware and self.trained_from < self.trained_until):
            raise ArtifactError(
                "expected a training interval in UTC, found it from "
                f"{self.trained_from} until {self.trained_until}; train again"
            )
        if self.parent is not None and not re.fullmatch("[0-9a-f]{64}", str(self.parent)):
            raise ArtifactError(
                "expected the parent's fingerprint (64 hex digits) or none, found "
                f"{self.parent!r}; train again"
            )
        check_search(self.search)


class Reading(NamedTuple):
    """What a model says of N scaled states.

    Attributes:
        latents: (N, D).
        log_prob: (N,) log-density of the scaled state, nats.
        direction: (N,) in [-1, 1].
        regime: (N,) number of the regime.
    """

    latents: Floats
    log_prob: Floats
    direction: Floats
    regime: npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Artifact:
    """Everything the runtime needs, and where it comes from.

    Attributes:
        spec: which features make a market state, in which order.
        scaler: centre and scale of each feature, from the training block.
        state_flow: density of scaled market states, of any family.
        returns: density of the next bars' log returns, given how volatile the market has been.
        likelihood: filter thresholds and confidence ranks.
        direction: readout of latents.
        regimes: regimes of latents.
        probe: (P, D) scaled states that a loaded model is proven on.
        return_probe: (P, C) scaled contexts of returns, for the same.
        training: where the model comes from.

    Raises:
        ArtifactError: if the parts are not for the same features.
    """

    spec: FeatureSpec
    scaler: Scaler
    state_flow: Flow
    returns: ReturnModel
    likelihood: LikelihoodFilter
    direction: DirectionReadout
    regimes: Regimes
    probe: Floats
    return_probe: Floats
    training: TrainingRecord

    def __post_init__(self) -> None:
        width = len(self.spec.names)
        if self.scaler.names != self.spec.names:
            raise ArtifactError(
                f"expected a scaler of the features {list(self.spec.names)}, found one of "
                f"{list(self.scaler.names)}; train again"
            )
        widths = {
            "state_flow": self.state_flow.num_features,
            "direction": len(self.direction.coefficients),
            "regimes": self.regimes.means.shape[1],
            "probe": self.probe.shape[1],
        }
        wrong = {name: found for name, found in widths.items() if found != width}
        if wrong:
            raise ArtifactError(
                f"expected every part to be for the {width} features of the spec, found {wrong}; "
                "train again"
            )
        if self.returns.bar_seconds != self.training.bar_seconds:
            raise ArtifactError(
                f"expected returns of bars of {self.training.bar_seconds:g} seconds, as recorded, "
                f"found {self.returns.bar_seconds:g}; train again"
            )
        if self.return_probe.shape[1] != len(self.returns.spec.names):
            raise ArtifactError(
                f"expected probe contexts of {len(self.returns.spec.names)} numbers, found "
                f"{self.return_probe.shape[1]}; train again"
            )

    @property
    def min_bars(self) -> int:
        """Bars that a row of scores depends on, itself included."""
        return max(self.spec.min_bars, self.returns.min_bars)

    def read(self, states: Floats) -> Reading:
        """Read scaled states (N, D).

        Raises:
            FlowError: on a wrong width or a state that is not finite.
        """
        latents, log_prob = self._encode(states)
        return Reading(
            latents=latents,
            log_prob=log_prob,
            direction=self.direction(latents),
            regime=self.regimes.assign(latents),
        )

    def regime_of(self, latents: Floats) -> npt.NDArray[np.int64]:
        """Return the regime of each row of latents (N, D), shape (N,)."""
        return self.regimes.assign(latents)

    @cached_property
    def _encode(self) -> Encoder:
        return encoder_of(self.state_flow)
