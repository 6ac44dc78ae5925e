"""Normalizing flows in pure torch; nothing here knows a market."""

from glow_bt.flows.base import Bijection, Flow
from glow_bt.flows.conv1x1 import InvertibleConv1x1, Reverse
from glow_bt.flows.coupling import ConditionalAffine
from glow_bt.flows.families import (
    FAMILIES,
    describe_flow,
    family_libraries,
    family_settings,
    make_flow,
    tails_of,
)
from glow_bt.flows.flow_matching import FlowMatching
from glow_bt.flows.glow import Glow
from glow_bt.flows.level import GlowLevel
from glow_bt.flows.norms import ActNorm, BatchNorm
from glow_bt.flows.priors import GaussianMixturePrior, NormalPrior, Prior, StudentTPrior
from glow_bt.flows.split import Split
from glow_bt.flows.tails import TailLayer
from glow_bt.flows.univariate import UnivariateFlow
from glow_bt.flows.zuko_flows import CNF, IAF, MAF, NSF

__all__ = [
    "CNF",
    "FAMILIES",
    "IAF",
    "MAF",
    "NSF",
    "ActNorm",
    "BatchNorm",
    "Bijection",
    "ConditionalAffine",
    "Flow",
    "FlowMatching",
    "GaussianMixturePrior",
    "Glow",
    "GlowLevel",
    "InvertibleConv1x1",
    "NormalPrior",
    "Prior",
    "Reverse",
    "Split",
    "StudentTPrior",
    "TailLayer",
    "UnivariateFlow",
    "describe_flow",
    "family_libraries",
    "family_settings",
    "make_flow",
    "tails_of",
]
