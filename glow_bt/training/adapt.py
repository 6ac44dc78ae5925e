"""From an artifact and newer bars to an artifact that has gone on learning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from glow_bt.artifact import Artifact, TrainingRecord, fingerprint
from glow_bt.errors import ConfigError, TooFewBarsError
from glow_bt.flows import Flow, GaussianMixturePrior
from glow_bt.folds import Fold, chronological_split, split_at
from glow_bt.likelihood import MIN_HELD_OUT, LikelihoodFilter
from glow_bt.ohlcv import bars_sha256, validate_bars
from glow_bt.regimes import Regimes
from glow_bt.scoring import check_interval
from glow_bt.threads import one_thread
from glow_bt.training.config import TrainConfig
from glow_bt.training.continuation import Continuation, FlowAdaptation
from glow_bt.training.data import prepare
from glow_bt.training.fitter import Progress
from glow_bt.training.pipeline import library_versions, probes, regimes_of

__all__ = ["Adaptation", "adapt"]

Floats = npt.NDArray[np.float64]

# Of the rate that the model was trained with: it is near an optimum already.
_SHARE_OF_RATE = 0.1
# Fewer states say more of themselves than of the market.
_MIN_LEARNT_ROWS = 100


@dataclass(frozen=True, eq=False)
class Adaptation:
    """What `adapt` came to.

    Attributes:
        artifact: the new model; the parent itself if nothing was kept.
        flows: what became of "state", "return" and, of further horizons, such as "return_24".
        latent_shift: root mean square move of the latents of held-out states; 0 if the state
            flow was not kept.
        num_bars: bars after those that the parent was trained on.
    """

    artifact: Artifact
    flows: Mapping[str, FlowAdaptation]
    latent_shift: float
    num_bars: int

    @property
    def kept(self) -> bool:
        """Whether a flow was kept, so that there is a new model."""
        return any(flow.kept for flow in self.flows.values())


def adapt(
    artifact: Artifact,
    bars: pd.DataFrame,
    *,
    max_steps: int = 200,
    learning_rate: float | None = None,
    held_out: float = 0.2,
    seed: int | None = None,
    progress: Progress | None = None,
) -> Adaptation:
    """Go on training a model on bars that came after its own, and keep what is not worse.

    The states of new bars are divided in order of time: rows to learn from, a purge of the
    longest feature window, and held-out rows. Every flow takes up to `max_steps` steps on the
    first, and are then measured once on the last: a flow whose mean NLL rose there is dropped,
    and the parent's stays. Nothing else looks at held-out rows, but for the likelihood filter's
    ranks, taken from them anew for a new state flow.

    Scaler, features, direction and regimes stay the parent's. The last two read latents, which
    move: at the defaults, on two years of daily bars of the S&P 500 at a time, by 0.3 to 0.5 of
    their deviation, so that 78 to 92 % of held-out states keep their regime (`latent_shift` and
    the metric regime_agreement say so). Regimes that are the components of a mixture base follow
    it and keep their numbers. After many adaptations, or a larger shift, train anew.

    Torch runs on one thread, and its global random state is left as it was.

    Args:
        artifact: the parent.
        bars: a bar frame (see `glow_bt.ohlcv`) that goes on beyond the parent's training; bars
            up to its end are only read to fill feature windows.
        max_steps: limit on the steps of each flow; if they are too few for one pass, the latest
            rows are learnt from.
        learning_rate: of Adam, at the start; default a tenth of that in the trainer's settings,
            which is the same along a chain of adaptations.
        held_out: share of the new states, the purge taken off, that the flows are judged on.
        seed: seed of every random choice; default the parent's.
        progress: called after each epoch (see `TrainingProgress`).

    Returns:
        The new artifact, which names its parent and keeps what that has on record of a search, or
        the parent if no flow was kept.

    Raises:
        DataError: if the bars break their contract.
        TooFewBarsError: if there are too few new bars; says how many are needed.
        ArtifactError: if the bars come at another interval than the parent's.
        ConfigError: if a setting cannot work.
        FeatureError: if a state cannot be computed.
    """
    config = _settings(artifact.training, max_steps, learning_rate, held_out, seed)
    frame, num_bars = _from_warm_up(validate_bars(bars), artifact)
    if len(frame) > 1:  # before the bars are counted: of another interval none would be enough
        stamps = pd.DatetimeIndex(frame.index).as_unit("ns").asi8
        check_interval(stamps, artifact.training.bar_seconds)
    fold = _divide(frame, num_bars, artifact, held_out)
    data = prepare(frame, config, artifact.spec)
    x = artifact.scaler.transform(data.features)
    continuation = Continuation(config, max_steps, progress)
    with one_thread():
        state_flow, state = continuation.state_flow(artifact, x, data, fold)
        returns, outcomes = continuation.returns(artifact, frame, fold)
        flows = {"state": state, **outcomes}
        if not any(outcome.kept for outcome in flows.values()):
            return Adaptation(artifact, flows, 0.0, num_bars)
        judged = x[data.rows(fold.validation)]
        child = replace(artifact, returns=returns, probe=probes(judged))
        if state.kept:
            child = _with_state_flow(child, state_flow, judged, config)
        shift, agreement = _moves(artifact, child, judged)
    metrics = _metrics(flows) | {"latent_shift": shift, "regime_agreement": agreement}
    own = {
        "max_steps": max_steps,
        "learning_rate": config.learning_rate,
        "held_out": held_out,
    }
    record = _record(artifact, frame.iloc[-num_bars:], config, own, flows, metrics)
    return Adaptation(replace(child, training=record), flows, shift, num_bars)


def _settings(
    record: TrainingRecord,
    max_steps: int,
    learning_rate: float | None,
    held_out: float,
    seed: int | None,
) -> TrainConfig:
    """Return the settings that the parent was trained with, but for rate and seed."""
    if type(max_steps) is not int or max_steps < 1:
        raise ConfigError(
            f"expected max_steps to be a whole number of at least 1, found {max_steps!r}"
        )
    if not isinstance(held_out, int | float) or not 0 < held_out < 1:
        raise ConfigError(f"expected held_out inside (0, 1), found {held_out!r}")
    known = {name: record.config[name] for name in TrainConfig.names() if name in record.config}
    config = TrainConfig(**known)
    rate = _SHARE_OF_RATE * config.learning_rate if learning_rate is None else learning_rate
    return replace(config, learning_rate=rate, seed=record.seed if seed is None else seed)


def _from_warm_up(bars: pd.DataFrame, artifact: Artifact) -> tuple[pd.DataFrame, int]:
    """Return new bars with no more than the bars before that their first state needs.

    Older bars would change nothing, but sums over windows differ in the last bit by their start.

    Returns:
        The bars, and how many of them are new.
    """
    first = int(bars.index.searchsorted(artifact.training.trained_until, side="right"))
    return bars.iloc[max(first - (artifact.min_bars - 1), 0) :], len(bars) - first


def _divide(bars: pd.DataFrame, num_bars: int, artifact: Artifact, held_out: float) -> Fold:
    """Divide bars into what is learnt from (train) and what the flows are judged on.

    Raises:
        TooFewBarsError: if a block is too short; so many new bars as it says suffice.
    """
    purge, warm_up = artifact.min_bars, artifact.min_bars - 1
    num_states, longest = len(bars) - warm_up, artifact.returns.horizons[-1]
    try:
        # The purge is taken off first, so that the share is of states that are used.
        sizes = chronological_split(
            max(num_states - purge, 0),
            purge=0,
            fractions=(1 - held_out, held_out, 0.0),
            # The last returns end outside their block.
            min_train=_MIN_LEARNT_ROWS - 1 + longest,
            min_validation=MIN_HELD_OUT + longest,
        )
    except TooFewBarsError as error:
        spent = warm_up - (len(bars) - num_bars)
        purpose = f"adapting to bars after {artifact.training.trained_until}"
        if spent:
            purpose += f", without the {spent} bars of warm-up before them,"
        raise TooFewBarsError(error.needed + purge + spent, num_bars, purpose) from error
    fold = split_at(len(bars), warm_up + len(sizes.train), len(bars), purge=purge)
    return replace(fold, train=range(warm_up, fold.train.stop))


def _with_state_flow(
    artifact: Artifact, state_flow: Flow, judged: Floats, config: TrainConfig
) -> Artifact:
    """Return the artifact with another state flow, and with what has to follow it."""
    regimes = artifact.regimes
    old, new = artifact.state_flow.prior, state_flow.prior
    if config.regime_method == "base":
        regimes = _following(
            regimes, cast("GaussianMixturePrior", old), cast("GaussianMixturePrior", new)
        )
    child = replace(artifact, state_flow=state_flow, regimes=regimes)
    log_prob = child.read(judged).log_prob + artifact.scaler.log_det
    rate = artifact.likelihood.false_alarm_rate
    return replace(child, likelihood=LikelihoodFilter.fit(log_prob, rate))


def _following(regimes: Regimes, old: GaussianMixturePrior, new: GaussianMixturePrior) -> Regimes:
    """Return the new mixture's components, numbered as `regimes` numbers the old ones."""
    distance = np.abs(regimes.means[:, None] - regimes_of(old).means[None]).sum(axis=2)
    return regimes_of(new).relabelled(distance.argmin(axis=1))


