import math
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from glow_bt.artifact.manifest import manifest_of, tensors_of
from glow_bt.errors import TrainingError
from glow_bt.training import train
from glow_bt.training.checkpoint import Checkpoint
from tests.models import SMALL_BARS, small_config, sp500_bars

TENSORS = {
    "weights.a": torch.tensor([[1.5, -0.0], [math.pi, 1e-300]], dtype=torch.float64),
    "weights.b": torch.randn(3, 4, generator=torch.Generator().manual_seed(0)),
    "flag": torch.tensor(True),
    "generator": torch.Generator().manual_seed(1).get_state(),
}
PROGRESS = {"best": math.inf, "nll": [0.1, math.nan], "epoch": 3, "betas": [0.9, 0.999]}
ROOT = Path(__file__).parents[2]


def saved(folder, key="key"):
    checkpoint = Checkpoint(folder / "deep" / "fit.safetensors", key)
    checkpoint.save(TENSORS, PROGRESS)
    return checkpoint


def test_what_was_saved_comes_back_to_the_bit(tmp_path):
    checkpoint = saved(tmp_path)
    tensors, progress = checkpoint.load()
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)
    assert repr(progress) == repr(PROGRESS)
    assert list(checkpoint.path.parent.iterdir()) == [checkpoint.path]


def test_tensors_that_are_not_contiguous_are_saved_by_value(tmp_path):
    checkpoint = Checkpoint(tmp_path / "fit.safetensors", "key")
    checkpoint.save({"t": torch.arange(6.0).reshape(2, 3).T}, {})
    assert torch.equal(checkpoint.load()[0]["t"], torch.arange(6.0).reshape(2, 3).T)


def test_nothing_is_resumed_without_a_file_or_with_another_key(tmp_path):
    assert Checkpoint(tmp_path / "fit.safetensors", "key").load() is None
    checkpoint = saved(tmp_path)
    assert Checkpoint(checkpoint.path, "another").load() is None
    assert checkpoint.load() is not None


def test_a_damaged_file_is_passed_over_wherever_the_damage_is(tmp_path):
    checkpoint = saved(tmp_path)
    whole = checkpoint.path.read_bytes()
    for place in range(0, len(whole), max(len(whole) // 150, 1)):
        flipped = bytearray(whole)
        flipped[place] ^= 0x41
        checkpoint.path.write_bytes(flipped)
        assert checkpoint.load() is None, f"byte {place}"
    for length in (0, 1, 7, 8, 100, len(whole) // 2, len(whole) - 1):
        checkpoint.path.write_bytes(whole[:length])
        assert checkpoint.load() is None, f"cut to {length} bytes"
    checkpoint.path.write_bytes(whole)
    assert checkpoint.load() is not None


def test_a_save_that_fails_leaves_the_last_one(tmp_path, monkeypatch):
    checkpoint = saved(tmp_path)

    def fail(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("glow_bt.training.checkpoint.save_file", fail)
    with pytest.raises(TrainingError, match="disk full"):
        checkpoint.save(TENSORS, {})
    assert repr(checkpoint.load()[1]) == repr(PROGRESS)
    assert list(checkpoint.path.parent.iterdir()) == [checkpoint.path]
    checkpoint.remove()
    assert not list(checkpoint.path.parent.iterdir())
    checkpoint.remove()


def test_what_a_killed_save_left_is_removed_too(tmp_path):
    checkpoint = saved(tmp_path)
    (checkpoint.path.parent / f".{checkpoint.path.name}.7.tmp").write_bytes(b"half")
    checkpoint.remove()
    assert not list(checkpoint.path.parent.iterdir())


def test_a_limit_on_file_sizes_is_told_in_one_line(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    checkpoint = saved(tmp_path)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (512, hard))
        with pytest.raises(TrainingError, match=r"cannot be: .*free some space") as error:
            checkpoint.save({"t": torch.zeros(10_000)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(error.value)
    assert list(checkpoint.path.parent.iterdir()) == [checkpoint.path]
    assert repr(checkpoint.load()[1]) == repr(PROGRESS)


# Each training in a child of its own, which need not load torch again.
KILLED = """
import os, signal, sys
from glow_bt.training import train
from tests.models import SMALL_BARS, small_config, sp500_bars
from tests.short_training import shorten

shorten()
for case in sys.argv[1:]:
    killed, family, folder = case.split(",")

    def kill(flow, epoch, max_epochs, num_features):
        if flow == killed and epoch.number == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    if child := os.fork():
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        continue
    train(
        sp500_bars(0, SMALL_BARS),
        small_config(seed=5, flow=family, num_levels=None, num_steps=None),
        progress=kill,
        checkpoint_dir=folder,
    )
    sys.exit()
"""
CASES = (
    ("state", "glow"),
    ("return_1_1", "glow"),
    ("return_1_2", "glow"),
    ("state", "flow_matching"),
)


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """Folders of trainings that were killed after the second epoch of a flow."""
    folders = {case: tmp_path_factory.mktemp("killed") for case in CASES}
    told = [",".join((*case, str(folder))) for case, folder in folders.items()]
    command = [sys.executable, "-c", KILLED, *told]
    run = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    assert run.stdout.split() == [str(-signal.SIGKILL)] * len(CASES)
    return folders


@pytest.mark.slow
@pytest.mark.parametrize(("flow", "family"), CASES)
def test_a_killed_training_goes_on_to_the_same_model(killed, flow, family):
    folder = killed[flow, family]
    resumed_epochs = []

    def note(name, epoch, max_epochs, num_features):
        resumed_epochs.append((name, epoch.number))

    bars = sp500_bars(0, SMALL_BARS)
    config = small_config(seed=5, flow=family, num_levels=None, num_steps=None)
    resumed = train(bars, config, progress=note, checkpoint_dir=folder)
    assert not list(folder.iterdir())
    # What was finished is not trained again, and what was killed goes on at its third epoch.
    names = ["state", "return_1_1", "return_1_2"]
    rest = names[names.index(flow) :]
    begun = {name: 3 if name == flow else 1 for name in rest}
    counts = {n: len(h[next(iter(h))]) for n, h in resumed.training.history.items()}
    assert resumed_epochs == [
        (name, number) for name in rest for number in range(begun[name], counts[name] + 1)
    ]

    whole = train(bars, config)
    assert manifest_of(resumed) == manifest_of(whole)
    expected = tensors_of(whole)
    for name, tensor in tensors_of(resumed).items():
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize("change", ["bars", "settings"])
def test_other_bars_or_settings_begin_anew(tmp_path, change):
    class StopError(Exception):
        pass

    def stop(flow, epoch, max_epochs, num_features):
        raise StopError

    bars = sp500_bars(0, SMALL_BARS)
    with pytest.raises(StopError):
        train(bars, small_config(), progress=stop, checkpoint_dir=tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["state.checkpoint.safetensors"]
    config = small_config()
    if change == "bars":
        bars.iloc[100, -1] += 1.0
    else:
        config = small_config(clip_norm=4.9)
    epochs = []

    def note(flow, epoch, max_epochs, num_features):
        epochs.append(epoch.number)
        raise StopError

    with pytest.raises(StopError):
        train(bars, config, progress=note, checkpoint_dir=tmp_path)
    assert epochs == [1]
