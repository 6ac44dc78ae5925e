"""The leak prover: what a strategy, an indicator or a feature function knows too early."""

from glow_bt.evaluation.leaks.findings import Leak, LeakReport
from glow_bt.evaluation.leaks.prover import CUT_POINTS, verify
from glow_bt.evaluation.leaks.runs import TargetError
from glow_bt.evaluation.leaks.target import CodeLine, Target, load_target, target_of

__all__ = [
    "CUT_POINTS",
    "CodeLine",
    "Leak",
    "LeakReport",
    "Target",
    "TargetError",
    "load_target",
    "target_of",
    "verify",
]
