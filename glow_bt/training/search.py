"""Looking for settings, on validation spans only, with the number of trials on record."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from glow_bt.errors import ConfigError, MissingExtraError, ResultsError, TrainingError
from glow_bt.folds import Fold
from glow_bt.ohlcv import bars_sha256, validate_bars
from glow_bt.placing import new_file
from glow_bt.statistics import backtest_overfitting
from glow_bt.training.config import TrainConfig
from glow_bt.training.fitter import Progress
from glow_bt.training.search_gains import (
    OBJECTIVES,
    gains_by_fold,
    search_folds,
    validation_stamps,
)
from glow_bt.training.search_space import DEFAULT_SPACE, SearchSpace

if TYPE_CHECKING:
    import optuna

__all__ = ["SearchResult", "search", "untested_bars"]

Floats = npt.NDArray[np.float64]

_JOURNAL, _GAINS = "trials.journal", "gains"
_VALIDATED = 0.5
_MOST_BLOCKS = 16
_FEWEST_BEFORE_PRUNING = 5


@dataclass(frozen=True, eq=False)
class SearchResult:
    """Outcome of `search`.

    Attributes:
        config: the best settings.
        value: their mean gain a bar over all validation spans.
        trials: one row a trial: state (complete, pruned or failed), value, and its settings.
        gains: (N, K) gain at each validated bar of each complete trial, in order of number.
        stamps: (N,) those bars.
        objective: what was sought.
        seed: of the study.
        used_until: open of the last bar that a trial was trained or judged on; what is tested
            must come after it.
        pbo: probability of backtest overfitting of choosing the best by its mean
            (`glow_bt.statistics.backtest_overfitting`); NaN with fewer than two complete trials.
    """

    config: TrainConfig
    value: float
    trials: pd.DataFrame
    gains: Floats
    stamps: pd.DatetimeIndex
    objective: str
    seed: int
    used_until: pd.Timestamp
    pbo: float

    def record(self) -> dict[str, Any]:
        """Return what a manifest says of the search, as JSON values."""
        return {
            "trials": len(self.trials),
            "objective": self.objective,
            "seed": self.seed,
            "bars_until": self.used_until.isoformat(),
            "pbo": None if math.isnan(self.pbo) else self.pbo,
        }


def untested_bars(bars: pd.DataFrame, test_fraction: float = 0.6) -> pd.DataFrame:
    """Return the bars before the first test border of a walk-forward over these bars.

    Raises:
        ConfigError: if the share is outside (0, 1).
    """
    if not 0 < test_fraction < 1:
        raise ConfigError(f"expected test_fraction inside (0, 1), found {test_fraction}")
    return bars.iloc[: round(len(bars) * (1 - test_fraction))]


def search(
    bars: pd.DataFrame,
    out: Path,
    *,
    trials: int,
    objective: str = "likelihood",
    space: SearchSpace | None = None,
    config: TrainConfig | None = None,
    n_folds: int = 3,
    seed: int = 0,
    progress: Progress | None = None,
    told: Callable[[int, str, float], None] | None = None,
) -> SearchResult:
    """Look for settings by a tree-structured Parzen estimator.

    Bergstra et al. 2011, "Algorithms for hyper-parameter optimization", NeurIPS 24. Each trial is
    trained and judged on walk-forward folds; one that falls behind the median of earlier trials
    after a fold is pruned. An interrupted search goes on from `out`, to the same result.

    Args:
        bars: a bar frame without any bar that will be tested (`untested_bars`).
        out: folder of best.json, trials.csv, gains.npz and what a restart needs.
        trials: how many there are in the end, those of earlier calls included.
        objective: "likelihood" or "quantile-loss"; see `gains_by_fold`.
        space: what is searched; default `DEFAULT_SPACE`.
        config: all other settings.
        n_folds: validation spans, over the last half of the bars.
        seed: of the search; training has `config.seed`.
        progress: told of epochs.
        told: called after each trial with its number, state and value.

    Raises:
        MissingExtraError: without Optuna.
        ConfigError: on a setting that cannot work.
        ResultsError: if the folder holds a search of something else.
        TrainingError: if no trial came to an end.
        Others as `train` does.
    """
    _check(trials, objective)
    space, config = space or SearchSpace(DEFAULT_SPACE), config or TrainConfig()
    bars = validate_bars(bars)
    folds = search_folds(bars, config, n_folds, _VALIDATED)
    key = {
        "bars": bars_sha256(bars),
        "config": config.to_dict(),
        "space": dict(space.ranges),
        "objective": objective,
        "n_folds": n_folds,
        "seed": seed,
    }
    study = _study(out, key)
    library = _optuna()
    while (number := len(_finished(study))) < trials:
        # From the number of trials alone, so that a restart chooses as if there had been none.
        study.sampler = library.samplers.TPESampler(seed=(seed + 7919 * number) % 2**32)
        trial = study.ask()
        try:
            settings = replace(config, **space.suggest(trial))
            gains = _judged(trial, gains_by_fold(bars, folds, settings, objective, progress))
        except (TrainingError, ConfigError) as error:
            trial.set_user_attr("error", str(error))
            study.tell(trial, state=library.trial.TrialState.FAIL)
            state, value = "failed", math.nan
        else:
            state, value = _tell(study, trial, gains, out)
        if told is not None:
            told(trial.number, state, value)
    return _result(study, out, config, bars, folds, objective, seed)


def _check(trials: int, objective: str) -> None:
    if objective not in OBJECTIVES:
        raise ConfigError(
            f"expected an objective among {', '.join(OBJECTIVES)}, found {objective!r}"
        )
    if trials < 1:
        raise ConfigError(f"expected at least 1 trial, found {trials}")


def _optuna() -> Any:  # noqa: ANN401
    try:
        import optuna
    except ImportError as error:
        raise MissingExtraError("optuna", "search", "a search") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _study(out: Path, key: dict[str, Any]) -> optuna.Study:
    """Open the study of a folder, or begin one."""
    library = _optuna()
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    (out / _GAINS).mkdir(parents=True, exist_ok=True)
    study: optuna.Study = library.create_study(
        storage=JournalStorage(JournalFileBackend(str(out / _JOURNAL))),
        study_name="search",
        direction="maximize",
        load_if_exists=True,
        pruner=library.pruners.MedianPruner(n_startup_trials=_FEWEST_BEFORE_PRUNING),
    )
    text = json.dumps(key, sort_keys=True)
    if (found := study.user_attrs.get("key", text)) != text:
        then = json.loads(found)
        other = [name for name, value in json.loads(text).items() if then.get(name) != value]
        other = ["spans" if name == "n_folds" else name for name in other]
        raise ResultsError(
            f"expected a search of the same {', '.join(other)} in {out}, found one of others; "
            "give another folder, or repeat the call as it was"
        )
    study.set_user_attr("key", text)
    for trial in study.get_trials(deepcopy=False):
        if not trial.state.is_finished():  # of a call that was interrupted
            study.tell(trial.number, state=library.trial.TrialState.FAIL)
    return study


def _finished(study: optuna.Study) -> list[Any]:
    """Return the trials that came to an end by themselves, good or bad."""
    return [
        trial
        for trial in study.get_trials(deepcopy=False)
        if trial.state.name in ("COMPLETE", "PRUNED") or "error" in trial.user_attrs
    ]


def _judged(trial: optuna.Trial, folds: Iterator[Floats]) -> list[Floats] | None:
    """Return the gains of all folds, or None if the trial was pruned on the way."""
    gains: list[Floats] = []
    for step, part in enumerate(folds):
        gains.append(part)
        trial.report(float(np.concatenate(gains).mean()), step)
        if trial.should_prune():
            return None
    return gains


def _tell(
    study: optuna.Study, trial: optuna.Trial, gains: list[Floats] | None, out: Path
) -> tuple[str, float]:
    state = _optuna().trial.TrialState
    if gains is None:
        study.tell(trial, state=state.PRUNED)
        return "pruned", math.nan
    row = np.concatenate(gains)
    if not np.isfinite(row).all():
        trial.set_user_attr("error", "a gain is not finite")
        study.tell(trial, state=state.FAIL)
        return "failed", math.nan
    with new_file(_gains_file(out, trial.number)) as file, file.open("wb") as handle:
        np.save(handle, row)
    study.tell(trial, float(row.mean()))
    return "complete", float(row.mean())


def _gains_file(out: Path, number: int) -> Path:
    return out / _GAINS / f"{number:05d}.npy"


def _result(
    study: optuna.Study,
    out: Path,
    config: TrainConfig,
    bars: pd.DataFrame,
    folds: Sequence[Fold],
    objective: str,
    seed: int,
) -> SearchResult:
    finished = _finished(study)
    complete = [trial for trial in finished if trial.state.name == "COMPLETE"]
    if not complete:
        raise TrainingError(
            f"expected a trial that came to an end, found none of {len(finished)}; the first: "
            f"{finished[0].user_attrs.get('error')}; narrow the space"
        )
    gains = np.column_stack([np.load(_gains_file(out, trial.number)) for trial in complete])
    best = max(complete, key=lambda trial: trial.value)
    names = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
    rows = [
        {"trial": trial.number, "state": names[trial.state.name], "value": trial.value}
        | trial.params
        for trial in finished
    ]
    result = SearchResult(
        config=replace(config, **best.params),
        value=float(best.value),
        trials=pd.DataFrame(rows).set_index("trial"),
        gains=gains,
        stamps=validation_stamps(bars, folds),
        objective=objective,
        seed=seed,
        used_until=bars.index[folds[-1].test.stop - 1],
        pbo=_overfitting(gains),
    )
    _write(result, [trial.number for trial in complete], out)
    return result


def _overfitting(gains: Floats) -> float:
    num_bars, num_trials = gains.shape
    blocks = min(_MOST_BLOCKS, num_bars // 2 // 2 * 2)
    if num_trials < 2 or blocks < 2:
        return math.nan
    return backtest_overfitting(gains, num_blocks=blocks, criterion="mean").probability


def _write(result: SearchResult, complete: list[int], out: Path) -> None:
    best = {
        "config": result.config.to_dict(),
        "search": {**result.record(), "value": result.value},
    }
    with _text(out / "best.json") as lines:
        lines.append(json.dumps(best, indent=1) + "\n")
    with _text(out / "trials.csv") as lines:
        lines.append(result.trials.to_csv())
    with new_file(out / "gains.npz") as file, file.open("wb") as handle:
        np.savez_compressed(
            handle,
            gains=result.gains,
            trials=np.array(complete),
            stamps_ns=result.stamps.as_unit("ns").asi8,
        )


@contextmanager
def _text(file: Path) -> Iterator[list[str]]:
    lines: list[str] = []
    yield lines
    with new_file(file) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")
