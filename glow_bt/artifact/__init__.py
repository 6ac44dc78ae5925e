"""The contract between trainer and runtime: a folder of tensors and one JSON file.

::

    model/
      model.safetensors   weights of both flows, regimes, direction, filter table, probe states
                          and what the trainer read off them
      manifest.json       schema version, configuration, feature spec, scaler, thresholds, tail
                          indices, training interval, data hash, seed, versions, metrics, the
                          model's fingerprint, that of the model it was adapted from or
                          started at, the record of the search that found its settings, if
                          there was one, and the hashes of model.safetensors and of itself

There is no pickle. A folder appears whole or not at all. Loading proves the model before it
may be used: schema, hashes, finite numbers, parts that belong together, and that probe states
get the same density, round trip, direction, regime and quantiles as on the trainer's machine.
"""

from glow_bt.artifact.folder import load_artifact, refuse_existing, save_artifact
from glow_bt.artifact.manifest import SCHEMA_VERSION, fingerprint
from glow_bt.artifact.model import Artifact, Reading, TrainingRecord
from glow_bt.artifact.returns import ReturnModel, model_inputs
from glow_bt.artifact.search_record import bars_until, check_search, num_trials

__all__ = [
    "SCHEMA_VERSION",
    "Artifact",
    "Reading",
    "ReturnModel",
    "TrainingRecord",
    "bars_until",
    "check_search",
    "fingerprint",
    "load_artifact",
    "model_inputs",
    "num_trials",
    "refuse_existing",
    "save_artifact",
]
