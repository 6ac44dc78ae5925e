"""The market state: 16 numbers a bar, for a whole history at once or bar by bar.

>>> from glow_bt.features import DEFAULT_SPEC, FeatureStream, compute_features
>>> DEFAULT_SPEC.min_bars
62
"""

from glow_bt.features.batch import compute_features, feature_array, volatility_array
from glow_bt.features.context import ContextRows, ContextSpec, context_rows
from glow_bt.features.last import last_features
from glow_bt.features.scaler import Scaler
from glow_bt.features.spec import DEFAULT_SPEC, FEATURES, Feature, FeatureSpec
from glow_bt.features.streaming import FeatureStream

__all__ = [
    "DEFAULT_SPEC",
    "FEATURES",
    "ContextRows",
    "ContextSpec",
    "Feature",
    "FeatureSpec",
    "FeatureStream",
    "Scaler",
    "compute_features",
    "context_rows",
    "feature_array",
    "last_features",
    "volatility_array",
]
