"""The trainer's settings."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

import pandas as pd

from glow_bt.errors import ConfigError
from glow_bt.regimes import METHODS

__all__ = ["TrainConfig"]

_REGIME_METHODS = (*METHODS, "base")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of `glow_bt.training.train`; the defaults train on a few thousand bars.

    Attributes:
        fractions: shares of train, validation and test, in order of time.
        train_until: first stamp (ISO 8601, UTC) after the training block; with
            validation_until it replaces `fractions`.
        validation_until: first stamp after the validation block.
        purge: bars left unused between blocks; None for the longest feature window.
        num_levels: levels of the state flow.
        num_steps: steps a level.
        hidden_dim: hidden width of its couplings.
        base: distribution of its latents: "normal", "student_t" or "mixture".
        return_hidden_dim: hidden width of the return flow.
        max_epochs: upper limit on passes over the training block.
        patience: epochs without a better validation NLL before training stops.
        batch_size: rows a step.
        learning_rate: of Adam, at the start.
        weight_decay: of the networks' weights.
        clip_norm: limit on the gradient's norm.
        plateau_patience: epochs without improvement before the learning rate halves.
        false_alarm_rate: share of held-out states outside the likelihood filter.
        direction_horizon: bars ahead that the direction readout is fitted on.
        num_regimes: number of regimes.
        regime_method: "gmm" or "kmeans" on latents, or "base" (needs base="mixture").
        seed: seed of every random choice.
    """

    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15)
    train_until: str | None = None
    validation_until: str | None = None
    purge: int | None = None
    num_levels: int = 3
    num_steps: int = 4
    hidden_dim: int = 64
    base: str = "normal"
    return_hidden_dim: int = 32
    max_epochs: int = 100
    patience: int = 12
    batch_size: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    clip_norm: float = 5.0
    plateau_patience: int = 4
    false_alarm_rate: float = 0.05
    direction_horizon: int = 5
    num_regimes: int = 3
    regime_method: str = "gmm"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in (
            "num_levels",
            "num_steps",
            "hidden_dim",
            "return_hidden_dim",
            "max_epochs",
            "patience",
            "plateau_patience",
            "direction_horizon",
            "num_regimes",
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"expected {name} of at least 1, found {getattr(self, name)}")
        for name in ("learning_rate", "clip_norm"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"expected {name} above 0, found {getattr(self, name)}")
        if self.batch_size < 2:
            raise ConfigError(f"expected batch_size of at least 2, found {self.batch_size}")
        if self.weight_decay < 0:
            raise ConfigError(f"expected weight_decay of 0 or more, found {self.weight_decay}")
        if self.purge is not None and self.purge < 0:
            raise ConfigError(f"expected purge of 0 or more, found {self.purge}")
        if not 0 < self.false_alarm_rate < 1:
            raise ConfigError(
                f"expected false_alarm_rate inside (0, 1), found {self.false_alarm_rate}"
            )
        self._check_regimes()
        self._check_dates()

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON-ready values."""
        return asdict(self)

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Return the names of all settings."""
        return tuple(f.name for f in fields(cls))

    def _check_regimes(self) -> None:
        if self.regime_method not in _REGIME_METHODS:
            raise ConfigError(
                f"expected regime_method among {', '.join(_REGIME_METHODS)}, "
                f"found {self.regime_method!r}"
            )
        if self.regime_method == "base" and self.base != "mixture":
            raise ConfigError(
                f"expected base 'mixture' with regime_method 'base', found {self.base!r}"
            )

    def _check_dates(self) -> None:
        if (self.train_until is None) != (self.validation_until is None):
            raise ConfigError(
                "expected train_until and validation_until together, found only one of them"
            )
        if self.train_until is None or self.validation_until is None:
            return
        try:
            order = pd.Timestamp(self.train_until) < pd.Timestamp(self.validation_until)
        except (ValueError, TypeError) as error:
            raise ConfigError(
                f"expected dates in ISO 8601, found {self.train_until!r} and "
                f"{self.validation_until!r}: {error}"
            ) from error
        if not order:
            raise ConfigError(
                f"expected train_until before validation_until, found {self.train_until} and "
                f"{self.validation_until}"
            )
