"""Trained flows for use without torch: frozen arrays and kernels compiled by numba."""

from glow_bt.fused.flow import FusedFlow
from glow_bt.fused.parts import GlowParts
from glow_bt.fused.scenarios import ScenarioBank
from glow_bt.fused.skewed_tails import SkewedTails
from glow_bt.fused.univariate import FusedUnivariate

__all__ = ["FusedFlow", "FusedUnivariate", "GlowParts", "ScenarioBank", "SkewedTails"]
