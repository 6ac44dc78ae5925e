"""What market states say of the bars that one model speaks of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from glow_bt.artifact import Artifact, Reading
from glow_bt.features import feature_array, last_features

__all__ = ["Segment", "readings", "state_scores_of"]

Floats = npt.NDArray[np.float64]

# Longer inputs fall out of the processor's cache.
_BLOCK_ROWS = 4096


class Segment(NamedTuple):
    """Bars that one model speaks of: positions first .. stop - 1."""

    artifact: Artifact
    first: int
    stop: int


def readings(
    artifact: Artifact, bars: Floats, segment: Segment
) -> Iterator[tuple[slice, Reading]]:
    """Read the states of a segment's bars, block by block."""
    history = bars[segment.first - artifact.spec.min_bars + 1 : segment.stop, :5]
    if segment.stop - segment.first == 1:
        features = last_features(history, artifact.spec)[None, :]
    else:
        features = feature_array(history, artifact.spec)[artifact.spec.min_bars - 1 :]
    x = artifact.scaler.transform(features)
    for start in range(0, len(x), _BLOCK_ROWS):
        rows = slice(start, min(start + _BLOCK_ROWS, len(x)))
        yield rows, artifact.read(x[rows])


def state_scores_of(artifact: Artifact, reading: Reading) -> Floats:
    """Return (N, 5) log_prob, confidence, in_distribution, direction and regime."""
    log_prob = reading.log_prob + artifact.scaler.log_det
    return np.column_stack(
        [
            log_prob,
            artifact.likelihood.confidence(log_prob),
            artifact.likelihood.contains(log_prob),
            reading.direction,
            reading.regime,
        ]
    )
