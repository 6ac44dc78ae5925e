"""Thin Backtrader adapters over `glow_bt.scoring`, `glow_bt.policy` and `glow_bt.risk`.

They hold no maths: they hand over bars, write lines, place orders and keep records. Names are
loaded when first used, so that a feed alone does not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from glow_bt.bt.analyzers import GlowRecorder
    from glow_bt.bt.commission import BybitPerpetual
    from glow_bt.bt.indicator import GlowIndicator
    from glow_bt.bt.sizer import GlowVaRSizer
    from glow_bt.bt.var_backtest import VaRBacktest

__all__ = ["BybitPerpetual", "GlowIndicator", "GlowRecorder", "GlowVaRSizer", "VaRBacktest"]

_HOMES = {
    "BybitPerpetual": "commission",
    "GlowIndicator": "indicator",
    "GlowRecorder": "analyzers",
    "GlowVaRSizer": "sizer",
    "VaRBacktest": "var_backtest",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
