"""Fits the density of coming returns: members that each leave out a block, averaged."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from glow_bt.artifact import ReturnModel
from glow_bt.errors import DataError, TooFewBarsError
from glow_bt.features import ContextSpec, Scaler, context_rows
from glow_bt.flows import UnivariateFlow
from glow_bt.folds import training_ranges
from glow_bt.training.checkpoint import Checkpoint
from glow_bt.training.config import TrainConfig
from glow_bt.training.loop import Block, Epoch, FitResult, fit_flow

__all__ = [
    "MIN_RETURN_ROWS",
    "HeldOut",
    "ReturnFitter",
    "member_names",
    "refuse_standstill",
    "return_bars_needed",
]

Floats = npt.NDArray[np.float64]
Stamps = npt.NDArray[np.int64]

# Fewer contexts say more of themselves than of the market.
MIN_RETURN_ROWS = 200
# How a member is trained; chosen by validation likelihood on the first 40 % of each history (see
# benchmarks/risk/select_settings.md). Steps, not epochs, so that long histories take as long.
_BATCH_ROWS = 512
_STEPS = 1500
_PATIENCE_STEPS = 150
_LEAST_EPOCHS = 10
_LEAST_PATIENCE = 8
_LEARNING_RATE = 3e-3
# Weight decay as a prior that is worth so many rows, however many there are.
_PRIOR_ROWS = 6.0
# Names of the calendar's numbers, which lie in [-1, 1], and what of a range is rounding.
_CALENDAR = ("day_", "week")
_LEAST_RANGE = 1e-9


@dataclass(frozen=True, eq=False)
class HeldOut:
    """What a horizon's members say of the blocks that each of them left out.

    Attributes:
        latents: (N,) of each return under the member that did not see it.
        log_prob: (N,) log densities of the log returns in their own units, nats.
        fits: of each member.
    """

    latents: Floats
    log_prob: Floats
    fits: tuple[FitResult, ...]


def return_bars_needed(spec: ContextSpec, config: TrainConfig) -> int:
    """Return how many bars `ReturnFitter.fit` needs at least.

    The longest horizon h has its last target h bars after its last row. Beside a left-out block
    2 (h - 1) rows and the embargo are left out too; three times h - 1 rows more and twice the
    embargo make up for that, so that any member keeps at least half of `MIN_RETURN_ROWS`.
    """
    longest = max(config.return_horizons)
    rows = max(MIN_RETURN_ROWS, 2 * config.return_members)
    rows += 3 * (longest - 1) + 2 * config.embargo
    return spec.min_bars - 1 + rows + longest


class ReturnFitter:
    """Fits a `ReturnModel` to bars, all of which it may learn from.

    Rows are divided in order of time into `config.return_members` blocks. Each member is trained
    on all blocks but one, which decides when it stops; targets that reach into the left-out block
    are left out too, and `config.embargo` rows behind it. The members are averaged
    (`UnivariateFlow.averaged`), so that no bar, and not the latest ones either, is kept from the
    model, and what they say of their left-out blocks measures it: cross-validated, not in sample.

    Args:
        config: the trainer's settings.
        report: called after every epoch with a member's name, the epoch and the limit of epochs.
        member_done: called after every member.
        checkpoint_of: from a member's name to its checkpoint, if any.
    """

    def __init__(
        self,
        config: TrainConfig,
        report: Callable[[str, Epoch, int], None] | None = None,
        member_done: Callable[[], None] | None = None,
        checkpoint_of: Callable[[str], Checkpoint | None] = lambda _: None,
    ) -> None:
        self.config = config
        self.report = report
        self.member_done = member_done
        self.checkpoint_of = checkpoint_of

    def fit(
        self, bars: Floats, stamps_ns: Stamps, bar_seconds: float, spec: ContextSpec
    ) -> tuple[ReturnModel, dict[int, HeldOut]]:
        """Fit one flow a horizon.

        Args:
            bars: (T, 5) or (T, 6) in the order of `spec.columns`.
            stamps_ns: (T,) bar opens.
            bar_seconds: interval of the bars.
            spec: which numbers make a context.

        Returns:
            The model, with flows in float64, and by horizon what held-out blocks say.

        Raises:
            TooFewBarsError: if there are too few bars; says how many are needed.
            DataError: if more than half of the returns are equal.
            FeatureError: if a number of the context is constant, but for hours and weekdays.
            TrainingError: if a member found no finite likelihood.
        """
        needed = return_bars_needed(spec, self.config)
        if len(bars) < needed:
            raise TooFewBarsError(needed, len(bars), "learning the density of returns")
        rows = context_rows(bars, stamps_ns, bar_seconds, spec)
        log_close = np.log(bars[spec.min_bars - 1 :, 3])
        refuse_standstill(log_close)
        scaler = _scaler(rows.values, spec.names)
        contexts = scaler.transform(rows.values)
        flows, held_out = {}, {}
        for horizon in self.config.return_horizons:
            unit = rows.volatility[:-horizon] * math.sqrt(horizon)
            y = (log_close[horizon:] - log_close[:-horizon]) / unit
            flow, out = self._fit_horizon(horizon, y, contexts[:-horizon])
            flows[horizon] = flow
            held_out[horizon] = replace(out, log_prob=out.log_prob - np.log(unit))
        return ReturnModel(spec, scaler, bar_seconds, flows), held_out

    def _fit_horizon(
        self, horizon: int, y: Floats, contexts: Floats
    ) -> tuple[UnivariateFlow, HeldOut]:
        """Fit all members of a horizon to scaled returns y (N,) given contexts (N, C)."""
        x = torch.from_numpy(y.astype(np.float32))[:, None]
        context = torch.from_numpy(contexts.astype(np.float32))
        latents, log_prob = np.empty(len(y)), np.empty(len(y))
        members, fits = [], []
        for k, block in enumerate(np.array_split(np.arange(len(y)), self.config.return_members)):
            kept = self._kept(block, len(y), horizon)
            flow, fit = self._fit_member(
                horizon, k, Block(x[kept], context[kept]), Block(x[block], context[block])
            )
            distribution = flow.fused().distribution(contexts[block])
            latents[block] = distribution.latent(y[block])
            log_prob[block] = distribution.log_prob(y[block])
            members.append(flow)
            fits.append(fit)
            if self.member_done is not None:
                self.member_done()
        flow = UnivariateFlow.averaged(members).requires_grad_(False)
        return flow, HeldOut(latents, log_prob, tuple(fits))

    def _kept(
        self, block: npt.NDArray[np.int64], count: int, horizon: int
    ) -> npt.NDArray[np.bool]:
        """Return which of the rows a member learns from that leaves out a block."""
        kept = np.zeros(count, dtype=bool)
        left_out = range(int(block[0]), int(block[-1]) + 1)
        for rows in training_ranges(
            count, [left_out], purge=horizon - 1, embargo=self.config.embargo
        ):
            kept[rows.start : rows.stop] = True
        return kept

    def _fit_member(
        self, horizon: int, k: int, train: Block, judged: Block
    ) -> tuple[UnivariateFlow, FitResult]:
        """Fit one member in float32, and hand it back in float64."""
        # One seed for all members: what they differ in is what each of them left out.
        seed = int(np.random.SeedSequence([self.config.seed, horizon]).generate_state(1)[0])
        settings = _settings(self.config, len(train.x), seed)
        name = _member_name(horizon, k)
        with torch.random.fork_rng(devices=[]):
            # Not torch.manual_seed, which would seed the accelerators too.
            torch.default_generator.manual_seed(seed)
            flow = UnivariateFlow(train.context_width, self.config.return_hidden_dim)
        flow.initialize(train.x)

        def report(epoch: Epoch) -> None:
            if self.report is not None:
                self.report(name, epoch, settings.max_epochs)

        fit = fit_flow(
            flow, train, judged, settings, report=report, checkpoint=self.checkpoint_of(name)
        )
        flow.double().requires_grad_(False)
        return flow, fit


def member_names(config: TrainConfig) -> list[str]:
    """Return the names of all members, in the order in which they are trained."""
    return [
        _member_name(horizon, k)
        for horizon in config.return_horizons
        for k in range(config.return_members)
    ]


def _member_name(horizon: int, k: int) -> str:
    return f"return_{horizon}_{k + 1}"


def _settings(config: TrainConfig, rows: int, seed: int) -> TrainConfig:
    """Return how a member is trained on so many rows."""
    steps = math.ceil(rows / _BATCH_ROWS)
    return replace(
        config,
        batch_size=_BATCH_ROWS,
        max_epochs=max(_STEPS // steps, _LEAST_EPOCHS),
        patience=max(_PATIENCE_STEPS // steps, _LEAST_PATIENCE),
        learning_rate=_LEARNING_RATE,
        weight_decay=_PRIOR_ROWS / rows,
        ema_decay=0.0,
        seed=seed,
    )


def _scaler(values: Floats, names: tuple[str, ...]) -> Scaler:
    """Fit a scaler to contexts; of the calendar, what bars of this kind never differ in stays.

    Bars of 8 hours have but three phases of the day, and a stock exchange no weekend.
    """
    calendar = np.array([name.startswith(_CALENDAR) for name in names])
    still = calendar & (np.ptp(values, axis=0) < _LEAST_RANGE)
    fitted = Scaler.fit(values[:, ~still], [n for n, s in zip(names, still, strict=True) if not s])
    centre, scale = np.median(values, axis=0), np.ones(len(names))
    centre[~still], scale[~still] = fitted.centre, fitted.scale
    return Scaler(names, tuple(centre.tolist()), tuple(scale.tolist()))


def refuse_standstill(log_close: Floats) -> None:
    """Refuse closes of which half repeat the one before: no density of returns describes them.

    Args:
        log_close: (T,) logarithms.

    Raises:
        DataError: saying how many there are.
    """
    still = int((np.diff(log_close) == 0).sum())
    if 2 * still >= len(log_close) - 1:
        raise DataError(
            f"expected closes that move, found {still} of {len(log_close) - 1} equal to the one "
            "before; give a market that is traded, or longer bars"
        )
