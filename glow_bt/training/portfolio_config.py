"""Settings of a joint return flow over several assets."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

from glow_bt.errors import ConfigError
from glow_bt.training.config import TrainConfig
from glow_bt.training.joint_returns import StateSettings

__all__ = ["PortfolioConfig"]


def _few_data() -> TrainConfig:
    return TrainConfig(
        num_levels=1,
        num_steps=4,
        hidden_dim=32,
        max_epochs=60,
        patience=8,
        batch_size=128,
        learning_rate=3e-4,
        noise=0.0,
    )


@dataclass(frozen=True, kw_only=True)
class PortfolioConfig:
    """Settings of `glow_bt.training.portfolio.PortfolioModel`, made for a few hundred bars.

    The defaults had the best validation likelihood on the first 40 % of three histories, see
    `benchmarks/risk/portfolio.md`.

    Attributes:
        state: how the past is summed up.
        leverages: candidates for `state.leverage`; the one of greatest likelihood under the
            shared radius alone, on the bars of a fit, is taken.
        train: sizes of each flow and settings of the trainer's loop; its fractions, dates and
            what belongs to market states is not used.
        training_rows: rows that rotated copies fill the training block up to; none are made
            where it is longer already. More copies draw the flow towards a law that depends on
            the size of a joint move and not on its direction.
        keep_market: whether rotations leave the first axis, the market, as it is, so that its
            skew is learned from every row; or turn all directions into one another.
        num_flows: flows of the mixture, a seed each; a power of 2.
        num_scenarios: scenarios a bar, over all flows; a power of 2.
        validation_fraction: share of the bars, the last ones, that decide when training stops.

    Raises:
        ConfigError: on a setting outside what can work.
    """

    state: StateSettings = field(default_factory=StateSettings)
    leverages: tuple[float, ...] = (0.0, 0.3, 0.6, 0.9)
    train: TrainConfig = field(default_factory=_few_data)
    training_rows: int = 6000
    keep_market: bool = True
    num_flows: int = 4
    num_scenarios: int = 4096
    validation_fraction: float = 0.2

    def __post_init__(self) -> None:
        if self.train.flow != "glow":
            raise ConfigError(f"expected a flow of family 'glow', found {self.train.flow!r}")
        for name in ("num_flows", "num_scenarios"):
            value = getattr(self, name)
            if value < 1 or value & (value - 1):
                raise ConfigError(f"expected {name} that is a power of 2, found {value}")
        if self.num_scenarios < self.num_flows:
            raise ConfigError(
                f"expected at least a scenario a flow, found {self.num_scenarios} for "
                f"{self.num_flows} flows"
            )
        leverages = tuple(self.leverages)  # from JSON it is a list
        if not leverages or not all(0 <= value < 1 for value in leverages):
            raise ConfigError(f"expected leverages inside [0, 1), found {self.leverages}")
        object.__setattr__(self, "leverages", leverages)
        if self.training_rows < 0:
            raise ConfigError(f"expected training_rows of 0 or more, found {self.training_rows}")
        if not 0 < self.validation_fraction < 1:
            raise ConfigError(
                f"expected validation_fraction inside (0, 1), found {self.validation_fraction}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON-ready values, which `from_dict` takes."""
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return plain | {
            "state": self.state.to_dict(),
            "leverages": list(self.leverages),
            "train": self.train.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Return the settings that `to_dict` wrote."""
        nested = {
            "state": StateSettings(**values["state"]),
            "train": TrainConfig(**values["train"]),
        }
        return cls(**(values | nested))
