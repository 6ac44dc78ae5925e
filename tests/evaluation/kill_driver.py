"""A walk-forward in a process of its own: `python -m tests.evaluation.kill_driver STORE JOBS`."""

import sys

from glow_bt.artifact import fingerprint
from glow_bt.evaluation import engines
from glow_bt.evaluation.walk_forward import train_walk_forward
from tests.models import small_config, sp500_bars
from tests.short_training import serve, shorten

FOLDS = 3


class Loud:
    """Says when training begins, and every unit that is done."""

    def begin(self, total, kept):
        print("begun", kept, flush=True)

    def epoch(self, label, flow, epoch, max_epochs):
        pass

    def done(self, label):
        print("done", label, flush=True)


def trained(store=None, jobs=1, progress=None):
    """Return a line a model; equal ones are of equal models and scores."""
    models = train_walk_forward(
        sp500_bars(0, 1000),
        small_config(max_epochs=2),
        n_folds=FOLDS,
        test_fraction=0.15,
        store=store,
        engine=engines.Engine(jobs=jobs),
        progress=progress,
    )
    return [f"{fingerprint(model.artifact)} {sorted(model.scores.items())}" for model in models]


if __name__ == "__main__":
    shorten()
    engines._serve = serve
    for line in trained(sys.argv[1], int(sys.argv[2]), Loud()):
        print("model", line, flush=True)