def _moves(parent: Artifact, child: Artifact, judged: Floats) -> tuple[float, float]:
    """Return how far latents of held-out states moved, and how many states kept their regime."""
    old, new = parent.read(judged), child.read(judged)
    shift = np.sqrt(np.square(new.latents - old.latents).mean())
    return float(shift), float((new.regime == old.regime).mean())


def _metrics(flows: Mapping[str, FlowAdaptation]) -> dict[str, float]:
    return {
        f"{name}_{what}": float(value)
        for name, flow in flows.items()
        for what, value in {
            "held_out_nll_before": flow.nll_before,
            "held_out_nll_after": flow.nll_after,
            "kept": flow.kept,
            "steps": flow.num_steps,
        }.items()
    }


def _record(
    parent: Artifact,
    new_bars: pd.DataFrame,
    config: TrainConfig,
    own: Mapping[str, float],
    flows: Mapping[str, FlowAdaptation],
    metrics: Mapping[str, float],
) -> TrainingRecord:
    record = parent.training
    kept = {name: flow.history for name, flow in flows.items() if flow.kept}
    return replace(
        record,
        trained_until=pd.Timestamp(new_bars.index[-1]),
        n_bars=record.n_bars + len(new_bars),
        data_sha256=bars_sha256(new_bars),
        seed=config.seed,
        config={**record.config, "adapt": dict(own)},
        metrics=metrics,
        history={**record.history, **kept},
        versions=library_versions(config.flow),
        parent=fingerprint(parent),
    )
