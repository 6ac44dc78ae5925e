"""What is timed, and the bars that the flow has to reach."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from benchmarks.speed.contender import Call, Contender

BARE = "bare matrix products"
BEST_PEER = "best peer"


@dataclass(frozen=True)
class Task:
    """One row count of one kind of work.

    Attributes:
        kind: "encode" (latents and log-densities), "sample" or "train" (one step).
        rows: rows encoded, drawn, or in the batch.
        rounds: how often each contender is timed by default.
    """

    kind: str
    rows: int
    rounds: int

    @property
    def key(self) -> str:
        return f"{self.kind}-{self.rows}"

    def call(self, contender: Contender, x: Tensor) -> Call | None:
        """Return what the contender does for this task, or None if it stays out."""
        if self.kind == "sample":
            return contender.sample(self.rows)
        work = contender.encode if self.kind == "encode" else contender.train
        return work(x[: self.rows])


TASKS = [
    Task("encode", 1, 40),
    Task("encode", 256, 40),
    Task("encode", 4096, 12),
    Task("encode", 33_000, 12),
    Task("sample", 1000, 30),
    Task("sample", 100_000, 8),
    Task("train", 256, 40),
    Task("train", 1024, 30),
]


@dataclass(frozen=True)
class Bar:
    """A ratio to reach: ours is so many times faster than a peer, or slower than the bare work.

    Attributes:
        task: key of the task.
        against: `BEST_PEER` (the fastest one) or `BARE`.
        factor: least speed-up over a peer; most slow-down against the bare products.
        dtype: of our contender.
    """

    task: str
    against: str
    factor: float
    dtype: str = "float32"

    def is_met(self, ratio: float) -> bool:
        return ratio >= self.factor if self.against == BEST_PEER else ratio <= self.factor


BARS = [
    Bar("encode-1", BEST_PEER, 60),
    Bar("encode-1", BEST_PEER, 35, "float64"),
    Bar("encode-256", BARE, 1.3),
    Bar("encode-256", BEST_PEER, 2.5),
    Bar("encode-4096", BARE, 1.5),
    Bar("encode-4096", BEST_PEER, 1.5),
    Bar("encode-33000", BARE, 1.5),
    Bar("encode-33000", BEST_PEER, 2),
    Bar("sample-1000", BEST_PEER, 1.5),
    Bar("sample-100000", BEST_PEER, 3),
    Bar("train-256", BEST_PEER, 2),
    Bar("train-1024", BEST_PEER, 1.5),
]
