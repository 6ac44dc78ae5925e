"""The offline trainer: bars in, artifact out; or newer bars and an artifact in."""

from glow_bt.training.adapt import Adaptation, adapt
from glow_bt.training.config import TrainConfig
from glow_bt.training.continuation import FlowAdaptation
from glow_bt.training.data import block_sizes
from glow_bt.training.fitter import Progress
from glow_bt.training.loop import Epoch, FitResult, fit_flow
from glow_bt.training.pipeline import train
from glow_bt.training.portfolio import PortfolioModel
from glow_bt.training.portfolio_config import PortfolioConfig
from glow_bt.training.portfolio_folder import load_portfolio, save_portfolio
from glow_bt.training.progress import TrainingProgress
from glow_bt.training.return_forecasts import walk_forward_returns
from glow_bt.training.returns import return_bars_needed

__all__ = [
    "Adaptation",
    "Epoch",
    "FitResult",
    "FlowAdaptation",
    "PortfolioConfig",
    "PortfolioModel",
    "Progress",
    "TrainConfig",
    "TrainingProgress",
    "adapt",
    "block_sizes",
    "fit_flow",
    "load_portfolio",
    "return_bars_needed",
    "save_portfolio",
    "train",
    "walk_forward_returns",
]
