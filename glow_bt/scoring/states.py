"""What market states say of the bars that one model speaks of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from glow_bt.artifact import Artifact, Reading
from glow_bt.features import feature_array, last_features
from glow_bt.scoring.blocks import blocks_of

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
    """Read the states of a segment's bars, block by block; slices count from its first bar."""
    warm_up = artifact.spec.min_bars - 1
    for first, stop in blocks_of(segment.first, segment.stop):
        history = bars[first - warm_up : stop, :5]
        if stop - first == 1:
            features = last_features(history, artifact.spec)[None, :]
        else:
            features = feature_array(history, artifact.spec)[warm_up:]
        x = artifact.scaler.transform(features)
        for start in range(0, len(x), _BLOCK_ROWS):
            part = x[start : start + _BLOCK_ROWS]
            row = first - segment.first + start
            yield slice(row, row + len(part)), artifact.read(part)


def state_scores_of(artifact: Artifact, reading: Reading) -> Floats:
    """Return (N, 5) log_prob, confidence, in_distribution, direction and regime."""
    log_prob = reading.log_prob + artifact.scaler.log_det
    columns = [
        log_prob,
        artifact.likelihood.confidence(log_prob),
        artifact.likelihood.contains(log_prob),
        reading.direction,
        reading.regime,
    ]
    return np.array(columns).T
