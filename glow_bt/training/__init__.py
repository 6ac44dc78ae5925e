"""The offline trainer: bars in, artifact out; or newer bars and an artifact in."""

from glow_bt.training.adapt import Adaptation, adapt
from glow_bt.training.config import TrainConfig
from glow_bt.training.continuation import FlowAdaptation
from glow_bt.training.data import block_sizes
from glow_bt.training.fitter import Progress
from glow_bt.training.loop import Epoch, FitResult, fit_flow
from glow_bt.training.pipeline import train
from glow_bt.training.progress import TrainingProgress

__all__ = [
    "Adaptation",
    "Epoch",
    "FitResult",
    "FlowAdaptation",
    "Progress",
    "TrainConfig",
    "TrainingProgress",
    "adapt",
    "block_sizes",
    "fit_flow",
    "train",
]
