"""What a study runs: the strategy, what it has to beat, and the strategy with parts left out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from glow_bt.policy import PolicyParams

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd

    from glow_bt.artifact import Artifact
    from glow_bt.evaluation.study import Contender
    from glow_bt.evaluation.walk_forward import FoldModel

__all__ = ["POLICY_OPTIONS", "contenders", "fee_of", "leverage_of", "trading_options"]

# Options that are parameters of the policy: of all contenders with a band, and of GLOW alone.
_SHARED = ("dead_band", "leverage_cap")
_OWN = ("risk_budget", "es_budget", "error_margin", "stance", "half_life", "long_only")
POLICY_OPTIONS = (*_SHARED, *_OWN)


# Options that are numbers, last shown first: name, default, help.
_NUMBERS = (
    (
        "--dead-band",
        PolicyParams.dead_band,
        "How far exposure may be from the one wanted; costs add to it.",
    ),
    (
        "--half-life",
        PolicyParams.half_life,
        "Bars after which a bar counts half in the averages of likelihood and VaR that are "
        "traded on; 0 goes by the current bar alone.",
    ),
    (
        "--stance",
        PolicyParams.stance,
        "Side taken where there is no evidence of a direction: 1 holds the asset, 0 stays out.",
    ),
    ("--leverage-cap", PolicyParams.leverage_cap, "Largest exposure over equity."),
    ("--error-margin", PolicyParams.error_margin, "Standard errors of VaR that are added to it."),
    (
        "--es-budget",
        PolicyParams.es_budget,
        "Share of equity that 1 % CVaR may lose; default: no limit.",
    ),
    ("--risk-budget", PolicyParams.risk_budget, "Share of equity that 1 % VaR may lose."),
    ("--slippage-bps", 1.0, "Slippage on every fill, in basis points."),
    ("--cash", 100_000.0, "Starting equity."),
)
_OTHERS = (
    click.option(
        "--var-horizon",
        type=int,
        default=1,
        show_default=True,
        help="Bars ahead that VaR is for, one that the model was trained for.",
    ),
    click.option(
        "--recalibrate", is_flag=True, help="Correct VaR by how earlier forecasts turned out."
    ),
    click.option(
        "--liquidity",
        type=click.Choice(["taker", "maker"]),
        default="taker",
        show_default=True,
        help="Which fee is paid; orders at the next open take liquidity.",
    ),
    click.option(
        "--ablations/--no-ablations",
        default=True,
        show_default=True,
        help="Also run the strategy with a part left out, on the same scores.",
    ),
    click.option(
        "--trials",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        help="Settings that were tried before these were chosen, a search's beside; the deflated "
        "Sharpe ratio counts them.",
    ),
    click.option("--long-only", is_flag=True, help="Never short."),
)


def trading_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add what decides on positions and costs."""
    numbers = [
        click.option(name, type=float, default=default, show_default=True, help=text)
        for name, default, text in _NUMBERS
    ]
    for option in (*numbers, *_OTHERS):
        function = option(function)
    return function


def leverage_of(trading: dict[str, Any]) -> float:
    """Return what the broker has to allow for the leverage cap to be reached."""
    return max(1.0, float(trading["leverage_cap"]))


def fee_of(trading: dict[str, Any]) -> float:
    """Return the fee that is paid, as a fraction of the notional."""
    from glow_bt.bt import BybitPerpetual

    return float(BybitPerpetual(liquidity=trading["liquidity"]).p.commission)


def contenders(
    trading: dict[str, Any], bars: pd.DataFrame, models: Sequence[FoldModel] | Artifact
) -> list[Contender]:
    """Return who is run on the unseen bars: GLOW first, then baselines, then ablations.

    Args:
        trading: the options of `trading_options`, and seed.
        bars: the whole history.
        models: what GLOW trades by.
    """
    from glow_bt.evaluation.study import Contender
    from glow_bt.ohlcv import periods_per_year
    from strategies.glow_baselines import BuyAndHold, VolatilityTarget
    from strategies.glow_strategy import GlowStrategy

    shared = {
        **{name: trading[name] for name in _SHARED},
        "cost_rate": max(fee_of(trading), 0.0) + trading["slippage_bps"] / 1e4,
    }
    policy = {**shared, **{name: trading[name] for name in _OWN}}
    risk = {"horizon": trading["var_horizon"], "recalibrate": trading["recalibrate"]}
    yearly = {"periods_per_year": periods_per_year(bars)}
    return [
        Contender("glow", GlowStrategy, {**policy, **risk}, uses_model=True),
        Contender("buy_and_hold", BuyAndHold, {}),
        Contender("volatility_target", VolatilityTarget, {**shared, **yearly}),
        *(_ablations(policy, trading, bars, models) if trading["ablations"] else []),
    ]


def _ablations(
    policy: dict[str, Any],
    trading: dict[str, Any],
    bars: pd.DataFrame,
    models: Sequence[FoldModel] | Artifact,
) -> list[Contender]:
    """Return GLOW without one part each, by the direction alone, and with a coin for a direction.

    The coin is tossed anew after as many bars as the direction looks ahead.
    """
    from glow_bt.artifact import Artifact
    from glow_bt.evaluation.ablations import usual_var_limit
    from glow_bt.evaluation.study import Contender
    from strategies.glow_baselines import ScoredGlow

    artifact = models if isinstance(models, Artifact) else models[0].artifact
    limit = usual_var_limit(bars, models, PolicyParams(**policy), horizon=trading["var_horizon"])
    changes: dict[str, dict[str, Any]] = {
        "no_filter": {"use_filter": False},
        "no_direction": {"use_direction": False, "stance": policy["stance"] or 1.0},
        "no_var_sizing": {"constant_limit": limit},
        "no_averaging": {"half_life": 0.0},
        "direction_alone": {"stance": 0.0},
        "random_direction": {
            "random_direction": trading["seed"],
            "toss_every": artifact.training.config["direction_horizon"],
        },
    }
    return [
        Contender(name, ScoredGlow, {**policy, **change}, uses_scores=True)
        for name, change in changes.items()
    ]
