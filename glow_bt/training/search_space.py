"""Which settings a search ranges over, and how."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from glow_bt.errors import ConfigError
from glow_bt.training.config import TrainConfig

__all__ = ["DEFAULT_SPACE", "SearchSpace"]

# Settings whose values the folds, the run or the kind of model decide on.
_FIXED = ("fractions", "train_until", "validation_until", "purge", "embargo", "return_horizons")

DEFAULT_SPACE: dict[str, Any] = {
    "num_levels": {"low": 1, "high": 3},
    "num_steps": {"low": 1, "high": 6},
    "hidden_dim": [16, 32, 64],
    "learning_rate": {"low": 5e-4, "high": 8e-3, "log": True},
    "noise": {"low": 0.0, "high": 0.3},
    "weight_decay": {"low": 1e-4, "high": 1e-1, "log": True},
    "return_hidden_dim": [8, 16, 32],
}


class _Trial(Protocol):
    def suggest_categorical(self, name: str, choices: Any) -> Any: ...  # noqa: ANN401

    def suggest_int(self, name: str, low: int, high: int, *, log: bool) -> int: ...

    def suggest_float(self, name: str, low: float, high: float, *, log: bool) -> float: ...


@dataclass(frozen=True)
class SearchSpace:
    """Names of `TrainConfig` settings, each with a list of choices or with low and high.

    Attributes:
        ranges: by name: a list of values; or {"low": .., "high": ..}, whole numbers where both
            are, with "log": true for steps in proportion.

    Raises:
        ConfigError: on an unknown or fixed setting, or a range that is none.
    """

    ranges: Mapping[str, Any]

    def __post_init__(self) -> None:
        if not isinstance(self.ranges, Mapping) or not self.ranges:
            raise ConfigError(
                'expected a search space such as {"hidden_dim": [16, 32]}, found '
                f"{self.ranges!r}"
            )
        allowed = [name for name in TrainConfig.names() if name not in (*_FIXED, "seed")]
        unknown = [name for name in self.ranges if name not in allowed]
        if unknown:
            raise ConfigError(
                f"expected settings to search among {', '.join(allowed)}, found "
                f"{', '.join(map(repr, unknown))}"
            )
        for name, values in self.ranges.items():
            if not _is_range(values):
                raise ConfigError(
                    f"expected for {name} a list of values, or low below high (above 0 with "
                    f"log), found {values!r}"
                )

    @classmethod
    def read(cls, file: Path) -> SearchSpace:
        """Read a space from a JSON file.

        Raises:
            ConfigError: if it cannot be read, or as above.
        """
        try:
            ranges = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ConfigError(
                f"expected a search space as a JSON file, found {file}: {error}"
            ) from error
        return cls(ranges)

    def suggest(self, trial: _Trial) -> dict[str, Any]:
        """Let a trial choose a value of every setting."""
        return {name: _suggest(trial, name, values) for name, values in self.ranges.items()}


def _suggest(trial: _Trial, name: str, values: Any) -> Any:  # noqa: ANN401
    if isinstance(values, list):
        return trial.suggest_categorical(name, values)
    low, high, log = values["low"], values["high"], values.get("log", False)
    if isinstance(low, int) and isinstance(high, int):
        return trial.suggest_int(name, low, high, log=log)
    return trial.suggest_float(name, float(low), float(high), log=log)


def _is_range(values: Any) -> bool:  # noqa: ANN401
    if isinstance(values, list):
        return len(values) > 0 and all(
            value is None or isinstance(value, bool | int | float | str) for value in values
        )
    if not isinstance(values, dict) or not {"low", "high"} <= set(values) <= {
        "low",
        "high",
        "log",
    }:
        return False
    low, high, log = values["low"], values["high"], values.get("log", False)
    numbers = all(isinstance(end, int | float) for end in (low, high))
    return numbers and isinstance(log, bool) and low < high and (low > 0 or not log)
