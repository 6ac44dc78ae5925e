"""Thin Backtrader adapters over `glow_bt.scoring`, `glow_bt.policy` and `glow_bt.risk`.

They hold no maths: they hand over bars, write lines, place orders and keep records.
"""

from glow_bt.bt.analyzers import GlowRecorder, VaRBacktest
from glow_bt.bt.commission import BybitPerpetual
from glow_bt.bt.indicator import GlowIndicator
from glow_bt.bt.sizer import GlowVaRSizer

__all__ = ["BybitPerpetual", "GlowIndicator", "GlowRecorder", "GlowVaRSizer", "VaRBacktest"]
