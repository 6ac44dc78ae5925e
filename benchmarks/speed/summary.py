"""Rounds of seconds turned into medians, quartiles and ratios."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from benchmarks.speed.tasks import BARE, BARS, BEST_PEER, Bar


@dataclass(frozen=True)
class Spread:
    """How long one call took over the rounds, in seconds."""

    median: float
    minimum: float
    lower_quartile: float
    upper_quartile: float
    rounds: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Spread:
        """Summarise rounds; one round is its own quartiles."""
        several = seconds if len(seconds) > 1 else [*seconds, *seconds]
        lower, median, upper = statistics.quantiles(several, n=4, method="inclusive")
        return cls(median, min(seconds), lower, upper, len(seconds))


@dataclass(frozen=True)
class Verdict:
    """A bar beside what was measured.

    Attributes:
        bar: what had to be reached.
        ours: the contender of ours that counts, the fastest of its dtype.
        against: the one it is compared with.
        ratio: median over rounds of the ratio within a round.
        best_ratio: of the least times, which a busy machine disturbs least.
    """

    bar: Bar
    ours: str
    against: str
    ratio: float
    best_ratio: float

    @property
    def is_met(self) -> bool:
        return self.bar.is_met(self.ratio)

    def as_dict(self) -> dict[str, object]:
        return {
            **asdict(self.bar),
            "ours": self.ours,
            "other": self.against,
            "ratio": self.ratio,
            "ratio_of_minima": self.best_ratio,
            "met": self.is_met,
        }


def verdicts(
    seconds: Mapping[str, Mapping[str, Sequence[float]]], groups: Mapping[str, str]
) -> list[Verdict]:
    """Return each bar whose task, our contender and the other side were all measured.

    Args:
        seconds: of each round, by contender, by task.
        groups: of each contender: "ours", "peer" or "reference".
    """
    found = (_verdict(bar, seconds.get(bar.task, {}), groups) for bar in BARS)
    return [verdict for verdict in found if verdict is not None]


def _verdict(
    bar: Bar, rounds: Mapping[str, Sequence[float]], groups: Mapping[str, str]
) -> Verdict | None:
    ours = fastest(rounds, [n for n in rounds if groups[n] == "ours" and bar.dtype in n])
    others = [name for name in rounds if groups[name] == "peer"]
    against = fastest(rounds, others) if bar.against == BEST_PEER else BARE
    if ours is None or against not in rounds:
        return None
    first, second = (ours, against) if bar.against == BARE else (against, ours)
    ratio = statistics.median(ratios(rounds[first], rounds[second]))
    best_ratio = min(rounds[first]) / min(rounds[second])
    return Verdict(bar, ours, against, ratio, best_ratio)


def fastest(rounds: Mapping[str, Sequence[float]], names: Sequence[str]) -> str | None:
    """Return the name with the least median; None if there is none."""
    return min(names, key=lambda name: statistics.median(rounds[name]), default=None)


def ratios(first: Sequence[float], second: Sequence[float]) -> list[float]:
    """Return first / second round by round."""
    return [a / b for a, b in zip(first, second, strict=True)]
