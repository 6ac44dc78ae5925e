"""The joint density of the next returns of several assets, and the risk of portfolios of them.

From market to latent, each step exact and invertible: log returns r = A x with the current
volatilities and correlations (`glow_bt.training.joint_returns`), then x to the latents of a
spherical Student-t (`glow_bt.risk.spherical`) by a mixture of small Glows given the context. With
Glows that do nothing the model is a multivariate Student-t over a DCC-like EWMA covariance; data
have to earn every step away from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import cast

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from scipy import special

from glow_bt.errors import DataError, LookAheadError, TooFewBarsError
from glow_bt.flows import Glow
from glow_bt.folds import Fold, split_at
from glow_bt.fused.scenarios import ScenarioBank
from glow_bt.risk.covariance import check_weights
from glow_bt.risk.forecasts import Forecasts, forecasts_of
from glow_bt.risk.portfolio import portfolio_scenarios
from glow_bt.risk.scenarios import Scenarios
from glow_bt.risk.spherical import SphericalT
from glow_bt.threads import one_thread
from glow_bt.training.joint_returns import WARM_UP, JointReturns
from glow_bt.training.loop import Block, fit_flow
from glow_bt.training.portfolio_bar import NextBar
from glow_bt.training.portfolio_config import PortfolioConfig
from glow_bt.training.spherical_glow import SphericalGlow, TrainedGlow

__all__ = ["PortfolioModel"]

Floats = npt.NDArray[np.float64]

# A context so many deviations out counts as one so far out: no such bar was learned from.
_FARTHEST_CONTEXT = 4.0
# Bars whose scenarios are held at once.
_BARS_AT_ONCE = 64
# Rows that the training and the validation block need.
_LEAST_TRAIN, _LEAST_VALIDATION = 50, 20


@dataclass(frozen=True, eq=False)
class PortfolioModel:
    """A trained joint density of the next log returns of N assets.

    Attributes:
        config: its settings.
        assets: N names, in the order of weights.
        axes: (N, N) lasting directions Q, columns; the first is the market.
        radius: the spherical t of the latents.
        context_mean: (C,) of the training block.
        context_scale: (C,) deviation there.
        flows: Glows of the mixture, in float64.
        trained_from: stamp of the first return that was trained or validated on.
        trained_until: stamp of the last one.
        validation_nll: mean joint NLL on the validation block, nats a bar; what training was
            stopped by.
    """

    config: PortfolioConfig
    assets: tuple[str, ...]
    axes: Floats
    radius: SphericalT
    context_mean: Floats
    context_scale: Floats
    flows: tuple[Glow, ...]
    trained_from: pd.Timestamp
    trained_until: pd.Timestamp
    validation_nll: float

    @classmethod
    def fit(
        cls, bars_by_asset: Mapping[str, pd.DataFrame], config: PortfolioConfig | None = None
    ) -> PortfolioModel:
        """Train on aligned bars; the last `validation_fraction` of them say when to stop.

        Args:
            bars_by_asset: bar frames (see `glow_bt.ohlcv`) of equal stamps, by name.
            config: settings; default `PortfolioConfig()`.

        Raises:
            DataError: if stamps differ, bars break their contract, or an asset stands still.
            TooFewBarsError: if too few bars start the states or fill a block.
            TrainingError: if no epoch gave a finite likelihood.
        """
        config = config or PortfolioConfig()
        history = JointReturns.of_bars(bars_by_asset, config.state)
        stop = len(history)
        held_out = round((stop - WARM_UP) * config.validation_fraction)
        return cls.fit_rows(history, split_at(stop, stop - held_out, stop, purge=0), config)

    @classmethod
    def fit_rows(
        cls, history: JointReturns, fold: Fold, config: PortfolioConfig
    ) -> PortfolioModel:
        """Train on some rows of a history; rows before the 50th, which start states, are left out.

        States are made anew by `config.state`, with one of `config.leverages`; `config.state` of
        the model says which.

        Raises:
            TooFewBarsError: if the blocks hold too few rows.
            TrainingError: if no epoch gave a finite likelihood.
        """
        train = slice(max(fold.train.start, WARM_UP), fold.train.stop)
        held_out = slice(fold.validation.start, fold.validation.stop)
        _check_block("train", train, _LEAST_TRAIN)
        _check_block("validation", held_out, _LEAST_VALIDATION)
        fitted = slice(train.start, held_out.stop)
        model = max(
            (_start(history, train, fitted, config, value) for value in config.leverages),
            key=lambda start: start[1],
        )[0]
        history = history.restated(model.config.state)
        blocks = model._block(history, train), model._block(history, held_out)
        with one_thread():
            flows = [
                _fitted_flow(*blocks, model.radius, config, seed)
                for seed in range(config.num_flows)
            ]
        model = replace(model, flows=tuple(flows))
        return replace(model, validation_nll=-float(model.log_prob(history, held_out).mean()))

    def read(self, bars_by_asset: Mapping[str, pd.DataFrame]) -> JointReturns:
        """Return joint returns and states of bars, as this model sums up the past.

        Raises:
            DataError: if the assets are not the model's, in its order; else as `fit` does.
        """
        self._check_assets(tuple(bars_by_asset))
        return JointReturns.of_bars(bars_by_asset, self.config.state)

    def scenarios(self, history: JointReturns, rows: slice | None = None) -> Floats:
        """Return joint scenarios (M, S, N) of log returns of some rows, each from its state.

        The same quasi-random bank under every state; a share of it for each flow.

        Args:
            history: what `read` gives, or joint returns with other states, made anew.
            rows: M of its T + 1 states; None for the last one, of the bar to come.
        """
        history = self._own(history)
        picked = np.arange(len(history) + 1)[rows if rows is not None else slice(-1, None)]
        context = self._scaled(history.context[picked])
        mixture = zip(self._fused, self._banks, strict=True)
        x = np.concatenate([flow.scenarios(bank, context) for flow, bank in mixture], axis=1)
        scenarios: Floats = x @ (history.root[picked] @ self.axes).transpose(0, 2, 1)
        return scenarios

    def next_bar(self, history: JointReturns, row: int = -1) -> NextBar:
        """Return the density of one row's log returns, to draw from or to stress.

        Args:
            history: what `read` gives.
            row: which of its T + 1 states; by default the last, of the bar to come.
        """
        history = self._own(history)
        context = self._scaled(history.context[row])
        return NextBar(self._fused, history.root[row] @ self.axes, context)

    def log_prob(self, history: JointReturns, rows: slice) -> Floats:
        """Return joint log densities (M,) of the log returns of some rows, in nats."""
        history = self._own(history)
        x, log_det = self.standardised(history, rows)
        context = self._scaled(history.context[:-1][rows])
        each = [flow.log_prob(x, context) for flow in self._fused]
        mixed: Floats = special.logsumexp(each, axis=0) - np.log(len(each))
        return mixed + log_det

    def forecast(
        self,
        weights: npt.ArrayLike,
        levels: Sequence[float],
        history: JointReturns,
        rows: slice,
        *,
        allow_training_bars: bool = False,
    ) -> Forecasts:
        """Forecast a portfolio's simple return over some bars, each from the bars before it.

        Args:
            weights: (N,) shares of equity, in the order of the assets, held at each close.
            levels: probabilities, as `Forecasts` takes them.
            history: what `read` gives.
            rows: the returns that are forecast.
            allow_training_bars: whether rows may be some that the model was trained on.

        Returns:
            Quantiles, shortfalls and PIT from scenarios. `log_prob` is NaN: scenarios have no
            density; the joint one is `log_prob`.

        Raises:
            LookAheadError: if rows reach into the training interval, unless allowed.
            ConfigError: on levels that are none.
            DataError: on weights that do not match the assets.
        """
        check_weights(weights, len(self.assets))
        history = self._own(history)
        picked = range(len(history))[rows]
        first = history.stamps[picked.start]
        if first <= self.trained_until and not allow_training_bars:
            raise LookAheadError(
                f"expected bars after {self.trained_until}, until which the model was trained, "
                f"found {first}; give later bars or allow_training_bars=True"
            )
        true = portfolio_scenarios(history.returns[rows][:, None, :], weights).draws[:, 0]
        return forecasts_of(self.portfolio(weights, history, rows), true, levels)

    def portfolio(
        self, weights: npt.ArrayLike, history: JointReturns, rows: slice | None = None
    ) -> Scenarios:
        """Return scenarios (M, S) of a portfolio's simple return, rows as `scenarios` takes them.

        Raises:
            DataError: on weights that do not match the assets.
        """
        check_weights(weights, len(self.assets))
        history = self._own(history)
        picked = range(len(history) + 1)[rows if rows is not None else slice(-1, None)]
        parts = []
        for start in range(0, len(picked), _BARS_AT_ONCE):
            some = picked[start : start + _BARS_AT_ONCE]
            joint = self.scenarios(history, slice(some.start, some.stop, some.step))
            parts.append(portfolio_scenarios(joint, weights).draws)
        return Scenarios(np.concatenate(parts))

    def standardised(self, history: JointReturns, rows: slice) -> tuple[Floats, Floats]:
        """Return x (M, N) of the log returns of some rows, and log |det dx/dr| (M,)."""
        history = self._own(history)
        root = history.root[:-1][rows]
        x = np.linalg.solve(root, history.returns[rows][:, :, None])[:, :, 0] @ self.axes
        return x, -np.linalg.slogdet(root)[1]

    def _own(self, history: JointReturns) -> JointReturns:
        """Return a history whose states are those that this model knows."""
        self._check_assets(history.assets)
        if history.settings == self.config.state:
            return history
        return history.restated(self.config.state)

    def _check_assets(self, found: tuple[str, ...]) -> None:
        if found != self.assets:
            raise DataError(
                f"expected bars of {', '.join(self.assets)} in this order, found "
                f"{', '.join(found) or 'none'}"
            )

    def _block(self, history: JointReturns, rows: slice) -> Block:
        context = self._scaled(history.context[:-1][rows])
        return Block(_float32(self.standardised(history, rows)[0]), _float32(context))

    def _scaled(self, context: Floats) -> Floats:
        scaled = (context - self.context_mean) / self.context_scale
        return np.clip(scaled, -_FARTHEST_CONTEXT, _FARTHEST_CONTEXT)

    @cached_property
    def _fused(self) -> list[TrainedGlow]:
        return [TrainedGlow(flow.fused(), self.radius) for flow in self.flows]

    @cached_property
    def _banks(self) -> list[ScenarioBank]:
        size = self.config.num_scenarios // len(self.flows)
        return [
            ScenarioBank.sobol(size, len(self.assets), seed) for seed in range(len(self.flows))
        ]


def _start(
    history: JointReturns, train: slice, fitted: slice, config: PortfolioConfig, leverage: float
) -> tuple[PortfolioModel, float]:
    """Return a model without Glows, and its mean log-likelihood on the rows of a fit."""
    state = replace(config.state, leverage=leverage)
    history = history.restated(state)
    context = history.context[train]
    scale = context.std(axis=0)
    model = PortfolioModel(
        config=replace(config, state=state),
        assets=history.assets,
        axes=_axes_of(history, fitted),
        radius=SphericalT(4.0, 1.0),  # until it is fitted, below
        context_mean=context.mean(axis=0),
        context_scale=np.where(scale > 0, scale, 1.0),
        flows=(),
        trained_from=history.stamps[fitted.start],
        trained_until=history.stamps[fitted.stop - 1],
        validation_nll=np.nan,
    )
    x, log_det = model.standardised(history, fitted)
    radius = SphericalT.fit(x)
    return replace(model, radius=radius), float((radius.log_prob(x) + log_det).mean())


def _fitted_flow(
    train: Block, held_out: Block, radius: SphericalT, config: PortfolioConfig, seed: int
) -> Glow:
    settings = replace(config.train, seed=config.train.seed + seed)
    rotated = _with_rotations(train, config, settings.seed)
    width, num_context = train.x.shape[1], cast("torch.Tensor", train.context).shape[1]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(settings.seed)
        flow = SphericalGlow(radius, width, num_context, **settings.flow_settings())
    fit_flow(flow, rotated, held_out, settings, noise=settings.noise)
    return flow.plain()


def _with_rotations(block: Block, config: PortfolioConfig, seed: int) -> Block:
    """Return a block with copies of its rows, each row turned by a random rotation of its own."""
    copies = config.training_rows // len(block.x) - 1
    context = cast("torch.Tensor", block.context)
    count, width = block.x.shape
    first = 1 if config.keep_market else 0
    if copies < 1 or first == width:
        return block
    rng = np.random.default_rng(seed)
    turned = width - first
    q, r = np.linalg.qr(rng.standard_normal((copies, count, turned, turned)))
    # With signs of r's diagonal the law is uniform over rotations (Mezzadri 2007, Notices AMS 54).
    q *= np.sign(np.diagonal(r, axis1=2, axis2=3))[:, :, None, :]
    rows = np.tile(block.x.numpy(), (copies, 1, 1))
    rows[:, :, first:] = np.einsum("ktij,ktj->kti", q, rows[:, :, first:])
    return Block(
        torch.cat([block.x, _float32(rows.reshape(-1, width))]),
        torch.cat([context] * (copies + 1)),
    )


def _axes_of(history: JointReturns, rows: slice) -> Floats:
    """Return eigenvectors (N, N) of the mean correlation, the largest first, sums positive."""
    halves = history.root[rows] / history.volatility[rows][:, :, None]
    mean = (halves @ halves).mean(axis=0)
    vectors = np.linalg.eigh(mean)[1][:, ::-1]
    axes: Floats = vectors * np.where(vectors.sum(axis=0) < 0, -1.0, 1.0)
    return axes


def _check_block(name: str, rows: slice, least: int) -> None:
    found = max(rows.stop - rows.start, 0)
    if found < least:
        raise TooFewBarsError(
            least,
            found,
            f"the {name} block of a portfolio, after {WARM_UP} that start its states,",
        )


def _float32(array: Floats) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
