"""Normalizing flows in pure torch; nothing here knows a market."""

from glow_bt.flows.actnorm import ActNorm
from glow_bt.flows.base import Bijection, Chain, Flow
from glow_bt.flows.conv1x1 import InvertibleConv1x1, Reverse
from glow_bt.flows.coupling import AdditiveCoupling, AffineCoupling, ConditionalAffine
from glow_bt.flows.glow import Glow
from glow_bt.flows.priors import GaussianMixturePrior, NormalPrior, Prior, StudentTPrior
from glow_bt.flows.split import Split
from glow_bt.flows.tails import TailLayer
from glow_bt.flows.univariate import UnivariateFlow

__all__ = [
    "ActNorm",
    "AdditiveCoupling",
    "AffineCoupling",
    "Bijection",
    "Chain",
    "ConditionalAffine",
    "Flow",
    "GaussianMixturePrior",
    "Glow",
    "InvertibleConv1x1",
    "NormalPrior",
    "Prior",
    "Reverse",
    "Split",
    "StudentTPrior",
    "TailLayer",
    "UnivariateFlow",
]
