"""The trainer's settings."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

from glow_bt.errors import ConfigError
from glow_bt.flows.families import FAMILIES, family_settings
from glow_bt.folds import check_fractions
from glow_bt.ohlcv import utc_stamp
from glow_bt.regimes import METHODS

__all__ = ["TrainConfig"]

# The settings that are one of some names.
_CHOICES = {
    "flow": FAMILIES,
    "base": ("normal", "student_t", "mixture"),
    "coupling": ("affine", "additive", "spline"),
    "norm": ("actnorm", "batchnorm"),
    "regime_method": (*METHODS, "base"),
}
# Those of the state flow; None is the family's own choice.
_FLOW_SETTINGS = ("num_levels", "num_steps", "hidden_dim", "base", "coupling", "norm")
_OPTIONAL = ("num_levels", "num_steps", "base", "coupling", "norm")
_LARGEST_SEED = 2**32 - 1  # scikit-learn takes no larger one
# The whole numbers among the settings, with the least that works.
_LEAST = {
    "num_levels": 1,
    "num_steps": 1,
    "hidden_dim": 1,
    "return_hidden_dim": 1,
    "return_members": 2,
    "max_epochs": 1,
    "patience": 1,
    "batch_size": 2,
    "direction_horizon": 1,
    "num_regimes": 1,
    "seed": 0,
    "embargo": 0,
}
_INSIDE = {
    "learning_rate": (0, math.inf),
    "clip_norm": (0, math.inf),
    "false_alarm_rate": (0, 1),
}
_FROM_ZERO = {"weight_decay": math.inf, "ema_decay": 1, "noise": math.inf}


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of `glow_bt.training.train`; the defaults train on a few thousand bars.

    Attributes:
        fractions: shares of train, validation and test, in order of time.
        train_until: first stamp (ISO 8601, UTC) after the training block; with
            validation_until it replaces `fractions`.
        validation_until: first stamp after the validation block.
        purge: bars left unused between blocks; None for the longest feature window. Returns that
            are learnt from end inside their block, so that no horizon comes on top.
        embargo: bars left unused behind the block that a member of the return flow leaves out,
            before those that it learns from go on; nothing else learns from bars after a
            held-out block.
        flow: family of the state flow, one of `glow_bt.flows.FAMILIES`. It need not take all of
            the settings below; None stands for its own default.
        num_levels: levels of the state flow.
        num_steps: steps a level; of an autoregressive flow, its transforms.
        hidden_dim: hidden width of its networks.
        base: distribution of its latents: "normal", "student_t" or "mixture".
        coupling: "affine", "additive" or "spline".
        norm: "actnorm" or "batchnorm" between couplings.
        return_hidden_dim: hidden width of the return flow's networks.
        return_members: members of the return flow, each of which leaves out a block of bars.
        return_horizons: horizons in bars that returns are forecast over; 1 is always among them.
        max_epochs: upper limit on passes over the training block.
        patience: epochs without a better validation NLL before training stops.
        batch_size: rows a step.
        learning_rate: of Adam, at the start; it falls to 0 over `max_epochs`.
        ema_decay: of the average over steps that is taken of the weights; 0 for none.
        noise: deviation of normal noise on scaled states in training, against overfitting.
        weight_decay: of the networks' weights.
        clip_norm: limit on the gradient's norm.
        false_alarm_rate: share of held-out states outside the likelihood filter.
        direction_horizon: bars ahead that the direction readout is fitted on.
        num_regimes: number of regimes.
        regime_method: "gmm" or "kmeans" on latents, or "base" (needs base="mixture").
        seed: seed of every random choice.

    Raises:
        ConfigError: if a setting is of the wrong kind or outside what can work.
    """

    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15)
    train_until: str | None = None
    validation_until: str | None = None
    purge: int | None = None
    embargo: int = 0
    flow: str = "glow"
    num_levels: int | None = None
    num_steps: int | None = None
    hidden_dim: int = 32
    base: str | None = None
    coupling: str | None = None
    norm: str | None = None
    return_hidden_dim: int = 16
    return_members: int = 5
    return_horizons: tuple[int, ...] = (1,)
    max_epochs: int = 100
    patience: int = 20
    batch_size: int = 256
    learning_rate: float = 2e-3
    ema_decay: float = 0.0
    noise: float = 0.1
    weight_decay: float = 1e-2
    clip_norm: float = 5.0
    false_alarm_rate: float = 0.05
    direction_horizon: int = 5
    num_regimes: int = 3
    regime_method: str = "gmm"
    seed: int = 0

    def __post_init__(self) -> None:
        self._check_fractions()
        self._check_whole_numbers()
        self._check_horizons()
        self._check_shares_and_rates()
        self._check_names()
        self._check_dates()

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON-ready values; `TrainConfig(**settings)` takes them."""
        horizons = list(self.return_horizons)
        return asdict(self) | {"fractions": list(self.fractions), "return_horizons": horizons}

    def flow_settings(self) -> dict[str, Any]:
        """Return the settings of the state flow that are given, as `make_flow` takes them."""
        given = {name: getattr(self, name) for name in _FLOW_SETTINGS}
        return {name: value for name, value in given.items() if value is not None}

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Return the names of all settings."""
        return tuple(f.name for f in fields(cls))

    def _check_fractions(self) -> None:
        try:
            fractions = tuple(self.fractions)  # from JSON it is a list
            check_fractions(fractions)
        except TypeError as error:
            raise ConfigError(
                f"expected fractions such as (0.7, 0.15, 0.15), found {self.fractions!r}"
            ) from error
        object.__setattr__(self, "fractions", fractions)

    def _check_whole_numbers(self) -> None:
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is None and name in _OPTIONAL:
                continue
            if type(value) is not int or value < least:
                raise ConfigError(
                    f"expected {name} to be a whole number of at least {least}, found {value!r}"
                )
        if self.seed > _LARGEST_SEED:
            raise ConfigError(f"expected a seed of at most {_LARGEST_SEED}, found {self.seed}")
        if self.purge is not None and (type(self.purge) is not int or self.purge < 0):
            raise ConfigError(
                f"expected purge to be a whole number of at least 0, found {self.purge!r}"
            )

    def _check_horizons(self) -> None:
        try:
            horizons = tuple(sorted({1, *self.return_horizons}))  # from JSON it is a list
        except TypeError as error:
            raise ConfigError(
                f"expected return_horizons such as (1, 24), found {self.return_horizons!r}"
            ) from error
        if any(type(h) is not int or h < 1 for h in horizons):
            raise ConfigError(
                f"expected return_horizons of whole numbers from 1 on, found {horizons}"
            )
        object.__setattr__(self, "return_horizons", horizons)

    def _check_shares_and_rates(self) -> None:
        for name, (lower, upper) in _INSIDE.items():
            value = getattr(self, name)
            if not isinstance(value, int | float) or not lower < value < upper:
                raise ConfigError(f"expected {name} inside ({lower}, {upper}), found {value!r}")
        for name, upper in _FROM_ZERO.items():
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 <= value < upper:
                raise ConfigError(
                    f"expected {name} of 0 or more and below {upper}, found {value!r}"
                )

    def _check_names(self) -> None:
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value not in choices and not (value is None and name in _OPTIONAL):
                raise ConfigError(f"expected {name} among {', '.join(choices)}, found {value!r}")
        taken = family_settings(self.flow)
        refused = [name for name in self.flow_settings() if name not in taken]
        if refused:
            raise ConfigError(
                f"expected no {' or '.join(refused)} with flow {self.flow!r}, found "
                f"{', '.join(f'{name}={getattr(self, name)!r}' for name in refused)}; "
                "leave it out or choose another flow"
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
            order = utc_stamp(self.train_until) < utc_stamp(self.validation_until)
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
